package zeek

import (
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// log is one of Zeek's logs.
type log struct {
	id     int // counts from 0
	name   string
	kind   flow.Kind
	used   bool // false: its records are recognised and ignored
	schema schema
}

// logs are all known logs by name. It is built once and only read.
var logs = makeLogs()

func makeLogs() map[string]*log {
	m := make(map[string]*log)
	for kind, names := range map[flow.Kind]string{
		flow.Conn: "conn", flow.DNS: "dns", flow.HTTP: "http", flow.SSL: "ssl", flow.X509: "x509", flow.Files: "files",
		flow.SSH: "ssh", flow.SMTP: "smtp", flow.FTP: "ftp", flow.DHCP: "dhcp", flow.ARP: "arp", flow.Notice: "notice",
		flow.Weird: "weird", flow.Software: "software", flow.Tunnel: "tunnel", flow.Login: "login",
		flow.Known: "known_hosts known_services known_certs known_devices", flow.QUIC: "quic", flow.RDP: "rdp",
		flow.SMB: "smb_files smb_mapping smb_cmd", flow.Kerberos: "kerberos", flow.NTLM: "ntlm",
		flow.DCERPC: "dce_rpc", flow.NTP: "ntp", flow.SIP: "sip", flow.MySQL: "mysql", flow.SNMP: "snmp",
		flow.Lookup: "lookup", // no log of Zeek: the package feeds/online writes it in Zeek's manner
	} {
		sch := makeSchema(commonFields, kindFields[kind])
		for n := range strings.FieldsSeq(names) {
			m[n] = &log{id: len(m), name: n, kind: kind, used: true, schema: sch}
		}
	}
	sch := makeSchema(pathFields)
	for n := range strings.FieldsSeq(`analyzer analyzer_debug app_stats bacnet barnyard2 broker capture_loss
		cip cluster communication config dnp3 dpd ecat_arp_info enip extracted_files intel irc
		known_domains known_modbus known_routers known_users ldap ldap_search loaded_scripts mgmt_agent modbus
		modbus_register_change mqtt_connect mqtt_publish mqtt_subscribe netcontrol netcontrol_catch_release
		netcontrol_drop netcontrol_shunt notice_alarm ocsp openflow opcua packet_filter pe postgresql print prof
		profinet radius redis reporter rfb s7comm signatures socks ssl_ext stats stp syslog
		telemetry telemetry_histogram tds telnet traceroute unified2 unknown_protocols weird_stats websocket
		wireguard`) {
		m[n] = &log{id: len(m), name: n, schema: sch}
	}
	return m
}

// ignored is the log of records whose path says that they belong to a log
// this package does not know, such as one that a site's script writes.
var ignored = &log{id: len(logs), schema: makeSchema(pathFields)}

// find returns the log of a name such as "conn", "open_conn" or
// "labeled-conn"; nil when the name is no log of Zeek. open tells the logs of
// connections that go on.
func find(name string) (l *log, open bool) {
	name = strings.TrimPrefix(name, "labeled-")
	name = strings.TrimPrefix(name, "labelled-")
	if l = logs[name]; l != nil {
		return l, false
	}
	if rest, ok := strings.CutPrefix(name, "open_"); ok {
		if l = logs[rest]; l != nil && l.used {
			return l, true
		}
	}
	return nil, false
}

// LogName returns the name of the log that a file holds by its name alone:
// "conn" for conn.log, conn.2021-10-10-12-00-00.log.gz, conn.log.labeled,
// conn_20200101.log, labeled-conn.log and /logs/current/conn.log, and for what
// the Supervisor framework leaves to zeek-archiver:
// conn__2021-10-10-12-00-00__2021-10-10-13-00-00__log_suffix=logger-1__.log.
// It is "open_conn" for open_conn.17_32_32-18_00_00.log.gz. ok is false when
// the name is not that of a known Zeek log, such as conn-summary.log or
// conn.csv. Any goroutine may call it.
func LogName(fileName string) (name string, ok bool) {
	base := fileName[strings.LastIndexByte(fileName, '/')+1:]
	if log, _, found := strings.Cut(base, archived); found && strings.Contains(base, archived+".log") {
		base = log + ".log"
	}
	first, rest, _ := strings.Cut(base, ".")
	if !hasComponent(rest, "log") {
		return "", false
	}
	l, open := find(first)
	if l == nil {
		// Rotation may glue its time to the name: conn_20200101, conn-21-10-10_12.
		end := len(first)
		for end > 0 && strings.IndexByte("0123456789-_:+TZ", first[end-1]) >= 0 {
			end--
		}
		if end == len(first) || first[end] != '_' && first[end] != '-' {
			return "", false
		}
		if l, open = find(first[:end]); l == nil {
			return "", false
		}
	}
	if open {
		return "open_" + l.name, true
	}
	return l.name, true
}

// archived stands between the parts of a name that is made for zeek-archiver.
const archived = "__"

// Writer returns the node of a cluster that wrote a rotated log, by the file's
// name alone: "logger-1" for conn.12:00:00-13:00:00-logger-1.log.gz, as zeekctl
// and zeek-archiver call it, and for the name that log has before. It is empty
// where the name does not say, as with a single logger. Any goroutine may call it.
func Writer(fileName string) string {
	base := fileName[strings.LastIndexByte(fileName, '/')+1:]
	if parts := strings.Split(base, archived); len(parts) > 4 { // log, times, metadata, ".log"
		for m := range strings.SplitSeq(parts[3], ",") {
			if node, ok := strings.CutPrefix(m, "log_suffix="); ok {
				return node
			}
		}
		return ""
	}
	_, span, _ := strings.Cut(base, ".")
	span, _, ok := strings.Cut(span, ".log")
	if !ok {
		return ""
	}
	node := strings.TrimLeft(span, "0123456789:-.")
	times := span[:len(span)-len(node)]
	if len(times) < len("00:00:00-") || times[len(times)-1] != '-' || node == "current" { // a link to what is being written
		return ""
	}
	return node
}

// Kinds returns which kinds of record a file seems to hold: head is its first
// up to 64 KiB, log what LogName made of its name. It is 0 when that cannot be
// told, as for a stream of several logs. A file may still change its mind
// further on. Any goroutine may call it.
func Kinds(head []byte, log string) flow.KindSet {
	text := flow.Alias(head)
	for _, key := range []string{`"_path"`, `"@path"`, `"@stream"`, `"_log_type"`, `"_write_ts"`} {
		if strings.Contains(text, key) {
			return 0
		}
	}
	if _, rest, ok := strings.Cut(text, "#path"); ok && !strings.Contains(rest, "#path") {
		line, _, whole := strings.Cut(rest, "\n")
		if whole && len(line) > 1 {
			log = strings.TrimSpace(line[1:])
		}
	}
	l, _ := find(log)
	switch {
	case l == nil:
		return 0
	case !l.used: // its records are ignored
		return flow.NoKind
	}
	return flow.Of(l.kind)
}

// Columns returns the names of the fields that the header of a log in columns
// gives, at the beginning of head; nil when there is none. The names alias
// head. Any goroutine may call it.
func Columns(head []byte) []string {
	d := New("")
	text := strings.TrimPrefix(flow.Alias(head), "\ufeff")
	for {
		line, rest, whole := strings.Cut(text, "\n")
		if !whole || !strings.HasPrefix(line, "#") {
			return nil
		}
		line = strings.TrimSuffix(line, "\r")
		if names, ok := strings.CutPrefix(line, "#fields"); ok {
			return strings.Split(strings.TrimPrefix(names, d.head.sep), d.head.sep)
		}
		if err := d.header(line); err != flow.ErrHeader { //nolint:errorlint // it returns it bare
			return nil
		}
		text = rest
	}
}

// hasComponent reports whether one of the parts of s between dots is want.
func hasComponent(s, want string) bool {
	for s != "" {
		var c string
		if c, s, _ = strings.Cut(s, "."); c == want {
			return true
		}
	}
	return false
}

// marks is a set of fields that were present in a record: those that tell the
// logs apart, and a few that decide whether a record is complete.
type marks uint64

// markNames are the fields behind the bits of marks, in the order of the bits.
var markNames = strings.Fields(`ts id.orig_p id.resp_p uid id.orig_h
	conn_state orig_pkts query qtype qtype_name method host uri cipher server_name established client_initial_dcid
	certificate.subject certificate.serial seen_bytes fuid kex_alg auth_success auth_attempts mailfrom helo last_reply
	reply_code command msg_types client_addr assigned_addr assigned_ip requested_addr operation src_mac orig_hw note
	name notice software_type tunnel_type confused client_user port_num port_proto issuer_subject security_protocol
	keyboard_layout action share_type tree request_type domainname server_nb_computer_name endpoint stratum call_id
	request_from cmd community path of`)

// The bits that finish looks at.
const (
	hasTime marks = 1 << iota
	hasSrcPort
	hasDstPort
)

// markBits are the bits of marks by name.
var markBits = makeMarkBits()

func makeMarkBits() map[string]marks {
	m := make(map[string]marks, len(markNames))
	for i, n := range markNames {
		m[n] = 1 << i
	}
	return m
}

// markOf returns the bits of field names given as "a b": all of them.
func markOf(names string) marks {
	var m marks
	for n := range strings.FieldsSeq(names) {
		m |= markBits[n]
	}
	return m
}

// guesses tell the log from the fields that are present; the first line of
// which all fields are there wins, so the telling ones stand first.
var guesses = makeGuesses()

type guessRule struct {
	need marks
	log  *log
}

func makeGuesses() []guessRule {
	var rules []guessRule
	for _, r := range [][2]string{
		{"conn_state uid", "conn"},
		{"conn_state id.orig_h", "conn"},
		{"certificate.subject", "x509"},
		{"certificate.serial", "x509"},
		{"note", "notice"},
		{"tunnel_type", "tunnel"},
		{"software_type", "software"},
		{"call_id", "sip"},
		{"request_from", "sip"},
		{"query uid", "dns"},
		{"qtype_name uid", "dns"},
		{"qtype uid", "dns"},
		{"client_initial_dcid", "quic"},
		{"cipher established", "ssl"},
		{"cipher server_name", "ssl"},
		{"established server_name", "ssl"},
		{"request_type uid", "kerberos"},
		{"established uid", "ssl"},
		{"seen_bytes fuid", "files"},
		{"method uri uid", "http"},
		{"method host uid", "http"},
		{"host uri uid", "http"},
		{"kex_alg", "ssh"},
		{"auth_attempts", "ssh"},
		{"auth_success", "ssh"},
		{"mailfrom", "smtp"},
		{"helo", "smtp"},
		{"last_reply", "smtp"},
		{"msg_types", "dhcp"},
		{"assigned_addr", "dhcp"},
		{"assigned_ip", "dhcp"},
		{"client_addr", "dhcp"},
		{"requested_addr", "dhcp"},
		{"operation src_mac", "arp"},
		{"operation orig_hw", "arp"},
		{"endpoint operation", "dce_rpc"},
		{"confused", "login"},
		{"client_user", "login"},
		{"security_protocol", "rdp"},
		{"keyboard_layout", "rdp"},
		{"share_type path", "smb_mapping"},
		{"command tree", "smb_cmd"},
		{"action path name", "smb_files"},
		{"action path uid", "smb_files"},
		{"command reply_code", "ftp"},
		{"domainname uid", "ntlm"},
		{"server_nb_computer_name", "ntlm"},
		{"stratum", "ntp"},
		{"cmd uid", "mysql"},
		{"community", "snmp"},
		{"host port_num port_proto", "known_services"},
		{"host port_num issuer_subject", "known_certs"},
		{"name notice", "weird"},
		{"of id.orig_h", "lookup"},
	} {
		rules = append(rules, guessRule{markOf(r[0]), logs[r[1]]})
	}
	return rules
}

// guess returns the log that a record with the given fields comes from, or nil.
func guess(m marks) *log {
	for _, r := range guesses {
		if m&r.need == r.need {
			return r.log
		}
	}
	return nil
}

// sniffLines is how many lines Sniff looks at: enough to get past a line that
// was cut and a comment or two.
const sniffLines = 16

// Sniff reports whether head, the uncompressed beginning of a file that may
// end in the middle of a line, is a Zeek log with a header or of JSON
// records. It says no to columns without a header, which need not be Zeek's,
// and to JSON logs without a time, such as loaded_scripts: those are known by
// their name. Any goroutine may call it; head is not kept.
func Sniff(head []byte) bool {
	s := strings.TrimPrefix(flow.Alias(head), "\ufeff")
	for range sniffLines {
		line, rest, more := strings.Cut(s, "\n")
		line = strings.TrimLeft(line, " \t")
		switch {
		case strings.HasPrefix(line, "#"):
			switch name, _ := directive(line); name {
			case "#separator", "#set_separator", "#empty_field", "#unset_field", "#fields":
				return true
			}
		case strings.HasPrefix(line, "{"):
			if yes, sure := sniffJSON(line); sure {
				return yes
			}
		}
		if !more {
			return false
		}
		s = rest
	}
	return false
}

// sniffJSON looks at the keys of one object, which may be cut. sure is false
// when they say nothing.
func sniffJSON(s string) (yes, sure bool) {
	var m marks
	depth, key := 0, ""
	timed, addressed := false, false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			j := i + 1
			for j < len(s) && s[j] != '"' {
				if s[j] == '\\' {
					j++
				}
				j++
			}
			if j >= len(s) {
				i = len(s)
				continue
			}
			key = s[i+1 : j]
			i = j
		case ':':
			if depth == 2 && key == "orig_h" { // "id":{"orig_h":…
				addressed = true
			}
			if depth != 1 {
				continue
			}
			switch key {
			case "event_type": // Suricata
				return false, true
			case "_path":
				return true, true
			case "ts", "@timestamp":
				timed = true
			}
			if f := sniffSchema.lookup(key); f != nil {
				m |= f.mark
			}
		}
	}
	return timed && (addressed || m&sniffMarks != 0 || guess(m) != nil), timed
}

// sniffSchema knows the telling fields and nothing else.
var (
	sniffSchema = makeSchema()
	sniffMarks  = markOf("uid id.orig_h")
)
