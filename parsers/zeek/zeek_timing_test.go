package zeek

import (
	"strings"
	"testing"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

// hot are records as Zeek writes them most, one for each log that must be fast.
var hot = []struct{ log, line string }{
	{"conn", `{"ts":1614370842.844541,"uid":"CeXwwk4XHhkKHn7kag","id.orig_h":"192.168.1.115","id.orig_p":49158,"id.resp_h":"195.113.232.73","id.resp_p":80,"proto":"tcp","service":"http","duration":0.001872,"orig_bytes":97,"resp_bytes":179,"conn_state":"SF","missed_bytes":0,"history":"ShADadfF","orig_pkts":5,"orig_ip_bytes":309,"resp_pkts":5,"resp_ip_bytes":383}`},
	{"dns", `{"ts":1614370842.844541,"uid":"CTudTc7oyRltJwU32","id.orig_h":"10.0.2.15","id.orig_p":54330,"id.resp_h":"147.32.80.9","id.resp_p":53,"proto":"udp","trans_id":31185,"rtt":0.00133,"query":"www.example.com","qclass":1,"qclass_name":"C_INTERNET","qtype":1,"qtype_name":"A","rcode":0,"rcode_name":"NOERROR","AA":false,"TC":false,"RD":true,"RA":true,"Z":0,"answers":["relay.example.com","147.32.80.7"],"TTLs":[6400.0,6400.0],"rejected":false}`},
	{"http", `{"ts":1614370842.844541,"uid":"CeXwwk4XHhkKHn7kag","id.orig_h":"10.0.2.15","id.orig_p":49158,"id.resp_h":"195.113.232.73","id.resp_p":80,"trans_depth":1,"method":"GET","host":"www.example.com","uri":"/index.html?x=1","version":"1.1","user_agent":"Mozilla/5.0 (Windows NT 10.0; WOW64)","request_body_len":0,"response_body_len":14,"status_code":200,"status_msg":"OK","tags":[],"resp_fuids":["FypKKm49ugFVDFcWx5"],"resp_mime_types":["text/plain"]}`},
	{"ssl", `{"ts":1614370842.844541,"uid":"CmjEJ14q2fMkVjIrjh","id.orig_h":"10.0.2.15","id.orig_p":49194,"id.resp_h":"204.79.197.200","id.resp_p":443,"version":"TLSv12","cipher":"TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA","curve":"secp384r1","server_name":"www.example.com","resumed":false,"established":true,"cert_chain_fuids":["FKMTO94tQEsBTFbPgc","FiN0Qh1UtcWHK5OhI1"],"client_cert_chain_fuids":[],"subject":"CN=www.example.com","issuer":"CN=Example Authority,C=US","validation_status":"ok","ja3":"6734f37431670b3ab4292b8f60f29984"}`},
}

// odd are lines that are more work, or leave the quick way.
var odd = []struct{ name, line string }{
	{"simple escape", strings.Replace(hot[0].line, "ShAD", `Sh\\D`, 1)},
	{"escape", strings.Replace(hot[0].line, "ShAD", `Sh\u0041D`, 1)},
	{"nested", strings.Replace(hot[0].line, `"proto"`, `"x":{"y":1},"proto"`, 1)},
}

// TestAllocs is the gate: a record costs no memory once a decoder and a Flow
// have seen its like.
func TestAllocs(t *testing.T) {
	check := func(name string, d *Decoder, line string) {
		t.Helper()
		var f flow.Flow
		b := []byte(line)
		run := func() {
			if err := d.Decode(&f, b); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		run()
		if n := testing.AllocsPerRun(200, run); n != 0 {
			t.Errorf("%s: %v allocations for a record", name, n)
		}
	}
	for _, c := range hot {
		check(c.log+" json", New(c.log), c.line)
		check(c.log+" json, log from its fields", New(""), c.line)
		check(c.log+" json, _path behind", New("conn"), c.line[:len(c.line)-1]+`,"_path":"`+c.log+`"}`)
		fields, row := toTSV(t, c.line)
		d := New(c.log)
		decode(d, fields)
		check(c.log+" tsv", d, row)
		decode(d, fields+"\tlabel")
		check(c.log+" tsv with escapes", d, row+`	a\x09b\\c`)
		decode(d, fields+"\ttunnel_parents   label   detailed-label")
		check(c.log+" tsv with blanks", d, row+"\t-   Benign   x")
	}
	for _, c := range odd {
		check("odd json, "+c.name, New("conn"), c.line)
	}
}

// BenchmarkDecode is the figure to watch. The fastjson lines are what reading
// the same fields costs without this package; "odd" lines go other ways.
//
//	go test -run - -bench Decode -cpu 1 -count 8 ./parsers/zeek
func BenchmarkDecode(b *testing.B) {
	for _, c := range hot {
		b.Run(c.log+"/json", func(b *testing.B) { bench(b, New(c.log), c.line) })
		b.Run(c.log+"/tsv", func(b *testing.B) {
			fields, row := toTSV(b, c.line)
			d := New(c.log)
			decode(d, fields)
			bench(b, d, row)
		})
		b.Run(c.log+"/fastjson", func(b *testing.B) { benchFastJSON(b, c.line) })
	}
	for _, c := range odd {
		b.Run("odd/"+c.name, func(b *testing.B) { bench(b, New("conn"), c.line) })
	}
}

func bench(b *testing.B, d *Decoder, line string) {
	b.Helper()
	var f flow.Flow
	l := []byte(line)
	b.SetBytes(int64(len(l)) + 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&f, l); err != nil {
			b.Fatal(err)
		}
	}
}

// benchFastJSON parses a line and gets each of its fields once, by name.
func benchFastJSON(b *testing.B, line string) {
	b.Helper()
	var p fastjson.Parser
	v := fastjson.MustParse(line)
	var keys []string
	v.GetObject().Visit(func(k []byte, _ *fastjson.Value) { keys = append(keys, string(k)) })
	l := []byte(line)
	b.SetBytes(int64(len(l)) + 1)
	b.ReportAllocs()
	for b.Loop() {
		v, err := p.ParseBytes(l)
		if err != nil {
			b.Fatal(err)
		}
		for _, k := range keys {
			switch f := v.Get(k); f.Type() {
			case fastjson.TypeNumber:
				f.Float64()
			case fastjson.TypeString:
				f.StringBytes()
			}
		}
	}
}
