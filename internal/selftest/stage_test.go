package selftest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/slips-go/slips/alerts/evidence"
)

// begin is the time of the first record of the capture, in Unix milliseconds:
// 2023-11-14 22:13:20 UTC.
const begin = 1_700_000_000_000

// scene is something that a module shall find.
type scene struct {
	module string
	typ    evidence.Type
	what   string
	who    func(*stage) string // the profile of the evidence; nil: the host of the stage
	play   func(*stage)        // plays on a stage of its own: a /24 of the home network, a /16 of the Internet
}

// stage is where a scene plays.
type stage struct {
	c *capture
	n int // of the scene
}

// capture collects the records of all scenes, and what they are looked up in.
type capture struct {
	logs    map[string][]record
	uids    int
	lists   map[string][]string // lines by file
	systems []system
}

// system is a network of an autonomous system.
type system struct {
	network string
	asn     uint32
	org     string
}

type record struct {
	at   int64 // ms behind begin
	text string
}

// inside returns an address of the scene's network, outside one of its part
// of the Internet.
func (s *stage) inside(i int) string  { return fmt.Sprintf("10.0.%d.%d", s.n, i) }
func (s *stage) outside(i int) string { return fmt.Sprintf("20.%d.%d.%d", s.n, i/200, i%200+1) }

// host is whom the scene is about, unless it says otherwise.
func (s *stage) host() string { return s.inside(10) }

// mac returns the hardware address of a station of the scene.
func (s *stage) mac(i int) string { return fmt.Sprintf("00:0a:00:00:%02x:%02x", s.n, i) }

func (s *stage) uid() string {
	s.c.uids++
	return "C" + strconv.Itoa(s.c.uids)
}

// stamp returns a time as Zeek writes it.
func stamp(at int64) string { return fmt.Sprintf("%d.%03d000", (begin+at)/1000, (begin+at)%1000) }

// kv are the fields of a record.
type kv map[string]any

// log adds a record to one of Zeek's logs as JSON.
func (s *stage) log(name string, at int64, fields kv) {
	all := kv{"ts": json.Number(stamp(at))}
	maps.Copy(all, fields)
	s.line(name+".log", at, all)
}

// eve adds an event to Suricata's log.
func (s *stage) eve(at int64, fields kv) {
	t := begin + at
	all := kv{"timestamp": fmt.Sprintf("2023-11-14T%02d:%02d:%02d.%03d000+0000", t/3600000%24, t/60000%60, t/1000%60, t%1000)}
	maps.Copy(all, fields)
	s.line("eve.json", at, all)
}

func (s *stage) line(file string, at int64, fields kv) {
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	s.c.logs[file] = append(s.c.logs[file], record{at, string(text)})
}

// session adds a record of a protocol: from the host at hand, a flow with a
// uid of its own.
func (s *stage) session(name string, at int64, dst string, port int, fields kv) {
	all := kv{"uid": s.uid(), "id.orig_h": s.host(), "id.orig_p": 40000 + s.c.uids%20000, "id.resp_h": dst, "id.resp_p": port}
	maps.Copy(all, fields)
	s.log(name, at, all)
}

// conn is a connection. What is left empty is that of a short exchange that
// worked.
type conn struct {
	at       int64 // ms
	uid, src string
	sport    int // -1: 0
	dst      string
	dport    int
	proto    string
	service  string
	ms       int64
	state    string
	sent     int64
	received int64
	mac      string
}

// conn adds a connection.
func (s *stage) conn(c conn) {
	def := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	def(&c.uid, s.uid())
	def(&c.src, s.host())
	def(&c.proto, "tcp")
	def(&c.state, "SF")
	def(&c.service, "-")
	def(&c.mac, "-")
	switch c.sport {
	case 0:
		c.sport = 40000 + s.c.uids%20000
	case -1:
		c.sport = 0
	}
	history, packets, back := "ShADadFf", int64(8), int64(7)
	switch c.state {
	case "SF":
		if c.ms == 0 {
			c.ms = 200
		}
		if c.sent == 0 {
			c.sent, c.received = 600, 900
		}
		if c.proto != "tcp" {
			history, packets, back = "Dd", 2, 2
		}
	case "S0":
		history, packets, back = "S", 1, 0
		if c.proto == "udp" {
			history = "D"
		}
	case "REJ":
		history, packets, back = "Sr", 1, 1
	case "OTH": // ICMP
		history, packets, back = "-", 1, 0
	}
	text := []string{
		stamp(c.at), c.uid, c.src, strconv.Itoa(c.sport), c.dst, strconv.Itoa(c.dport), c.proto, c.service,
		fmt.Sprintf("%d.%03d000", c.ms/1000, c.ms%1000), fmt.Sprint(c.sent), fmt.Sprint(c.received), c.state, "0", history,
		fmt.Sprint(packets), fmt.Sprint(c.sent + 40*packets), fmt.Sprint(back), fmt.Sprint(c.received + 40*back), c.mac,
	}
	// Zeek writes a connection when it has ended, so its log is in that order.
	s.c.logs["conn.log"] = append(s.c.logs["conn.log"], record{c.at + c.ms, strings.Join(text, "\t")})
}

const connHeader = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n" +
	"#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\t" +
	"missed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\torig_l2_addr\n"

// dns adds a look-up.
func (s *stage) dns(at int64, name, typ, code string, answers ...string) {
	f := kv{"proto": "udp", "trans_id": s.c.uids % 65536, "query": name, "qtype_name": typ, "rcode_name": code}
	if len(answers) > 0 {
		ttls := make([]float64, len(answers))
		for i := range ttls {
			ttls[i] = 300
		}
		f["answers"], f["TTLs"] = answers, ttls
	}
	s.session("dns", at, s.inside(53), 53, f)
}

// http adds a request.
func (s *stage) http(at int64, dst, host, uri string, fields kv) {
	all := kv{
		"trans_depth": 1, "method": "GET", "host": host, "uri": uri, "version": "1.1", "request_body_len": 0,
		"response_body_len": 1000, "status_code": 200, "status_msg": "OK",
	}
	maps.Copy(all, fields)
	s.session("http", at, dst, 80, all)
}

// tls adds a handshake.
func (s *stage) tls(at int64, dst string, fields kv) {
	all := kv{"version": "TLSv12", "resumed": false, "established": true}
	maps.Copy(all, fields)
	s.session("ssl", at, dst, 443, all)
}

// arp adds a message of a station, which claims an address and asks for, or
// answers, another; toMAC is the hardware address that goes with the latter.
func (s *stage) arp(at int64, operation string, from int, claimed, asked, toMAC string) {
	dst := toMAC
	if operation == "request" {
		dst = "ff:ff:ff:ff:ff:ff"
	}
	s.log("arp", at, kv{
		"operation": operation, "src_mac": s.mac(from), "dst_mac": dst, "orig_h": claimed, "resp_h": asked,
		"orig_hw": s.mac(from), "resp_hw": toMAC,
	})
}

// lookup adds what an online service answers to a question about the last
// record, as a run that asks writes it.
func (s *stage) lookup(at int64, service, of, subject string, fields kv) {
	all := kv{
		"uid": "C" + strconv.Itoa(s.c.uids), "id.orig_h": s.host(), "id.resp_h": s.outside(1), "id.resp_p": 443,
		"service": service, "of": of, "subject": subject, "found": true,
	}
	maps.Copy(all, fields)
	s.log("lookup", at, all)
}

// file adds a file that the host fetched.
func (s *stage) file(at int64, fields kv) {
	all := kv{"fuid": fmt.Sprint("F", s.c.uids), "source": "HTTP", "is_orig": false, "seen_bytes": 5000, "total_bytes": 5000}
	maps.Copy(all, fields)
	s.session("files", at, s.outside(1), 80, all)
}

// list adds a line to a list of indicators.
func (s *stage) list(file, line string) { s.c.lists[file] = append(s.c.lists[file], line) }

// system puts the scene's part of the Internet into an autonomous system.
func (s *stage) system(asn uint32, org string) {
	s.c.systems = append(s.c.systems, system{fmt.Sprintf("20.%d.0.0/16", s.n), asn, org})
}

const noMAC = "00:00:00:00:00:00"

// perform plays all scenes and returns the files of the capture and of what it
// is looked up in.
func perform(scenes []scene) (map[string][]byte, error) {
	c := &capture{logs: make(map[string][]record), lists: make(map[string][]string)}
	var cases []Case
	for i, sc := range scenes {
		s := &stage{c, i + 1}
		sc.play(s)
		if sc.module == "" {
			continue
		}
		host := s.host()
		if sc.who != nil {
			host = sc.who(s)
		}
		a, err := netip.ParseAddr(host)
		if err != nil {
			return nil, err
		}
		cases = append(cases, Case{Module: sc.module, Type: sc.typ, Host: a, What: sc.what})
	}
	out := make(map[string][]byte)
	text, err := json.MarshalIndent(cases, "", "  ")
	if err != nil {
		return nil, err
	}
	out[dir+"/"+manifest] = append(text, '\n')
	for name, records := range c.logs {
		slices.SortStableFunc(records, func(a, b record) int { return int(a.at - b.at) })
		var b bytes.Buffer
		if name == "conn.log" {
			b.WriteString(connHeader)
		}
		for _, r := range records {
			b.WriteString(r.text + "\n")
		}
		out[dir+"/"+name] = b.Bytes()
	}
	for name, lines := range c.lists {
		text, ok := heads()[name]
		if !ok {
			return nil, fmt.Errorf("%s: a list that heads does not know", name)
		}
		out[lists+"/"+name] = []byte(text + strings.Join(lines, "\n") + "\n")
	}
	out[lists+"/feeds.yaml"] = []byte(feedsYAML)
	out[lists+"/geo/asn.mmdb"], err = places(c.systems)
	return out, err
}

// places makes a database of autonomous systems.
func places(systems []system) ([]byte, error) {
	// Nothing asks for the reserved networks, which would have entries otherwise.
	w, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: "Selftest-ASN", BuildEpoch: begin / 1000, RecordSize: 24, IncludeReservedNetworks: true,
	})
	if err != nil {
		return nil, err
	}
	for _, s := range systems {
		_, network, err := net.ParseCIDR(s.network)
		if err != nil {
			return nil, err
		}
		record := mmdbtype.Map{
			"autonomous_system_number":       mmdbtype.Uint32(s.asn),
			"autonomous_system_organization": mmdbtype.String(s.org),
		}
		if err := w.Insert(network, record); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// large are the logs that are stored compressed.
func large() []string { return []string{dir + "/conn.log"} }

func compress(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(text); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
