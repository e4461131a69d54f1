package zeek

import (
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// kindCases hold one record of each log, with every field that is used. The
// columns are made from the JSON.
var kindCases = []struct {
	log  string
	line string
	want flow.Flow
}{
	{
		"conn",
		`{"ts":1700000000.123456,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":443,"proto":"tcp","service":"ssl,http","duration":1.5,"orig_bytes":10,"resp_bytes":20,"conn_state":"SF","local_orig":true,"local_resp":false,"missed_bytes":3,"history":"ShADadFf","orig_pkts":4,"orig_ip_bytes":200,"resp_pkts":5,"resp_ip_bytes":300,"tunnel_parents":["C0"],"ip_proto":6,"vlan":12,"inner_vlan":13,"orig_l2_addr":"00:00:5e:00:53:01","resp_l2_addr":"00:00:5e:00:53:02","community_id":"1:abc=","label":"Malicious","detailedlabel":"CC"}`,
		flow.Flow{
			Kind: flow.Conn, Time: 1700000000123456000, Duration: 1500000000, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000,
			Dst: ip("192.0.2.1"), DstPort: 443, HasPorts: true, Proto: flow.TCP, Service: "ssl,http", OrigBytes: 10,
			RespBytes: 20, RawState: "SF", State: flow.Established, LocalOrig: flow.True, LocalResp: flow.False,
			MissedBytes: 3, History: "ShADadFf", OrigPkts: 4, OrigIPBytes: 200, RespPkts: 5, RespIPBytes: 300, VLAN: 12,
			InnerVLAN: 13, SrcMAC: "00:00:5e:00:53:01", DstMAC: "00:00:5e:00:53:02", CommunityID: "1:abc=",
			Label: "Malicious", DetailedLabel: "CC",
		},
	},
	{
		"dns",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":5353,"id.resp_h":"10.0.0.2","id.resp_p":53,"proto":"udp","trans_id":65535,"rtt":0.25,"query":"example.com","qclass":1,"qclass_name":"C_INTERNET","qtype":1,"qtype_name":"A","rcode":0,"rcode_name":"NOERROR","AA":false,"TC":true,"RD":true,"RA":false,"Z":0,"answers":["a.example.com","192.0.2.7"],"TTLs":[60.0,3600.9],"rejected":false}`,
		flow.Flow{
			Kind: flow.DNS, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 5353, Dst: ip("10.0.0.2"),
			DstPort: 53, HasPorts: true, Proto: flow.UDP,
			Parts: &flow.Parts{DNS: &flow.DNSPart{
				Query: "example.com", QType: "A", QClass: "C_INTERNET", RCode: "NOERROR", TransID: 65535, RTT: 250e6,
				AA: flow.False, TC: flow.True, RD: flow.True, RA: flow.False, Reject: flow.False,
				Answers: []string{"a.example.com", "192.0.2.7"}, TTLs: []int64{60, 3600}, Response: true,
			}},
		},
	},
	{
		"http",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":80,"trans_depth":2,"method":"GET","host":"h.example","uri":"/a?b","referrer":"http://r.example/","version":"1.1","user_agent":"curl/8","origin":"o","request_body_len":1,"response_body_len":2,"status_code":200,"status_msg":"OK","tags":[],"username":"u","password":"p","proxied":["VIA -> x"],"orig_fuids":["F1"],"orig_mime_types":["text/plain"],"resp_fuids":["F2","F3"],"resp_mime_types":["text/html","image/png"]}`,
		flow.Flow{
			Kind: flow.HTTP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 80, HasPorts: true,
			Parts: &flow.Parts{HTTP: &flow.HTTPPart{
				Method: "GET", Host: "h.example", URI: "/a?b", Version: "1.1", UserAgent: "curl/8",
				Referrer: "http://r.example/", StatusCode: 200, StatusMsg: "OK", RequestLen: 1, ResponseLen: 2,
				OrigMIMETypes: []string{"text/plain"}, RespMIMETypes: []string{"text/html", "image/png"},
				OrigFUIDs: []string{"F1"}, RespFUIDs: []string{"F2", "F3"}, Username: "u", HasPassword: true,
				Proxied: []string{"VIA -> x"}, TransDepth: 2,
			}},
		},
	},
	{
		"ssl",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"2001:db8::1","id.resp_p":443,"version":"TLSv12","cipher":"TLS_X","curve":"x25519","server_name":"s.example","resumed":false,"last_alert":"close","next_protocol":"h2","established":true,"ssl_history":"CsiI","cert_chain_fuids":["F1"],"cert_chain_fps":["aa","bb"],"client_cert_chain_fps":["cc"],"subject":"CN=s","issuer":"CN=i","client_subject":"CN=cs","client_issuer":"CN=ci","sni_matches_cert":true,"validation_status":"self signed certificate","is_DoH":false,"ja3":"j3","ja3s":"j3s","ja4":"j4","ja4s":"j4s"}`,
		flow.Flow{
			Kind: flow.SSL, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("2001:db8::1"),
			DstPort: 443, HasPorts: true,
			Parts: &flow.Parts{SSL: &flow.SSLPart{
				Version: "TLSv12", Cipher: "TLS_X", Curve: "x25519", ServerName: "s.example", Resumed: flow.False,
				LastAlert: "close", NextProtocol: "h2", Established: flow.True, CertFPs: []string{"aa", "bb"},
				ClientCertFPs: []string{"cc"}, Subject: "CN=s", Issuer: "CN=i", ClientSubject: "CN=cs",
				ClientIssuer: "CN=ci", SNIMatchesCert: flow.True, Validation: "self signed certificate",
				IsDoH: flow.False, JA3: "j3", JA3S: "j3s", JA4: "j4", JA4S: "j4s",
			}},
		},
	},
	{
		"quic",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":443,"version":"1","client_initial_dcid":"00","client_scid":"","server_scid":"01","server_name":"q.example","client_protocol":"h3","history":"ISishIHh"}`,
		flow.Flow{
			Kind: flow.QUIC, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 443, HasPorts: true, History: "ISishIHh",
			Parts: &flow.Parts{SSL: &flow.SSLPart{Version: "1", ServerName: "q.example", NextProtocol: "h3"}},
		},
	},
	{
		"x509",
		`{"ts":1700000000,"id":"F1","fingerprint":"fp","certificate.version":3,"certificate.serial":"0A","certificate.subject":"CN=s","certificate.issuer":"CN=i","certificate.not_valid_before":-1.5,"certificate.not_valid_after":253402300799.0,"certificate.key_alg":"rsaEncryption","certificate.sig_alg":"sha256","certificate.key_type":"rsa","certificate.key_length":2048,"certificate.exponent":"65537","san.dns":["a","b"],"san.ip":["192.0.2.1"],"basic_constraints.ca":true,"host_cert":true,"client_cert":false}`,
		flow.Flow{
			Kind: flow.X509, Time: 1700000000e9,
			Parts: &flow.Parts{X509: &flow.X509Part{
				ID: "F1", Fingerprint: "fp", Version: 3, Serial: "0A", Subject: "CN=s", Issuer: "CN=i",
				NotBefore: -1500000000, NotAfter: 1<<63 - 1, // the year 9999 does not fit
				KeyAlg: "rsaEncryption", SigAlg: "sha256", KeyType: "rsa", KeyLength: 2048, SANDNS: []string{"a", "b"},
				SANIP: []string{"192.0.2.1"}, CA: flow.True, HostCert: flow.True, ClientCert: flow.False,
			}},
		},
	},
	{
		"files", // up to Zeek 5
		`{"ts":1700000000,"fuid":"F1","tx_hosts":["192.0.2.1","192.0.2.2"],"rx_hosts":["10.0.0.1"],"conn_uids":["C1","C2"],"source":"HTTP","depth":0,"analyzers":["MD5","PE"],"mime_type":"text/plain","filename":"x.exe","duration":0.5,"local_orig":false,"is_orig":false,"seen_bytes":5,"total_bytes":6,"missing_bytes":0,"overflow_bytes":0,"timedout":false,"md5":"m","sha1":"s1","sha256":"s2","extracted":"e"}`,
		flow.Flow{
			Kind: flow.Files, Time: 1700000000e9, Duration: 500e6, UID: "C1", Src: ip("192.0.2.1"), Dst: ip("10.0.0.1"),
			Parts: &flow.Parts{Files: &flow.FilesPart{
				FUID: "F1", Source: "HTTP", MIMEType: "text/plain", Filename: "x.exe", MD5: "m", SHA1: "s1", SHA256: "s2",
				Analyzers: []string{"MD5", "PE"}, ConnUIDs: []string{"C1", "C2"}, SeenBytes: 5, TotalBytes: 6,
				LocalOrig: flow.False, IsOrig: flow.False, ExtractedName: "e",
			}},
		},
	},
	{
		"files", // Zeek 6 and later, sent by the responder
		`{"ts":1700000000,"fuid":"F1","uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":80,"source":"HTTP","is_orig":false,"seen_bytes":5}`,
		flow.Flow{
			Kind: flow.Files, Time: 1700000000e9, UID: "C1", Src: ip("192.0.2.1"), SrcPort: 80, Dst: ip("10.0.0.1"),
			DstPort: 50000, HasPorts: true,
			Parts: &flow.Parts{Files: &flow.FilesPart{
				FUID: "F1", Source: "HTTP", ConnUIDs: []string{"C1"}, SeenBytes: 5, IsOrig: flow.False,
			}},
		},
	},
	{
		"files", // Zeek 6 and later, an upload
		`{"ts":1700000000,"fuid":"F1","uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":80,"is_orig":true,"seen_bytes":5}`,
		flow.Flow{
			Kind: flow.Files, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 80, HasPorts: true,
			Parts: &flow.Parts{Files: &flow.FilesPart{FUID: "F1", ConnUIDs: []string{"C1"}, SeenBytes: 5, IsOrig: flow.True}},
		},
	},
	{
		"files", // a file that came over no connection
		`{"ts":1700000000,"fuid":"F1","tx_hosts":[],"rx_hosts":[],"conn_uids":[],"seen_bytes":5}`,
		flow.Flow{
			Kind: flow.Files, Time: 1700000000e9, UID: "F1",
			Parts: &flow.Parts{Files: &flow.FilesPart{FUID: "F1", SeenBytes: 5}},
		},
	},
	{
		"ssh",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":22,"version":2,"auth_success":true,"auth_attempts":3,"direction":"OUTBOUND","client":"SSH-2.0-a","server":"SSH-2.0-b","cipher_alg":"c","mac_alg":"m","compression_alg":"none","kex_alg":"k","host_key_alg":"h","host_key":"aa:bb","remote_location.country_code":"CZ","hassh":"h1","hasshServer":"h2"}`,
		flow.Flow{
			Kind: flow.SSH, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 22, HasPorts: true,
			Parts: &flow.Parts{SSH: &flow.SSHPart{
				Version: 2, AuthSuccess: flow.True, AuthAttempts: 3, Direction: "OUTBOUND", Client: "SSH-2.0-a",
				Server: "SSH-2.0-b", CipherAlg: "c", MACAlg: "m", KexAlg: "k", HostKeyAlg: "h", CompressionAlg: "none",
				HostKey: "aa:bb", HASSH: "h1", HASSHServer: "h2", RemoteCountry: "CZ",
			}},
		},
	},
	{
		"ssh", // what is not logged is not zero attempts
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":22,"host_key_fingerprint":"SHA256:x"}`,
		flow.Flow{
			Kind: flow.SSH, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 22, HasPorts: true, Parts: &flow.Parts{SSH: &flow.SSHPart{AuthAttempts: -1, HostKey: "SHA256:x"}},
		},
	},
	{
		"smtp",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":25,"trans_depth":1,"helo":"h","mailfrom":"a@example","rcptto":["b@example","c@example"],"date":"d","from":"A <a@example>","to":["B, the <b@example>"],"msg_id":"<1>","subject":"s","last_reply":"554 bad smtp-auth user","path":["192.0.2.1","10.0.0.1"],"user_agent":"m","tls":false,"fuids":[]}`,
		flow.Flow{
			Kind: flow.SMTP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 25, HasPorts: true,
			Parts: &flow.Parts{SMTP: &flow.SMTPPart{
				Helo: "h", MailFrom: "a@example", From: "A <a@example>", Subject: "s",
				LastReply: "554 bad smtp-auth user", UserAgent: "m", MsgID: "<1>",
				RcptTo: []string{"b@example", "c@example"}, To: []string{"B, the <b@example>"},
				Path: []string{"192.0.2.1", "10.0.0.1"}, TLS: flow.False, TransDepth: 1,
			}},
		},
	},
	{
		"ftp",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":21,"user":"u","password":"p","command":"RETR","arg":"ftp://x","mime_type":"text/plain","file_size":9,"reply_code":226,"reply_msg":"ok","data_channel.passive":true,"data_channel.orig_h":"10.0.0.1","data_channel.resp_h":"192.0.2.1","data_channel.resp_p":63988,"fuid":"F1"}`,
		flow.Flow{
			Kind: flow.FTP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 21, HasPorts: true,
			Parts: &flow.Parts{FTP: &flow.FTPPart{
				User: "u", HasPassword: true, Command: "RETR", Arg: "ftp://x", MIMEType: "text/plain", FileSize: 9,
				ReplyCode: 226, ReplyMsg: "ok", DataPassive: flow.True, DataOrig: ip("10.0.0.1"),
				DataResp: ip("192.0.2.1"), DataPort: 63988,
			}},
		},
	},
	{
		"dhcp",
		`{"ts":1700000000,"uids":["C1","C2"],"client_addr":"10.0.0.1","server_addr":"10.0.0.254","mac":"00:00:5e:00:53:01","host_name":"pc","client_fqdn":"pc.x","domain":"x","requested_addr":"10.0.0.7","assigned_addr":"10.0.0.8","lease_time":86400.0,"client_message":"cm","server_message":"sm","msg_types":["REQUEST","ACK"],"duration":0.5,"client_software":"MSFT 5.0"}`,
		flow.Flow{
			Kind: flow.DHCP, Time: 1700000000e9, Duration: 500e6, UID: "C1", Src: ip("10.0.0.1"), Dst: ip("10.0.0.254"),
			SrcMAC: "00:00:5e:00:53:01",
			Parts: &flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:00:5e:00:53:01", HostName: "pc", ClientFQDN: "pc.x", Domain: "x", ClientMessage: "cm",
				ServerMessage: "sm", Client: ip("10.0.0.1"), Server: ip("10.0.0.254"), Requested: ip("10.0.0.7"),
				Assigned: ip("10.0.0.8"), LeaseTime: 86400e9, MsgTypes: []string{"REQUEST", "ACK"},
				UIDs: []string{"C1", "C2"}, VendorClass: "MSFT 5.0",
			}},
		},
	},
	{
		"dhcp", // a DISCOVER that nobody answered
		`{"ts":1700000000,"uids":["C1"],"mac":"00:00:5e:00:53:01","requested_addr":"10.0.0.7","msg_types":["DISCOVER"],"duration":0.0}`,
		flow.Flow{
			Kind: flow.DHCP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.7"), SrcMAC: "00:00:5e:00:53:01",
			Parts: &flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:00:5e:00:53:01", Requested: ip("10.0.0.7"), MsgTypes: []string{"DISCOVER"}, UIDs: []string{"C1"},
			}},
		},
	},
	{
		"dhcp", // nothing but the hardware address
		`{"ts":1700000000,"mac":"00:00:5e:00:53:01"}`,
		flow.Flow{
			Kind: flow.DHCP, Time: 1700000000e9, SrcMAC: "00:00:5e:00:53:01",
			Parts: &flow.Parts{DHCP: &flow.DHCPPart{MAC: "00:00:5e:00:53:01"}},
		},
	},
	{
		"dhcp", // before Zeek 2.6; the lease with an exponent as in parsers/zat/dhcp.log
		`{"ts":1700000000,"uid":"C1","id.orig_h":"0.0.0.0","id.orig_p":68,"id.resp_h":"255.255.255.255","id.resp_p":67,"mac":"00:00:5e:00:53:01","assigned_ip":"10.0.0.8","lease_time":4.294967e+09,"trans_id":1}`,
		flow.Flow{
			Kind: flow.DHCP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.8"), SrcPort: 68, Dst: ip("255.255.255.255"),
			DstPort: 67, HasPorts: true, SrcMAC: "00:00:5e:00:53:01",
			Parts: &flow.Parts{DHCP: &flow.DHCPPart{
				MAC: "00:00:5e:00:53:01", Assigned: ip("10.0.0.8"), LeaseTime: 4294967000e9,
			}},
		},
	},
	{
		"arp",
		`{"ts":1700000000,"operation":"request","src_mac":"00:00:5e:00:53:01","dst_mac":"ff:ff:ff:ff:ff:ff","orig_h":"10.0.0.1","resp_h":"10.0.0.2","orig_hw":"00:00:5e:00:53:03","resp_hw":"00:00:00:00:00:00"}`,
		flow.Flow{
			Kind: flow.ARP, Time: 1700000000e9, Proto: flow.ProtoARP, Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"),
			SrcMAC: "00:00:5e:00:53:01", DstMAC: "ff:ff:ff:ff:ff:ff",
			Parts: &flow.Parts{ARP: &flow.ARPPart{
				Operation: "request", SenderHW: "00:00:5e:00:53:03", TargetHW: "00:00:00:00:00:00",
			}},
		},
	},
	{
		"arp", // addresses named as in other logs
		`{"ts":1700000000,"operation":"reply","id.orig_h":"10.0.0.1","id.resp_h":"10.0.0.2","orig_hw":"a"}`,
		flow.Flow{
			Kind: flow.ARP, Time: 1700000000e9, Proto: flow.ProtoARP, Src: ip("10.0.0.1"), Dst: ip("10.0.0.2"),
			Parts: &flow.Parts{ARP: &flow.ARPPart{Operation: "reply", SenderHW: "a"}},
		},
	},
	{
		"notice",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":22,"proto":"tcp","note":"SSL::Invalid","msg":"m","sub":"s","src":"10.0.0.9","dst":"192.0.2.9","p":443,"n":5,"actions":["Notice::ACTION_LOG","Notice::ACTION_X"],"suppress_for":3600.0}`,
		flow.Flow{
			Kind: flow.Notice, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 22, HasPorts: true, Proto: flow.TCP,
			Parts: &flow.Parts{Notice: &flow.NoticePart{
				Note: "SSL::Invalid", Msg: "m", Sub: "s", Src: ip("10.0.0.9"), Dst: ip("192.0.2.9"), Port: 443, N: 5,
				Actions: []string{"Notice::ACTION_LOG", "Notice::ACTION_X"}, SuppressFor: 3600e9,
			}},
		},
	},
	{
		"notice", // of no connection: zeek/test9-mixed
		`{"ts":1700000000,"note":"Scan::Port_Scan","msg":"m","src":"10.0.0.9","dst":"192.0.2.9","p":443}`,
		flow.Flow{
			Kind: flow.Notice, Time: 1700000000e9, Src: ip("10.0.0.9"), Dst: ip("192.0.2.9"), DstPort: 443,
			Parts: &flow.Parts{Notice: &flow.NoticePart{
				Note: "Scan::Port_Scan", Msg: "m", Src: ip("10.0.0.9"), Dst: ip("192.0.2.9"), Port: 443,
			}},
		},
	},
	{
		"notice", // without any address
		`{"ts":1700000000,"note":"CaptureLoss::Too_Much_Loss","msg":"m"}`,
		flow.Flow{
			Kind: flow.Notice, Time: 1700000000e9,
			Parts: &flow.Parts{Notice: &flow.NoticePart{Note: "CaptureLoss::Too_Much_Loss", Msg: "m"}},
		},
	},
	{
		"weird",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":22,"name":"n","addl":"a","notice":false,"peer":"zeek","source":"TCP"}`,
		flow.Flow{
			Kind: flow.Weird, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 22, HasPorts: true,
			Parts: &flow.Parts{Weird: &flow.WeirdPart{Name: "n", Addl: "a", Notice: flow.False, Peer: "zeek", Source: "TCP"}},
		},
	},
	{
		"weird", // of no connection: zeek/test10-mixed
		`{"ts":1700000000,"name":"non_ip_packet_in_ethernet","notice":false,"peer":"zeek"}`,
		flow.Flow{
			Kind: flow.Weird, Time: 1700000000e9,
			Parts: &flow.Parts{Weird: &flow.WeirdPart{Name: "non_ip_packet_in_ethernet", Notice: flow.False, Peer: "zeek"}},
		},
	},
	{
		"software",
		`{"ts":1700000000,"host":"10.0.0.1","host_p":22,"software_type":"SSH::SERVER","name":"OpenSSH","version.major":8,"version.minor":1,"version.minor2":0,"version.addl":"p1","unparsed_version":"OpenSSH_8.1"}`,
		flow.Flow{
			Kind: flow.Software, Time: 1700000000e9, Src: ip("10.0.0.1"), SrcPort: 22,
			Parts: &flow.Parts{Software: &flow.SoftwarePart{
				Type: "SSH::SERVER", Name: "OpenSSH", Unparsed: "OpenSSH_8.1", Major: 8, Minor: 1, Minor2: 0, Addl: "p1",
			}},
		},
	},
	{
		"tunnel",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":0,"id.resp_h":"192.0.2.1","id.resp_p":0,"tunnel_type":"Tunnel::GRE","action":"Tunnel::DISCOVER"}`,
		flow.Flow{
			Kind: flow.Tunnel, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), Dst: ip("192.0.2.1"), HasPorts: true,
			Parts: &flow.Parts{Tunnel: &flow.TunnelPart{Type: "Tunnel::GRE", Action: "Tunnel::DISCOVER"}},
		},
	},
	{
		"login",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":23,"proto":"tcp","success":true,"confused":false,"user":"root","client_user":"me","password":"x"}`,
		flow.Flow{
			Kind: flow.Login, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 23, HasPorts: true, Proto: flow.TCP,
			Parts: &flow.Parts{Login: &flow.LoginPart{
				Success: flow.True, Confused: flow.False, User: "root", ClientUser: "me", HasPassword: true,
			}},
		},
	},
	{
		"known_hosts", `{"ts":1700000000,"host":"10.0.0.1"}`,
		flow.Flow{
			Kind: flow.Known, Time: 1700000000e9, Src: ip("10.0.0.1"),
			Parts: &flow.Parts{Known: &flow.KnownPart{Log: "known_hosts"}},
		},
	},
	{
		"known_services", `{"ts":1700000000,"host":"10.0.0.1","port_num":22,"port_proto":"tcp","service":["SSH","X"]}`,
		flow.Flow{
			Kind: flow.Known, Time: 1700000000e9, Src: ip("10.0.0.1"), SrcPort: 22, Proto: flow.TCP,
			Parts: &flow.Parts{Known: &flow.KnownPart{Log: "known_services", Services: []string{"SSH", "X"}}},
		},
	},
	{
		"known_certs",
		`{"ts":1700000000,"host":"10.0.0.1","port_num":443,"subject":"CN=s","issuer_subject":"CN=i","serial":"0A"}`,
		flow.Flow{
			Kind: flow.Known, Time: 1700000000e9, Src: ip("10.0.0.1"), SrcPort: 443,
			Parts: &flow.Parts{Known: &flow.KnownPart{Log: "known_certs", Subject: "CN=s", Issuer: "CN=i", Serial: "0A"}},
		},
	},
	{
		"known_devices", `{"ts":1700000000,"mac":"00:00:5e:00:53:01"}`,
		flow.Flow{
			Kind: flow.Known, Time: 1700000000e9,
			Parts: &flow.Parts{Known: &flow.KnownPart{Log: "known_devices", MAC: "00:00:5e:00:53:01"}},
		},
	},
	{
		"rdp",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":3389,"cookie":"c","result":"r","security_protocol":"RDP","keyboard_layout":"k","client_build":"b","client_name":"n","cert_type":"RSA","cert_count":2}`,
		flow.Flow{
			Kind: flow.RDP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 3389, HasPorts: true,
			Parts: &flow.Parts{RDP: &flow.RDPPart{
				Cookie: "c", Result: "r", SecurityProtocol: "RDP", KeyboardLayout: "k", ClientBuild: "b", ClientName: "n",
				CertType: "RSA", CertCount: 2,
			}},
		},
	},
	{
		"smb_files",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":445,"action":"SMB::FILE_RENAME","path":"\\\\dc\\share","name":"b","size":3,"prev_name":"a","times.modified":1.5}`,
		flow.Flow{
			Kind: flow.SMB, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 445, HasPorts: true,
			Parts: &flow.Parts{SMB: &flow.SMBPart{
				Log: "smb_files", Action: "SMB::FILE_RENAME", Path: `\\dc\share`, Name: "b", PrevName: "a", Size: 3,
			}},
		},
	},
	{
		"smb_mapping",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":445,"path":"p","service":"IPC","share_type":"PIPE"}`,
		flow.Flow{
			Kind: flow.SMB, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 445, HasPorts: true,
			Parts: &flow.Parts{SMB: &flow.SMBPart{Log: "smb_mapping", Path: "p", Service: "IPC", ShareType: "PIPE"}},
		},
	},
	{
		"smb_cmd",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":445,"command":"CREATE","argument":"a","status":"OK","version":"SMB2","username":"u","tree":"t","tree_service":"DISK"}`,
		flow.Flow{
			Kind: flow.SMB, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 445, HasPorts: true,
			Parts: &flow.Parts{SMB: &flow.SMBPart{
				Log: "smb_cmd", Command: "CREATE", Name: "a", Status: "OK", Dialect: "SMB2", NTLMUser: "u", Path: "t",
				Service: "DISK",
			}},
		},
	},
	{
		"kerberos",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":88,"request_type":"TGS","client":"c","service":"s","success":false,"error_msg":"e","till":2136422885.0,"cipher":"rc4-hmac","forwardable":true,"renewable":false}`,
		flow.Flow{
			Kind: flow.Kerberos, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 88, HasPorts: true,
			Parts: &flow.Parts{Kerberos: &flow.KerberosPart{
				RequestType: "TGS", Client: "c", Service: "s", Success: flow.False, ErrorMsg: "e", Till: 2136422885e9,
				Cipher: "rc4-hmac", Forwardable: flow.True, Renewable: flow.False,
			}},
		},
	},
	{
		"ntlm",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":445,"username":"u","hostname":"h","domainname":"d","server_nb_computer_name":"nb","server_dns_computer_name":"dns","server_tree_name":"t","success":true,"status":"SUCCESS"}`,
		flow.Flow{
			Kind: flow.NTLM, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 445, HasPorts: true,
			Parts: &flow.Parts{NTLM: &flow.NTLMPart{
				User: "u", Host: "h", Domain: "d", ServerName: "nb", ServerDNSName: "dns", Status: "SUCCESS", Success: flow.True,
			}},
		},
	},
	{
		"dce_rpc",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":445,"rtt":0.00018,"named_pipe":"49667","endpoint":"drsuapi","operation":"DRSUnbind"}`,
		flow.Flow{
			Kind: flow.DCERPC, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 445, HasPorts: true,
			Parts: &flow.Parts{DCERPC: &flow.DCERPCPart{NamedPipe: "49667", Endpoint: "drsuapi", Operation: "DRSUnbind", RTT: 180000}},
		},
	},
	{
		"ntp",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":123,"id.resp_h":"192.0.2.1","id.resp_p":123,"version":4,"mode":3,"stratum":2,"poll":128.0,"ref_id":"GPS"}`,
		flow.Flow{
			Kind: flow.NTP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 123, Dst: ip("192.0.2.1"),
			DstPort: 123, HasPorts: true,
			Parts: &flow.Parts{NTP: &flow.NTPPart{Version: 4, Mode: 3, Stratum: 2, RefID: "GPS"}},
		},
	},
	{
		"sip",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":5060,"id.resp_h":"192.0.2.1","id.resp_p":5060,"method":"OPTIONS","uri":"sip:1@x","request_from":"f","request_to":"t","call_id":"c","user_agent":"friendly-scanner","status_code":404,"status_msg":"Not Found"}`,
		flow.Flow{
			Kind: flow.SIP, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 5060, Dst: ip("192.0.2.1"),
			DstPort: 5060, HasPorts: true,
			Parts: &flow.Parts{SIP: &flow.SIPPart{
				Method: "OPTIONS", URI: "sip:1@x", From: "f", To: "t", CallID: "c", UserAgent: "friendly-scanner",
				Status: "Not Found", StatusCode: 404,
			}},
		},
	},
	{
		"mysql",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":3306,"cmd":"query","arg":"select 1","success":true,"rows":1,"response":"r"}`,
		flow.Flow{
			Kind: flow.MySQL, Time: 1700000000e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000, Dst: ip("192.0.2.1"),
			DstPort: 3306, HasPorts: true,
			Parts: &flow.Parts{MySQL: &flow.MySQLPart{Command: "query", Arg: "select 1", Success: flow.True, Rows: 1, Response: "r"}},
		},
	},
	{
		"snmp",
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":161,"duration":2.0,"version":"2c","community":"public","get_requests":1,"get_bulk_requests":2,"get_responses":3,"set_requests":4,"display_string":"d"}`,
		flow.Flow{
			Kind: flow.SNMP, Time: 1700000000e9, Duration: 2e9, UID: "C1", Src: ip("10.0.0.1"), SrcPort: 50000,
			Dst: ip("192.0.2.1"), DstPort: 161, HasPorts: true,
			Parts: &flow.Parts{SNMP: &flow.SNMPPart{
				Version: "2c", Community: "public", DisplayString: "d", GetRequests: 1, GetBulk: 2, GetResponses: 3, Set_: 4,
			}},
		},
	},
	{
		"lookup",
		`{"ts":1700000000.25,"uid":"C1","id.orig_h":"10.0.0.1","id.resp_h":"192.0.2.1","id.resp_p":443,"service":"virustotal","of":"ip","subject":"192.0.2.1","found":true,"malicious":5,"total":90,"score":0.0625,"verdict":"v","lists":["a, b","c"],"tags":["t"],"link":"https://x.example/","registered":-1.5,"registrant":"R","names":["n.example"],"asn":4294967295,"as_org":"O","country":"CZ","jarm":"00"}`,
		flow.Flow{
			Kind: flow.Lookup, Time: 1700000000250000000, UID: "C1", Src: ip("10.0.0.1"), Dst: ip("192.0.2.1"), DstPort: 443,
			Parts: &flow.Parts{Lookup: &flow.LookupPart{
				Service: "virustotal", Of: "ip", Subject: "192.0.2.1", Found: flow.True, Malicious: 5, Total: 90, Score: 0.0625,
				Verdict: "v", Lists: []string{"a, b", "c"}, Tags: []string{"t"}, Link: "https://x.example/",
				Registered: -1500000000, Registrant: "R", Names: []string{"n.example"}, ASN: 1<<32 - 1, ASOrg: "O",
				Country: "CZ", JARM: "00",
			}},
		},
	},
	{
		"lookup", // a service that did not answer, about a name
		`{"ts":1700000000,"id.orig_h":"10.0.0.1","service":"rdap","of":"domain","subject":"d.example","error":"no answer within 5s"}`,
		flow.Flow{
			Kind: flow.Lookup, Time: 1700000000e9, Src: ip("10.0.0.1"),
			Parts: &flow.Parts{Lookup: &flow.LookupPart{
				Service: "rdap", Of: "domain", Subject: "d.example", Error: "no answer within 5s",
			}},
		},
	},
}

func TestKinds(t *testing.T) {
	for _, c := range kindCases {
		t.Run(c.log, func(t *testing.T) {
			want := c.want
			check := func(how string, d *Decoder, lines ...string) {
				t.Helper()
				got, err := decode(d, lines...)
				if err != nil {
					t.Errorf("%s: %v", how, err)
				} else if s := diff(&want, got); s != "" {
					t.Errorf("%s: (-want +got)\n%s", how, s)
				}
			}
			fields, row := toTSV(t, c.line)
			check("json", New(c.log), c.line)
			check("json twice on one decoder", New(c.log), c.line, c.line)
			check("json, log from _path", New(""), `{"_path":"`+c.log+`",`+c.line[1:])
			check("json, log from a late @stream", New("conn"), c.line[:len(c.line)-1]+`,"@stream":"`+c.log+`"}`)
			check("tsv", New(c.log), fields, row)
			check("tsv, log from #path", New("conn"), "#path\t"+c.log, fields, row)
			check("tsv, #path behind #fields", New("conn"), fields, "#path\t"+c.log, row)

			want.Open = true
			check("open json", New("open_"+c.log), c.line)
			check("open tsv", New(""), "#path\topen_"+c.log, fields, row)
		})
	}
}

// Every log that is told by its fields alone: standard input, odd file names.
func TestGuess(t *testing.T) {
	vague := map[string]bool{"known_hosts": true, "known_devices": true} // these have nothing that is theirs
	short := map[string]bool{
		`{"ts":1700000000,"mac":"00:00:5e:00:53:01"}`: true,
		`{"ts":1700000000,"uid":"C1","id.orig_h":"10.0.0.1","id.orig_p":50000,"id.resp_h":"192.0.2.1","id.resp_p":22,"host_key_fingerprint":"SHA256:x"}`: true,
	}
	d := New("")
	for _, c := range kindCases {
		if vague[c.log] || short[c.line] {
			continue
		}
		fields, row := toTSV(t, c.line)
		for how, run := range map[string]func() (*flow.Flow, error){
			"json": func() (*flow.Flow, error) { return decode(d, c.line) },
			"tsv":  func() (*flow.Flow, error) { return decode(New(""), fields, row) },
		} {
			got, err := run()
			if err != nil {
				t.Errorf("%s %s: %v\n%s", how, c.log, err, c.line)
			} else if s := diff(&c.want, got); s != "" {
				t.Errorf("%s %s: (-want +got)\n%s", how, c.log, s)
			}
		}
		if !Sniff([]byte(c.line)) {
			t.Errorf("Sniff(%s record) = false", c.log)
		}
	}
}

func TestKindsOfFiles(t *testing.T) {
	f := func(head, log string, want flow.KindSet) {
		t.Helper()
		if got := Kinds([]byte(head), log); got != want {
			t.Errorf("%q of %q: %v, want %v", head, log, got.Names(), want.Names())
		}
	}
	f("#separator \\x09\n#path\tdns\n#fields\tts\n", "", flow.Of(flow.DNS))
	f("#path\tdns\n", "conn", flow.Of(flow.DNS))                     // the header knows better than the name
	f("#path\tconn\n1\t2\n#path\tdns\n", "conn", flow.Of(flow.Conn)) // more than one: the name is the guess
	f(`{"ts":1}`, "conn", flow.Of(flow.Conn))
	f(`{"ts":1}`, "open_conn", flow.Of(flow.Conn))
	f(`{"ts":1}`, "", 0)
	f(`{"ts":1,"_path":"conn"}`, "conn", 0) // a stream that may mix
	f("#path\tstats\n", "stats", flow.NoKind)
	f("#path\tmine\n", "", 0)
}
