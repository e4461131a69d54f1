package zeek

import (
	"math"
	"net/netip"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// op says how the text of a field becomes part of a Flow.
type op uint8

const (
	opSkip     op = iota // known and not used
	opPath               // the name of the log
	opStream             // the name of the log, if it is one
	opTime               // start of the record
	opTimeElse           // start of the record when it has no ts
	opSrc
	opDst
	opSrcPort
	opDstPort
	opProto
	opIPProto // number, for what proto does not name
	opState
	opText
	opTextElse // text, unless the target has some already
	opRCode    // number of a DNS response code, unless its name is known
	opCount
	opInt
	opUint16
	opUint32
	opShare // number from 0 to 1
	opInterval
	opWhen
	opTri
	opPort
	opPresent // only that there is something
	opAddr
	opFrom // first of the senders of a file
	opTo   // first of its receivers
	opList
	opListElse // list, unless the target has one already
	opSeconds  // list of intervals in whole seconds
)

// listed reports whether o takes a list apart.
func (o op) listed() bool { return o >= opFrom }

// reason is what is wrong with a value that o cannot take.
func (o op) reason() error {
	switch o {
	case opTime, opTimeElse, opWhen:
		return flow.ErrTime
	case opSrc, opDst, opAddr, opFrom, opTo:
		return flow.ErrAddress
	case opSrcPort, opDstPort, opPort:
		return flow.ErrPort
	case opCount, opInt, opUint16, opUint32, opShare, opInterval, opSeconds, opIPProto:
		return flow.ErrNumber
	default: // the others have no error of their own
	}
	return flow.ErrNotRecord
}

// field is one column or key of a log and where its value goes. Of the
// accessors at most one is set: the one that op needs.
type field struct {
	name string
	key  string // the name as it stands in JSON: with its closing quote and the colon
	op   op
	mark marks

	text  func(*flow.Flow) *string
	count func(*flow.Flow) *int64
	whole func(*flow.Flow) *int
	small func(*flow.Flow) *uint16
	wide  func(*flow.Flow) *uint32
	share func(*flow.Flow) *float64
	tri   func(*flow.Flow) *flow.Tri
	flag  func(*flow.Flow) *bool
	addr  func(*flow.Flow) *netip.Addr
	list  func(*flow.Flow) *[]string
}

// schema finds the fields of one log by name. It never changes after
// makeSchema, so all decoders share it.
type schema struct {
	fields []field
	table  [tableSize]uint8 // index in fields plus 1, by hash, linear probing
}

const tableSize = 512

// makeSchema builds a schema of groups of fields, where a name such as
// "a|b.c" stands for fields a, b.c and b_c. The fields that tell logs apart
// are always part of it, with opSkip when no group has them.
func makeSchema(groups ...[]field) schema {
	sch := schema{fields: make([]field, 0, 128)}
	add := func(name string, f field) {
		if sch.lookup(name) != nil {
			return
		}
		f.name, f.key = name, name+`":`
		sch.fields = append(sch.fields, f)
		if len(sch.fields) > 255 {
			panic("BUG: zeek: too many fields for a schema")
		}
		h := hash(name)
		for sch.table[h] != 0 {
			h = (h + 1) % tableSize
		}
		sch.table[h] = uint8(len(sch.fields))
	}
	both := func(name string, f field) {
		add(name, f)
		if under := strings.ReplaceAll(name, ".", "_"); under != name {
			add(under, f)
		}
	}
	for i := len(groups) - 1; i >= 0; i-- { // a log's own meaning of a name goes before the common one
		for _, f := range groups[i] {
			for n := range strings.SplitSeq(f.name, "|") {
				f.mark = markBits[n]
				switch n {
				case "orig_h", "orig_p", "resp_h", "resp_p": // shippers drop the "id."
					f.mark |= markBits["id."+n]
				}
				both(n, f)
			}
		}
	}
	for _, n := range markNames {
		both(n, field{mark: markBits[n]})
		if bare, ok := strings.CutPrefix(n, "id."); ok {
			add(bare, field{mark: markBits[n]})
		}
	}
	return sch
}

func hash(name string) uint {
	n := len(name)
	if n == 0 {
		return 0
	}
	return (uint(n)*37 + uint(name[0])*5 + uint(name[n-1])*67 + uint(name[n/2])*151) % tableSize
}

// lookup returns the field of a name, or nil. It takes no longer for names
// that are not there.
func (s *schema) lookup(name string) *field {
	if i := s.index(name); i != 0 {
		return &s.fields[i-1]
	}
	return nil
}

// index returns the position of a field counted from 1, or 0.
func (s *schema) index(name string) uint8 {
	for h := hash(name); ; h = (h + 1) % tableSize {
		i := s.table[h]
		if i == 0 || s.fields[i-1].name == name {
			return i
		}
	}
}

// maxList bounds the elements of one list. Zeek itself stops far below; a
// record with more is not kept in part, for a silent cut would hide from
// detectors what they look for.
const maxList = 4096

// set puts a value that is not a list into f. It returns the reason when the
// value does not fit the field.
func (d *Decoder) set(f *flow.Flow, fl *field, s string) error {
	switch fl.op {
	case opTime:
		t, ok := parseTime(s)
		if !ok {
			return flow.ErrTime
		}
		f.Time = t
	case opSrc, opDst:
		a, ok := parseAddr(s)
		if !ok {
			return flow.ErrAddress
		}
		if fl.op == opSrc {
			f.Src = a
		} else {
			f.Dst = a
		}
	case opSrcPort, opDstPort:
		p, ok := parsePort(s)
		if !ok {
			return flow.ErrPort
		}
		if fl.op == opSrcPort {
			f.SrcPort = p
		} else {
			f.DstPort = p
		}
	case opText:
		*fl.text(f) = s
	case opCount:
		n, ok := parseCount(s)
		if !ok {
			return flow.ErrNumber
		}
		*fl.count(f) = n
	case opInterval:
		n, ok := parseInterval(s)
		if !ok {
			return flow.ErrNumber
		}
		*fl.count(f) = n
	case opTri:
		t, ok := parseBool(s)
		if !ok {
			return flow.ErrNotRecord
		}
		*fl.tri(f) = t
	case opProto:
		if p := flow.ParseProto(s); p != flow.ProtoUnknown {
			f.Proto = p
		}
	case opState:
		f.RawState, f.State = s, interpret(s)
	case opSkip:
	case opPath, opStream:
		// The caller of set has looked at these.
	case opTimeElse:
		d.timeElse = s
	case opIPProto:
		n, ok := parseUint16(s)
		if !ok || n > 255 {
			return flow.ErrNumber
		}
		if f.Proto == flow.ProtoUnknown {
			f.Proto = flow.ParseProto(s)
		}
	case opTextElse:
		if t := fl.text(f); *t == "" {
			*t = s
		}
	case opRCode:
		if f.DNS.RCode == "" {
			f.DNS.RCode = rcodeName(s)
		}
	case opInt:
		n, ok := parseCount(s)
		if !ok {
			return flow.ErrNumber
		}
		*fl.whole(f) = int(n)
	case opUint16:
		n, ok := parseUint16(s)
		if !ok {
			return flow.ErrNumber
		}
		*fl.small(f) = n
	case opUint32:
		n, ok := parseCount(s)
		if !ok || n > math.MaxUint32 {
			return flow.ErrNumber
		}
		*fl.wide(f) = uint32(n)
	case opShare:
		n, ok := parseShare(s)
		if !ok {
			return flow.ErrNumber
		}
		*fl.share(f) = n
	case opWhen:
		t, ok := parseWhen(s)
		if !ok {
			return flow.ErrTime
		}
		*fl.count(f) = t
	case opPort:
		p, ok := parsePort(s)
		if !ok {
			return flow.ErrPort
		}
		*fl.small(f) = p
	case opPresent:
		*fl.flag(f) = true
	case opAddr:
		a, ok := parseAddr(s)
		if !ok {
			return flow.ErrAddress
		}
		*fl.addr(f) = a
	default: // a list of one element that is not written as a list
		d.begin(f, fl)
		return d.item(f, fl, s)
	}
	return nil
}

// begin empties the list of a field, so that the last of two equal keys counts.
func (d *Decoder) begin(f *flow.Flow, fl *field) {
	d.items = 0
	switch fl.op {
	case opList:
		l := fl.list(f)
		*l = (*l)[:0]
	case opListElse:
		d.full = len(*fl.list(f)) > 0
	case opSeconds:
		f.DNS.TTLs = f.DNS.TTLs[:0]
	case opFrom:
		d.from = netip.Addr{}
	case opTo:
		d.to = netip.Addr{}
	default: // no list
	}
}

// item adds one element to the list of a field.
func (d *Decoder) item(f *flow.Flow, fl *field, s string) error {
	if d.items++; d.items > maxList {
		return flow.ErrTooLong
	}
	switch fl.op {
	case opList:
		l := fl.list(f)
		*l = append(*l, s)
	case opListElse:
		if !d.full {
			l := fl.list(f)
			*l = append(*l, s)
		}
	case opSeconds:
		n := int64(0)
		if s != "" {
			var ok bool
			if n, _, ok = decimal(s, 0); !ok || n < 0 {
				return flow.ErrNumber
			}
		}
		f.DNS.TTLs = append(f.DNS.TTLs, n)
	case opFrom, opTo:
		if s == "" {
			return nil
		}
		a, ok := parseAddr(s)
		if !ok {
			return flow.ErrAddress
		}
		to := &d.from
		if fl.op == opTo {
			to = &d.to
		}
		if !to.IsValid() {
			*to = a
		}
	default: // no list
	}
	return nil
}

// rcodeName returns Zeek's name of a DNS response code in decimal, and the
// decimal itself where there is none.
func rcodeName(s string) string {
	switch s {
	case "0":
		return "NOERROR"
	case "1":
		return "FORMERR"
	case "2":
		return "SERVFAIL"
	case "3":
		return "NXDOMAIN"
	case "4":
		return "NOTIMP"
	case "5":
		return "REFUSED"
	}
	return s
}

// The constructors below make the tables that follow readable.

func skip(name string) field { return field{name: name} }

func text(name string, at func(*flow.Flow) *string) field {
	return field{name: name, op: opText, text: at}
}

func textElse(name string, at func(*flow.Flow) *string) field {
	return field{name: name, op: opTextElse, text: at}
}

func count(name string, at func(*flow.Flow) *int64) field {
	return field{name: name, op: opCount, count: at}
}

func interval(name string, at func(*flow.Flow) *int64) field {
	return field{name: name, op: opInterval, count: at}
}

func when(name string, at func(*flow.Flow) *int64) field {
	return field{name: name, op: opWhen, count: at}
}

func whole(name string, at func(*flow.Flow) *int) field {
	return field{name: name, op: opInt, whole: at}
}

func small(name string, at func(*flow.Flow) *uint16) field {
	return field{name: name, op: opUint16, small: at}
}

func wide(name string, at func(*flow.Flow) *uint32) field {
	return field{name: name, op: opUint32, wide: at}
}

func share(name string, at func(*flow.Flow) *float64) field {
	return field{name: name, op: opShare, share: at}
}

func port(name string, at func(*flow.Flow) *uint16) field {
	return field{name: name, op: opPort, small: at}
}

func tri(name string, at func(*flow.Flow) *flow.Tri) field {
	return field{name: name, op: opTri, tri: at}
}

func present(name string, at func(*flow.Flow) *bool) field {
	return field{name: name, op: opPresent, flag: at}
}

func addr(name string, at func(*flow.Flow) *netip.Addr) field {
	return field{name: name, op: opAddr, addr: at}
}

func list(name string, at func(*flow.Flow) *[]string) field {
	return field{name: name, op: opList, list: at}
}

// pathFields name the log in streams that mix logs.
var pathFields = []field{
	{name: "_path", op: opPath},
	{name: "@path|@stream|_log_type|_stream", op: opStream},
}

// commonFields may stand in any log.
var commonFields = append([]field{
	{name: "ts", op: opTime},
	{name: "@timestamp", op: opTimeElse},
	text("uid", func(f *flow.Flow) *string { return &f.UID }),
	{name: "id.orig_h|orig_h", op: opSrc},
	{name: "id.orig_p|orig_p", op: opSrcPort},
	{name: "id.resp_h|resp_h", op: opDst},
	{name: "id.resp_p|resp_p", op: opDstPort},
	{name: "proto", op: opProto},
	{name: "ip_proto", op: opIPProto},
	interval("duration", func(f *flow.Flow) *int64 { return &f.Duration }),
	text("community_id", func(f *flow.Flow) *string { return &f.CommunityID }),
	text("orig_l2_addr|src_mac", func(f *flow.Flow) *string { return &f.SrcMAC }),
	text("resp_l2_addr|dst_mac", func(f *flow.Flow) *string { return &f.DstMAC }),
	small("vlan|id.vlan", func(f *flow.Flow) *uint16 { return &f.VLAN }),
	small("inner_vlan|id.vlan_inner", func(f *flow.Flow) *uint16 { return &f.InnerVLAN }),
	tri("local_orig", func(f *flow.Flow) *flow.Tri { return &f.LocalOrig }),
	tri("local_resp", func(f *flow.Flow) *flow.Tri { return &f.LocalResp }),
	text("label", func(f *flow.Flow) *string { return &f.Label }),
	text("detailedlabel|detailed_label|detailed-label", func(f *flow.Flow) *string { return &f.DetailedLabel }),
}, pathFields...)

// kindFields are the fields of the logs of one kind, besides the common ones.
var kindFields = map[flow.Kind][]field{
	flow.Conn: {
		text("service", func(f *flow.Flow) *string { return &f.Service }),
		count("orig_bytes", func(f *flow.Flow) *int64 { return &f.OrigBytes }),
		count("resp_bytes", func(f *flow.Flow) *int64 { return &f.RespBytes }),
		{name: "conn_state", op: opState},
		count("missed_bytes", func(f *flow.Flow) *int64 { return &f.MissedBytes }),
		text("history", func(f *flow.Flow) *string { return &f.History }),
		count("orig_pkts", func(f *flow.Flow) *int64 { return &f.OrigPkts }),
		count("orig_ip_bytes", func(f *flow.Flow) *int64 { return &f.OrigIPBytes }),
		count("resp_pkts", func(f *flow.Flow) *int64 { return &f.RespPkts }),
		count("resp_ip_bytes", func(f *flow.Flow) *int64 { return &f.RespIPBytes }),
		skip("tunnel_parents"),
	},
	flow.DNS: {
		small("trans_id", func(f *flow.Flow) *uint16 { return &f.DNS.TransID }),
		interval("rtt", func(f *flow.Flow) *int64 { return &f.DNS.RTT }),
		text("query", func(f *flow.Flow) *string { return &f.DNS.Query }),
		textElse("qclass", func(f *flow.Flow) *string { return &f.DNS.QClass }),
		text("qclass_name", func(f *flow.Flow) *string { return &f.DNS.QClass }),
		textElse("qtype", func(f *flow.Flow) *string { return &f.DNS.QType }),
		text("qtype_name", func(f *flow.Flow) *string { return &f.DNS.QType }),
		{name: "rcode", op: opRCode},
		text("rcode_name", func(f *flow.Flow) *string { return &f.DNS.RCode }),
		tri("AA", func(f *flow.Flow) *flow.Tri { return &f.DNS.AA }),
		tri("TC", func(f *flow.Flow) *flow.Tri { return &f.DNS.TC }),
		tri("RD", func(f *flow.Flow) *flow.Tri { return &f.DNS.RD }),
		tri("RA", func(f *flow.Flow) *flow.Tri { return &f.DNS.RA }),
		skip("Z"),
		list("answers", func(f *flow.Flow) *[]string { return &f.DNS.Answers }),
		{name: "TTLs", op: opSeconds},
		tri("rejected", func(f *flow.Flow) *flow.Tri { return &f.DNS.Reject }),
		skip("opcode"), skip("opcode_name"),
	},
	flow.HTTP: {
		whole("trans_depth", func(f *flow.Flow) *int { return &f.HTTP.TransDepth }),
		text("method", func(f *flow.Flow) *string { return &f.HTTP.Method }),
		text("host", func(f *flow.Flow) *string { return &f.HTTP.Host }),
		text("uri", func(f *flow.Flow) *string { return &f.HTTP.URI }),
		text("referrer", func(f *flow.Flow) *string { return &f.HTTP.Referrer }),
		text("version", func(f *flow.Flow) *string { return &f.HTTP.Version }),
		text("user_agent", func(f *flow.Flow) *string { return &f.HTTP.UserAgent }),
		count("request_body_len", func(f *flow.Flow) *int64 { return &f.HTTP.RequestLen }),
		count("response_body_len", func(f *flow.Flow) *int64 { return &f.HTTP.ResponseLen }),
		whole("status_code", func(f *flow.Flow) *int { return &f.HTTP.StatusCode }),
		text("status_msg", func(f *flow.Flow) *string { return &f.HTTP.StatusMsg }),
		text("username", func(f *flow.Flow) *string { return &f.HTTP.Username }),
		present("password", func(f *flow.Flow) *bool { return &f.HTTP.HasPassword }),
		list("proxied", func(f *flow.Flow) *[]string { return &f.HTTP.Proxied }),
		list("orig_fuids", func(f *flow.Flow) *[]string { return &f.HTTP.OrigFUIDs }),
		list("orig_mime_types", func(f *flow.Flow) *[]string { return &f.HTTP.OrigMIMETypes }),
		list("resp_fuids", func(f *flow.Flow) *[]string { return &f.HTTP.RespFUIDs }),
		list("resp_mime_types", func(f *flow.Flow) *[]string { return &f.HTTP.RespMIMETypes }),
		skip("tags"), skip("origin"), skip("info_code"), skip("info_msg"), skip("orig_filenames"), skip("resp_filenames"),
	},
	flow.SSL: {
		text("version", func(f *flow.Flow) *string { return &f.SSL.Version }),
		text("cipher", func(f *flow.Flow) *string { return &f.SSL.Cipher }),
		text("curve", func(f *flow.Flow) *string { return &f.SSL.Curve }),
		text("server_name", func(f *flow.Flow) *string { return &f.SSL.ServerName }),
		tri("resumed", func(f *flow.Flow) *flow.Tri { return &f.SSL.Resumed }),
		text("last_alert", func(f *flow.Flow) *string { return &f.SSL.LastAlert }),
		text("next_protocol", func(f *flow.Flow) *string { return &f.SSL.NextProtocol }),
		tri("established", func(f *flow.Flow) *flow.Tri { return &f.SSL.Established }),
		list("cert_chain_fps", func(f *flow.Flow) *[]string { return &f.SSL.CertFPs }),
		list("client_cert_chain_fps", func(f *flow.Flow) *[]string { return &f.SSL.ClientCertFPs }),
		{
			name: "cert_chain_fuids|cert_hash", op: opListElse,
			list: func(f *flow.Flow) *[]string { return &f.SSL.CertFPs },
		},
		{
			name: "client_cert_chain_fuids", op: opListElse,
			list: func(f *flow.Flow) *[]string { return &f.SSL.ClientCertFPs },
		},
		text("subject", func(f *flow.Flow) *string { return &f.SSL.Subject }),
		text("issuer|issuer_subject", func(f *flow.Flow) *string { return &f.SSL.Issuer }),
		text("client_subject", func(f *flow.Flow) *string { return &f.SSL.ClientSubject }),
		text("client_issuer|client_issuer_subject", func(f *flow.Flow) *string { return &f.SSL.ClientIssuer }),
		when("not_valid_before", func(f *flow.Flow) *int64 { return &f.SSL.NotBefore }),
		when("not_valid_after", func(f *flow.Flow) *int64 { return &f.SSL.NotAfter }),
		tri("sni_matches_cert", func(f *flow.Flow) *flow.Tri { return &f.SSL.SNIMatchesCert }),
		text("validation_status", func(f *flow.Flow) *string { return &f.SSL.Validation }),
		tri("is_DoH|is_doh", func(f *flow.Flow) *flow.Tri { return &f.SSL.IsDoH }),
		text("ja3", func(f *flow.Flow) *string { return &f.SSL.JA3 }),
		text("ja3s", func(f *flow.Flow) *string { return &f.SSL.JA3S }),
		text("ja4", func(f *flow.Flow) *string { return &f.SSL.JA4 }),
		text("ja4s", func(f *flow.Flow) *string { return &f.SSL.JA4S }),
		skip("ssl_history"),
	},
	flow.QUIC: {
		text("version", func(f *flow.Flow) *string { return &f.SSL.Version }),
		text("server_name", func(f *flow.Flow) *string { return &f.SSL.ServerName }),
		text("client_protocol", func(f *flow.Flow) *string { return &f.SSL.NextProtocol }),
		text("history", func(f *flow.Flow) *string { return &f.History }),
		text("ja3", func(f *flow.Flow) *string { return &f.SSL.JA3 }),
		text("ja3s", func(f *flow.Flow) *string { return &f.SSL.JA3S }),
		text("ja4", func(f *flow.Flow) *string { return &f.SSL.JA4 }),
		text("ja4s", func(f *flow.Flow) *string { return &f.SSL.JA4S }),
	},
	flow.X509: {
		text("id", func(f *flow.Flow) *string { return &f.X509.ID }),
		text("fingerprint", func(f *flow.Flow) *string { return &f.X509.Fingerprint }),
		whole("certificate.version", func(f *flow.Flow) *int { return &f.X509.Version }),
		text("certificate.serial", func(f *flow.Flow) *string { return &f.X509.Serial }),
		text("certificate.subject", func(f *flow.Flow) *string { return &f.X509.Subject }),
		text("certificate.issuer", func(f *flow.Flow) *string { return &f.X509.Issuer }),
		when("certificate.not_valid_before", func(f *flow.Flow) *int64 { return &f.X509.NotBefore }),
		when("certificate.not_valid_after", func(f *flow.Flow) *int64 { return &f.X509.NotAfter }),
		text("certificate.key_alg", func(f *flow.Flow) *string { return &f.X509.KeyAlg }),
		text("certificate.sig_alg", func(f *flow.Flow) *string { return &f.X509.SigAlg }),
		text("certificate.key_type", func(f *flow.Flow) *string { return &f.X509.KeyType }),
		whole("certificate.key_length", func(f *flow.Flow) *int { return &f.X509.KeyLength }),
		list("san.dns", func(f *flow.Flow) *[]string { return &f.X509.SANDNS }),
		list("san.ip", func(f *flow.Flow) *[]string { return &f.X509.SANIP }),
		tri("basic_constraints.ca", func(f *flow.Flow) *flow.Tri { return &f.X509.CA }),
		tri("host_cert", func(f *flow.Flow) *flow.Tri { return &f.X509.HostCert }),
		tri("client_cert", func(f *flow.Flow) *flow.Tri { return &f.X509.ClientCert }),
		skip("certificate.exponent"), skip("certificate.curve"),
	},
	flow.Files: {
		text("fuid", func(f *flow.Flow) *string { return &f.Files.FUID }),
		{name: "tx_hosts", op: opFrom},
		{name: "rx_hosts", op: opTo},
		list("conn_uids", func(f *flow.Flow) *[]string { return &f.Files.ConnUIDs }),
		text("source", func(f *flow.Flow) *string { return &f.Files.Source }),
		list("analyzers", func(f *flow.Flow) *[]string { return &f.Files.Analyzers }),
		text("mime_type", func(f *flow.Flow) *string { return &f.Files.MIMEType }),
		text("filename", func(f *flow.Flow) *string { return &f.Files.Filename }),
		tri("local_orig", func(f *flow.Flow) *flow.Tri { return &f.Files.LocalOrig }),
		tri("is_orig", func(f *flow.Flow) *flow.Tri { return &f.Files.IsOrig }),
		count("seen_bytes", func(f *flow.Flow) *int64 { return &f.Files.SeenBytes }),
		count("total_bytes", func(f *flow.Flow) *int64 { return &f.Files.TotalBytes }),
		text("md5", func(f *flow.Flow) *string { return &f.Files.MD5 }),
		text("sha1", func(f *flow.Flow) *string { return &f.Files.SHA1 }),
		text("sha256", func(f *flow.Flow) *string { return &f.Files.SHA256 }),
		text("extracted", func(f *flow.Flow) *string { return &f.Files.ExtractedName }),
		skip("depth"), skip("missing_bytes"), skip("overflow_bytes"), skip("timedout"),
	},
	flow.SSH: {
		whole("version", func(f *flow.Flow) *int { return &f.SSH.Version }),
		tri("auth_success", func(f *flow.Flow) *flow.Tri { return &f.SSH.AuthSuccess }),
		whole("auth_attempts", func(f *flow.Flow) *int { return &f.SSH.AuthAttempts }),
		text("direction", func(f *flow.Flow) *string { return &f.SSH.Direction }),
		text("client", func(f *flow.Flow) *string { return &f.SSH.Client }),
		text("server", func(f *flow.Flow) *string { return &f.SSH.Server }),
		text("cipher_alg", func(f *flow.Flow) *string { return &f.SSH.CipherAlg }),
		text("mac_alg", func(f *flow.Flow) *string { return &f.SSH.MACAlg }),
		text("compression_alg", func(f *flow.Flow) *string { return &f.SSH.CompressionAlg }),
		text("kex_alg", func(f *flow.Flow) *string { return &f.SSH.KexAlg }),
		text("host_key_alg", func(f *flow.Flow) *string { return &f.SSH.HostKeyAlg }),
		text("host_key", func(f *flow.Flow) *string { return &f.SSH.HostKey }),
		textElse("host_key_fingerprint", func(f *flow.Flow) *string { return &f.SSH.HostKey }),
		text("hassh", func(f *flow.Flow) *string { return &f.SSH.HASSH }),
		text("hasshServer|hassh_server", func(f *flow.Flow) *string { return &f.SSH.HASSHServer }),
		text("remote_location.country_code", func(f *flow.Flow) *string { return &f.SSH.RemoteCountry }),
	},
	flow.SMTP: {
		whole("trans_depth", func(f *flow.Flow) *int { return &f.SMTP.TransDepth }),
		text("helo", func(f *flow.Flow) *string { return &f.SMTP.Helo }),
		text("mailfrom", func(f *flow.Flow) *string { return &f.SMTP.MailFrom }),
		list("rcptto", func(f *flow.Flow) *[]string { return &f.SMTP.RcptTo }),
		text("from", func(f *flow.Flow) *string { return &f.SMTP.From }),
		list("to", func(f *flow.Flow) *[]string { return &f.SMTP.To }),
		text("msg_id", func(f *flow.Flow) *string { return &f.SMTP.MsgID }),
		text("subject", func(f *flow.Flow) *string { return &f.SMTP.Subject }),
		text("last_reply", func(f *flow.Flow) *string { return &f.SMTP.LastReply }),
		list("path", func(f *flow.Flow) *[]string { return &f.SMTP.Path }),
		text("user_agent", func(f *flow.Flow) *string { return &f.SMTP.UserAgent }),
		tri("tls", func(f *flow.Flow) *flow.Tri { return &f.SMTP.TLS }),
	},
	flow.FTP: {
		text("user", func(f *flow.Flow) *string { return &f.FTP.User }),
		present("password", func(f *flow.Flow) *bool { return &f.FTP.HasPassword }),
		text("command", func(f *flow.Flow) *string { return &f.FTP.Command }),
		text("arg", func(f *flow.Flow) *string { return &f.FTP.Arg }),
		text("mime_type", func(f *flow.Flow) *string { return &f.FTP.MIMEType }),
		count("file_size", func(f *flow.Flow) *int64 { return &f.FTP.FileSize }),
		whole("reply_code", func(f *flow.Flow) *int { return &f.FTP.ReplyCode }),
		text("reply_msg", func(f *flow.Flow) *string { return &f.FTP.ReplyMsg }),
		tri("data_channel.passive", func(f *flow.Flow) *flow.Tri { return &f.FTP.DataPassive }),
		addr("data_channel.orig_h", func(f *flow.Flow) *netip.Addr { return &f.FTP.DataOrig }),
		addr("data_channel.resp_h", func(f *flow.Flow) *netip.Addr { return &f.FTP.DataResp }),
		port("data_channel.resp_p", func(f *flow.Flow) *uint16 { return &f.FTP.DataPort }),
	},
	flow.DHCP: {
		list("uids", func(f *flow.Flow) *[]string { return &f.DHCP.UIDs }),
		addr("client_addr", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Client }),
		addr("server_addr", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Server }),
		text("mac", func(f *flow.Flow) *string { return &f.DHCP.MAC }),
		text("host_name", func(f *flow.Flow) *string { return &f.DHCP.HostName }),
		text("client_fqdn", func(f *flow.Flow) *string { return &f.DHCP.ClientFQDN }),
		text("domain", func(f *flow.Flow) *string { return &f.DHCP.Domain }),
		addr("requested_addr", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Requested }),
		addr("assigned_addr", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Assigned }),
		addr("assigned_ip", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Assigned }),
		addr("router", func(f *flow.Flow) *netip.Addr { return &f.DHCP.Router }),
		interval("lease_time", func(f *flow.Flow) *int64 { return &f.DHCP.LeaseTime }),
		text("client_message", func(f *flow.Flow) *string { return &f.DHCP.ClientMessage }),
		text("server_message", func(f *flow.Flow) *string { return &f.DHCP.ServerMessage }),
		list("msg_types", func(f *flow.Flow) *[]string { return &f.DHCP.MsgTypes }),
		text("client_software", func(f *flow.Flow) *string { return &f.DHCP.VendorClass }),
	},
	flow.ARP: {
		text("operation", func(f *flow.Flow) *string { return &f.ARP.Operation }),
		text("src_mac", func(f *flow.Flow) *string { return &f.SrcMAC }),
		text("orig_hw", func(f *flow.Flow) *string { return &f.ARP.SenderHW }),
		text("resp_hw", func(f *flow.Flow) *string { return &f.ARP.TargetHW }),
	},
	flow.Notice: {
		text("note", func(f *flow.Flow) *string { return &f.Notice.Note }),
		text("msg", func(f *flow.Flow) *string { return &f.Notice.Msg }),
		text("sub", func(f *flow.Flow) *string { return &f.Notice.Sub }),
		addr("src", func(f *flow.Flow) *netip.Addr { return &f.Notice.Src }),
		addr("dst", func(f *flow.Flow) *netip.Addr { return &f.Notice.Dst }),
		port("p", func(f *flow.Flow) *uint16 { return &f.Notice.Port }),
		count("n", func(f *flow.Flow) *int64 { return &f.Notice.N }),
		list("actions", func(f *flow.Flow) *[]string { return &f.Notice.Actions }),
		interval("suppress_for", func(f *flow.Flow) *int64 { return &f.Notice.SuppressFor }),
	},
	flow.Weird: {
		text("name", func(f *flow.Flow) *string { return &f.Weird.Name }),
		text("addl", func(f *flow.Flow) *string { return &f.Weird.Addl }),
		tri("notice", func(f *flow.Flow) *flow.Tri { return &f.Weird.Notice }),
		text("peer", func(f *flow.Flow) *string { return &f.Weird.Peer }),
		text("source", func(f *flow.Flow) *string { return &f.Weird.Source }),
	},
	flow.Software: {
		{name: "host", op: opSrc},
		{name: "host_p", op: opSrcPort},
		text("software_type", func(f *flow.Flow) *string { return &f.Software.Type }),
		text("name", func(f *flow.Flow) *string { return &f.Software.Name }),
		whole("version.major", func(f *flow.Flow) *int { return &f.Software.Major }),
		whole("version.minor", func(f *flow.Flow) *int { return &f.Software.Minor }),
		whole("version.minor2", func(f *flow.Flow) *int { return &f.Software.Minor2 }),
		text("version.addl", func(f *flow.Flow) *string { return &f.Software.Addl }),
		text("unparsed_version", func(f *flow.Flow) *string { return &f.Software.Unparsed }),
	},
	flow.Tunnel: {
		text("tunnel_type", func(f *flow.Flow) *string { return &f.Tunnel.Type }),
		text("action", func(f *flow.Flow) *string { return &f.Tunnel.Action }),
	},
	flow.Login: {
		tri("success", func(f *flow.Flow) *flow.Tri { return &f.Login.Success }),
		tri("confused", func(f *flow.Flow) *flow.Tri { return &f.Login.Confused }),
		text("user", func(f *flow.Flow) *string { return &f.Login.User }),
		text("client_user", func(f *flow.Flow) *string { return &f.Login.ClientUser }),
		present("password", func(f *flow.Flow) *bool { return &f.Login.HasPassword }),
	},
	flow.Known: {
		{name: "host", op: opSrc},
		{name: "port_num", op: opSrcPort},
		{name: "port_proto", op: opProto},
		list("service", func(f *flow.Flow) *[]string { return &f.Known.Services }),
		text("subject", func(f *flow.Flow) *string { return &f.Known.Subject }),
		text("issuer_subject", func(f *flow.Flow) *string { return &f.Known.Issuer }),
		text("serial", func(f *flow.Flow) *string { return &f.Known.Serial }),
		text("mac", func(f *flow.Flow) *string { return &f.Known.MAC }),
	},
	flow.RDP: {
		text("cookie", func(f *flow.Flow) *string { return &f.RDP.Cookie }),
		text("result", func(f *flow.Flow) *string { return &f.RDP.Result }),
		text("security_protocol", func(f *flow.Flow) *string { return &f.RDP.SecurityProtocol }),
		text("keyboard_layout", func(f *flow.Flow) *string { return &f.RDP.KeyboardLayout }),
		text("client_build", func(f *flow.Flow) *string { return &f.RDP.ClientBuild }),
		text("client_name", func(f *flow.Flow) *string { return &f.RDP.ClientName }),
		text("cert_type", func(f *flow.Flow) *string { return &f.RDP.CertType }),
		whole("cert_count", func(f *flow.Flow) *int { return &f.RDP.CertCount }),
	},
	flow.SMB: {
		text("action", func(f *flow.Flow) *string { return &f.SMB.Action }),
		text("path|tree", func(f *flow.Flow) *string { return &f.SMB.Path }),
		text("name|argument", func(f *flow.Flow) *string { return &f.SMB.Name }),
		text("prev_name", func(f *flow.Flow) *string { return &f.SMB.PrevName }),
		count("size", func(f *flow.Flow) *int64 { return &f.SMB.Size }),
		text("service|tree_service", func(f *flow.Flow) *string { return &f.SMB.Service }),
		text("share_type", func(f *flow.Flow) *string { return &f.SMB.ShareType }),
		text("command", func(f *flow.Flow) *string { return &f.SMB.Command }),
		text("status", func(f *flow.Flow) *string { return &f.SMB.Status }),
		text("version", func(f *flow.Flow) *string { return &f.SMB.Dialect }),
		text("username", func(f *flow.Flow) *string { return &f.SMB.NTLMUser }),
	},
	flow.Kerberos: {
		text("request_type", func(f *flow.Flow) *string { return &f.Kerberos.RequestType }),
		text("client", func(f *flow.Flow) *string { return &f.Kerberos.Client }),
		text("service", func(f *flow.Flow) *string { return &f.Kerberos.Service }),
		tri("success", func(f *flow.Flow) *flow.Tri { return &f.Kerberos.Success }),
		text("error_msg", func(f *flow.Flow) *string { return &f.Kerberos.ErrorMsg }),
		when("till", func(f *flow.Flow) *int64 { return &f.Kerberos.Till }),
		text("cipher", func(f *flow.Flow) *string { return &f.Kerberos.Cipher }),
		tri("forwardable", func(f *flow.Flow) *flow.Tri { return &f.Kerberos.Forwardable }),
		tri("renewable", func(f *flow.Flow) *flow.Tri { return &f.Kerberos.Renewable }),
	},
	flow.NTLM: {
		text("username", func(f *flow.Flow) *string { return &f.NTLM.User }),
		text("hostname", func(f *flow.Flow) *string { return &f.NTLM.Host }),
		text("domainname", func(f *flow.Flow) *string { return &f.NTLM.Domain }),
		text("server_nb_computer_name", func(f *flow.Flow) *string { return &f.NTLM.ServerName }),
		text("server_dns_computer_name", func(f *flow.Flow) *string { return &f.NTLM.ServerDNSName }),
		text("status", func(f *flow.Flow) *string { return &f.NTLM.Status }),
		tri("success", func(f *flow.Flow) *flow.Tri { return &f.NTLM.Success }),
	},
	flow.DCERPC: {
		interval("rtt", func(f *flow.Flow) *int64 { return &f.DCERPC.RTT }),
		text("named_pipe", func(f *flow.Flow) *string { return &f.DCERPC.NamedPipe }),
		text("endpoint", func(f *flow.Flow) *string { return &f.DCERPC.Endpoint }),
		text("operation", func(f *flow.Flow) *string { return &f.DCERPC.Operation }),
	},
	flow.NTP: {
		whole("version", func(f *flow.Flow) *int { return &f.NTP.Version }),
		whole("mode", func(f *flow.Flow) *int { return &f.NTP.Mode }),
		whole("stratum", func(f *flow.Flow) *int { return &f.NTP.Stratum }),
		text("ref_id", func(f *flow.Flow) *string { return &f.NTP.RefID }),
	},
	flow.SIP: {
		text("method", func(f *flow.Flow) *string { return &f.SIP.Method }),
		text("uri", func(f *flow.Flow) *string { return &f.SIP.URI }),
		text("request_from", func(f *flow.Flow) *string { return &f.SIP.From }),
		text("request_to", func(f *flow.Flow) *string { return &f.SIP.To }),
		text("call_id", func(f *flow.Flow) *string { return &f.SIP.CallID }),
		text("user_agent", func(f *flow.Flow) *string { return &f.SIP.UserAgent }),
		whole("status_code", func(f *flow.Flow) *int { return &f.SIP.StatusCode }),
		text("status_msg", func(f *flow.Flow) *string { return &f.SIP.Status }),
	},
	flow.MySQL: {
		text("cmd", func(f *flow.Flow) *string { return &f.MySQL.Command }),
		text("arg", func(f *flow.Flow) *string { return &f.MySQL.Arg }),
		tri("success", func(f *flow.Flow) *flow.Tri { return &f.MySQL.Success }),
		count("rows", func(f *flow.Flow) *int64 { return &f.MySQL.Rows }),
		text("response", func(f *flow.Flow) *string { return &f.MySQL.Response }),
	},
	flow.SNMP: {
		text("version", func(f *flow.Flow) *string { return &f.SNMP.Version }),
		text("community", func(f *flow.Flow) *string { return &f.SNMP.Community }),
		count("get_requests", func(f *flow.Flow) *int64 { return &f.SNMP.GetRequests }),
		count("get_bulk_requests", func(f *flow.Flow) *int64 { return &f.SNMP.GetBulk }),
		count("get_responses", func(f *flow.Flow) *int64 { return &f.SNMP.GetResponses }),
		count("set_requests", func(f *flow.Flow) *int64 { return &f.SNMP.Set_ }),
		text("display_string", func(f *flow.Flow) *string { return &f.SNMP.DisplayString }),
	},
	flow.Lookup: {
		text("service", func(f *flow.Flow) *string { return &f.Lookup.Service }),
		text("of", func(f *flow.Flow) *string { return &f.Lookup.Of }),
		text("subject", func(f *flow.Flow) *string { return &f.Lookup.Subject }),
		tri("found", func(f *flow.Flow) *flow.Tri { return &f.Lookup.Found }),
		text("error", func(f *flow.Flow) *string { return &f.Lookup.Error }),
		whole("malicious", func(f *flow.Flow) *int { return &f.Lookup.Malicious }),
		whole("total", func(f *flow.Flow) *int { return &f.Lookup.Total }),
		share("score", func(f *flow.Flow) *float64 { return &f.Lookup.Score }),
		text("verdict", func(f *flow.Flow) *string { return &f.Lookup.Verdict }),
		list("lists", func(f *flow.Flow) *[]string { return &f.Lookup.Lists }),
		list("tags", func(f *flow.Flow) *[]string { return &f.Lookup.Tags }),
		text("link", func(f *flow.Flow) *string { return &f.Lookup.Link }),
		when("registered", func(f *flow.Flow) *int64 { return &f.Lookup.Registered }),
		text("registrant", func(f *flow.Flow) *string { return &f.Lookup.Registrant }),
		list("names", func(f *flow.Flow) *[]string { return &f.Lookup.Names }),
		wide("asn", func(f *flow.Flow) *uint32 { return &f.Lookup.ASN }),
		text("as_org", func(f *flow.Flow) *string { return &f.Lookup.ASOrg }),
		text("country", func(f *flow.Flow) *string { return &f.Lookup.Country }),
		text("jarm", func(f *flow.Flow) *string { return &f.Lookup.JARM }),
	},
}
