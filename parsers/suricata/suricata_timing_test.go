package suricata

import (
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// hot are the kinds that make up nearly all of an eve.json, in the layouts
// of versions 7 and 8.
var hot = []struct{ name, line string }{
	{"flow", `{"timestamp":"2024-05-06T13:00:00.000001+0200","flow_id":2251799813685249,"in_iface":"eth0","event_type":"flow","src_ip":"192.168.1.129",` +
		`"src_port":50000,"dest_ip":"198.51.100.9","dest_port":443,"ip_v":4,"proto":"TCP","app_proto":"tls","flow":{"pkts_toserver":10,"pkts_toclient":12,` +
		`"bytes_toserver":1500,"bytes_toclient":9000,"start":"2024-05-06T12:00:00.123456+0200","end":"2024-05-06T12:00:02.123457+0200","age":2,"state":"closed",` +
		`"reason":"timeout","alerted":false},"community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=","tcp":{"tcp_flags":"1b","tcp_flags_ts":"1b","tcp_flags_tc":"1b",` +
		`"syn":true,"fin":true,"psh":true,"ack":true,"state":"closed","ts_max_regions":1,"tc_max_regions":1}}`},
	{"dns", `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":297429208025527,"event_type":"dns","src_ip":"192.168.1.1","src_port":53,"dest_ip":"192.168.1.129",` +
		`"dest_port":50000,"proto":"UDP","ip_v":4,"pkt_src":"wire/pcap","dns":{"version":3,"type":"response","tx_id":1,"id":77,"flags":"8180","qr":true,"rd":true,"ra":true,` +
		`"opcode":0,"rcode":"NOERROR","queries":[{"rrname":"www.example.com","rrtype":"A"}],"answers":[{"rrname":"www.example.com","rrtype":"CNAME","ttl":30,"rdata":"a.example.net"},` +
		`{"rrname":"a.example.net","rrtype":"A","ttl":30,"rdata":"198.51.100.7"}],"grouped":{"CNAME":["a.example.net"],"A":["198.51.100.7"]}}}`},
	{"http", head("http", `"pcap_cnt":99,"tx_id":0,"http":{"hostname":"www.example.com","url":"/index.html?q=\"1\"","http_user_agent":"Mozilla/5.0 (Windows NT 6.1; WOW64) AppleWebKit/537.36",`+
		`"http_content_type":"text/html","http_refer":"http://www.example.com/","http_method":"GET","protocol":"HTTP/1.1","status":200,"length":1234}`)},
	{"tls", head("tls", `"tls":{"subject":"OU=Domain Control Validated, CN=www.example.com","issuerdn":"C=BE, O=Signer, CN=CA","serial":"17:8E:1E:D7:BD:75:EF:CD:3D:8F:FF:D3",`+
		`"fingerprint":"2d:d1:9f:80:99:86:fc:ac:5f:2a:2a:fd:a3:f3:7e:96:7c:dd:24:37","sni":"www.example.com","version":"TLS 1.2","notbefore":"2020-03-19T09:44:08","notafter":"2022-03-20T09:44:08",`+
		`"ja3":{"hash":"b7202231ff2db28363c109cedc6d1642","string":"770,51-57-69-136-22-53-132-47-65-10-5-4,0,,"},"ja3s":{"hash":"ad90cab724fafab2660fbf61673c91a9","string":"770,51,0"},"ja4":"t13d1516h2_8daaf6152771_e5627efa2ab1"}`)},
	{"alert", head("alert", `"alert":{"action":"allowed","gid":1,"signature_id":2403388,"rev":66418,"signature":"ET CINS Active Threat Intelligence Poor Reputation IP group 89","category":"Misc Attack","severity":2,`+
		`"metadata":{"affected_product":["Any"],"attack_target":["Any"],"created_at":["2013_10_08"],"mitre_tactic_id":["TA0011"],"mitre_technique_id":["T1071"]}},`+
		`"direction":"to_server","flow":{"pkts_toserver":1,"pkts_toclient":0,"bytes_toserver":60,"bytes_toclient":0,"start":"2024-05-06T12:00:00.000000+0200","src_ip":"10.0.0.5","dest_ip":"192.0.2.9"}`)},
	{"anomaly", head("anomaly", `"anomaly":{"app_proto":"http","type":"applayer","event":"APPLAYER_DETECT_PROTOCOL_ONLY_ONE_DIRECTION","layer":"proto_detect"}`)},
	{"fileinfo", head("fileinfo", `"app_proto":"http","http":{"hostname":"h","url":"/a.exe","http_content_type":"application/x-msdownload","http_method":"GET","status":200},`+
		`"fileinfo":{"filename":"/a.exe","sid":[1],"gaps":false,"state":"CLOSED","md5":"d41d8cd98f00b204e9800998ecf8427e","stored":true,"file_id":3,"size":4096,"tx_id":0}`)},
	{"ssh", head("ssh", `"ssh":{"client":{"proto_version":"2.0","software_version":"PuTTY_0.7","hassh":{"hash":"c1","string":"a,b"}},"server":{"proto_version":"2.0","software_version":"OpenSSH_8.9p1"}}`)},
}

// TestDecodeAllocs holds decoding at no allocation once the Decoder and the
// record have seen the kind, for each kind alone and for all mixed.
func TestDecodeAllocs(t *testing.T) {
	d, mixed := New(), new(flow.Flow)
	all := func() {
		for _, k := range hot {
			if err := d.Decode(mixed, []byte(k.line)); err != nil {
				t.Fatal(k.name, err)
			}
		}
	}
	lines := make([][]byte, len(hot))
	for i, k := range hot {
		lines[i] = []byte(k.line)
	}
	for range 3 {
		all()
	}
	for i, k := range hot {
		f := new(flow.Flow)
		if n := testing.AllocsPerRun(200, func() {
			if err := d.Decode(f, lines[i]); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations per record", k.name, n)
		}
	}
	if n := testing.AllocsPerRun(200, func() {
		for _, l := range lines {
			if err := d.Decode(mixed, l); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("mixed: %v allocations per round", n)
	}
}

// BenchmarkDecode measures one record of each kind:
//
//	go test -run '^$' -bench Decode -benchtime 0.2s ./parsers/suricata
func BenchmarkDecode(b *testing.B) {
	for _, k := range hot {
		b.Run(k.name, func(b *testing.B) {
			d, f, line := New(), new(flow.Flow), []byte(k.line)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(f, line); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParseOnly is what fastjson alone takes for the same flow event.
func BenchmarkParseOnly(b *testing.B) {
	d, line := New(), []byte(hot[0].line)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.parser.ParseBytes(line); err != nil {
			b.Fatal(err)
		}
	}
}
