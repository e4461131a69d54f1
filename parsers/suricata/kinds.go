package suricata

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

// part fills the part of the record's kind from the event's own object.
func (d *Decoder) part(e *event, o *fastjson.Object) {
	switch d.flow.Kind {
	case flow.DNS:
		d.dns(e, o)
	case flow.HTTP:
		d.http(e, o)
	case flow.SSL:
		d.tls(o)
	case flow.QUIC:
		d.quic(o)
	case flow.Alert:
		d.alert(e, o)
	case flow.Files:
		d.file(e, o)
	case flow.Weird:
		d.anomaly(o)
	case flow.SSH:
		d.ssh(o)
	case flow.SMTP:
		d.smtp(e, o)
	case flow.FTP:
		d.ftp(o)
	case flow.DHCP:
		d.dhcp(o)
	case flow.ARP:
		d.arp(o)
	case flow.SMB:
		d.smb(o)
	case flow.DCERPC:
		d.dcerpc(o)
	case flow.RDP:
		d.rdp(o)
	case flow.Kerberos:
		d.kerberos(o)
	case flow.SIP:
		d.sip(o)
	case flow.SNMP:
		d.snmp(o)
	case flow.NTP:
		d.ntp(o)
	default: // a connection has no part, and the other kinds are not Suricata's
	}
}

// dns fills a query or an answer. Version 1 writes one event for each answer,
// version 2 one with answers, grouped, or both, and version 3, Suricata 8,
// has the questions in a list. Answers look as Zeek prints them.
func (d *Decoder) dns(e *event, o *fastjson.Object) {
	f, p := d.flow, d.flow.DNS
	var typ, version, queries, answers, grouped, rdata, ttl, rcode, flags, qr *fastjson.Value
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "type":
			typ = v
		case "version":
			version = v
		case "id":
			p.TransID = uint16(small(v, math.MaxUint16))
		case "rrname":
			p.Query = d.text(v)
		case "rrtype":
			p.QType = d.text(v)
		case "rcode":
			rcode = v
		case "flags":
			flags = v
		case "qr":
			qr = v
		case "aa":
			p.AA = tri(v)
		case "tc":
			p.TC = tri(v)
		case "rd":
			p.RD = tri(v)
		case "ra":
			p.RA = tri(v)
		case "queries":
			queries = v
		case "answers":
			answers = v
		case "grouped":
			grouped = v
		case "rdata":
			rdata = v
		case "ttl":
			ttl = v
		}
	})
	switch string(raw(typ)) {
	case "answer", "response":
		p.Response = true
	case "query", "request":
	default:
		p.Response = tri(qr) == flow.True
	}
	if q := array(queries); len(q) > 0 && p.Query == "" {
		p.Query, p.QType = d.get(object(q[0]), "rrname"), d.get(object(q[0]), "rrtype")
	}
	// The bits are all in flags; as members only those that are set are written.
	if bits, err := strconv.ParseUint(flow.Alias(raw(flags)), 16, 16); err == nil {
		p.AA, p.TC = flow.TriOf(bits&0x0400 != 0), flow.TriOf(bits&0x0200 != 0)
		p.RD, p.RA = flow.TriOf(bits&0x0100 != 0), flow.TriOf(bits&0x0080 != 0)
	}
	if !p.Response {
		return // version 3 writes an rcode into requests too, which says nothing
	}
	p.RCode = d.text(rcode)
	switch {
	case answers != nil:
		for _, a := range array(answers) {
			a := object(a)
			d.answer(raw(member(a, "rrtype")), data(a), member(a, "ttl"))
		}
	case grouped != nil:
		if g := object(grouped); g != nil {
			g.Visit(func(rrtype []byte, v *fastjson.Value) {
				for _, item := range array(v) {
					d.answer(rrtype, datum(item), nil)
				}
			})
		}
	case rdata != nil:
		d.answer([]byte(p.QType), rdata, ttl)
	}
	switch {
	case small(version, 3) == 3 && e.http == nil && f.DstPort != 53:
		turn(f) // since version 8 an answer goes from the server; over HTTP/2 it does not
	default:
		orient(f, 53)
	}
}

// data returns what an answer record says, also of the types that have an
// object of their own.
func data(o *fastjson.Object) *fastjson.Value {
	if v := member(o, "rdata"); v != nil {
		return v
	}
	if v := member(object(member(o, "soa")), "mname"); v != nil {
		return v
	}
	return member(object(member(o, "srv")), "name")
}

// datum returns the same for an entry of grouped.
func datum(v *fastjson.Value) *fastjson.Value {
	o := object(v)
	if o == nil {
		return v
	}
	if name := o.Get("mname"); name != nil {
		return name
	}
	return o.Get("name")
}

// answer appends one answer; those without text are left out.
func (d *Decoder) answer(rrtype []byte, v, ttl *fastjson.Value) {
	text := raw(v)
	if len(text) == 0 {
		return
	}
	p := d.flow.DNS
	if string(rrtype) == "TXT" {
		d.buf = strconv.AppendInt(append(d.buf[:0], "TXT "...), int64(len(text)), 10)
		d.buf = append(append(d.buf, ' '), text...)
		text = d.buf
	}
	p.Answers = append(p.Answers, d.flow.Hold(text))
	p.TTLs = append(p.TTLs, small(ttl, math.MaxUint32))
}

func (d *Decoder) http(e *event, o *fastjson.Object) {
	p := d.flow.HTTP
	var headers *fastjson.Value
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "http_method":
			p.Method = d.text(v)
		case "hostname":
			p.Host = d.text(v)
		case "url":
			p.URI = d.text(v)
		case "protocol", "version": // "HTTP/1.1"; "2"
			p.Version = strings.TrimPrefix(d.text(v), "HTTP/")
		case "http_user_agent":
			p.UserAgent = d.text(v)
		case "http_refer":
			p.Referrer = d.text(v)
		case "status":
			p.StatusCode = int(small(v, 999))
		case "status_string":
			p.StatusMsg = d.text(v)
		case "length":
			p.ResponseLen = d.count("length", v)
		case "request_body_len":
			p.RequestLen = d.count("request_body_len", v)
		case "http_content_type":
			p.RespMIMETypes = d.list(p.RespMIMETypes, v)
		case "xff":
			if via := d.text(v); via != "" {
				p.Proxied = append(p.Proxied, d.join("X-FORWARDED-FOR -> ", via))
			}
		case "request_headers":
			headers = v
		}
	})
	if p.Host == "" { // HTTP/2 has it among the headers
		for _, h := range array(headers) {
			h := object(h)
			if name := string(lower(raw(member(h, "name")))); name == ":authority" || name == "host" {
				p.Host = d.get(h, "value")
				break
			}
		}
	}
	p.TransDepth = depth(e.txID)
}

// depth returns Zeek's count of transactions, which starts at 1, of
// Suricata's number, which starts at 0.
func depth(txID *fastjson.Value) int {
	if !given(txID) {
		return 0
	}
	return int(small(txID, 1<<30)) + 1
}

func (d *Decoder) tls(o *fastjson.Object) {
	p := d.flow.SSL
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "version":
			p.Version = d.tlsVersion(v)
		case "sni":
			p.ServerName = d.text(v)
		case "subject":
			p.Subject = d.text(v)
		case "issuerdn":
			p.Issuer = d.text(v)
		case "serial":
			p.Serial = d.text(v)
		case "fingerprint":
			p.CertFPs = d.list(p.CertFPs, v)
			p.SHA1 = d.flow.Hold(plainHex(raw(v)))
		case "notbefore":
			p.NotBefore = certTime(v)
		case "notafter":
			p.NotAfter = certTime(v)
		case "ja3":
			p.JA3 = d.hash(v)
		case "ja3s":
			p.JA3S = d.hash(v)
		case "ja4":
			p.JA4 = d.hash(v)
		case "session_resumed":
			p.Resumed = tri(v)
		case "server_alpns":
			p.NextProtocol = d.text(first(nil, v))
		case "client":
			c := object(v)
			p.ClientSubject, p.ClientIssuer = d.get(c, "subject"), d.get(c, "issuerdn")
			p.ClientCertFPs = d.list(p.ClientCertFPs, member(c, "fingerprint"))
		}
	})
}

// tlsVersion returns the version by Zeek's name; drafts as logged.
func (d *Decoder) tlsVersion(v *fastjson.Value) string {
	switch string(raw(v)) {
	case "TLS 1.3":
		return "TLSv13"
	case "TLS 1.2":
		return "TLSv12"
	case "TLS 1.1":
		return "TLSv11"
	case "TLSv1":
		return "TLSv10"
	case "UNDETERMINED":
		return ""
	}
	return d.text(v)
}

// certTime returns a date of a certificate. Whoever made the certificate
// chose it freely, so a date out of range is moved to the end of the range,
// and an unreadable one is as good as none.
func certTime(v *fastjson.Value) int64 {
	t, ok := parseTime(raw(v))
	if !ok {
		return 0
	}
	return min(max(t, flow.MinTime+1), flow.MaxTime)
}

// hash returns a fingerprint that is written alone or as an object with what
// it was made from.
func (d *Decoder) hash(v *fastjson.Value) string {
	if o := object(v); o != nil {
		return d.get(o, "hash")
	}
	return d.text(v)
}

// plainHex takes the colons out of b and puts it in lower case, in place.
func plainHex(b []byte) []byte {
	to := b[:0]
	for _, c := range lower(b) {
		if c != ':' {
			to = append(to, c)
		}
	}
	return to
}

func (d *Decoder) quic(o *fastjson.Object) {
	p := d.flow.SSL
	p.Version, p.ServerName = d.get(o, "version"), d.get(o, "sni")
	p.JA3, p.JA3S, p.JA4 = d.hash(o.Get("ja3")), d.hash(o.Get("ja3s")), d.hash(o.Get("ja4"))
	orient(d.flow, 443)
}

func (d *Decoder) alert(_ *event, o *fastjson.Object) {
	p := d.flow.Alert
	var metadata, target *fastjson.Value
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "action":
			p.Action = d.text(v)
		case "signature":
			p.Signature = d.text(v)
		case "category":
			p.Category = d.text(v)
		case "gid":
			p.GID = d.count("gid", v)
		case "signature_id":
			p.SID = d.count("signature_id", v)
		case "rev":
			p.Rev = d.count("rev", v)
		case "severity":
			p.Severity = int(small(v, 255))
		case "metadata":
			metadata = v
		case "target":
			target = v
		}
	})
	if m := object(metadata); m != nil {
		p.MITRETactic = d.text(first(nil, m.Get("mitre_tactic_id")))
		p.MITRETechnique = d.text(first(nil, m.Get("mitre_technique_id")))
	}
	if t := object(target); t != nil {
		a := address(t.Get("ip"))
		p.SrcIsTarget = a.IsValid() && a == d.flow.Src
	}
}

// file fills a fileinfo event, whose source is the sender of the file.
func (d *Decoder) file(e *event, o *fastjson.Object) {
	f, p := d.flow, d.flow.Files
	p.FUID = d.get(o, "file_id")
	p.Filename = d.get(o, "filename")
	p.MD5, p.SHA1, p.SHA256 = d.get(o, "md5"), d.get(o, "sha1"), d.get(o, "sha256")
	p.SeenBytes = d.count("size", o.Get("size"))
	if string(raw(o.Get("state"))) == "CLOSED" {
		p.TotalBytes = p.SeenBytes
	}
	d.buf = append(d.buf[:0], f.Service...)
	p.Source = f.Hold(capitals(d.buf))
	if f.UID != "" {
		p.ConnUIDs = append(p.ConnUIDs, f.UID)
	}
	if h := object(e.http); h != nil {
		switch string(raw(h.Get("http_method"))) {
		case "POST", "PUT", "PATCH": // the file may be the request's, the type is the response's
		default:
			p.MIMEType = d.get(h, "http_content_type")
		}
	}
}

func (d *Decoder) anomaly(o *fastjson.Object) {
	p := d.flow.Weird
	p.Name = d.get(o, "event")
	if p.Name == "" {
		p.Name = d.join("code ", d.get(o, "code"))
	}
	p.Addl, p.Source = d.get(o, "type"), d.get(o, "app_proto")
	if layer := d.get(o, "layer"); layer != "" {
		p.Addl = d.join(p.Addl, " ", layer)
	}
}

// ssh fills the banners of a session as they went over the wire, as Zeek has
// them. Suricata does not say whether the log-in worked.
func (d *Decoder) ssh(o *fastjson.Object) {
	p := d.flow.SSH
	client, server := object(o.Get("client")), object(o.Get("server"))
	p.Client, p.Server = d.banner(client), d.banner(server)
	p.HASSH, p.HASSHServer = d.hash(member(client, "hassh")), d.hash(member(server, "hassh"))
	version := raw(member(server, "proto_version"))
	if len(version) == 0 {
		version = raw(member(client, "proto_version"))
	}
	switch {
	case string(version) == "1.99": // an SSH-2 server that also speaks 1
		p.Version = 2
	case len(version) > 0 && isDigit(version[0]):
		p.Version = int(version[0] - '0')
	}
}

func (d *Decoder) banner(o *fastjson.Object) string {
	version, software := d.get(o, "proto_version"), d.get(o, "software_version")
	if version == "" {
		return software
	}
	return d.join("SSH-", version, "-", software)
}

func (d *Decoder) smtp(e *event, o *fastjson.Object) {
	p := d.flow.SMTP
	p.Helo, p.MailFrom = d.get(o, "helo"), d.get(o, "mail_from")
	p.RcptTo = d.list(p.RcptTo, o.Get("rcpt_to"))
	if m := object(e.email); m != nil {
		p.From, p.Subject = d.get(m, "from"), d.get(m, "subject")
		p.To = d.list(p.To, m.Get("to"))
		p.MsgID, p.UserAgent = d.get(m, "message_id"), d.get(m, "x_mailer")
		p.Path = d.list(p.Path, m.Get("received"))
	}
	p.TransDepth = depth(e.txID)
}

// ftp fills a command with its reply, or the command behind a data connection.
func (d *Decoder) ftp(o *fastjson.Object) {
	f, p := d.flow, d.flow.FTP
	p.Command, p.Arg = f.Hold(capitals(raw(o.Get("command")))), d.get(o, "command_data")
	switch p.Command {
	case "PASS":
		p.HasPassword, p.Arg = true, "" // nobody needs to keep a password
	case "USER":
		p.User = p.Arg
	case "PASV", "EPSV":
		p.DataPassive = flow.True
	}
	if p.Arg == "" && p.Command != "PASS" {
		p.Arg = d.get(o, "filename") // of ftp_data
	}
	// A reply of several lines ends with the one that counts.
	if codes := array(o.Get("completion_code")); len(codes) > 0 {
		p.ReplyCode = replyCode(raw(codes[len(codes)-1]))
	}
	if lines := array(o.Get("reply")); len(lines) > 0 {
		p.ReplyMsg = d.text(lines[len(lines)-1])
	}
	p.DataPort = uint16(small(o.Get("dynamic_port"), math.MaxUint16))
	switch string(raw(o.Get("mode"))) {
	case "active":
		p.DataPassive = flow.False
	case "passive":
		p.DataPassive = flow.True
	}
}

// replyCode returns the number that three digits write, 0 for anything else.
func replyCode(b []byte) int {
	if len(b) != 3 || !isDigit(b[0]) || !isDigit(b[1]) || !isDigit(b[2]) {
		return 0
	}
	return two(b)*10 + int(b[2]-'0')
}

// dhcp fills one message of an exchange. Suricata writes options as it finds
// them, so an address that is none is left out.
func (d *Decoder) dhcp(o *fastjson.Object) {
	f, p := d.flow, d.flow.DHCP
	p.MAC, p.HostName, p.VendorClass = d.get(o, "client_mac"), d.get(o, "hostname"), d.get(o, "vendor_class_identifier")
	p.Client, p.Requested = someHost(o.Get("client_ip")), someHost(o.Get("requested_ip"))
	p.Assigned = someHost(o.Get("assigned_ip"))
	p.Router = someHost(first(nil, o.Get("routers")))
	p.LeaseTime = small(o.Get("lease_time"), math.MaxUint32) * 1e9
	if m := f.Hold(capitals(raw(o.Get("dhcp_type")))); m != "" {
		p.MsgTypes = append(p.MsgTypes, m)
	}
	if f.UID != "" {
		p.UIDs = append(p.UIDs, f.UID)
	}
	if string(raw(o.Get("type"))) == "reply" {
		p.Server = f.Src
		turn(f)
	} else if f.Dst.IsValid() && f.Dst != broadcast() {
		p.Server = f.Dst
	}
	// Before it has an address a client sends from 0.0.0.0.
	if p.Client.IsValid() {
		f.Src = p.Client
	} else if !f.Src.IsValid() || f.Src.IsUnspecified() || f.Src == broadcast() {
		for _, a := range [...]netip.Addr{p.Assigned, p.Requested} {
			if a.IsValid() {
				f.Src = a
				break
			}
		}
	}
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// someHost returns the address v unless it is unspecified, as fields of DHCP are
// that are not used.
func someHost(v *fastjson.Value) netip.Addr {
	a := address(v)
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// arp fills an ARP message. It has its addresses in its own object, and the
// Ethernet addresses only if the sensor is told to log them; the sender's is
// then taken from the message.
func (d *Decoder) arp(o *fastjson.Object) {
	f, p := d.flow, d.flow.ARP
	f.Proto = flow.ProtoARP
	f.Src, f.Dst = d.addr("src_ip", o.Get("src_ip")), d.addr("dest_ip", o.Get("dest_ip"))
	p.Operation = d.get(o, "opcode")
	p.SenderHW, p.TargetHW = d.get(o, "src_mac"), d.get(o, "dest_mac")
	if f.SrcMAC == "" {
		f.SrcMAC = p.SenderHW
	}
}

func (d *Decoder) smb(o *fastjson.Object) {
	p := d.flow.SMB
	p.Log = "smb_cmd"
	p.Command, p.Status, p.Dialect = d.get(o, "command"), d.get(o, "status"), d.get(o, "dialect")
	if p.Status == "" {
		p.Status = d.get(o, "status_code")
	}
	p.Action = d.get(o, "disposition")
	p.Path, p.ShareType = d.get(o, "share"), d.get(o, "share_type")
	if pipe := d.get(o, "named_pipe"); pipe != "" {
		p.Path, p.ShareType = pipe, "PIPE"
	}
	p.Name = d.get(o, "filename")
	if p.Name == "" {
		p.Name = d.get(o, "directory")
	}
	if r := object(o.Get("rename")); r != nil {
		p.PrevName, p.Name = d.get(r, "from"), d.get(r, "to")
	}
	p.Size = d.count("size", o.Get("size"))
	p.Service = d.get(object(o.Get("service")), "request")
	if n := object(o.Get("ntlmssp")); n != nil {
		p.NTLMUser, p.NTLMHost, p.NTLMDomain = d.get(n, "user"), d.get(n, "host"), d.get(n, "domain")
	}
}

func (d *Decoder) dcerpc(o *fastjson.Object) {
	p := d.flow.DCERPC
	i := object(first(nil, o.Get("interfaces")))
	p.Endpoint, p.Operation = d.get(i, "service"), d.get(i, "procedure")
	if p.Endpoint == "" {
		p.Endpoint = d.get(i, "uuid")
	}
	if p.Operation == "" {
		p.Operation = d.get(object(o.Get("req")), "opnum")
	}
}

// rdp fills one step of a session's beginning; Suricata logs each on its own.
func (d *Decoder) rdp(o *fastjson.Object) {
	p := d.flow.RDP
	p.Cookie, p.SecurityProtocol, p.Result = d.get(o, "cookie"), d.get(o, "protocol"), d.get(o, "reason")
	switch string(raw(o.Get("event_type"))) {
	case "tls_handshake":
		p.Result = "encrypted"
	case "connect_response":
		p.Result = "Success"
	}
	if c := object(o.Get("client")); c != nil {
		p.KeyboardLayout, p.ClientBuild, p.ClientName = d.get(c, "keyboard_layout"), d.get(c, "build"), d.get(c, "client_name")
	}
	if certs := array(o.Get("x509_serials")); len(certs) > 0 {
		p.CertType, p.CertCount = "X.509", len(certs)
	}
	orient(d.flow, 3389)
}

// kerberos fills a reply or an error; what was asked is read off its name.
func (d *Decoder) kerberos(o *fastjson.Object) {
	p := d.flow.Kerberos
	request := member(o, "msg_type")
	if v := member(o, "failed_request"); v != nil {
		request = v
	}
	p.RequestType = requestType(raw(request))
	client, realm := d.principal(o, "cname"), d.principal(o, "realm")
	p.Client = client
	if client != "" && realm != "" {
		p.Client = d.join(client, "/", realm)
	}
	p.Service = d.principal(o, "sname")
	p.Cipher = d.principal(o, "encryption")
	p.ErrorMsg = d.get(o, "error_code")
	p.Success = flow.TriOf(p.ErrorMsg == "")
	orient(d.flow, 88)
}

// principal returns a member unless Suricata says that it was not there.
func (d *Decoder) principal(o *fastjson.Object, key string) string {
	switch v := raw(o.Get(key)); string(v) {
	case "<empty>", "<none>":
		return ""
	default:
		return d.flow.Hold(v)
	}
}

// requestType returns Zeek's word for a message type such as KRB_TGS_REP.
func requestType(name []byte) string {
	switch string(name) {
	case "KRB_AS_REQ", "KRB_AS_REP":
		return "AS"
	case "KRB_TGS_REQ", "KRB_TGS_REP":
		return "TGS"
	case "KRB_AP_REQ", "KRB_AP_REP":
		return "AP"
	}
	return ""
}

func (d *Decoder) sip(o *fastjson.Object) {
	p := d.flow.SIP
	p.Method, p.URI, p.Status = d.get(o, "method"), d.get(o, "uri"), d.get(o, "reason")
	p.StatusCode = replyCode(raw(o.Get("code")))
	orient(d.flow, 5060)
}

func (d *Decoder) snmp(o *fastjson.Object) {
	p := d.flow.SNMP
	p.Version, p.Community = d.get(o, "version"), d.get(o, "community")
	switch string(raw(o.Get("pdu_type"))) {
	case "get_request", "get_next_request":
		p.GetRequests = 1
	case "get_bulk_request":
		p.GetBulk = 1
	case "response":
		p.GetResponses = 1
	case "set_request":
		p.Set_ = 1
	}
	orient(d.flow, 161)
}

func (d *Decoder) ntp(o *fastjson.Object) {
	p := d.flow.NTP
	p.Version, p.Mode = int(small(o.Get("version"), 7)), int(small(o.Get("mode"), 7))
	p.Stratum = int(small(o.Get("stratum"), 255))
	p.RefID = d.get(o, "reference_id")
	orient(d.flow, 123)
}
