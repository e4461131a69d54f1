//go:build unix

package main

import (
	"net/netip"
	"strconv"
)

// encoder writes records as Zeek's lines.
type encoder struct {
	servers []server
	json    bool
}

// The columns of the logs, in the order in which they are written.
var columns = [numLogs]struct{ fields, types string }{ // read only
	connLog: {
		"ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents",
		"time\tstring\taddr\tport\taddr\tport\tenum\tstring\tinterval\tcount\tcount\tstring\tbool\tbool\tcount\tstring\tcount\tcount\tcount\tcount\tset[string]",
	},
	dnsLog: {
		"ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\ttrans_id\trtt\tquery\tqclass\tqclass_name\tqtype\tqtype_name\trcode\trcode_name\tAA\tTC\tRD\tRA\tZ\tanswers\tTTLs\trejected",
		"time\tstring\taddr\tport\taddr\tport\tenum\tcount\tinterval\tstring\tcount\tstring\tcount\tstring\tcount\tstring\tbool\tbool\tbool\tbool\tcount\tvector[string]\tvector[interval]\tbool",
	},
	httpLog: {
		"ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\ttrans_depth\tmethod\thost\turi\tversion\tuser_agent\trequest_body_len\tresponse_body_len\tstatus_code\tstatus_msg\ttags\tresp_fuids\tresp_mime_types",
		"time\tstring\taddr\tport\taddr\tport\tcount\tstring\tstring\tstring\tstring\tstring\tcount\tcount\tcount\tstring\tset[enum]\tvector[string]\tvector[string]",
	},
	sslLog: {
		"ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tversion\tcipher\tcurve\tserver_name\tresumed\tnext_protocol\testablished\tssl_history\tcert_chain_fps\tclient_cert_chain_fps\tsni_matches_cert",
		"time\tstring\taddr\tport\taddr\tport\tstring\tstring\tstring\tstring\tbool\tstring\tbool\tstring\tvector[string]\tvector[string]\tbool",
	},
}

// header returns what stands above the lines of a log: nothing in JSON.
func (e *encoder) header(k kind) string {
	if e.json {
		return ""
	}
	return "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t" + k.String() +
		"\n#open\t2025-10-09-09-00-00\n#fields\t" + columns[k].fields + "\n#types\t" + columns[k].types + "\n"
}

// line appends the line of a record, with its newline.
func (e *encoder) line(b []byte, r *record) []byte {
	b = e.common(b, r)
	switch r.kind {
	case dnsLog:
		b = e.dns(b, r)
	case httpLog:
		b = e.http(b, r)
	case sslLog:
		b = e.ssl(b, r)
	default:
		b = e.conn(b, r)
	}
	if e.json {
		b = append(b, '}')
	}
	return append(b, '\n')
}

// name begins a field that has a value.
func (e *encoder) name(b []byte, name string) []byte {
	if !e.json {
		return append(b, '\t')
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// unset writes a field without a value, which JSON leaves out.
func (e *encoder) unset(b []byte, how string) []byte {
	if e.json {
		return b
	}
	return append(append(b, '\t'), how...)
}

func (e *encoder) text(b []byte, name, v string) []byte {
	if v == "" {
		return e.unset(b, "-")
	}
	b = e.name(b, name)
	if !e.json {
		return append(b, v...)
	}
	b = append(b, '"')
	b = append(b, v...)
	return append(b, '"')
}

func (e *encoder) number(b []byte, name string, v int64) []byte {
	return strconv.AppendInt(e.name(b, name), v, 10)
}

func (e *encoder) truth(b []byte, name string, v bool) []byte {
	b = e.name(b, name)
	switch {
	case e.json:
		return strconv.AppendBool(b, v)
	case v:
		return append(b, 'T')
	}
	return append(b, 'F')
}

// interval writes µs as seconds. Zeek's JSON shows the noise that the
// difference of two floating point numbers leaves behind the sixth digit.
func (e *encoder) interval(b []byte, name string, v int64, noise uint64) []byte {
	b = seconds(e.name(b, name), v)
	if e.json && v > 0 {
		b = strconv.AppendUint(b, 1_000_000_000+noise%9_000_000_000, 10)
	}
	return b
}

func seconds(b []byte, v int64) []byte {
	b = strconv.AppendInt(b, v/1_000_000, 10)
	b = append(b, '.')
	return micros(b, v%1_000_000)
}

func micros(b []byte, v int64) []byte {
	return append(b, byte('0'+v/100_000), byte('0'+v/10_000%10), byte('0'+v/1000%10), byte('0'+v/100%10), byte('0'+v/10%10), byte('0'+v%10))
}

func (e *encoder) address(b []byte, name string, a netip.Addr) []byte {
	b = e.name(b, name)
	if !e.json {
		return a.AppendTo(b)
	}
	b = append(b, '"')
	b = a.AppendTo(b)
	return append(b, '"')
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// id appends an identifier of Zeek's shape: a letter and 17 others.
func id(b []byte, letter byte, n uint64) []byte {
	b = append(b, letter)
	x, y := scramble(n), scramble(n+1<<40)
	for range 9 {
		b = append(b, base62[x%62])
		x /= 62
	}
	for range 8 {
		b = append(b, base62[y%62])
		y /= 62
	}
	return b
}

func (e *encoder) common(b []byte, r *record) []byte {
	if e.json {
		b = append(b, `{"ts":`...)
	}
	b = seconds(b, r.ts)
	b = e.name(b, "uid")
	if e.json {
		b = append(b, '"')
	}
	b = id(b, 'C', r.uid)
	if e.json {
		b = append(b, '"')
	}
	b = e.address(b, "id.orig_h", r.src)
	b = e.number(b, "id.orig_p", int64(r.sp))
	b = e.address(b, "id.resp_h", r.dst)
	return e.number(b, "id.resp_p", int64(r.dp))
}

func (e *encoder) conn(b []byte, r *record) []byte {
	b = e.text(b, "proto", r.proto)
	b = e.text(b, "service", r.service)
	if r.dur < 0 {
		b = e.unset(e.unset(e.unset(b, "-"), "-"), "-")
	} else {
		b = e.interval(b, "duration", r.dur, r.extra)
		b = e.number(b, "orig_bytes", r.origBytes)
		b = e.number(b, "resp_bytes", r.respBytes)
	}
	b = e.text(b, "conn_state", r.state)
	b = e.unset(e.unset(b, "-"), "-") // Zeek was not told which networks are local
	b = e.number(b, "missed_bytes", 0)
	b = e.text(b, "history", r.history)
	b = e.number(b, "orig_pkts", r.origPkts)
	b = e.number(b, "orig_ip_bytes", r.origBytes+r.origPkts*r.origHeader)
	b = e.number(b, "resp_pkts", r.respPkts)
	b = e.number(b, "resp_ip_bytes", r.respBytes+r.respPkts*r.respHeader)
	return e.unset(b, "-")
}

func (e *encoder) dns(b []byte, r *record) []byte {
	b = e.text(b, "proto", r.proto)
	b = e.number(b, "trans_id", int64(r.extra&0xffff))
	b = e.interval(b, "rtt", r.dur, r.extra)
	b = e.name(b, "query")
	if e.json {
		b = append(b, '"')
	}
	qtype, qname := int64(1), "A"
	switch {
	case r.nx:
		x := r.extra
		for range 12 + x>>60 {
			b = append(b, 'a'+byte(x%26))
			x = scramble(x)
		}
		b = append(b, ".example.com"...)
	case r.server < 0:
		qtype, qname = 12, "PTR"
		b = strconv.AppendUint(b, r.extra&0xff, 10)
		b = append(b, ".1.0.10.in-addr.arpa"...)
	default:
		b = append(b, e.servers[r.server].name...)
		if r.src.Is6() {
			qtype, qname = 28, "AAAA"
		}
	}
	if e.json {
		b = append(b, '"')
	}
	b = e.number(b, "qclass", 1)
	b = e.text(b, "qclass_name", "C_INTERNET")
	b = e.number(b, "qtype", qtype)
	b = e.text(b, "qtype_name", qname)
	if r.nx {
		b = e.number(b, "rcode", 3)
		b = e.text(b, "rcode_name", "NXDOMAIN")
	} else {
		b = e.number(b, "rcode", 0)
		b = e.text(b, "rcode_name", "NOERROR")
	}
	b = e.truth(b, "AA", false)
	b = e.truth(b, "TC", false)
	b = e.truth(b, "RD", true)
	b = e.truth(b, "RA", true)
	b = e.number(b, "Z", 0)
	switch {
	case r.nx:
		b = e.unset(e.unset(b, "-"), "-")
	case e.json:
		b = append(b, `,"answers":["`...)
		b = e.answer(b, r)
		b = append(b, `"],"TTLs":[`...)
		b = strconv.AppendUint(b, 20+r.extra>>8%3000, 10)
		b = append(b, `.0]`...)
	default:
		b = append(b, '\t')
		b = e.answer(b, r)
		b = append(b, '\t')
		b = strconv.AppendUint(b, 20+r.extra>>8%3000, 10)
		b = append(b, `.000000`...)
	}
	return e.truth(b, "rejected", false)
}

func (e *encoder) answer(b []byte, r *record) []byte {
	if r.server < 0 {
		b = append(b, "host-"...)
		b = strconv.AppendUint(b, r.extra&0xff, 10)
		return append(b, ".corp.example.net"...)
	}
	return e.servers[r.server].addr(r.src).AppendTo(b)
}

func (e *encoder) http(b []byte, r *record) []byte {
	b = e.number(b, "trans_depth", 1)
	b = e.text(b, "method", "GET")
	b = e.text(b, "host", e.servers[r.server].name)
	b = e.name(b, "uri")
	if e.json {
		b = append(b, '"')
	}
	b = append(b, "/static/"...)
	b = strconv.AppendUint(b, r.extra>>40, 16)
	b = append(b, ".html?v="...)
	b = strconv.AppendUint(b, r.extra&0xfff, 10)
	if e.json {
		b = append(b, '"')
	}
	b = e.text(b, "version", "1.1")
	b = e.text(b, "user_agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36")
	b = e.number(b, "request_body_len", 0)
	b = e.number(b, "response_body_len", r.reported)
	b = e.number(b, "status_code", 200)
	b = e.text(b, "status_msg", "OK")
	if e.json {
		b = append(b, `,"tags":[],"resp_fuids":["`...)
		b = id(b, 'F', r.uid)
		return append(b, `"],"resp_mime_types":["text/html"]`...)
	}
	b = append(b, "\t(empty)\t"...)
	b = id(b, 'F', r.uid)
	return append(b, "\ttext/html"...)
}

func (e *encoder) ssl(b []byte, r *record) []byte {
	b = e.text(b, "version", "TLSv12")
	b = e.text(b, "cipher", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
	b = e.text(b, "curve", "secp384r1")
	b = e.text(b, "server_name", e.servers[r.server].name)
	b = e.truth(b, "resumed", false)
	b = e.text(b, "next_protocol", "h2")
	b = e.truth(b, "established", true)
	b = e.text(b, "ssl_history", "CsxuknGIi")
	if e.json {
		b = append(b, `,"cert_chain_fps":["`...)
		b = fingerprint(b, uint64(r.server))
		b = append(b, `","`...)
		b = fingerprint(b, uint64(r.server)%40+1<<32)
		b = append(b, `"],"client_cert_chain_fps":[]`...)
	} else {
		b = append(b, '\t')
		b = fingerprint(b, uint64(r.server))
		b = append(b, ',')
		b = fingerprint(b, uint64(r.server)%40+1<<32)
		b = append(b, "\t(empty)"...)
	}
	return e.truth(b, "sni_matches_cert", true)
}

// fingerprint appends 64 hexadecimal digits.
func fingerprint(b []byte, n uint64) []byte {
	const digits = "0123456789abcdef"
	for i := range uint64(4) {
		x := scramble(n + i<<56)
		for range 16 {
			b = append(b, digits[x&15])
			x >>= 4
		}
	}
	return b
}
