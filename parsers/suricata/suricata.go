// Package suricata decodes the events of Suricata's eve.json, versions 6 to 9.
//
// It is pure: one line in, one record out, nothing remembered between lines.
// What Suricata counts or calls otherwise than Zeek is turned into what the
// detectors expect, so that a rule reads the same for both:
//
//   - bytes are those of whole packets, link-layer header included, so
//     OrigBytes and OrigIPBytes are the same figure (and so for the responder);
//   - the state of a connection is worked out from the packets seen in each
//     direction and the TCP flags, not from the word in flow.state (state.go);
//   - Service holds Zeek's names: "ssl" for tls, "http" for http2, "krb" for
//     krb5, "dce_rpc" for dcerpc, and nothing for "failed" and "unknown";
//   - a flow or netflow event is placed at the time the flow started, which
//     may be hours before the event's timestamp; all others at the timestamp;
//   - events that Suricata logs in the direction of a packet (dns since
//     version 8, dhcp, krb5, ntp, quic, rdp, sip, snmp) are turned so that the client is
//     the originator. Alerts and anomalies keep the packet's direction.
package suricata

import (
	"bytes"
	"encoding/json"
	"math"
	"net/netip"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

const (
	// maxDepth bounds the nesting of a line. Suricata's own events are less
	// than ten deep; what is deeper is not one of them, and the JSON parser
	// recurses.
	maxDepth = 64

	// bigLine is the length in bytes from which a line is worth a check before
	// it is parsed, because the parser's messages copy the rest of the line
	// once per level, and from which the parser's memory is not kept.
	bigLine = 64 << 10

	// maxQuote is how many bytes of offending text an error carries.
	maxQuote = 64
)

// Decoder decodes events. It serves one goroutine; the zero value is not
// ready, use New.
type Decoder struct {
	parser fastjson.Parser
	flow   *flow.Flow // the record being filled
	err    error      // the first thing wrong with it
	buf    []byte     // for text put together from parts
}

// New returns a Decoder.
func New() *Decoder { return new(Decoder) }

// IsHeader reports whether line describes the lines after it: never, since
// every line of eve.json stands alone.
func (d *Decoder) IsHeader([]byte) bool { return false }

// event is the top level of a line: what most kinds have in common.
type event struct {
	kind, timestamp, flowID, txID    *fastjson.Value
	srcIP, srcPort, dstIP, dstPort   *fastjson.Value
	proto, icmpType, icmpCode, vlan  *fastjson.Value
	appProto, appProtoTS, appProtoTC *fastjson.Value
	communityID, ether, tcp          *fastjson.Value
	http, email                      *fastjson.Value
}

// Decode turns one line, without or with its end of line, into dst. Times are
// unix ns, counts are packets and bytes of whole packets.
//
// The strings of dst are copies that dst owns: they live until the next
// decode into dst, whatever becomes of line and of the Decoder. dst is not to
// be trusted after an error, which is flow.ErrHeader for an empty line,
// flow.ErrIgnored for an event that no detector uses, and a
// *flow.SyntaxError without source and line otherwise.
func (d *Decoder) Decode(dst *flow.Flow, line []byte) error {
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return flow.ErrHeader
	}
	if tooDeep(line) {
		return syntaxError("", line, flow.ErrTooDeep)
	}
	if len(line) > bigLine {
		if !json.Valid(line) {
			return syntaxError("", line, flow.ErrJSON)
		}
		defer func() { d.parser, d.buf = fastjson.Parser{}, nil }()
	}
	root, err := d.parser.ParseBytes(line)
	if err != nil {
		return syntaxError("", line, flow.ErrJSON)
	}
	o := object(root)
	if o == nil {
		return syntaxError("", line, flow.ErrNotRecord)
	}
	d.flow, d.err = dst, nil
	err = d.decode(o)
	d.flow = nil
	return err
}

func (d *Decoder) decode(o *fastjson.Object) error {
	var e event
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "event_type":
			e.kind = v
		case "timestamp":
			e.timestamp = v
		case "flow_id":
			e.flowID = v
		case "tx_id":
			e.txID = v
		case "src_ip":
			e.srcIP = v
		case "src_port":
			e.srcPort = v
		case "dest_ip":
			e.dstIP = v
		case "dest_port":
			e.dstPort = v
		case "proto":
			e.proto = v
		case "icmp_type":
			e.icmpType = v
		case "icmp_code":
			e.icmpCode = v
		case "vlan":
			e.vlan = v
		case "app_proto":
			e.appProto = v
		case "app_proto_ts":
			e.appProtoTS = v
		case "app_proto_tc":
			e.appProtoTC = v
		case "community_id":
			e.communityID = v
		case "ether":
			e.ether = v
		case "tcp":
			e.tcp = v
		case "http":
			e.http = v
		case "email":
			e.email = v
		}
	})
	name := raw(e.kind)
	if len(name) == 0 {
		return syntaxError("event_type", nil, flow.ErrNotRecord)
	}
	kind, ok := kindOf(name)
	if !ok {
		return flow.ErrIgnored
	}
	body := object(o.Get(flow.Alias(name)))
	if body == nil {
		return syntaxError(string(name), nil, flow.ErrMissing)
	}

	d.flow.Reset(kind)
	d.common(&e)
	if kind == flow.Conn {
		d.connection(&e, body, string(name) == "netflow")
	} else {
		d.flow.Time = d.stamp("timestamp", e.timestamp)
		d.part(&e, body)
	}
	return d.err
}

// kindOf returns the kind of record an event becomes, and whether it becomes
// one. What is missing here is ignored: Suricata's own affairs (stats, engine,
// drop, frame, packet, metadata …), protocols that no detector looks at (nfs,
// tftp, ike, mdns, llmnr, ldap, mqtt …), and whatever later versions add.
func kindOf(name []byte) (flow.Kind, bool) {
	switch string(name) {
	case "flow", "netflow":
		return flow.Conn, true
	case "dns":
		return flow.DNS, true
	case "http":
		return flow.HTTP, true
	case "tls":
		return flow.SSL, true
	case "alert":
		return flow.Alert, true
	case "fileinfo":
		return flow.Files, true
	case "anomaly":
		return flow.Weird, true
	case "ssh":
		return flow.SSH, true
	case "smtp":
		return flow.SMTP, true
	case "ftp", "ftp_data":
		return flow.FTP, true
	case "dhcp":
		return flow.DHCP, true
	case "arp":
		return flow.ARP, true
	case "quic":
		return flow.QUIC, true
	case "smb":
		return flow.SMB, true
	case "dcerpc":
		return flow.DCERPC, true
	case "rdp":
		return flow.RDP, true
	case "krb5":
		return flow.Kerberos, true
	case "sip":
		return flow.SIP, true
	case "snmp":
		return flow.SNMP, true
	case "ntp":
		return flow.NTP, true
	}
	return 0, false
}

// common fills what every kind has, but for the time.
func (d *Decoder) common(e *event) {
	f := d.flow
	f.Sensor = flow.Suricata
	f.UID = d.text(e.flowID)
	f.CommunityID = d.text(e.communityID)
	f.Src = d.addr("src_ip", e.srcIP)
	f.Dst = d.addr("dest_ip", e.dstIP)
	f.Proto = flow.ParseProto(flow.Alias(raw(e.proto)))
	if f.Proto.IsICMP() {
		f.SrcPort = d.port("icmp_type", e.icmpType)
		f.DstPort = d.port("icmp_code", e.icmpCode)
		f.HasPorts = given(e.icmpType) && given(e.icmpCode)
	} else {
		f.SrcPort = d.port("src_port", e.srcPort)
		f.DstPort = d.port("dest_port", e.dstPort)
		f.HasPorts = given(e.srcPort) && given(e.dstPort)
	}
	f.Service = d.service(e)
	if tags := array(e.vlan); len(tags) > 0 {
		f.VLAN = uint16(small(tags[0], 4095))
		if len(tags) > 1 {
			f.InnerVLAN = uint16(small(tags[1], 4095))
		}
	}
	if ether := object(e.ether); ether != nil {
		// A flow lists every address it was seen with, the first packet's first.
		f.SrcMAC = d.text(first(ether.Get("src_mac"), ether.Get("src_macs")))
		f.DstMAC = d.text(first(ether.Get("dest_mac"), ether.Get("dest_macs")))
	}
}

// service returns the application protocol by Zeek's name. Where Suricata
// could not settle on one, what it made of a single direction is taken.
func (d *Decoder) service(e *event) string {
	for _, v := range [...]*fastjson.Value{e.appProto, e.appProtoTC, e.appProtoTS} {
		switch name := lower(raw(v)); string(name) {
		case "", "failed", "unknown":
		case "tls":
			return "ssl"
		case "http2":
			return "http"
		case "krb5":
			return "krb"
		case "dcerpc":
			return "dce_rpc"
		default:
			return d.flow.Hold(name)
		}
	}
	return ""
}

// connection fills a flow event or one half of a netflow event.
func (d *Decoder) connection(e *event, o *fastjson.Object, half bool) {
	f := d.flow
	var start, end, pkts, bytes, pktsBack, bytesBack, state *fastjson.Value
	o.Visit(func(key []byte, v *fastjson.Value) {
		switch string(key) {
		case "start":
			start = v
		case "end":
			end = v
		case "pkts", "pkts_toserver":
			pkts = v
		case "bytes", "bytes_toserver":
			bytes = v
		case "pkts_toclient":
			pktsBack = v
		case "bytes_toclient":
			bytesBack = v
		case "state":
			state = v
		}
	})
	if !f.Src.IsValid() || !f.Dst.IsValid() {
		field := "dest_ip"
		if !f.Src.IsValid() {
			field = "src_ip"
		}
		d.fail(field, nil, flow.ErrMissing)
		return
	}
	if given(start) {
		f.Time = d.stamp("start", start)
		if given(end) {
			// The clock of a capture may be set back while a flow lasts.
			f.Duration = max(0, d.stamp("end", end)-f.Time)
		}
	} else {
		f.Time = d.stamp("timestamp", e.timestamp)
	}
	f.OrigPkts, f.OrigBytes = d.count("pkts", pkts), d.count("bytes", bytes)
	f.RespPkts, f.RespBytes = d.count("pkts_toclient", pktsBack), d.count("bytes_toclient", bytesBack)
	f.RawState = d.text(state)
	tcp := readTCP(object(e.tcp))
	if half {
		f.State = halfState(f.Proto, tcp)
		if fromServer(f, tcp) {
			turn(f)
		}
	} else {
		f.State = flowState(f, tcp)
	}
	f.OrigIPBytes, f.RespIPBytes = f.OrigBytes, f.RespBytes
}

// turn exchanges the two sides of f.
func turn(f *flow.Flow) {
	f.Src, f.Dst = f.Dst, f.Src
	if !f.Proto.IsICMP() {
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	f.SrcMAC, f.DstMAC = f.DstMAC, f.SrcMAC
	f.OrigPkts, f.RespPkts = f.RespPkts, f.OrigPkts
	f.OrigBytes, f.RespBytes = f.RespBytes, f.OrigBytes
}

// orient turns f when its source, and only its source, is the port of a
// service: then the event was logged for a packet of the server.
func orient(f *flow.Flow, port uint16) {
	if f.SrcPort == port && f.DstPort != port {
		turn(f)
	}
}

// fail notes what is wrong with the record; only the first note is kept.
func (d *Decoder) fail(field string, v *fastjson.Value, reason error) {
	if d.err == nil {
		var text []byte
		if v != nil {
			text = v.MarshalTo(nil)
		}
		d.err = syntaxError(field, text, reason)
	}
}

func syntaxError(field string, value []byte, reason error) error {
	return &flow.SyntaxError{Field: field, Value: string(value[:min(len(value), maxQuote)]), Err: reason}
}

// stamp returns the time v, which must be there and within what a record may carry.
func (d *Decoder) stamp(field string, v *fastjson.Value) int64 {
	if !given(v) {
		d.fail(field, nil, flow.ErrMissing)
		return 0
	}
	t, ok := parseTime(raw(v))
	if !ok || t < flow.MinTime || t > flow.MaxTime {
		d.fail(field, v, flow.ErrTime)
		return 0
	}
	return t
}

// addr returns the address v, or the zero Addr when there is none.
func (d *Decoder) addr(field string, v *fastjson.Value) netip.Addr {
	if !given(v) {
		return netip.Addr{}
	}
	a := address(v)
	if !a.IsValid() {
		d.fail(field, v, flow.ErrAddress)
	}
	return a
}

// port returns the port v, or 0 when there is none.
func (d *Decoder) port(field string, v *fastjson.Value) uint16 {
	if !given(v) {
		return 0
	}
	n, ok := integer(v)
	if !ok || n < 0 || n > math.MaxUint16 {
		d.fail(field, v, flow.ErrPort)
		return 0
	}
	return uint16(n)
}

// count returns the number v of packets or bytes, or 0 when there is none.
func (d *Decoder) count(field string, v *fastjson.Value) int64 {
	if !given(v) {
		return 0
	}
	n, ok := integer(v)
	if !ok || n < 0 {
		d.fail(field, v, flow.ErrNumber)
		return 0
	}
	return n
}

// text returns the string or number v as the sensor wrote it, in memory of
// the record; "" when v is neither.
func (d *Decoder) text(v *fastjson.Value) string {
	if b := raw(v); b != nil {
		return d.flow.Hold(b)
	}
	if v != nil && v.Type() == fastjson.TypeNumber {
		d.buf = v.MarshalTo(d.buf[:0])
		return d.flow.Hold(d.buf)
	}
	return ""
}

// get returns the text of a member of o, which may be nil.
func (d *Decoder) get(o *fastjson.Object, key string) string { return d.text(member(o, key)) }

// join returns its parts, put together in memory of the record.
func (d *Decoder) join(parts ...string) string {
	d.buf = d.buf[:0]
	for _, p := range parts {
		d.buf = append(d.buf, p...)
	}
	return d.flow.Hold(d.buf)
}

// list appends the texts of the array v, or of v itself when it is a string.
func (d *Decoder) list(to []string, v *fastjson.Value) []string {
	if s := raw(v); len(s) > 0 {
		return append(to, d.flow.Hold(s))
	}
	for _, item := range array(v) {
		if s := d.text(item); s != "" {
			to = append(to, s)
		}
	}
	return to
}

// The functions below read JSON values. All take nil for what is not there.

// given reports whether v is there and not null.
func given(v *fastjson.Value) bool { return v != nil && v.Type() != fastjson.TypeNull }

// raw returns the text of the string v in memory of the parser, which may be
// written to; nil when v is no string.
func raw(v *fastjson.Value) []byte { return v.GetStringBytes() }

func object(v *fastjson.Value) *fastjson.Object { return v.GetObject() }

func array(v *fastjson.Value) []*fastjson.Value { return v.GetArray() }

func member(o *fastjson.Object, key string) *fastjson.Value {
	if o == nil {
		return nil
	}
	return o.Get(key)
}

// first returns v, or when it is not there the first item of the array list.
func first(v, list *fastjson.Value) *fastjson.Value {
	if given(v) {
		return v
	}
	if a := array(list); len(a) > 0 {
		return a[0]
	}
	return nil
}

// integer returns v when it is a whole number that fits.
func integer(v *fastjson.Value) (int64, bool) {
	if v == nil || v.Type() != fastjson.TypeNumber {
		return 0, false
	}
	n, err := v.Int64()
	return n, err == nil
}

// small returns v when it is a number from 0 to limit, else 0. It is for
// details whose absence changes nothing.
func small(v *fastjson.Value, limit int64) int64 {
	n, ok := integer(v)
	if !ok || n < 0 || n > limit {
		return 0
	}
	return n
}

// address returns the address v, or the zero Addr. IPv4 inside IPv6 comes out
// as IPv4, so that a host has one address; zones are refused, since Suricata
// writes none.
func address(v *fastjson.Value) netip.Addr {
	b := raw(v)
	if bytes.IndexByte(b, '%') >= 0 {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(flow.Alias(b))
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}

// tri returns the truth value v, Unset when it is not there.
func tri(v *fastjson.Value) flow.Tri {
	if v != nil {
		switch v.Type() {
		case fastjson.TypeTrue:
			return flow.True
		case fastjson.TypeFalse:
			return flow.False
		}
	}
	return flow.Unset
}

// lower puts b in lower case in place.
func lower(b []byte) []byte {
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return b
}

// capitals puts b in upper case in place.
func capitals(b []byte) []byte {
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
	return b
}

// tooDeep reports whether brackets in line nest deeper than maxDepth. Few
// lines have that many brackets at all, which is quick to see.
func tooDeep(line []byte) bool {
	if bytes.Count(line, []byte("{"))+bytes.Count(line, []byte("[")) <= maxDepth {
		return false
	}
	depth := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			i = stringEnd(line, i)
		case '{', '[':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}

// stringEnd returns the index of the quote that ends the string whose opening
// quote is line[i], or len(line) when the line ends first.
func stringEnd(line []byte, i int) int {
	for i++; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(line)
}
