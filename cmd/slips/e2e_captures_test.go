package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// This file makes the captures in testdata/captures. All traffic is invented,
// and the same every time; testdata/README.md says what is in it.

// captures returns the files of every capture, by their path in testdata/captures.
func captures() map[string]string {
	all := make(map[string]string)
	for name, make := range map[string]func() map[string]string{
		"demo": demoCapture, "benign": benignCapture, "suricata": suricataCapture, "argus": argusCapture,
	} {
		for file, text := range make() {
			all[name+"/"+file] = text
		}
	}
	return all
}

// The committed captures are what the generator makes; -update writes them.
func TestCapturesAreGenerated(t *testing.T) {
	root := testdata("captures")
	want := captures()
	if *update {
		must(t, os.RemoveAll(root))
		for name, text := range want {
			writeFile(t, filepath.Join(root, name), text)
		}
	}
	got := make(map[string]string)
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		must(t, err)
		got[filepath.ToSlash(name)] = readFile(t, path)
		return nil
	}))
	if d := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); d != "" {
		t.Fatalf("files (-generated +committed):\n%s", d)
	}
	for name := range want {
		if want[name] != got[name] {
			t.Errorf("%s is not what the generator makes; go test ./cmd/slips -run TestCapturesAreGenerated -update writes it", name)
		}
	}
}

// captureStart is when all captures begin.
func captureStart() time.Time { return time.Date(2024, 3, 12, 9, 0, 0, 0, time.UTC) }

// world makes traffic.
type world struct {
	rnd  *rand.Rand
	port int
	logs map[string]*zeekLog
}

func newWorld(seed uint64) *world {
	return &world{rnd: rand.New(rand.NewPCG(seed, 20240312)), port: 40000, logs: make(map[string]*zeekLog)}
}

// at returns the time some minutes after the start, to the microsecond.
func (w *world) at(minutes float64) time.Time {
	return captureStart().Add(time.Duration(minutes * float64(time.Minute))).Truncate(time.Microsecond)
}

// between returns a time span, to the microsecond.
func (w *world) between(lo, hi time.Duration) time.Duration {
	return (lo + time.Duration(w.rnd.Int64N(int64(hi-lo)))).Truncate(time.Microsecond)
}

func (w *world) uid() string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte("C")
	for range 12 {
		b = append(b, digits[w.rnd.IntN(len(digits))])
	}
	return string(b)
}

// label returns a meaningless name.
func (w *world) label(n int) string {
	var b []byte
	for range n {
		b = append(b, byte('a'+w.rnd.IntN(26)))
	}
	return string(b)
}

// ephemeral returns a client's next port.
func (w *world) ephemeral() int {
	w.port++
	return w.port
}

// connection is what a sensor says of one connection.
type connection struct {
	at       time.Time
	src, dst string
	dport    int
	proto    string
	service  string
	state    string // Zeek's
	dur      time.Duration
	out, in  int // payload bytes
	sport    int // 0: the next one
	uid      string
}

// history and packets of a connection, from its state.
func (c *connection) packets() (history string, out, in int) {
	switch {
	case c.proto == "icmp":
		return "", 1, 0
	case c.state == "S0":
		return "S", 1, 0
	case c.state == "REJ":
		return "Sr", 1, 1
	case c.proto == "udp":
		return "Dd", 1, 1
	}
	return "ShADadFf", 6 + c.out/1400, 5 + c.in/1400
}

func (c *connection) fill(w *world) {
	if c.sport == 0 {
		c.sport = w.ephemeral()
	}
	if c.uid == "" {
		c.uid = w.uid()
	}
	if c.proto == "" {
		c.proto = "tcp"
	}
	if c.state == "" {
		c.state = "SF"
	}
}

// A zeekLog is one log. A row is written when the sensor knows all of it.
type zeekLog struct {
	path   string
	json   bool
	fields []string // each "name type"
	rows   []zeekRow
}

type zeekRow struct {
	written time.Time
	vals    map[string]any
}

func (l *zeekLog) add(written time.Time, vals map[string]any) {
	l.rows = append(l.rows, zeekRow{written, vals})
}

// text returns the log as Zeek writes it.
func (l *zeekLog) text() string {
	slices.SortStableFunc(l.rows, func(a, b zeekRow) int { return a.written.Compare(b.written) })
	var b strings.Builder
	if !l.json {
		var names, types []string
		for _, f := range l.fields {
			name, typ, _ := strings.Cut(f, " ")
			names, types = append(names, name), append(types, typ)
		}
		fmt.Fprintf(&b, "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t%s\n#open\t%s\n#fields\t%s\n#types\t%s\n",
			l.path, captureStart().Format("2006-01-02-15-04-05"), strings.Join(names, "\t"), strings.Join(types, "\t"))
	}
	for _, r := range l.rows {
		var cols []string
		for _, f := range l.fields {
			name, typ, _ := strings.Cut(f, " ")
			v := r.vals[name]
			switch {
			case l.json && v != nil:
				cols = append(cols, fmt.Sprintf("%q:%s", name, zeekJSON(v)))
			case !l.json:
				cols = append(cols, zeekTSV(v, typ))
			}
		}
		if l.json {
			b.WriteString("{" + strings.Join(cols, ",") + "}\n")
		} else {
			b.WriteString(strings.Join(cols, "\t") + "\n")
		}
	}
	return b.String()
}

func micros(ns int64) string { return fmt.Sprintf("%d.%06d", ns/1e9, ns%1e9/1e3) }

func zeekJSON(v any) string {
	switch v := v.(type) {
	case time.Time:
		return micros(v.UnixNano())
	case time.Duration:
		return micros(int64(v))
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func zeekTSV(v any, _ string) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case time.Time:
		return micros(v.UnixNano())
	case time.Duration:
		return micros(int64(v))
	case bool:
		return strings.ToUpper(strconv.FormatBool(v)[:1])
	case []string:
		if len(v) == 0 {
			return "(empty)"
		}
		return strings.Join(v, ",")
	case []float64:
		var s []string
		for _, x := range v {
			s = append(s, fmt.Sprintf("%.6f", x))
		}
		return strings.Join(s, ",")
	case float64:
		return fmt.Sprintf("%.6f", v)
	}
	return fmt.Sprint(v)
}

// zeek returns the log of a name, making it first.
func (w *world) zeek(path string) *zeekLog {
	l := w.logs[path]
	if l == nil {
		common := "ts time,uid string,id.orig_h addr,id.orig_p port,id.resp_h addr,id.resp_p port,"
		own := map[string]string{
			"conn": "proto enum,service string,duration interval,orig_bytes count,resp_bytes count,conn_state string,local_orig bool,local_resp bool," +
				"missed_bytes count,history string,orig_pkts count,orig_ip_bytes count,resp_pkts count,resp_ip_bytes count",
			"dns": "proto enum,trans_id count,rtt interval,query string,qclass_name string,qtype_name string,rcode count,rcode_name string," +
				"AA bool,TC bool,RD bool,RA bool,answers vector[string],TTLs vector[interval],rejected bool",
			"http": "trans_depth count,method string,host string,uri string,version string,user_agent string,request_body_len count," +
				"response_body_len count,status_code count,status_msg string,resp_mime_types vector[string]",
			"ssl":    "version string,cipher string,curve string,server_name string,resumed bool,next_protocol string,established bool",
			"ssh":    "version count,auth_success bool,auth_attempts count,direction enum,client string,server string",
			"notice": "proto enum,note enum,msg string,sub string,src addr,dst addr,p port,n count,actions set[enum],suppress_for interval",
		}[path]
		l = &zeekLog{path: path, fields: strings.Split(common+own, ",")}
		w.logs[path] = l
	}
	return l
}

// files returns the logs made so far by file name.
func (w *world) files() map[string]string {
	m := make(map[string]string)
	for path, l := range w.logs {
		m[path+".log"] = l.text()
	}
	return m
}

func private(ip string) bool { return strings.HasPrefix(ip, "192.168.") }

// conn logs a connection and returns it.
func (w *world) conn(c connection) connection {
	c.fill(w)
	history, out, in := c.packets()
	v := map[string]any{
		"ts": c.at, "uid": c.uid, "id.orig_h": c.src, "id.orig_p": c.sport, "id.resp_h": c.dst, "id.resp_p": c.dport,
		"proto": c.proto, "conn_state": c.state, "local_orig": private(c.src), "local_resp": private(c.dst), "missed_bytes": 0,
		"orig_pkts": out, "orig_ip_bytes": c.out + 40*out, "resp_pkts": in, "resp_ip_bytes": c.in + 40*in,
	}
	if history != "" {
		v["history"] = history
	}
	if c.service != "" {
		v["service"] = c.service
	}
	if c.dur > 0 {
		v["duration"], v["orig_bytes"], v["resp_bytes"] = c.dur, c.out, c.in
	}
	w.zeek("conn").add(c.at.Add(c.dur), v)
	return c
}

func (c *connection) with(at time.Time, vals map[string]any) map[string]any {
	maps.Copy(vals, map[string]any{
		"ts": at, "uid": c.uid, "id.orig_h": c.src, "id.orig_p": c.sport, "id.resp_h": c.dst, "id.resp_p": c.dport,
	})
	return vals
}

// resolve logs a look-up of an address; without answers the name does not exist.
func (w *world) resolve(at time.Time, src, name string, answers ...string) time.Time {
	rtt := w.between(2*time.Millisecond, 40*time.Millisecond)
	c := w.conn(connection{at: at, src: src, dst: "192.168.10.1", dport: 53, proto: "udp", service: "dns", dur: rtt, out: 20 + len(name), in: 60})
	v := map[string]any{
		"proto": "udp", "trans_id": w.rnd.IntN(65536), "rtt": rtt, "query": name, "qclass_name": "C_INTERNET", "qtype_name": "A",
		"rcode": 3, "rcode_name": "NXDOMAIN", "AA": false, "TC": false, "RD": true, "RA": true, "rejected": false,
	}
	if len(answers) > 0 {
		var ttls []float64
		for range answers {
			ttls = append(ttls, 300)
		}
		v["rcode"], v["rcode_name"], v["answers"], v["TTLs"] = 0, "NOERROR", answers, ttls
	}
	w.zeek("dns").add(at.Add(rtt), c.with(at, v))
	return at.Add(rtt)
}

// sites are what people visit. 192.88.99.0/24, once the anycast prefix of
// 6to4 relays, belongs to nobody since RFC 7526, and counts as public where
// the documentation prefixes count as private.
func sites() [][2]string {
	return [][2]string{
		{"www.example.com", "192.88.99.10"},
		{"shop.example.net", "192.88.99.11"},
		{"news.example.org", "198.51.100.12"},
		{"cdn.example.net", "203.0.113.13"},
		{"mail.example.com", "192.88.99.14"},
		{"maps.example.org", "203.0.113.15"},
	}
}

// visit is somebody looking at a web page: a name, a connection, a handshake or a request.
func (w *world) visit(at time.Time, src string) {
	s := sites()[w.rnd.IntN(len(sites()))]
	at = w.resolve(at, src, s[0], s[1]).Add(w.between(time.Millisecond, 20*time.Millisecond))
	c := connection{
		at: at, src: src, dst: s[1], dport: 443, service: "ssl", dur: w.between(time.Second, 90*time.Second),
		out: 600 + w.rnd.IntN(3000), in: 4000 + w.rnd.IntN(60000),
	}
	if w.rnd.IntN(4) > 0 {
		c = w.conn(c)
		said := at.Add(30 * time.Millisecond)
		w.zeek("ssl").add(said, c.with(said, map[string]any{
			"version": "TLSv13", "cipher": "TLS_AES_128_GCM_SHA256", "curve": "x25519", "server_name": s[0], "resumed": false, "established": true,
		}))
		return
	}
	c.dport, c.service = 80, "http"
	c = w.conn(c)
	said := at.Add(15 * time.Millisecond)
	w.zeek("http").add(said.Add(time.Second), c.with(said, map[string]any{
		"trans_depth": 1, "method": "GET", "host": s[0], "uri": "/" + w.label(6), "version": "1.1", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
		"request_body_len": 0, "response_body_len": c.in - 300, "status_code": 200, "status_msg": "OK", "resp_mime_types": []string{"text/html"},
	}))
}

// office is what the healthy hosts of a network do in 80 minutes.
func (w *world) office(hosts []string, visits int) {
	for _, h := range hosts {
		for i := range visits {
			w.visit(w.at(80*float64(i)/float64(visits)).Add(w.between(time.Second, 4*time.Minute)), h)
		}
	}
}

// ssh is one session: how many passwords were wrong, and whether one was right.
func (w *world) ssh(at time.Time, src, dst, client string, wrong int, right bool) {
	c := connection{at: at, src: src, dst: dst, dport: 22, service: "ssh", dur: w.between(2*time.Second, 5*time.Second), out: 1800 + 80*wrong, in: 2300 + 60*wrong}
	if right {
		c.dur, c.out, c.in, wrong = 4*time.Minute, 9000, 30000, wrong+1
	}
	c = w.conn(c)
	said := at.Add(c.dur / 2)
	w.zeek("ssh").add(said, c.with(at.Add(20*time.Millisecond), map[string]any{
		"version": 2, "auth_success": right, "auth_attempts": wrong, "direction": "INTERNAL", "client": client, "server": "SSH-2.0-OpenSSH_9.6",
	}))
}

// demoCapture is a small office in which one host, 192.168.10.66, is infected.
func demoCapture() map[string]string {
	w := newWorld(1)
	for _, name := range []string{"conn", "http", "ssh"} {
		w.zeek(name).json = true
	}
	w.office([]string{"192.168.10.21", "192.168.10.22", "192.168.10.23"}, 9)
	w.ssh(w.at(12), "192.168.10.21", "192.168.10.5", "SSH-2.0-OpenSSH_9.6", 0, true)

	const bad, control = "192.168.10.66", "192.88.99.77"
	w.visit(w.at(3), bad)
	for i := range 23 { // names of a generator, none of which exists
		w.resolve(w.at(10+float64(i)/7), bad, w.label(9+w.rnd.IntN(6))+[]string{".com", ".net", ".org"}[i%3])
	}
	w.conn(connection{at: w.at(14), src: bad, dst: control, dport: 8443, dur: 50 * time.Minute, out: 90000, in: 400000}) // an address without a name, for long
	for i := range 12 {
		w.conn(connection{at: w.at(16 + float64(i)), src: bad, dst: "203.0.113.200", dport: 6667, state: "REJ", dur: 40 * time.Millisecond})
	}
	for i := range 30 { // who is there?
		w.conn(connection{at: w.at(29).Add(time.Duration(i) * 90 * time.Millisecond), src: bad, dst: fmt.Sprint("192.168.10.", 100+i), dport: 0, sport: 8, proto: "icmp", state: "OTH"})
	}
	for i := range 50 {
		w.conn(connection{at: w.at(30).Add(time.Duration(i) * 130 * time.Millisecond), src: bad, dst: fmt.Sprint("192.168.10.", 100+i), dport: 445, state: "S0"})
	}
	for i := range 26 {
		w.conn(connection{at: w.at(33).Add(time.Duration(i) * 50 * time.Millisecond), src: bad, dst: "192.168.10.5", dport: []int{20, 8000, 9000}[i%3] + i, state: "REJ", dur: 900 * time.Microsecond})
	}
	for i := range 7 {
		w.ssh(w.at(36).Add(time.Duration(i)*7*time.Second), bad, "192.168.10.5", "SSH-2.0-libssh_0.9.6", 3, false)
	}
	w.ssh(w.at(37), bad, "192.168.10.5", "SSH-2.0-libssh_0.9.6", 1, true)
	w.conn(connection{at: w.at(45), src: bad, dst: control, dport: 443, dur: 3 * time.Minute, out: 130_000_000, in: 90000})
	w.conn(connection{at: w.at(52), src: bad, dst: "198.51.100.9", dport: 0, state: "S0"})
	for i := range 20 { // the next window
		w.conn(connection{at: w.at(66).Add(time.Duration(i) * 200 * time.Millisecond), src: bad, dst: fmt.Sprint("192.168.10.", 100+i), dport: 23, state: "S0"})
	}

	n := w.zeek("notice")
	n.add(w.at(20), map[string]any{
		"ts": w.at(20), "note": "CaptureLoss::Too_Much_Loss", "msg": "The capture loss script detected an estimated loss rate above 1.2%",
		"actions": []string{"Notice::ACTION_LOG"}, "suppress_for": time.Hour,
	})
	n.add(w.at(36.5), map[string]any{
		"ts": w.at(36.5), "note": "SSH::Password_Guessing", "msg": bad + " appears to be guessing SSH passwords (seen in 12 connections).",
		"sub": "Sampled servers: 192.168.10.5", "src": bad, "actions": []string{"Notice::ACTION_LOG"}, "suppress_for": time.Hour,
	})
	n.add(w.at(41), map[string]any{
		"ts": w.at(41), "uid": w.uid(), "id.orig_h": "192.168.10.22", "id.orig_p": 50123, "id.resp_h": "192.88.99.11", "id.resp_p": 443, "proto": "tcp",
		"note": "SSL::Invalid_Server_Cert", "msg": "SSL certificate validation failed with (self-signed certificate)", "sub": "CN=shop.example.net",
		"src": "192.168.10.22", "dst": "192.88.99.11", "p": 443, "actions": []string{"Notice::ACTION_LOG"}, "suppress_for": time.Hour,
	})
	return w.files()
}

// benignCapture is a network without an attacker, but with much that looks a
// little like one.
func benignCapture() map[string]string {
	w := newWorld(2)
	w.zeek("dns").json = true
	w.office([]string{"192.168.10.31", "192.168.10.32"}, 10)
	w.ssh(w.at(5), "192.168.10.31", "192.168.10.5", "SSH-2.0-OpenSSH_9.6", 2, true) // a typing error, and another
	for i := range 5 {                                                              // five servers that are switched off
		w.conn(connection{at: w.at(10 + float64(i)), src: "192.168.10.31", dst: fmt.Sprint("192.168.10.", 40+i), dport: 631, state: "S0"})
	}
	for i := range 4 { // a service that is being restarted
		w.conn(connection{at: w.at(20).Add(time.Duration(i) * time.Second), src: "192.168.10.32", dst: "192.168.10.5", dport: 5432, state: "REJ", dur: time.Millisecond})
	}
	for i := range 9 { // a browser finding out whether its provider lies about names, and a search list
		w.resolve(w.at(25+float64(i)/9), "192.168.10.32", w.label(11)+".com")
		w.resolve(w.at(25.05+float64(i)/9), "192.168.10.32", w.label(8)+".corp")
	}
	w.conn(connection{at: w.at(30), src: "192.168.10.31", dst: "192.88.99.14", dport: 443, service: "ssl", dur: 24 * time.Minute, out: 60_000_000, in: 80_000_000}) // a video call
	w.conn(connection{at: w.at(32), src: "192.168.10.32", dst: "192.168.10.6", dport: 445, service: "smb", dur: 6 * time.Minute, out: 400_000_000, in: 3_000_000})  // a backup
	for i := range 5 {
		w.conn(connection{at: w.at(40 + float64(i)), src: "192.168.10.31", dst: fmt.Sprint("192.168.10.", 1+i), dport: 0, sport: 8, proto: "icmp", state: "OTH"})
	}
	return w.files()
}

// events writes eve.json.
type events struct {
	w    *world
	rows []eveRow
}

type eveRow struct {
	at   time.Time
	text string
}

const eveTime = "2006-01-02T15:04:05.000000-0700"

// add writes one event about c.
func (e *events) add(at time.Time, kind string, c *connection, part map[string]any) {
	v := map[string]any{
		"timestamp": at.Format(eveTime), "event_type": kind, "flow_id": eveID(c.uid), "src_ip": c.src, "src_port": c.sport, "dest_ip": c.dst,
		"dest_port": c.dport, "proto": strings.ToUpper(c.proto),
	}
	if c.proto == "icmp" {
		delete(v, "src_port")
		delete(v, "dest_port")
		v["icmp_type"], v["icmp_code"] = 8, 0
	}
	maps.Copy(v, part)
	e.rows = append(e.rows, eveRow{at, zeekJSON(v) + "\n"})
}

// eveID makes a number of a uid.
func eveID(uid string) int64 {
	var n int64
	for _, c := range uid {
		n = n*61 + int64(c)
	}
	return n & (1<<53 - 1)
}

// flow writes the event at the end of a connection.
func (e *events) flow(c connection) connection {
	c.fill(e.w)
	_, out, in := c.packets()
	state, reason := "closed", "timeout"
	switch {
	case c.state == "S0" || c.proto == "icmp":
		state = "new"
	case c.proto == "udp":
		state = "established"
	}
	part := map[string]any{"flow": map[string]any{
		"pkts_toserver": out, "pkts_toclient": in, "bytes_toserver": c.out + 54*out, "bytes_toclient": c.in + 54*in,
		"start": c.at.Format(eveTime), "end": c.at.Add(c.dur).Format(eveTime), "age": int(c.dur.Seconds()), "state": state, "reason": reason, "alerted": false,
	}}
	if c.service != "" {
		part["app_proto"] = c.service
	}
	e.add(c.at.Add(c.dur+30*time.Second), "flow", &c, part)
	return c
}

// suricataCapture is a host, 10.20.30.66, that scans, resolves names that do
// not exist and sets off signatures.
func suricataCapture() map[string]string {
	w := newWorld(3)
	e := &events{w: w}
	visit := func(at time.Time, src string) {
		s := sites()[w.rnd.IntN(len(sites()))]
		d := e.flow(connection{at: at, src: src, dst: "10.20.30.1", dport: 53, proto: "udp", service: "dns", dur: 20 * time.Millisecond, out: 30, in: 60})
		e.add(at.Add(20*time.Millisecond), "dns", &d, map[string]any{"dns": map[string]any{
			"version": 2, "type": "answer", "id": w.rnd.IntN(65536), "flags": "8180", "qr": true, "rd": true, "ra": true, "rrname": s[0], "rrtype": "A",
			"rcode": "NOERROR", "answers": []map[string]any{{"rrname": s[0], "rrtype": "A", "ttl": 300, "rdata": s[1]}}, "grouped": map[string]any{"A": []string{s[1]}},
		}})
		c := e.flow(connection{at: at.Add(30 * time.Millisecond), src: src, dst: s[1], dport: 443, service: "tls", dur: w.between(time.Second, time.Minute), out: 900, in: 20000})
		e.add(c.at.Add(40*time.Millisecond), "tls", &c, map[string]any{"tls": map[string]any{"sni": s[0], "version": "TLS 1.3"}})
	}
	for i := range 5 {
		visit(w.at(9*float64(i)), "10.20.30.21")
		visit(w.at(9*float64(i)+2), "10.20.30.66")
	}
	const bad = "10.20.30.66"
	for i := range 11 {
		c := e.flow(connection{at: w.at(8 + float64(i)/5), src: bad, dst: "10.20.30.1", dport: 53, proto: "udp", service: "dns", dur: 15 * time.Millisecond, out: 30, in: 30})
		e.add(c.at.Add(15*time.Millisecond), "dns", &c, map[string]any{"dns": map[string]any{
			"version": 3, "type": "response", "id": w.rnd.IntN(65536), "rcode": "NXDOMAIN", "queries": []map[string]any{{"rrname": w.label(12) + ".com", "rrtype": "A"}},
		}})
	}
	for i := range 30 {
		e.flow(connection{at: w.at(15).Add(time.Duration(i) * 100 * time.Millisecond), src: bad, dst: fmt.Sprint("10.20.30.", 100+i), dport: 3389, state: "S0"})
	}
	for i := range 15 {
		e.flow(connection{at: w.at(18).Add(time.Duration(i) * 80 * time.Millisecond), src: bad, dst: "10.20.30.5", dport: 1000 + 111*i, state: "S0"})
	}
	signature := func(at time.Time, src, dst string, dport, sid, severity int, text, class string) {
		c := connection{at: at, src: src, dst: dst, dport: dport}
		c.fill(w)
		e.add(at, "alert", &c, map[string]any{"alert": map[string]any{
			"action": "allowed", "gid": 1, "signature_id": sid, "rev": 2, "signature": text, "category": class, "severity": severity,
		}})
	}
	signature(w.at(15.1), bad, "10.20.30.103", 3389, 9000001, 2, "TEST SCAN remote desktop from inside", "Attempted Information Leak")
	for i := range 3 {
		signature(w.at(22+float64(i)), bad, "203.0.113.50", 443, 9000002, 1, "TEST TROJAN check-in, \"quoted\" and\ttabbed", "A Network Trojan was detected")
	}
	signature(w.at(26), "198.51.100.70", "10.20.30.21", 22, 9000003, 3, "TEST INFO connection from outside", "Misc activity")
	h := e.flow(connection{at: w.at(27), src: bad, dst: "203.0.113.50", dport: 80, service: "http", dur: 2 * time.Second, out: 300, in: 9000})
	e.add(h.at.Add(time.Second), "http", &h, map[string]any{"http": map[string]any{
		"hostname": "update.example", "url": "/get?id=1", "http_user_agent": "curl/8.5", "http_method": "GET", "protocol": "HTTP/1.1", "status": 200, "length": 8700,
	}})
	slices.SortStableFunc(e.rows, func(a, b eveRow) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, r := range e.rows {
		b.WriteString(r.text)
	}
	fmt.Fprintf(&b, `{"timestamp":"%s","event_type":"stats","stats":{"uptime":4800}}`+"\n", w.at(80).Format(eveTime))
	return map[string]string{"eve.json": b.String()}
}

// argusCapture is a host, 172.16.4.66, that scans for telnet and for services.
func argusCapture() map[string]string {
	w := newWorld(4)
	type row struct {
		at   time.Time
		text string
	}
	var rows []row
	add := func(c connection, dir, state string) {
		c.fill(w)
		_, out, in := c.packets()
		sport, dport := strconv.Itoa(c.sport), strconv.Itoa(c.dport)
		if c.proto == "icmp" {
			out, in, sport, dport = 1, 1, "0x0008", ""
		}
		rows = append(rows, row{c.at, fmt.Sprintf("%s,%.6f,%s,%s,%s,%s,%s,%s,%s,0,0,%d,%d,%d,flow=Background\n", c.at.Format("2006/01/02 15:04:05.000000"),
			c.dur.Seconds(), c.proto, c.src, sport, dir, c.dst, dport, state, out+in, c.out+c.in+60*(out+in), c.out+60*out)})
	}
	for _, h := range []string{"172.16.4.21", "172.16.4.22", "172.16.4.66"} {
		for i := range 10 {
			at := w.at(5*float64(i) + 1).Add(w.between(time.Second, time.Minute))
			s := sites()[w.rnd.IntN(len(sites()))]
			add(connection{at: at, src: h, dst: "172.16.4.1", dport: 53, proto: "udp", dur: 20 * time.Millisecond, out: 40, in: 80}, "  <->", "CON")
			add(connection{at: at.Add(40 * time.Millisecond), src: h, dst: s[1], dport: 443, dur: w.between(time.Second, time.Minute), out: 900, in: 30000}, "   ->", "FSPA_FSPA")
		}
	}
	const bad = "172.16.4.66"
	add(connection{at: w.at(2), src: bad, dst: "203.0.113.90", dport: 6667, dur: 58 * time.Minute, out: 40000, in: 60000}, "   ->", "SPA_SPA")
	for i := range 12 {
		add(connection{at: w.at(20).Add(time.Duration(i) * 300 * time.Millisecond), src: bad, dst: fmt.Sprint("172.16.5.", 10+i), proto: "icmp"}, "  <->", "ECO")
	}
	for i := range 50 {
		add(connection{at: w.at(22).Add(time.Duration(i) * 200 * time.Millisecond), src: bad, dst: fmt.Sprint("172.16.5.", 10+i), dport: 23, state: "S0"}, "   ->", "S_")
	}
	for i := range 40 {
		add(connection{at: w.at(26).Add(time.Duration(i) * 90 * time.Millisecond), src: bad, dst: "172.16.5.12", dport: 80 + 97*i, state: "REJ", dur: 400 * time.Microsecond}, "   ->", "S_RA")
	}
	for i := range 10 {
		add(connection{at: w.at(31).Add(time.Duration(i) * 5 * time.Second), src: bad, dst: "172.16.5.30", dport: 4444, state: "REJ", dur: time.Millisecond}, "   ->", "S_RA")
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.at.Compare(b.at) })
	var b bytes.Buffer
	b.WriteString("StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes,Label\n")
	for _, r := range rows {
		b.WriteString(r.text)
	}
	return map[string]string{"flows.binetflow": b.String()}
}
