package export

import (
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// TimelineFile is the file of the timeline, relative to the output directory.
const TimelineFile = "flows/timeline.jsonl"

// The bounds of what an activity repeats of a record.
const (
	maxText = 512 // bytes of one text; a longer one is cut
	maxList = 50  // texts of a list
)

// TimelineWriter writes what each host did: an activity for each record, as a
// line of JSON, in the order of the stream. A connection is an activity of its
// destination too when that has a profile, and a file one of the host that
// opened the connection, whichever way the file went.
//
// An activity has the keys
//
//	profile, window, ts, uid, kind
//	dport_name   of connections: the service or the name of the port, in upper case, or ????
//	preposition  to, or from in what the host received
//	daddr        the other side
//	dport/proto  443/tcp; one of both where the record has no more
//	state        of connections
//	warning      "protocol not recognised", "No data exchange!"
//	sent, recv, tot, duration
//	             of connections: bytes as the profile sees them, and seconds
//	info         what the record's own kind has to say
//
// and leaves out what the record does not have. A text of more than 512 bytes
// is cut, which "…" shows.
//
// Flow may be called by one goroutine while another one calls the other
// methods. A line says nothing that is not in its record, so after a restart
// the file goes on at its mark.
type TimelineWriter struct {
	recordFile
	both  bool
	ports portNames
	line  []byte
}

func newTimelineWriter(path string, both bool) (*TimelineWriter, error) {
	w := &TimelineWriter{both: both}
	if err := w.openRecords(path, TimelineFile); err != nil {
		return nil, err
	}
	return w, nil
}

// Flow takes a record in stream order; win is the window it starts in. Nothing
// of f is kept.
func (w *TimelineWriter) Flow(f *flow.Flow, win profile.Window) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.Kind == flow.Files && f.Files.IsOrig == flow.False {
		w.line = w.activity(w.line[:0], f, win, f.Dst, f.Src, f.SrcPort, "from")
	} else {
		w.line = w.activity(w.line[:0], f, win, f.Src, f.Dst, f.DstPort, "to")
	}
	err := w.out.line(w.line)
	if w.both && f.Kind == flow.Conn && f.Dst.IsValid() && f.Dst != f.Src {
		w.line = w.activity(w.line[:0], f, win, f.Dst, f.Src, f.DstPort, "from")
		err = w.out.line(w.line)
	}
	return err
}

// activity appends the line for f as the host sees it.
func (w *TimelineWriter) activity(b []byte, f *flow.Flow, win profile.Window, host, peer netip.Addr, port uint16, preposition string) []byte {
	o := object{b: append(b, `{"profile":`...)}
	o.b = appendAddr(o.b, host)
	o.int("window", win.N)
	o.b = appendJSONTime(append(o.b, `,"ts":`...), f.Time)
	o.text("uid", f.UID)
	o.text("kind", f.Kind.String())
	warning := ""
	if f.Kind == flow.Conn {
		name := w.ports.name(f)
		if name == "" {
			name, warning = "????", "protocol not recognised"
		}
		o.text("dport_name", name)
	}
	if peer.IsValid() {
		o.text("preposition", preposition)
		o.b = appendAddr(append(o.b, `,"daddr":`...), peer)
	}
	switch proto := f.Proto.String(); {
	case f.Proto.IsICMP() || !f.HasPorts && port == 0:
		o.text("dport/proto", proto)
	case proto == "":
		o.text("dport/proto", strconv.Itoa(int(port)))
	default:
		o.b = strconv.AppendUint(append(o.b, `,"dport/proto":"`...), uint64(port), 10)
		o.b = append(append(append(o.b, '/'), proto...), '"')
	}
	if f.Kind == flow.Conn {
		o.connection(f, warning, preposition == "from")
	}
	start := len(o.b)
	o.b = append(o.b, `,"info":{`...)
	o.info(f)
	if n := len(o.b); o.b[n-1] == '{' {
		o.b = o.b[:start]
	} else {
		o.b = append(o.b, '}')
	}
	return append(o.b, "}\n"...)
}

// connection appends what a connection carried.
func (o *object) connection(f *flow.Flow, warning string, received bool) {
	o.text("state", f.State.String())
	sent, recv := f.OrigBytes, f.RespBytes
	if received {
		sent, recv = recv, sent
	}
	if sent == 0 && recv == 0 && !f.Proto.IsICMP() && f.Proto != flow.IGMP {
		if warning != "" {
			warning += "; "
		}
		warning += "No data exchange!"
	}
	o.text("warning", warning)
	o.int("sent", sent)
	o.int("recv", recv)
	o.int("tot", bytesOf(f))
	ms := f.Duration / 1e6
	if f.Duration%1e6 >= 5e5 {
		ms++
	}
	o.b = strconv.AppendFloat(append(o.b, `,"duration":`...), float64(ms)/1000, 'f', 3, 64)
}

// portNames gives connections a name. It looks a port up once.
type portNames struct {
	names    map[uint32]string
	assigned [2]*flow.PortSet // TCP, UDP
}

// name returns the service of a connection, or the name of its port, in upper
// case; "" when there is none.
func (p *portNames) name(f *flow.Flow) string {
	switch {
	case f.Proto.IsICMP(), f.Proto == flow.IGMP:
		return strings.ToUpper(f.Proto.String())
	case f.Service != "":
		return strings.ToUpper(f.Service)
	case f.Proto != flow.TCP && f.Proto != flow.UDP:
		return strings.ToUpper(f.Proto.String())
	}
	if p.names == nil {
		p.names = make(map[uint32]string)
		p.assigned = [2]*flow.PortSet{flow.AssignedPorts(flow.TCP), flow.AssignedPorts(flow.UDP)}
	}
	set := 0
	if f.Proto == flow.UDP {
		set = 1
	}
	if !p.assigned[set].Has(f.DstPort) {
		return ""
	}
	key := uint32(f.Proto)<<16 | uint32(f.DstPort)
	name, ok := p.names[key]
	if !ok {
		name = strings.ToUpper(flow.PortName(f.Proto, f.DstPort))
		p.names[key] = name
	}
	return name
}

// object appends the members of a JSON object. Those without a value are left out.
type object struct{ b []byte }

// key begins a member.
func (o *object) key(k string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), k...), `":`...)
}

func (o *object) text(k, v string) {
	if v != "" {
		o.key(k)
		o.b = appendCut(o.b, v)
	}
}

func (o *object) int(k string, v int64) {
	o.key(k)
	o.b = strconv.AppendInt(o.b, v, 10)
}

// some is int for a number that is only of interest when it is above 0.
func (o *object) some(k string, v int64) {
	if v > 0 {
		o.int(k, v)
	}
}

func (o *object) addr(k string, a netip.Addr) {
	if a.IsValid() {
		o.key(k)
		o.b = appendAddr(o.b, a)
	}
}

func (o *object) list(k string, v []string) {
	if len(v) == 0 {
		return
	}
	o.key(k)
	o.b = append(o.b, '[')
	for i, s := range v {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		if i == maxList {
			o.b = append(o.b, `"…"`...)
			break
		}
		o.b = appendCut(o.b, s)
	}
	o.b = append(o.b, ']')
}

// tri is text for a truth value: one for false, one for true.
func (o *object) tri(k string, v flow.Tri, no, yes string) {
	switch v {
	case flow.False:
		o.text(k, no)
	case flow.True:
		o.text(k, yes)
	case flow.Unset:
	}
}

// words is text for the values that are there, with blanks between them.
func (o *object) words(k string, v ...string) {
	first := true
	for _, s := range v {
		if s == "" {
			continue
		}
		if first {
			o.key(k)
			o.b = append(o.b, '"')
		} else {
			o.b = append(o.b[:len(o.b)-1], ' ') // in the place of the quote
		}
		n := len(o.b)
		o.b = appendCut(o.b, s)
		o.b = append(o.b[:n], o.b[n+1:]...) // without its first quote
		first = false
	}
}

// appendCut appends s as a JSON string, cut when it is long.
func appendCut(b []byte, s string) []byte {
	if len(s) <= maxText {
		return appendString(b, s)
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	b = appendString(b, s[:n])
	return append(b[:len(b)-1], `…"`...)
}

// info appends what the record's own kind has to say.
func (o *object) info(f *flow.Flow) {
	switch f.Kind {
	case flow.Conn:
		if f.Proto.IsICMP() {
			o.text("message", icmpName(f))
		}
		if f.Open {
			o.text("open", "yes")
		}
	case flow.DNS:
		o.dns(f.DNS)
	case flow.HTTP:
		o.http(f.HTTP)
	case flow.SSL, flow.QUIC:
		o.ssl(f.SSL)
	case flow.X509:
		p := f.X509
		o.text("subject", p.Subject)
		o.text("issuer", p.Issuer)
		o.list("names", p.SANDNS)
		o.date("not_before", p.NotBefore)
		o.date("not_after", p.NotAfter)
	case flow.Files:
		p := f.Files
		o.text("filename", p.Filename)
		o.text("mime", p.MIMEType)
		o.text("over", p.Source)
		o.tri("way", p.IsOrig, "received", "sent")
		o.some("bytes", max(p.SeenBytes, p.TotalBytes))
		o.text("md5", p.MD5)
		o.text("sha1", p.SHA1)
		o.text("sha256", p.SHA256)
	case flow.SSH:
		p := f.SSH
		o.outcome("login", p.AuthSuccess)
		if p.AuthAttempts >= 0 {
			o.int("attempts", int64(p.AuthAttempts))
		}
		o.text("client", p.Client)
		o.text("server", p.Server)
	case flow.SMTP:
		p := f.SMTP
		o.text("from", p.MailFrom)
		o.list("to", p.RcptTo)
		o.text("subject", p.Subject)
		o.text("helo", p.Helo)
		o.text("user_agent", p.UserAgent)
		o.tri("tls", p.TLS, "no", "yes")
		o.text("reply", p.LastReply)
	case flow.FTP:
		p := f.FTP
		o.text("user", p.User)
		o.words("command", p.Command, p.Arg)
		o.words("reply", number(p.ReplyCode), p.ReplyMsg)
		o.text("mime", p.MIMEType)
		o.some("bytes", p.FileSize)
	case flow.DHCP:
		p := f.DHCP
		o.list("messages", p.MsgTypes)
		o.text("mac", p.MAC)
		o.text("host_name", p.HostName)
		o.addr("requested", p.Requested)
		o.addr("assigned", p.Assigned)
		o.addr("server", p.Server)
	case flow.ARP:
		o.text("operation", f.ARP.Operation)
		o.text("sender", f.ARP.SenderHW)
		o.text("target", f.ARP.TargetHW)
	case flow.Notice:
		o.text("note", f.Notice.Note)
		o.text("message", f.Notice.Msg)
		o.text("sub", f.Notice.Sub)
	case flow.Weird:
		o.text("name", f.Weird.Name)
		o.text("detail", f.Weird.Addl)
	default:
		o.more(f)
	}
}

// more is info for the kinds that are seen less often.
func (o *object) more(f *flow.Flow) {
	switch f.Kind {
	case flow.Software:
		p := f.Software
		o.text("type", p.Type)
		o.text("name", p.Name)
		o.text("version", version(p.Major, p.Minor, p.Minor2))
		o.text("banner", p.Unparsed)
	case flow.Tunnel:
		o.text("type", f.Tunnel.Type)
		o.text("action", f.Tunnel.Action)
	case flow.Login:
		o.text("user", f.Login.User)
		o.outcome("login", f.Login.Success)
	case flow.Known:
		p := f.Known
		o.text("log", p.Log)
		o.list("services", p.Services)
		o.text("subject", p.Subject)
		o.text("mac", p.MAC)
	case flow.RDP:
		p := f.RDP
		o.text("cookie", p.Cookie)
		o.text("client", p.ClientName)
		o.text("security", p.SecurityProtocol)
		o.text("result", p.Result)
	case flow.SMB:
		p := f.SMB
		o.words("action", p.Action, p.Command)
		o.text("path", p.Path)
		o.text("name", p.Name)
		o.text("was", p.PrevName)
		o.text("share", p.ShareType)
		o.text("user", p.NTLMUser)
		o.text("status", p.Status)
		o.some("bytes", p.Size)
	case flow.Kerberos:
		p := f.Kerberos
		o.text("request", p.RequestType)
		o.text("client", p.Client)
		o.text("service", p.Service)
		o.text("cipher", p.Cipher)
		o.outcome("result", p.Success)
		o.text("error", p.ErrorMsg)
	case flow.NTLM:
		p := f.NTLM
		o.text("user", p.User)
		o.text("domain", p.Domain)
		o.text("host", p.Host)
		o.text("server", p.ServerName)
		o.outcome("login", p.Success)
		o.text("status", p.Status)
	case flow.DCERPC:
		o.text("endpoint", f.DCERPC.Endpoint)
		o.text("operation", f.DCERPC.Operation)
		o.text("pipe", f.DCERPC.NamedPipe)
	case flow.NTP:
		o.some("version", int64(f.NTP.Version))
		o.some("mode", int64(f.NTP.Mode))
		o.some("stratum", int64(f.NTP.Stratum))
		o.text("reference", f.NTP.RefID)
	case flow.SIP:
		p := f.SIP
		o.words("request", p.Method, p.URI)
		o.words("status", number(p.StatusCode), p.Status)
		o.text("from", p.From)
		o.text("to", p.To)
		o.text("user_agent", p.UserAgent)
	case flow.MySQL:
		p := f.MySQL
		o.words("command", p.Command, p.Arg)
		o.outcome("result", p.Success)
		o.some("rows", p.Rows)
		o.text("response", p.Response)
	case flow.SNMP:
		p := f.SNMP
		o.text("version", p.Version)
		o.text("system", p.DisplayString)
		o.some("get_requests", p.GetRequests+p.GetBulk)
		o.some("responses", p.GetResponses)
		o.some("set_requests", p.Set_)
	case flow.Alert:
		p := f.Alert
		o.text("signature", p.Signature)
		o.text("category", p.Category)
		o.some("severity", int64(p.Severity))
		o.text("action", p.Action)
	case flow.Lookup:
		p := f.Lookup
		o.text("service", p.Service)
		o.words("subject", p.Of, p.Subject)
		o.text("verdict", p.Verdict)
		o.some("malicious", int64(p.Malicious))
		o.list("names", p.Names)
		o.text("error", p.Error)
	default: // info has the others
	}
}

func (o *object) dns(p *flow.DNSPart) {
	o.text("query", p.Query)
	o.text("type", p.QType)
	o.list("answers", p.Answers)
	if p.RCode != "NOERROR" {
		o.text("rcode", p.RCode)
	}
}

func (o *object) http(p *flow.HTTPPart) {
	target := p.URI
	if p.Host != "" && strings.HasPrefix(p.URI, "/") {
		target = "http://" + p.Host + p.URI
	} else if target == "" {
		target = p.Host
	}
	version := p.Version
	if version != "" && !strings.HasPrefix(version, "HTTP") {
		version = "HTTP/" + version
	}
	if p.Method != "" || target != "" {
		o.words("request", p.Method, target, version)
	}
	o.words("status", number(p.StatusCode), p.StatusMsg)
	o.list("mime", p.RespMIMETypes)
	o.text("user_agent", p.UserAgent)
	o.some("sent", p.RequestLen)
	o.some("recv", p.ResponseLen)
	o.text("user", p.Username)
}

func (o *object) ssl(p *flow.SSLPart) {
	o.text("sni", p.ServerName)
	subject, _, _ := strings.Cut(p.Subject, ",")
	o.text("subject", subject)
	switch {
	case p.Validation == "":
		o.text("trusted", "??")
	case strings.EqualFold(p.Validation, "ok"):
		o.text("trusted", "yes")
	default:
		o.text("trusted", "no")
		o.text("validation", p.Validation)
	}
	o.tri("resumed", p.Resumed, "no", "yes")
	o.tri("established", p.Established, "no", "yes")
	o.text("version", p.Version)
}

// outcome is text for whether something succeeded; Unset is not known.
func (o *object) outcome(k string, v flow.Tri) {
	switch v {
	case flow.False:
		o.text(k, "failed")
	case flow.True:
		o.text(k, "successful")
	case flow.Unset:
		o.text(k, "??")
	}
}

// date is a text for a time in unix ns.
func (o *object) date(k string, t int64) {
	if t != 0 {
		o.key(k)
		o.b = appendJSONTime(o.b, t)
	}
}

// number returns n as text; "" for 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// version returns the parts of a version that are known: -1 is not.
func version(parts ...int) string {
	s := ""
	for _, p := range parts {
		if p < 0 {
			break
		}
		if s != "" {
			s += "."
		}
		s += strconv.Itoa(p)
	}
	return s
}

// icmpName returns the name of an ICMP message (IANA's registries of types and
// codes); where the sensor has no type, the state tells.
func icmpName(f *flow.Flow) string {
	if !f.HasPorts {
		return strings.ToLower(strings.TrimPrefix(f.State.String(), "ICMP "))
	}
	var name string
	if a := f.Src.Unmap(); f.Proto == flow.ICMP6 || a.Is6() { // Zeek calls both icmp
		name = icmp6Name(f.SrcPort, f.DstPort)
	} else {
		name = icmp4Name(f.SrcPort, f.DstPort)
	}
	if name == "" {
		name = "type " + strconv.Itoa(int(f.SrcPort))
	}
	return name
}

func icmp4Name(typ, code uint16) string {
	switch typ {
	case 0:
		return "echo reply"
	case 3:
		switch code {
		case 0:
			return "network unreachable"
		case 1:
			return "host unreachable"
		case 2:
			return "protocol unreachable"
		case 3:
			return "port unreachable"
		case 4:
			return "unreachable: fragmentation needed"
		case 9, 10, 13:
			return "unreachable: prohibited"
		}
		return "unreachable"
	case 4:
		return "source quench"
	case 5:
		return "redirect"
	case 8:
		return "echo"
	case 9:
		return "router advertisement"
	case 10:
		return "router solicitation"
	case 11:
		return "time exceeded"
	case 12:
		return "parameter problem"
	case 13:
		return "timestamp"
	case 14:
		return "timestamp reply"
	case 17:
		return "address mask request"
	case 18:
		return "address mask reply"
	}
	return ""
}

func icmp6Name(typ, code uint16) string {
	switch typ {
	case 1:
		switch code {
		case 0:
			return "network unreachable"
		case 3:
			return "host unreachable"
		case 4:
			return "port unreachable"
		}
		return "unreachable"
	case 2:
		return "packet too big"
	case 3:
		return "time exceeded"
	case 4:
		return "parameter problem"
	case 128:
		return "echo"
	case 129:
		return "echo reply"
	case 130, 131, 132, 143:
		return "multicast listener"
	case 133:
		return "router solicitation"
	case 134:
		return "router advertisement"
	case 135:
		return "neighbour solicitation"
	case 136:
		return "neighbour advertisement"
	case 137:
		return "redirect"
	}
	return ""
}
