package suricata

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/parsers/flow"
)

// same compares records by all that a reader of them can see.
var same = cmp.Options{
	cmpopts.IgnoreUnexported(flow.Flow{}), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

var ip = netip.MustParseAddr

// at returns the unix ns of an RFC 3339 time.
func at(s string) int64 {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t.UnixNano()
}

// head is the beginning of an event between the hosts of base.
func head(kind, rest string) string {
	return `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":42,"event_type":"` + kind +
		`","src_ip":"10.0.0.5","src_port":50000,"dest_ip":"192.0.2.9","dest_port":443,"proto":"TCP",` + rest + `}`
}

// base is the record of head without a part, changed by f.
func base(kind flow.Kind, parts flow.Parts, changes ...func(*flow.Flow)) flow.Flow {
	f := flow.Flow{
		Kind: kind, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:00.25Z"), UID: "42", Proto: flow.TCP, HasPorts: true,
		Src: ip("10.0.0.5"), Dst: ip("192.0.2.9"), SrcPort: 50000, DstPort: 443, Parts: &parts,
	}
	for _, c := range changes {
		c(&f)
	}
	return f
}

func ports(src, dst uint16) func(*flow.Flow) {
	return func(f *flow.Flow) { f.SrcPort, f.DstPort = src, dst }
}

// replace returns s with pairs of old and new text exchanged, each of which
// must be there.
func replace(s string, pairs ...string) string {
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(s, pairs[i]) {
			panic(fmt.Sprintf("%q is not in %q", pairs[i], s))
		}
		s = strings.ReplaceAll(s, pairs[i], pairs[i+1])
	}
	return s
}

func udp(f *flow.Flow) { f.Proto = flow.UDP }

type success struct {
	name string
	line string
	want flow.Flow
}

// successes has an event of each kind in each layout that the versions of
// Suricata write it in.
func successes() []success {
	dnsTo := func(src, dst uint16) []string {
		return []string{`"src_port":50000`, fmt.Sprintf(`"src_port":%d`, src), `"dest_port":443`, fmt.Sprintf(`"dest_port":%d`, dst), "TCP", "UDP"}
	}
	return []success{
		{
			name: "flow, version 7 with everything",
			line: `{"timestamp":"2024-05-06T13:00:00.000001+0200","flow_id":2251799813685249,"in_iface":"eth0","event_type":"flow",` +
				`"vlan":[10,200],"src_ip":"2001:db8::5","src_port":50000,"dest_ip":"2001:DB8::9","dest_port":443,"ip_v":6,"proto":"TCP",` +
				`"app_proto":"tls","flow":{"pkts_toserver":10,"pkts_toclient":12,"bytes_toserver":1500,"bytes_toclient":9000,` +
				`"start":"2024-05-06T12:00:00.123456+0200","end":"2024-05-06T12:00:02.123457+0200","age":2,"state":"closed","reason":"timeout",` +
				`"alerted":true,"tx_cnt":1},"metadata":{"flowbits":["x"]},"ether":{"dest_macs":["00:11:22:33:44:55","00:11:22:33:44:66"],` +
				`"src_macs":["66:77:88:99:aa:bb"]},"community_id":"1:abc=","tcp":{"tcp_flags":"1b","tcp_flags_ts":"1b","tcp_flags_tc":"1b",` +
				`"syn":true,"fin":true,"psh":true,"ack":true,"state":"closed","ts_max_regions":1,"tc_max_regions":1}}`,
			want: flow.Flow{
				Kind: flow.Conn, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:00.123456Z"), Duration: 2_000_001_000,
				Src: ip("2001:db8::5"), Dst: ip("2001:db8::9"), SrcPort: 50000, DstPort: 443, HasPorts: true, Proto: flow.TCP,
				State: flow.Established, RawState: "closed", UID: "2251799813685249", Service: "ssl", CommunityID: "1:abc=",
				SrcMAC: "66:77:88:99:aa:bb", DstMAC: "00:11:22:33:44:55", VLAN: 10, InnerVLAN: 200,
				OrigPkts: 10, RespPkts: 12, OrigBytes: 1500, RespBytes: 9000, OrigIPBytes: 1500, RespIPBytes: 9000,
			},
		},
		{
			name: "flow, ICMP without ports, ends before it starts",
			line: `{"timestamp":"2024-05-06T10:00:05Z","flow_id":7,"event_type":"flow","src_ip":"10.0.0.5","dest_ip":"192.0.2.9","proto":"ICMP",` +
				`"icmp_type":8,"icmp_code":0,"response_icmp_type":0,"response_icmp_code":0,"flow":{"pkts_toserver":1,"pkts_toclient":1,` +
				`"bytes_toserver":98,"bytes_toclient":98,"start":"2024-05-06T10:00:01Z","end":"2024-05-06T10:00:00Z","state":"established"}}`,
			want: flow.Flow{
				Kind: flow.Conn, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:01Z"), Src: ip("10.0.0.5"), Dst: ip("192.0.2.9"),
				SrcPort: 8, HasPorts: true, Proto: flow.ICMP, State: flow.Established, RawState: "established", UID: "7",
				OrigPkts: 1, RespPkts: 1, OrigBytes: 98, RespBytes: 98, OrigIPBytes: 98, RespIPBytes: 98,
			},
		},
		{
			name: "flow without start, flow_id and ports",
			line: `{"timestamp":"2024-05-06T10:00:05","event_type":"flow","src_ip":"::ffff:10.0.0.5","dest_ip":"224.0.0.1","proto":"IGMP",` +
				`"app_proto":null,"flow":{"pkts_toserver":1,"pkts_toclient":0,"bytes_toserver":60,"bytes_toclient":0,"state":"new"}}`,
			want: flow.Flow{
				Kind: flow.Conn, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:05Z"), Src: ip("10.0.0.5"), Dst: ip("224.0.0.1"),
				Proto: flow.IGMP, State: flow.NotEstablished, RawState: "new", OrigPkts: 1, OrigBytes: 60, OrigIPBytes: 60,
			},
		},
		{
			name: "flow whose protocol was seen in one direction only", // eve-scanned-home.json
			line: head("flow", `"app_proto":"failed","app_proto_tc":"HTTP","flow":{"pkts_toserver":1,"pkts_toclient":0,"state":"new"}`),
			want: base(flow.Conn, flow.Parts{}, func(f *flow.Flow) {
				f.Parts, f.Service, f.OrigPkts, f.State, f.RawState = nil, "http", 1, flow.NotEstablished, "new"
			}),
		},
		{
			name: "netflow, the client's half",
			line: head("netflow", `"app_proto":"http2","netflow":{"pkts":5,"bytes":400,"start":"2024-05-06T12:00:00.000000+0200",`+
				`"end":"2024-05-06T12:00:01.000000+0200","age":1,"min_ttl":64,"max_ttl":64},"tcp":{"tcp_flags":"1b","syn":true}`),
			want: base(flow.Conn, flow.Parts{}, func(f *flow.Flow) {
				f.Parts, f.Service, f.OrigPkts, f.OrigBytes, f.OrigIPBytes = nil, "http", 5, 400, 400
				f.Time, f.Duration, f.State = at("2024-05-06T10:00:00Z"), 1e9, flow.Established
			}),
		},
		{
			name: "netflow, the server's half is turned",
			line: replace(head("netflow", `"netflow":{"pkts":4,"bytes":4000,"start":"2024-05-06T12:00:00.000000+0200"},"tcp":{"tcp_flags":"1a"},`+
				`"ether":{"src_macs":["00:00:00:00:00:0b"],"dest_macs":["00:00:00:00:00:0a"]}`),
				`"src_port":50000`, `"src_port":443`, `"dest_port":443`, `"dest_port":50000`),
			want: base(flow.Conn, flow.Parts{}, func(f *flow.Flow) {
				f.Parts, f.RespPkts, f.RespBytes, f.RespIPBytes = nil, 4, 4000, 4000
				f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, 50000, 443
				f.SrcMAC, f.DstMAC = "00:00:00:00:00:0a", "00:00:00:00:00:0b"
				f.Time, f.State = at("2024-05-06T10:00:00Z"), flow.Established
			}),
		},
		{
			name: "dns 1, query",
			line: replace(head("dns", `"dns":{"type":"query","id":2,"rrname":"www.example.com","rrtype":"A","tx_id":0}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "www.example.com", QType: "A", TransID: 2}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 1, one answer",
			line: replace(head("dns", `"dns":{"type":"answer","id":2,"flags":"8180","qr":true,"rd":true,"ra":true,"rcode":"NOERROR",`+
				`"rrname":"www.example.com","rrtype":"A","ttl":60,"rdata":"198.51.100.1"}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "www.example.com", QType: "A", TransID: 2, RCode: "NOERROR", Response: true, AA: flow.False, TC: flow.False,
				RD: flow.True, RA: flow.True, Answers: []string{"198.51.100.1"}, TTLs: []int64{60},
			}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 1, NXDOMAIN, logged from the server",
			line: replace(head("dns", `"dns":{"type":"answer","id":2,"rcode":"NXDOMAIN","rrname":"x.example"}`),
				`"src_ip":"10.0.0.5"`, `"src_ip":"A"`, `"dest_ip":"192.0.2.9"`, `"dest_ip":"10.0.0.5"`, `"src_ip":"A"`, `"src_ip":"192.0.2.9"`,
				`"src_port":50000`, `"src_port":53`, `"dest_port":443`, `"dest_port":50000`, "TCP", "UDP"),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "x.example", TransID: 2, RCode: "NXDOMAIN", Response: true}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 2, answers of many types",
			line: replace(head("dns", `"dns":{"version":2,"type":"answer","id":65535,"flags":"8580","qr":true,"aa":true,"rd":true,"ra":true,"opcode":0,`+
				`"rrname":"example.com","rrtype":"ANY","rcode":"NOERROR","answers":[{"rrname":"example.com","rrtype":"CNAME","ttl":1,"rdata":"a.example"},`+
				`{"rrname":"a.example","rrtype":"AAAA","ttl":2,"rdata":"2001:db8::1"},{"rrname":"e","rrtype":"TXT","ttl":3,"rdata":"say \"hi\""},`+
				`{"rrname":"e","rrtype":"SOA","ttl":4,"soa":{"mname":"ns.example","rname":"r","serial":1}},`+
				`{"rrname":"e","rrtype":"SRV","ttl":5,"srv":{"priority":1,"weight":1,"port":5060,"name":"sip.example"}},`+
				`{"rrname":"e","rrtype":"SSHFP","ttl":6,"sshfp":{"fingerprint":"aa","algo":1,"type":1}},{"rrname":"e","rrtype":"OPT","ttl":7}],`+
				`"grouped":{"CNAME":["a.example"]}}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "example.com", QType: "ANY", TransID: 65535, RCode: "NOERROR", Response: true,
				AA: flow.True, TC: flow.False, RD: flow.True, RA: flow.True,
				Answers: []string{"a.example", "2001:db8::1", `TXT 8 say "hi"`, "ns.example", "sip.example"}, TTLs: []int64{1, 2, 3, 4, 5},
			}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 2, grouped alone",
			line: replace(head("dns", `"dns":{"version":2,"type":"answer","id":9,"flags":"8180","rrname":"e","rrtype":"A","rcode":"NOERROR",`+
				`"grouped":{"A":["198.51.100.1","198.51.100.2"],"TXT":["v=spf1"],"SOA":[{"mname":"ns.example"}],"SRV":[{"name":"sip.example","port":1}]}}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "e", QType: "A", TransID: 9, RCode: "NOERROR", Response: true, AA: flow.False, TC: flow.False, RD: flow.True, RA: flow.True,
				Answers: []string{"198.51.100.1", "198.51.100.2", "TXT 6 v=spf1", "ns.example", "sip.example"}, TTLs: []int64{0, 0, 0, 0, 0},
			}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 2, NXDOMAIN",
			line: replace(head("dns", `"dns":{"version":2,"type":"answer","id":9,"flags":"8183","qr":true,"rd":true,"ra":true,"opcode":0,"rrname":"nx.example","rrtype":"A","rcode":"NXDOMAIN",`+
				`"authorities":[{"rrname":"example","rrtype":"SOA","ttl":900,"soa":{"mname":"a","rname":"b"}}]}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "nx.example", QType: "A", TransID: 9, RCode: "NXDOMAIN", Response: true,
				AA: flow.False, TC: flow.False, RD: flow.True, RA: flow.True,
			}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 3, request, whose rcode says nothing",
			line: replace(head("dns", `"ip_v":4,"pkt_src":"wire/pcap","dns":{"version":3,"type":"request","tx_id":0,"id":77,"flags":"100","rd":true,"opcode":0,`+
				`"rcode":"NOERROR","queries":[{"rrname":"www.example.com","rrtype":"HTTPS"},{"rrname":"b","rrtype":"A"}]}`), dnsTo(50000, 53)...),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "www.example.com", QType: "HTTPS", TransID: 77, AA: flow.False, TC: flow.False, RD: flow.True, RA: flow.False,
			}}, udp, ports(50000, 53)),
		},
		{
			name: "dns 3, response from the server on another port",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":42,"event_type":"dns","src_ip":"192.0.2.9","src_port":5353,"dest_ip":"10.0.0.5",` +
				`"dest_port":50000,"proto":"UDP","ether":{"src_mac":"0b","dest_mac":"0a"},"dns":{"version":3,"type":"response","tx_id":1,"id":77,"flags":"8180","qr":true,"rd":true,"ra":true,` +
				`"opcode":0,"rcode":"NOERROR","queries":[{"rrname":"a.example","rrtype":"A"}],"answers":[{"rrname":"a.example","rrtype":"A","ttl":30,"rdata":"198.51.100.7"}]}}`,
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{
				Query: "a.example", QType: "A", TransID: 77, RCode: "NOERROR", Response: true, AA: flow.False, TC: flow.False,
				RD: flow.True, RA: flow.True, Answers: []string{"198.51.100.7"}, TTLs: []int64{30},
			}}, udp, ports(50000, 5353), func(f *flow.Flow) { f.SrcMAC, f.DstMAC = "0a", "0b" }),
		},
		{
			name: "dns 3, response over HTTP/2, from the client",
			line: head("dns", `"http":{"version":"2"},"dns":{"version":3,"type":"response","id":1,"rcode":"SERVFAIL","queries":[{"rrname":"a","rrtype":"A"}]}`),
			want: base(flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "a", QType: "A", TransID: 1, RCode: "SERVFAIL", Response: true}}),
		},
		{
			name: "http",
			line: head("http", `"tx_id":2,"http":{"hostname":"www.example.com","http_port":8080,"url":"/a\u00e9?b=\"c\"","http_user_agent":"Mozilla/5.0 (X)","xff":"203.0.113.4",`+
				`"http_content_type":"text/html","http_refer":"http://x/","http_method":"POST","protocol":"HTTP/1.1","status":302,"redirect":"/","length":1234}`),
			want: base(flow.HTTP, flow.Parts{HTTP: &flow.HTTPPart{
				Method: "POST", Host: "www.example.com", URI: `/aé?b="c"`, Version: "1.1", UserAgent: "Mozilla/5.0 (X)", Referrer: "http://x/",
				StatusCode: 302, ResponseLen: 1234, RespMIMETypes: []string{"text/html"}, Proxied: []string{"X-FORWARDED-FOR -> 203.0.113.4"}, TransDepth: 3,
			}}),
		},
		{
			name: "http 2, the host among the headers",
			line: head("http", `"app_proto":"http2","http":{"version":"2","request_headers":[{"name":":method","value":"GET"},{"table_size_update":1},`+
				`{"name":":authority","value":"h2.example"}],"http_method":"GET","url":"/","length":5,"status":200,"http2":{"stream_id":1}}`),
			want: base(flow.HTTP, flow.Parts{HTTP: &flow.HTTPPart{
				Method: "GET", Host: "h2.example", URI: "/", Version: "2", StatusCode: 200, ResponseLen: 5,
			}}, func(f *flow.Flow) { f.Service = "http" }),
		},
		{
			name: "tls 6, ja3 as objects",
			line: head("tls", `"tls":{"subject":"CN=www.example.com","issuerdn":"C=BE, O=Signer, CN=CA","serial":"17:8E","fingerprint":"2D:d1:9f","sni":"www.example.com",`+
				`"version":"TLS 1.2","notbefore":"2020-03-19T09:44:08","notafter":"2022-03-20T09:44:08","ja3":{"hash":"b720","string":"770,51"},"ja3s":{"hash":"ad90","string":"770"}}`),
			want: base(flow.SSL, flow.Parts{SSL: &flow.SSLPart{
				Version: "TLSv12", ServerName: "www.example.com", Subject: "CN=www.example.com", Issuer: "C=BE, O=Signer, CN=CA", Serial: "17:8E",
				CertFPs: []string{"2D:d1:9f"}, SHA1: "2dd19f", NotBefore: at("2020-03-19T09:44:08Z"), NotAfter: at("2022-03-20T09:44:08Z"), JA3: "b720", JA3S: "ad90",
			}}),
		},
		{
			name: "tls 8, ja3 as text, ja4, alpn, client certificate, dates beyond the clock",
			line: head("tls", `"tls":{"sni":"e","version":"TLS 1.3","session_resumed":true,"notbefore":"1949-01-01T00:00:00","notafter":"9999-12-31T23:59:59",`+
				`"ja3":"b720","ja3s":"ad90","ja4":"t13d1516h2_8daaf6152771_e5627efa2ab1","server_alpns":["h2"],"client_alpns":["h2","http/1.1"],`+
				`"subjectaltname":["e"],"client":{"subject":"CN=me","issuerdn":"CN=us","fingerprint":"aa:bb"}}`),
			want: base(flow.SSL, flow.Parts{SSL: &flow.SSLPart{
				Version: "TLSv13", ServerName: "e", Resumed: flow.True, NotBefore: 1, NotAfter: flow.MaxTime, JA3: "b720", JA3S: "ad90",
				JA4: "t13d1516h2_8daaf6152771_e5627efa2ab1", NextProtocol: "h2", ClientSubject: "CN=me", ClientIssuer: "CN=us", ClientCertFPs: []string{"aa:bb"},
			}}),
		},
		{
			name: "tls that fell apart",
			line: head("tls", `"tls":{"version":"UNDETERMINED","notbefore":"ts-error","subject":""}`),
			want: base(flow.SSL, flow.Parts{SSL: &flow.SSLPart{}}),
		},
		{
			name: "quic, the server's packet",
			line: replace(head("quic", `"quic":{"version":"1","sni":"q.example","ua":"x","ja3":{"hash":"aa","string":"s"},"ja4":"q13","cyu":[{"hash":"h","string":"s"}]}`),
				`"src_port":50000`, `"src_port":X`, `"dest_port":443`, `"dest_port":50000`, `"src_port":X`, `"src_port":443`, "TCP", "UDP"),
			want: base(flow.QUIC, flow.Parts{SSL: &flow.SSLPart{Version: "1", ServerName: "q.example", JA3: "aa", JA4: "q13"}}, udp,
				func(f *flow.Flow) { f.Src, f.Dst = f.Dst, f.Src }),
		},
		{
			name: "alert with everything",
			line: head("alert", `"pcap_cnt":3,"tx_id":0,"alert":{"action":"blocked","gid":1,"signature_id":2017318,"rev":4,"signature":"ET X \u0022y\u0022","category":"Misc","severity":1,`+
				`"source":{"ip":"192.0.2.9","port":443},"target":{"ip":"10.0.0.5","port":50000},"metadata":{"created_at":["2013_10_08"],`+
				`"mitre_tactic_id":["TA0011"],"mitre_tactic_name":["Command_And_Control"],"mitre_technique_id":["T1071","T1072"]}},"app_proto":"http","direction":"to_client",`+
				`"flow":{"pkts_toserver":1,"pkts_toclient":0,"bytes_toserver":60,"bytes_toclient":0,"start":"2024-05-06T11:00:00.000000+0200","src_ip":"192.0.2.9","dest_ip":"10.0.0.5","src_port":443,"dest_port":50000},`+
				`"payload":"AAAA","stream":1`),
			want: base(flow.Alert, flow.Parts{Alert: &flow.AlertPart{
				Action: "blocked", Signature: `ET X "y"`, Category: "Misc", GID: 1, SID: 2017318, Rev: 4, Severity: 1,
				MITRETactic: "TA0011", MITRETechnique: "T1071", SrcIsTarget: true,
			}}, func(f *flow.Flow) { f.Service = "http" }),
		},
		{
			name: "alert on a frame without addresses",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","event_type":"alert","ether":{"src_mac":"00:00:00:00:00:01","dest_mac":"ff:ff:ff:ff:ff:ff"},` +
				`"alert":{"action":"allowed","gid":1,"signature_id":2200003,"rev":2,"signature":"SURICATA truncated packet","category":"","severity":3}}`,
			want: flow.Flow{
				Kind: flow.Alert, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:00.25Z"), SrcMAC: "00:00:00:00:00:01", DstMAC: "ff:ff:ff:ff:ff:ff",
				Parts: &flow.Parts{Alert: &flow.AlertPart{Action: "allowed", GID: 1, SID: 2200003, Rev: 2, Signature: "SURICATA truncated packet", Severity: 3}},
			},
		},
		{
			name: "fileinfo",
			line: head("fileinfo", `"app_proto":"http","http":{"hostname":"h","url":"/a.exe","http_content_type":"application/x-msdownload","http_method":"GET","status":200},`+
				`"fileinfo":{"filename":"/a.exe","sid":[1],"gaps":false,"state":"CLOSED","md5":"aa","sha1":"bb","sha256":"cc","magic":"PE32","stored":true,"file_id":3,"size":4096,"tx_id":0}`),
			want: base(flow.Files, flow.Parts{Files: &flow.FilesPart{
				FUID: "3", Source: "HTTP", MIMEType: "application/x-msdownload", Filename: "/a.exe", MD5: "aa", SHA1: "bb", SHA256: "cc",
				ConnUIDs: []string{"42"}, SeenBytes: 4096, TotalBytes: 4096,
			}}, func(f *flow.Flow) { f.Service = "http" }),
		},
		{
			name: "fileinfo, an upload cut short", // eve-scanned-home.json
			line: head("fileinfo", `"http":{"http_content_type":"text/html","http_method":"POST"},"app_proto":"http","fileinfo":{"filename":"/HNAP1/","state":"TRUNCATED","size":535}`),
			want: base(flow.Files, flow.Parts{Files: &flow.FilesPart{
				Source: "HTTP", Filename: "/HNAP1/", ConnUIDs: []string{"42"}, SeenBytes: 535,
			}}, func(f *flow.Flow) { f.Service = "http" }),
		},
		{
			name: "anomaly of a protocol",
			line: head("anomaly", `"anomaly":{"app_proto":"http","type":"applayer","event":"INVALID_RECORD_TYPE","layer":"proto_parser"}`),
			want: base(flow.Weird, flow.Parts{Weird: &flow.WeirdPart{Name: "INVALID_RECORD_TYPE", Addl: "applayer proto_parser", Source: "http"}}),
		},
		{
			name: "anomaly without name",
			line: head("anomaly", `"anomaly":{"type":"unknown","code":255}`),
			want: base(flow.Weird, flow.Parts{Weird: &flow.WeirdPart{Name: "code 255", Addl: "unknown"}}),
		},
		{
			name: "ssh, hassh as objects",
			line: head("ssh", `"ssh":{"client":{"proto_version":"2.0","software_version":"PuTTY_0.7","hassh":{"hash":"c1","string":"a,b"}},`+
				`"server":{"proto_version":"1.99","software_version":"OpenSSH_8.9p1 Ubuntu-3","hassh":{"hash":"s1","string":"a"}}}`),
			want: base(flow.SSH, flow.Parts{SSH: &flow.SSHPart{
				Version: 2, AuthAttempts: -1, Client: "SSH-2.0-PuTTY_0.7", Server: "SSH-1.99-OpenSSH_8.9p1 Ubuntu-3", HASSH: "c1", HASSHServer: "s1",
			}}),
		},
		{
			name: "ssh, hassh as text, no server",
			line: head("ssh", `"ssh":{"client":{"proto_version":"2.0","software_version":"x","hassh":"c1"}}`),
			want: base(flow.SSH, flow.Parts{SSH: &flow.SSHPart{Version: 2, AuthAttempts: -1, Client: "SSH-2.0-x", HASSH: "c1"}}),
		},
		{
			name: "smtp with email",
			line: head("smtp", `"tx_id":0,"smtp":{"helo":"mail","mail_from":"<a@x>","rcpt_to":["<b@y>","<c@y>"]},`+
				`"email":{"status":"PARSE_DONE","from":"A <a@x>","to":["B <b@y>"],"subject":"hi","message_id":"<1@x>","x_mailer":"Bat","received":["by z"],"attachment":["a.zip"],"url":["x"]}`),
			want: base(flow.SMTP, flow.Parts{SMTP: &flow.SMTPPart{
				Helo: "mail", MailFrom: "<a@x>", RcptTo: []string{"<b@y>", "<c@y>"}, From: "A <a@x>", To: []string{"B <b@y>"}, Subject: "hi",
				MsgID: "<1@x>", UserAgent: "Bat", Path: []string{"by z"}, TransDepth: 1,
			}}),
		},
		{
			name: "ftp, a command with a reply of two lines",
			line: head("ftp", `"ftp":{"command":"user","command_data":"anna","command_truncated":false,"completion_code":["220","331"],"reply":["hello","password please"],"reply_received":"yes"}`),
			want: base(flow.FTP, flow.Parts{FTP: &flow.FTPPart{User: "anna", Command: "USER", Arg: "anna", ReplyCode: 331, ReplyMsg: "password please"}}),
		},
		{
			name: "ftp, the password is not kept",
			line: head("ftp", `"ftp":{"command":"PASS","command_data":"secret","completion_code":["530"]}`),
			want: base(flow.FTP, flow.Parts{FTP: &flow.FTPPart{Command: "PASS", HasPassword: true, ReplyCode: 530}}),
		},
		{
			name: "ftp, active mode",
			line: head("ftp", `"ftp":{"command":"PORT","command_data":"10,0,0,5,4,1","dynamic_port":1025,"mode":"active"}`),
			want: base(flow.FTP, flow.Parts{FTP: &flow.FTPPart{Command: "PORT", Arg: "10,0,0,5,4,1", DataPort: 1025, DataPassive: flow.False}}),
		},
		{
			name: "ftp_data",
			line: head("ftp_data", `"ftp_data":{"filename":"a.bin","command":"RETR"}`),
			want: base(flow.FTP, flow.Parts{FTP: &flow.FTPPart{Command: "RETR", Arg: "a.bin"}}),
		},
		{
			name: "dhcp, a request of a host without address",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":42,"event_type":"dhcp","src_ip":"0.0.0.0","src_port":68,"dest_ip":"255.255.255.255","dest_port":67,"proto":"UDP",` +
				`"dhcp":{"type":"request","id":1,"client_mac":"00:0a:00:00:00:01","assigned_ip":"0.0.0.0","client_ip":"0.0.0.0","dhcp_type":"request","requested_ip":"10.0.0.7","hostname":"pc","vendor_class_identifier":"MSFT 5.0","params":["router"]}}`,
			want: base(flow.DHCP, flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:0a:00:00:00:01", HostName: "pc", Requested: ip("10.0.0.7"), MsgTypes: []string{"REQUEST"}, UIDs: []string{"42"}, VendorClass: "MSFT 5.0",
			}}, udp, ports(68, 67), func(f *flow.Flow) { f.Src, f.Dst = ip("10.0.0.7"), ip("255.255.255.255") }),
		},
		{
			name: "dhcp, the server's reply",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":42,"event_type":"dhcp","src_ip":"10.0.0.1","src_port":67,"dest_ip":"255.255.255.255","dest_port":68,"proto":"UDP",` +
				`"dhcp":{"type":"reply","id":1,"client_mac":"00:0a:00:00:00:01","assigned_ip":"10.0.0.7","client_ip":"0.0.0.0","relay_ip":"0.0.0.0","dhcp_type":"ack","lease_time":3600,"subnet_mask":"255.255.255.0","routers":["10.0.0.1"],"dns_servers":["10.0.0.2"]}}`,
			want: base(flow.DHCP, flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:0a:00:00:00:01", Server: ip("10.0.0.1"), Assigned: ip("10.0.0.7"), Router: ip("10.0.0.1"), LeaseTime: 3600e9,
				MsgTypes: []string{"ACK"}, UIDs: []string{"42"},
			}}, udp, ports(68, 67), func(f *flow.Flow) { f.Src, f.Dst = ip("10.0.0.7"), ip("10.0.0.1") }),
		},
		{
			name: "dhcp, renewal, with an option that is no address",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","flow_id":42,"event_type":"dhcp","src_ip":"10.0.0.7","src_port":68,"dest_ip":"10.0.0.1","dest_port":67,"proto":"UDP",` +
				`"dhcp":{"type":"request","id":1,"client_mac":"00:0a:00:00:00:01","client_ip":"10.0.0.7","dhcp_type":"request","requested_ip":"0a00"}}`,
			want: base(flow.DHCP, flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:0a:00:00:00:01", Client: ip("10.0.0.7"), Server: ip("10.0.0.1"), MsgTypes: []string{"REQUEST"}, UIDs: []string{"42"},
			}}, udp, ports(68, 67), func(f *flow.Flow) { f.Src, f.Dst = ip("10.0.0.7"), ip("10.0.0.1") }),
		},
		{
			name: "arp, version 8",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","event_type":"arp","pkt_src":"wire/pcap","arp":{"hw_type":"ethernet","proto_type":"ipv4","opcode":"request",` +
				`"src_mac":"00:0a:00:00:00:01","src_ip":"10.0.0.5","dest_mac":"00:00:00:00:00:00","dest_ip":"10.0.0.9"}}`,
			want: flow.Flow{
				Kind: flow.ARP, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:00.25Z"), Src: ip("10.0.0.5"), Dst: ip("10.0.0.9"), Proto: flow.ProtoARP,
				SrcMAC: "00:0a:00:00:00:01", Parts: &flow.Parts{ARP: &flow.ARPPart{Operation: "request", SenderHW: "00:0a:00:00:00:01", TargetHW: "00:00:00:00:00:00"}},
			},
		},
		{
			name: "arp with Ethernet addresses that differ",
			line: `{"timestamp":"2024-05-06T12:00:00.250000+0200","event_type":"arp","ether":{"ether_type":2054,"src_mac":"00:0b:00:00:00:02","dest_mac":"ff:ff:ff:ff:ff:ff"},"arp":{"opcode":"reply",` +
				`"src_mac":"00:0a:00:00:00:01","src_ip":"10.0.0.5","dest_mac":"00:0a:00:00:00:03","dest_ip":"10.0.0.5"}}`,
			want: flow.Flow{
				Kind: flow.ARP, Sensor: flow.Suricata, Time: at("2024-05-06T10:00:00.25Z"), Src: ip("10.0.0.5"), Dst: ip("10.0.0.5"), Proto: flow.ProtoARP,
				SrcMAC: "00:0b:00:00:00:02", DstMAC: "ff:ff:ff:ff:ff:ff",
				Parts: &flow.Parts{ARP: &flow.ARPPart{Operation: "reply", SenderHW: "00:0a:00:00:00:01", TargetHW: "00:0a:00:00:00:03"}},
			},
		},
		{
			name: "smb, a file is created",
			line: head("smb", `"smb":{"id":5,"dialect":"3.11","command":"SMB2_COMMAND_CREATE","status":"STATUS_SUCCESS","status_code":"0x0","session_id":1,"tree_id":5,`+
				`"filename":"a\\b.exe","disposition":"FILE_CREATE","access":"normal","size":77,"fuid":"x","share":"\\\\srv\\c$","share_type":"FILE"}`),
			want: base(flow.SMB, flow.Parts{SMB: &flow.SMBPart{
				Log: "smb_cmd", Command: "SMB2_COMMAND_CREATE", Status: "STATUS_SUCCESS", Dialect: "3.11", Action: "FILE_CREATE",
				Path: `\\srv\c$`, ShareType: "FILE", Name: `a\b.exe`, Size: 77,
			}}),
		},
		{
			name: "smb, log-in, pipe and rename",
			line: head("smb", `"smb":{"command":"SMB2_COMMAND_SESSION_SETUP","status_code":"0xc000006d","ntlmssp":{"domain":"D","user":"u","host":"h"},`+
				`"named_pipe":"\\\\srv\\IPC$","rename":{"from":"a","to":"b"},"service":{"request":"IPC"}}`),
			want: base(flow.SMB, flow.Parts{SMB: &flow.SMBPart{
				Log: "smb_cmd", Command: "SMB2_COMMAND_SESSION_SETUP", Status: "0xc000006d", NTLMUser: "u", NTLMHost: "h", NTLMDomain: "D",
				Path: `\\srv\IPC$`, ShareType: "PIPE", PrevName: "a", Name: "b", Service: "IPC",
			}}),
		},
		{
			name: "dcerpc",
			line: head("dcerpc", `"app_proto":"dcerpc","dcerpc":{"request":"REQUEST","req":{"opnum":16,"frag_cnt":1},"interfaces":[{"uuid":"4d9f","service":"samr","procedure":"SamrQuery"}],"call_id":1}`),
			want: base(flow.DCERPC, flow.Parts{DCERPC: &flow.DCERPCPart{Endpoint: "samr", Operation: "SamrQuery"}}, func(f *flow.Flow) { f.Service = "dce_rpc" }),
		},
		{
			name: "dcerpc of an unknown interface",
			line: head("dcerpc", `"dcerpc":{"request":"REQUEST","req":{"opnum":16},"interfaces":[{"uuid":"4d9f"}]}`),
			want: base(flow.DCERPC, flow.Parts{DCERPC: &flow.DCERPCPart{Endpoint: "4d9f", Operation: "16"}}),
		},
		{
			name: "rdp, the client",
			line: replace(head("rdp", `"rdp":{"tx_id":2,"event_type":"connect_request","cookie":"admin","client":{"version":"RDP 5","keyboard_layout":"en-US","build":"Windows 10","client_name":"PC","channels":["rdpdr"]}}`),
				`"dest_port":443`, `"dest_port":3389`),
			want: base(flow.RDP, flow.Parts{RDP: &flow.RDPPart{Cookie: "admin", KeyboardLayout: "en-US", ClientBuild: "Windows 10", ClientName: "PC"}}, ports(50000, 3389)),
		},
		{
			name: "rdp, the server refuses",
			line: replace(head("rdp", `"rdp":{"tx_id":1,"event_type":"initial_response","error_code":5,"reason":"hybrid required by server"}`),
				`"src_port":50000`, `"src_port":3389`, `"dest_port":443`, `"dest_port":50000`),
			want: base(flow.RDP, flow.Parts{RDP: &flow.RDPPart{Result: "hybrid required by server"}}, ports(50000, 3389),
				func(f *flow.Flow) { f.Src, f.Dst = f.Dst, f.Src }),
		},
		{
			name: "rdp, the server's certificate",
			line: replace(head("rdp", `"rdp":{"tx_id":3,"event_type":"tls_handshake","x509_serials":["16ed"]}`), `"dest_port":443`, `"dest_port":3389`),
			want: base(flow.RDP, flow.Parts{RDP: &flow.RDPPart{Result: "encrypted", CertType: "X.509", CertCount: 1}}, ports(50000, 3389)),
		},
		{
			name: "krb5, the server's reply",
			line: replace(head("krb5", `"app_proto":"krb5","krb5":{"msg_type":"KRB_TGS_REP","cname":"robin","realm":"X.LAB","sname":"ldap/dc01","encryption":"aes256-cts-hmac-sha1-96","weak_encryption":false}`),
				`"src_port":50000`, `"src_port":88`, `"dest_port":443`, `"dest_port":50000`),
			want: base(flow.Kerberos, flow.Parts{Kerberos: &flow.KerberosPart{
				RequestType: "TGS", Client: "robin/X.LAB", Service: "ldap/dc01", Cipher: "aes256-cts-hmac-sha1-96", Success: flow.True,
			}}, ports(50000, 88), func(f *flow.Flow) { f.Src, f.Dst, f.Service = f.Dst, f.Src, "krb" }),
		},
		{
			name: "krb5, an error",
			line: replace(head("krb5", `"krb5":{"msg_type":"KRB_ERROR","failed_request":"KRB_AS_REQ","error_code":"KDC_ERR_PREAUTH_REQUIRED","cname":"<empty>","realm":"X.LAB","sname":"krbtgt/X.LAB","encryption":"<none>"}`),
				`"dest_port":443`, `"dest_port":88`),
			want: base(flow.Kerberos, flow.Parts{Kerberos: &flow.KerberosPart{
				RequestType: "AS", Service: "krbtgt/X.LAB", ErrorMsg: "KDC_ERR_PREAUTH_REQUIRED", Success: flow.False,
			}}, ports(50000, 88)),
		},
		{
			name: "sip",
			line: head("sip", `"sip":{"method":"REGISTER","uri":"sip:x","version":"SIP/2.0","code":"401","reason":"Unauthorized"}`),
			want: base(flow.SIP, flow.Parts{SIP: &flow.SIPPart{Method: "REGISTER", URI: "sip:x", Status: "Unauthorized", StatusCode: 401}}),
		},
		{
			name: "snmp",
			line: head("snmp", `"snmp":{"version":2,"pdu_type":"get_bulk_request","community":"public","vars":["1.3"]}`),
			want: base(flow.SNMP, flow.Parts{SNMP: &flow.SNMPPart{Version: "2", Community: "public", GetBulk: 1}}),
		},
		{
			name: "ntp",
			line: head("ntp", `"ntp":{"version":4,"mode":3,"stratum":2,"reference_id":"7f:00:00:01"}`),
			want: base(flow.NTP, flow.Parts{NTP: &flow.NTPPart{Version: 4, Mode: 3, Stratum: 2, RefID: "7f:00:00:01"}}),
		},
	}
}

func TestDecode(t *testing.T) {
	shared := New() // has seen all that went before; its records must not show it
	var dirty flow.Flow
	for _, tt := range successes() {
		t.Run(tt.name, func(t *testing.T) {
			var clean flow.Flow
			if err := New().Decode(&clean, []byte(tt.line)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, clean, same); diff != "" {
				t.Errorf("wrong record (-want +got):\n%s", diff)
			}
			line := []byte("  " + tt.line + "\r\n")
			if err := shared.Decode(&dirty, line); err != nil {
				t.Fatal(err)
			}
			clear(line)
			if err := shared.Decode(new(flow.Flow), []byte(head("anomaly", `"anomaly":{"event":"`+strings.Repeat("x", 900)+`"}`))); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(visible(tt.want), visible(dirty), same); diff != "" {
				t.Errorf("a reused record differs or did not outlive the decoder's next (-want +got):\n%s", diff)
			}
		})
	}
}

// visible returns f with the one part that may be read.
func visible(f flow.Flow) flow.Flow {
	p := flow.Parts{}
	if f.Parts != nil {
		switch f.Kind {
		case flow.DNS:
			p.DNS = f.DNS
		case flow.HTTP:
			p.HTTP = f.HTTP
		case flow.SSL, flow.QUIC:
			p.SSL = f.SSL
		case flow.Alert:
			p.Alert = f.Alert
		case flow.Files:
			p.Files = f.Files
		case flow.Weird:
			p.Weird = f.Weird
		case flow.SSH:
			p.SSH = f.SSH
		case flow.SMTP:
			p.SMTP = f.SMTP
		case flow.FTP:
			p.FTP = f.FTP
		case flow.DHCP:
			p.DHCP = f.DHCP
		case flow.ARP:
			p.ARP = f.ARP
		case flow.SMB:
			p.SMB = f.SMB
		case flow.DCERPC:
			p.DCERPC = f.DCERPC
		case flow.RDP:
			p.RDP = f.RDP
		case flow.Kerberos:
			p.Kerberos = f.Kerberos
		case flow.SIP:
			p.SIP = f.SIP
		case flow.SNMP:
			p.SNMP = f.SNMP
		case flow.NTP:
			p.NTP = f.NTP
		}
	}
	f.Parts = &p
	return f
}

func TestDecodeFailure(t *testing.T) {
	ok := head("flow", `"flow":{"pkts_toserver":1,"pkts_toclient":1,"start":"2024-05-06T12:00:00.000000+0200"}`)
	dns := head("dns", `"dns":{"type":"query","rrname":"x"}`)
	tests := []struct {
		name  string
		line  string
		want  error
		field string
		value string
	}{
		{name: "empty", line: "", want: flow.ErrHeader},
		{name: "blank", line: " \t\r\n", want: flow.ErrHeader},
		{name: "stats", line: `{"timestamp":"2024-05-06T12:00:00Z","event_type":"stats","stats":{"uptime":8}}`, want: flow.ErrIgnored},
		{name: "drop", line: head("drop", `"drop":{"len":60}`), want: flow.ErrIgnored},
		{name: "frame", line: head("frame", `"frame":{"type":"hdr"}`), want: flow.ErrIgnored},
		{name: "engine", line: `{"timestamp":"x","event_type":"engine","engine":{}}`, want: flow.ErrIgnored},
		{name: "a kind of a later version", line: head("brandnew", `"brandnew":{}`), want: flow.ErrIgnored},
		{name: "garbage", line: "not json", want: flow.ErrJSON, value: "not json"},
		{name: "NUL bytes", line: strings.Repeat("\x00", 100), want: flow.ErrJSON, value: strings.Repeat("\x00", 64)},
		{name: "cut", line: ok[:len(ok)-10], want: flow.ErrJSON, value: ok[:64]},
		{name: "two in one line", line: ok + ok, want: flow.ErrJSON, value: ok[:64]},
		{name: "array", line: `[1]`, want: flow.ErrNotRecord, value: "[1]"},
		{name: "number", line: `17`, want: flow.ErrNotRecord, value: "17"},
		{name: "no event_type", line: `{"timestamp":"2024-05-06T12:00:00Z"}`, want: flow.ErrNotRecord, field: "event_type"},
		{name: "event_type a number", line: `{"event_type":1}`, want: flow.ErrNotRecord, field: "event_type"},
		{name: "no object of its kind", line: head("dns", `"http":{}`), want: flow.ErrMissing, field: "dns"},
		{name: "object of its kind is text", line: head("dns", `"dns":"x"`), want: flow.ErrMissing, field: "dns"},
		{name: "no timestamp", line: `{"event_type":"dns","dns":{}}`, want: flow.ErrMissing, field: "timestamp"},
		{name: "timestamp null", line: `{"timestamp":null,"event_type":"dns","dns":{}}`, want: flow.ErrMissing, field: "timestamp"},
		{name: "timestamp a number", line: `{"timestamp":17,"event_type":"dns","dns":{}}`, want: flow.ErrTime, field: "timestamp", value: "17"},
		{name: "timestamp garbage", line: replace(dns, "2024-05-06T12", "2024-05-06X12"), want: flow.ErrTime, field: "timestamp", value: `"2024-05-06X12:00:00.250000+0200"`},
		{name: "before 1970", line: replace(dns, "2024-05-06T12", "1969-05-06T12"), want: flow.ErrTime, field: "timestamp", value: `"1969-05-06T12:00:00.250000+0200"`},
		{name: "after 2100", line: replace(dns, "2024-05-06T12", "2101-05-06T12"), want: flow.ErrTime, field: "timestamp", value: `"2101-05-06T12:00:00.250000+0200"`},
		{name: "year 9999", line: replace(dns, "2024-05-06T12", "9999-05-06T12"), want: flow.ErrTime, field: "timestamp", value: `"9999-05-06T12:00:00.250000+0200"`},
		{name: "start wrong", line: replace(ok, `"start":"2024`, `"start":"0024`), want: flow.ErrTime, field: "start", value: `"0024-05-06T12:00:00.000000+0200"`},
		{name: "end wrong", line: replace(ok, `"start"`, `"end":"ts-error","start"`), want: flow.ErrTime, field: "end", value: `"ts-error"`},
		{name: "address", line: replace(dns, "10.0.0.5", "10.0.0.256"), want: flow.ErrAddress, field: "src_ip", value: `"10.0.0.256"`},
		{name: "address with zone", line: replace(dns, "192.0.2.9", "fe80::1%eth0"), want: flow.ErrAddress, field: "dest_ip", value: `"fe80::1%eth0"`},
		{name: "address a number", line: replace(dns, `"10.0.0.5"`, `1`), want: flow.ErrAddress, field: "src_ip", value: "1"},
		{name: "flow without source", line: replace(ok, `"src_ip"`, `"x"`), want: flow.ErrMissing, field: "src_ip"},
		{name: "flow without destination", line: replace(ok, `"dest_ip"`, `"x"`), want: flow.ErrMissing, field: "dest_ip"},
		{name: "port too large", line: replace(dns, "50000", "65536"), want: flow.ErrPort, field: "src_port", value: "65536"},
		{name: "port negative", line: replace(dns, ":443", ":-1"), want: flow.ErrPort, field: "dest_port", value: "-1"},
		{name: "port text", line: replace(dns, ":443", `:"443"`), want: flow.ErrPort, field: "dest_port", value: `"443"`},
		{name: "port a fraction", line: replace(dns, ":443", `:1.5`), want: flow.ErrPort, field: "dest_port", value: "1.5"},
		{name: "count negative", line: replace(ok, `"pkts_toserver":1`, `"pkts_toserver":-1`), want: flow.ErrNumber, field: "pkts", value: "-1"},
		{name: "count huge", line: replace(ok, `"pkts_toclient":1`, `"pkts_toclient":9223372036854775808`), want: flow.ErrNumber, field: "pkts_toclient", value: "9223372036854775808"},
		{name: "count an object", line: replace(ok, `"pkts_toclient":1`, `"pkts_toclient":{"a":[1,"b"]}`), want: flow.ErrNumber, field: "pkts_toclient", value: `{"a":[1,"b"]}`},
		{name: "nested too deep", line: head("dns", `"dns":`+strings.Repeat("[", 64)+strings.Repeat("]", 64)), want: flow.ErrTooDeep, value: head("dns", "")[:64]},
		{name: "nested far too deep", line: strings.Repeat(`{"a":`, 100_000), want: flow.ErrTooDeep, value: strings.Repeat(`{"a":`, 13)[:64]},
		{name: "long garbage", line: `{"event_type":"dns","a":[[[[t` + strings.Repeat("x", 200_000), want: flow.ErrJSON, value: `{"event_type":"dns","a":[[[[t` + strings.Repeat("x", 35)},
	}
	d := New()
	var f flow.Flow
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // a failure must not change what comes next
				err := d.Decode(&f, []byte(tt.line))
				if !errors.Is(err, tt.want) {
					t.Fatalf("error %v, want %v", err, tt.want)
				}
				var se *flow.SyntaxError
				if !errors.As(err, &se) {
					if tt.want != flow.ErrHeader && tt.want != flow.ErrIgnored {
						t.Fatalf("%T is no *flow.SyntaxError", err)
					}
					continue
				}
				if se.Field != tt.field || se.Value != tt.value || se.Source != "" || se.Line != 0 {
					t.Fatalf("got field %q, value %q; want %q, %q", se.Field, se.Value, tt.field, tt.value)
				}
			}
			if err := d.Decode(&f, []byte(ok)); err != nil || f.OrigPkts != 1 || f.UID != "42" {
				t.Fatalf("the record behind it: %v, %+v", err, f)
			}
		})
	}
}

// TestDecodeBrackets checks that brackets inside strings, escaped quotes
// included, and side by side do not count as nesting.
func TestDecodeBrackets(t *testing.T) {
	for _, text := range []string{strings.Repeat("{[", 100), strings.Repeat(`\"[`, 100), `\\`, strings.Repeat(`\\\"{`, 100)} {
		line := head("http", `"http":{"url":"`+text+`"},"x":[`+strings.Repeat("[],", 100)+`[]]`)
		if err := New().Decode(new(flow.Flow), []byte(line)); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// TestDecodeBigLine checks that a long line is decoded whole and that its
// memory is let go.
func TestDecodeBigLine(t *testing.T) {
	d := New()
	var f flow.Flow
	url := strings.Repeat("a", 300<<10)
	if err := d.Decode(&f, []byte(head("http", `"http":{"url":"/`+url+`"}`))); err != nil {
		t.Fatal(err)
	}
	if f.HTTP.URI != "/"+url {
		t.Errorf("URI has %d bytes, want %d", len(f.HTTP.URI), len(url)+1)
	}
	if cap(d.buf) != 0 {
		t.Errorf("the decoder keeps %d bytes", cap(d.buf))
	}
	if err := d.Decode(&f, []byte(head("anomaly", `"anomaly":{"event":"x"}`))); err != nil || f.Weird.Name != "x" {
		t.Errorf("the record behind it: %v, %+v", err, f.Weird)
	}
}

func TestIsHeader(t *testing.T) {
	for _, line := range []string{"", "#fields", head("dns", `"dns":{}`)} {
		if New().IsHeader([]byte(line)) {
			t.Errorf("%q is taken for a header", line)
		}
	}
}

func TestFlowState(t *testing.T) {
	tests := []struct {
		name               string
		proto, state, tcp  string
		pktsTo, pktsBack   int
		bytesTo, bytesBack int
		want               flow.State
	}{
		// Those marked * occur in eve-scanned-home.json.
		{"refused *", "TCP", "closed", `{"tcp_flags":"16","tcp_flags_ts":"02","tcp_flags_tc":"14","state":"closed"}`, 2, 2, 120, 120, flow.NotEstablished},
		{"refused again and again *", "TCP", "closed", `{"tcp_flags_ts":"02","tcp_flags_tc":"14","state":"closed"}`, 9, 9, 540, 540, flow.NotEstablished},
		{"refused with ECN *", "TCP", "closed", `{"tcp_flags_ts":"c2","tcp_flags_tc":"14","state":"closed"}`, 2, 2, 148, 120, flow.NotEstablished},
		{"half-open scan *", "TCP", "closed", `{"tcp_flags_ts":"06","tcp_flags_tc":"12","state":"closed"}`, 4, 2, 240, 120, flow.NotEstablished},
		{"connect scan *", "TCP", "closed", `{"tcp_flags_ts":"16","tcp_flags_tc":"12","state":"closed"}`, 6, 2, 396, 148, flow.Established},
		{"opened and closed *", "TCP", "closed", `{"tcp_flags_ts":"13","tcp_flags_tc":"13","state":"closed"}`, 6, 4, 396, 264, flow.Established},
		{"reset in the midst *", "TCP", "closed", `{"tcp_flags_ts":"1f","tcp_flags_tc":"16","state":"closed"}`, 6, 4, 900, 264, flow.Established},
		{"waiting *", "TCP", "established", `{"tcp_flags_ts":"13","tcp_flags_tc":"12","state":"close_wait"}`, 6, 4, 396, 264, flow.Established},
		{"SYN-ACK without ACK *", "TCP", "new", `{"tcp_flags_ts":"02","tcp_flags_tc":"12","state":"syn_recv"}`, 2, 8, 120, 480, flow.NotEstablished},
		{"no session *", "TCP", "new", `{"tcp_flags":"00","tcp_flags_ts":"00","tcp_flags_tc":"00"}`, 2, 2, 120, 120, flow.NotEstablished},
		{"TCP without an answer", "TCP", "new", `{"tcp_flags_ts":"02","tcp_flags_tc":"00","state":"syn_sent"}`, 1, 0, 60, 0, flow.NotEstablished},
		{"only the server", "TCP", "established", ``, 0, 5, 0, 500, flow.NotEstablished},
		{"running", "TCP", "established", `{"tcp_flags_ts":"1a","tcp_flags_tc":"1a","state":"established"}`, 5, 5, 500, 500, flow.Established},
		{"picked up midway", "TCP", "closed", `{"tcp_flags_ts":"18","tcp_flags_tc":"10"}`, 5, 5, 500, 300, flow.Established},
		{"ACK scan", "TCP", "closed", `{"tcp_flags_ts":"10","tcp_flags_tc":"04"}`, 1, 1, 60, 60, flow.NotEstablished},
		{"ACK refused with RST and ACK", "TCP", "closed", `{"tcp_flags_ts":"10","tcp_flags_tc":"14"}`, 1, 1, 60, 60, flow.NotEstablished},
		{"FIN scan", "TCP", "closed", `{"tcp_flags_ts":"01","tcp_flags_tc":"14"}`, 1, 1, 60, 60, flow.NotEstablished},
		{"flags unreadable, closed with data", "TCP", "closed", `{"tcp_flags_ts":"zz","tcp_flags_tc":"123"}`, 5, 5, 500, 5000, flow.Established},
		{"no flags, closed without data", "TCP", "closed", ``, 2, 2, 148, 120, flow.NotEstablished},
		{"no flags, established", "TCP", "established", ``, 5, 5, 300, 300, flow.Established},
		{"bypassed", "TCP", "bypassed", ``, 5, 5, 300, 300, flow.Established},
		{"UDP without an answer *", "UDP", "new", ``, 12, 0, 4056, 0, flow.NotEstablished},
		{"UDP answered *", "UDP", "established", ``, 2, 2, 160, 220, flow.Established},
		{"UDP answered once, still new", "UDP", "new", ``, 1, 1, 80, 120, flow.Established},
		{"echo answered", "ICMP", "established", ``, 1, 1, 98, 98, flow.Established},
		{"echo not answered", "IPv6-ICMP", "new", ``, 3, 0, 294, 0, flow.NotEstablished},
		{"nothing counted, established", "TCP", "established", ``, 0, 0, 0, 0, flow.Established},
		{"nothing counted, closed", "TCP", "closed", ``, 0, 0, 0, 0, flow.NotEstablished},
	}
	d := New()
	var f flow.Flow
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line := head("flow", fmt.Sprintf(`"flow":{"pkts_toserver":%d,"pkts_toclient":%d,"bytes_toserver":%d,"bytes_toclient":%d,"state":%q}`,
				tt.pktsTo, tt.pktsBack, tt.bytesTo, tt.bytesBack, tt.state))
			line = replace(line, "TCP", tt.proto)
			if tt.tcp != "" {
				line = line[:len(line)-1] + `,"tcp":` + tt.tcp + "}"
			}
			if err := d.Decode(&f, []byte(line)); err != nil {
				t.Fatal(err)
			}
			if f.State != tt.want || f.RawState != tt.state {
				t.Errorf("state %q of %q, want %q", f.State, f.RawState, tt.want)
			}
		})
	}
}

func TestNetflowState(t *testing.T) {
	tests := []struct {
		name             string
		proto            string
		srcPort, dstPort int
		flags            string
		want             flow.State
		turned           bool
	}{
		{"SYN alone", "TCP", 50000, 443, "02", flow.NotEstablished, false},
		{"refusal", "TCP", 8443, 1000, "14", flow.NotEstablished, true},
		{"half-open scan", "TCP", 50000, 443, "06", flow.NotEstablished, false},
		{"a whole session", "TCP", 50000, 443, "1b", flow.Established, false},
		{"the server's side of it", "TCP", 443, 50000, "1b", flow.Established, true},
		{"between high ports", "TCP", 50000, 6881, "1b", flow.Established, false},
		{"no session", "TCP", 50000, 443, "00", flow.NotEstablished, false},
		{"UDP", "UDP", 50000, 53, "", flow.Established, false},
		{"UDP from the server", "UDP", 53, 50000, "", flow.Established, true},
		{"UDP between low ports", "UDP", 123, 123, "", flow.Established, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			line := replace(head("netflow", `"netflow":{"pkts":2,"bytes":120},"tcp":{"tcp_flags":"`+tt.flags+`"}`), "TCP", tt.proto,
				`"src_port":50000`, fmt.Sprintf(`"src_port":%d`, tt.srcPort), `"dest_port":443`, fmt.Sprintf(`"dest_port":%d`, tt.dstPort))
			var f flow.Flow
			if err := New().Decode(&f, []byte(line)); err != nil {
				t.Fatal(err)
			}
			if turned := f.Src == ip("192.0.2.9"); f.State != tt.want || turned != tt.turned {
				t.Errorf("state %q, turned %v; want %q, %v", f.State, turned, tt.want, tt.turned)
			}
			if f.OrigPkts+f.RespPkts != 2 || f.OrigIPBytes+f.RespIPBytes != 120 || (f.RespPkts == 2) != tt.turned {
				t.Errorf("counts went astray: %+v", f)
			}
		})
	}
}

func TestSniff(t *testing.T) {
	event := head("dns", `"dns":{}`)
	tests := []struct {
		name string
		head string
		want bool
	}{
		{"event", event + "\n", true},
		{"members in another order", `{"event_type":"stats","stats":{"a":[1]},"timestamp":"2024"}`, true},
		{"spaces", `  { "event_type" : "stats" , "timestamp" : "2024" }`, true},
		{"cut in the first line", event[:120], true},
		{"cut before event_type", event[:60], false},
		{"first line is half a line", `"x":1}` + "\n\n" + event, true},
		{"first line is half a line that starts like one", `{"x":1}}` + "\n" + event, true},
		{"empty", "", false},
		{"Zeek JSON", `{"_path":"conn","ts":1.5,"uid":"C1","id.orig_h":"10.0.0.1"}`, false},
		{"Zeek TSV", "#separator \\x09\n#fields\tts\n", false},
		{"within another object", `{"message":{"event_type":"dns","timestamp":"2024"}}`, false},
		{"within a string", `{"message":"\"event_type\":\"dns\",\"timestamp\":\"2024\""}`, false},
		{"as values", `{"a":"event_type","b":"timestamp"}`, false},
		{"not strings", `{"event_type":1,"timestamp":2}`, false},
		{"no event_type", `{"timestamp":"2024"}`, false},
		{"far behind garbage", strings.Repeat("x\n", 100) + event, false},
		{"open string", `{"event_type`, false},
		{"backslash at the end", `{"\`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Sniff([]byte(tt.head)); got != tt.want {
				t.Errorf("Sniff(%.80q) = %v", tt.head, got)
			}
		})
	}
}

func TestParseTime(t *testing.T) {
	good := map[string]string{
		"2021-06-06T15:57:37.272281+0200":    "2021-06-06T13:57:37.272281Z",
		"2021-06-06T15:57:37.272281+02:00":   "2021-06-06T13:57:37.272281Z",
		"2021-06-06T15:57:37.272281+02":      "2021-06-06T13:57:37.272281Z",
		"2021-06-06T15:57:37.272281-0330":    "2021-06-06T19:27:37.272281Z",
		"2021-06-06T15:57:37Z":               "2021-06-06T15:57:37Z",
		"2021-06-06t15:57:37.5z":             "2021-06-06T15:57:37.5Z",
		"2021-06-06 15:57:37":                "2021-06-06T15:57:37Z",
		"2021-06-06T15:57:37.123456789+0000": "2021-06-06T15:57:37.123456789Z",
		"2021-06-06T15:57:37.1234567899999Z": "2021-06-06T15:57:37.123456789Z",
		"2016-12-31T23:59:60Z":               "2017-01-01T00:00:00Z",
		"2024-02-29T00:00:00Z":               "2024-02-29T00:00:00Z",
		"2000-02-29T00:00:00Z":               "2000-02-29T00:00:00Z",
		"1970-01-01T00:00:00Z":               "1970-01-01T00:00:00Z",
		"1969-12-31T23:59:59.999999Z":        "1969-12-31T23:59:59.999999Z",
		"1970-01-01T00:00:00.000000+0100":    "1969-12-31T23:00:00Z",
		"2100-01-01T00:00:00Z":               "2100-01-01T00:00:00Z",
	}
	for in, want := range good {
		if got, ok := parseTime([]byte(in)); !ok || got != at(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %s", in, time.Unix(0, got).UTC(), ok, want)
		}
	}
	for _, in := range []string{
		"", "2021", "2021-06-06", "2021-06-06T15:57", "2021-13-06T15:57:37Z", "2021-00-06T15:57:37Z", "2021-06-31T15:57:37Z", "2021-02-29T00:00:00Z",
		"1900-02-29T00:00:00Z", "2021-06-00T15:57:37Z", "2021-06-06T24:00:00Z", "2021-06-06T15:60:00Z", "2021-06-06T15:57:61Z", "2021-06-06T15:57:37.",
		"2021-06-06T15:57:37.Z", "2021-06-06T15:57:37+", "2021-06-06T15:57:37+2", "2021-06-06T15:57:37+02000", "2021-06-06T15:57:37+2400",
		"2021-06-06T15:57:37+0260", "2021-06-06T15:57:37+0a00", "2021-06-06T15:57:37Zx", "2021-06-06T15:57:37 +0200", "x021-06-06T15:57:37Z", "2021/06/06T15:57:37Z",
		"ts-error",
	} {
		if got, ok := parseTime([]byte(in)); ok {
			t.Errorf("parseTime(%q) = %v, want it refused", in, got)
		}
	}
	// Each day of four centuries and the ends of the range agree with the standard library.
	for day := time.Date(1800, 1, 1, 23, 59, 59, 7, time.UTC); day.Year() < 2201; day = day.AddDate(0, 0, 1) {
		s := day.Format(time.RFC3339Nano)
		if got, ok := parseTime([]byte(s)); !ok || got != day.UnixNano() {
			t.Fatalf("parseTime(%q) = %v, %v; want %v", s, got, ok, day.UnixNano())
		}
	}
	if lo, ok := parseTime([]byte("0000-01-01T00:00:00Z")); !ok || lo >= 0 {
		t.Errorf("year 0 comes out as %d, %v", lo, ok)
	}
	if hi, ok := parseTime([]byte("9999-12-31T23:59:59Z")); !ok || hi <= flow.MaxTime {
		t.Errorf("year 9999 comes out as %d, %v", hi, ok)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range successes() {
		f.Add([]byte(s.line))
	}
	for _, s := range []string{`{`, `{"event_type":"flow","flow":{}}`, head("dns", `"dns":{"answers":[1,{},null],"grouped":[]}`), head("tls", `"tls":{"ja3":[1],"client":1}`)} {
		f.Add([]byte(s))
	}
	shared, reused := New(), new(flow.Flow)
	f.Fuzz(func(t *testing.T, line []byte) {
		Sniff(line)
		tooDeep(line)
		var fresh flow.Flow
		err := New().Decode(&fresh, line)
		again := shared.Decode(reused, line)
		if flow.Reason(err) != flow.Reason(again) || (err == nil) != (again == nil) {
			t.Fatalf("%v with a new decoder, %v with a used one", err, again)
		}
		if err != nil {
			return
		}
		if fresh.Time < flow.MinTime || fresh.Time > flow.MaxTime || fresh.Duration < 0 || fresh.Sensor != flow.Suricata {
			t.Fatalf("out of range: %+v", fresh)
		}
		if fresh.Kind == flow.DNS && len(fresh.DNS.Answers) != len(fresh.DNS.TTLs) {
			t.Fatalf("%d answers, %d TTLs", len(fresh.DNS.Answers), len(fresh.DNS.TTLs))
		}
		// The record lives on when the line and the decoder are used again.
		clear(line)
		_ = shared.Decode(new(flow.Flow), []byte(head("anomaly", `"anomaly":{"event":"`+strings.Repeat("x", 300)+`"}`)))
		if diff := cmp.Diff(visible(fresh), visible(*reused), same); diff != "" {
			t.Fatalf("a used decoder and record give another result:\n%s", diff)
		}
	})
}

// TestWords checks the words that are translated into the detectors'.
func TestWords(t *testing.T) {
	tests := []struct {
		kind, body string
		get        func(*flow.Flow) any
		want       any
	}{
		{"tls", `"version":"SSLv3"`, func(f *flow.Flow) any { return f.SSL.Version }, "SSLv3"},
		{"tls", `"version":"TLSv1"`, func(f *flow.Flow) any { return f.SSL.Version }, "TLSv10"},
		{"tls", `"version":"TLS 1.1"`, func(f *flow.Flow) any { return f.SSL.Version }, "TLSv11"},
		{"tls", `"version":"TLS 1.3 draft-28"`, func(f *flow.Flow) any { return f.SSL.Version }, "TLS 1.3 draft-28"},
		{"tls", `"session_resumed":false`, func(f *flow.Flow) any { return f.SSL.Resumed }, flow.False},
		{"tls", `"session_resumed":"yes"`, func(f *flow.Flow) any { return f.SSL.Resumed }, flow.Unset},
		{"ftp", `"command":"PASV"`, func(f *flow.Flow) any { return f.FTP.DataPassive }, flow.True},
		{"ftp", `"command":"EPRT","mode":"passive"`, func(f *flow.Flow) any { return f.FTP.DataPassive }, flow.True},
		{"ftp", `"command":"NOOP","completion_code":["999","99x"]`, func(f *flow.Flow) any { return f.FTP.ReplyCode }, 0},
		{"rdp", `"event_type":"connect_response"`, func(f *flow.Flow) any { return f.RDP.Result }, "Success"},
		{"krb5", `"msg_type":"KRB_AP_REP"`, func(f *flow.Flow) any { return f.Kerberos.RequestType }, "AP"},
		{"krb5", `"msg_type":"KRB_ERROR","failed_request":"UNKNOWN"`, func(f *flow.Flow) any { return f.Kerberos.RequestType }, ""},
		{"snmp", `"pdu_type":"get_request"`, func(f *flow.Flow) any { return f.SNMP.GetRequests }, int64(1)},
		{"snmp", `"pdu_type":"response"`, func(f *flow.Flow) any { return f.SNMP.GetResponses }, int64(1)},
		{"snmp", `"pdu_type":"set_request"`, func(f *flow.Flow) any { return f.SNMP.Set_ }, int64(1)},
		{"http", `"status_string":"OK"`, func(f *flow.Flow) any { return f.HTTP.StatusMsg }, "OK"},
		{"http", `"request_body_len":12`, func(f *flow.Flow) any { return f.HTTP.RequestLen }, int64(12)},
		{"dns", `"qr":true,"rcode":"REFUSED","aa":true,"tc":true`, func(f *flow.Flow) any {
			return fmt.Sprintf("%v %s %d %d", f.DNS.Response, f.DNS.RCode, f.DNS.AA, f.DNS.TC)
		}, "true REFUSED 2 2"},
		{"ssh", `"server":{"software_version":"x"}`, func(f *flow.Flow) any { return f.SSH.Server }, "x"},
	}
	var f flow.Flow
	for _, tt := range tests {
		t.Run(tt.kind+" "+tt.body, func(t *testing.T) {
			if err := New().Decode(&f, []byte(head(tt.kind, `"`+tt.kind+`":{`+tt.body+`}`))); err != nil {
				t.Fatal(err)
			}
			if got := tt.get(&f); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
