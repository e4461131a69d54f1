package selftest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
)

const (
	second = 1000 // ms
	minute = 60 * second
	hour   = 60 * minute
)

// The browsers and libraries of ordinary hosts.
const (
	chromeOnWindows = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36"
	firefoxOnLinux  = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
)

// scenes are what happens in the capture: the list of what can be found. One
// without a module is there for the others.
func scenes() []scene {
	list := []scene{{play: sensor}}
	list = append(list, scanScenes()...)
	list = append(list, connScenes()...)
	list = append(list, dnsScenes()...)
	list = append(list, tlsScenes()...)
	list = append(list, httpScenes()...)
	list = append(list, loginScenes()...)
	list = append(list, windowsScenes()...)
	list = append(list, arpScenes()...)
	list = append(list, noticeScenes()...)
	list = append(list, intelScenes()...)
	return append(list, lookupScenes()...)
}

// sensor is an ordinary host whose traffic shows that each log is written to
// its end, three hours and a half after it began: what waits is decided then.
func sensor(s *stage) {
	for _, at := range []int64{0, 3*hour + 30*minute} {
		s.conn(conn{at: at, dst: s.outside(1), dport: 443, service: "ssl"})
		s.dns(at, "www.example.org", "A", "NOERROR", s.outside(1))
		s.tls(at, s.outside(1), kv{"server_name": "www.example.org", "ja4": browser})
		s.http(at, s.outside(2), "www.example.net", "/", nil)
		s.log("dhcp", at, kv{
			"uids": []string{s.uid()}, "client_addr": s.host(), "server_addr": s.inside(1), "mac": s.mac(10),
			"requested_addr": s.host(), "assigned_addr": s.host(), "msg_types": []string{"REQUEST", "ACK"},
		})
		s.arp(at, "request", 10, s.host(), s.inside(1), noMAC)
		s.session("ssh", at, s.outside(3), 22, kv{"version": 2, "auth_success": true, "auth_attempts": 1, "client": sshClient, "server": sshServer})
		s.session("smtp", at, s.inside(25), 25, kv{"trans_depth": 1, "helo": "pc", "last_reply": "250 2.0.0 Ok"})
		s.session("kerberos", at, s.inside(2), 88, kv{
			"request_type": "AS", "client": "eva/CORP", "service": "krbtgt/CORP", "success": true, "cipher": "aes256-cts-hmac-sha1-96",
		})
		s.session("dce_rpc", at, s.inside(2), 135, kv{"rtt": 0.001, "named_pipe": "135", "endpoint": "epmapper", "operation": "ept_map"})
	}
}

const (
	browser   = "t13d1516h2_8daaf6152771_02713d6af862"
	sshClient = "SSH-2.0-OpenSSH_9.6"
	sshServer = "SSH-2.0-OpenSSH_8.9"
)

// noise returns n characters of base64 that follow from a seed.
func noise(seed string, n int) string {
	var text string
	for i := 0; len(text) < n; i++ {
		sum := sha256.Sum256(fmt.Append(nil, seed, i))
		text += base64.StdEncoding.EncodeToString(sum[:30])
	}
	return text[:n]
}

// digits returns n hexadecimal digits that follow from a seed.
func digits(seed string, n int) string {
	sum := sha256.Sum256([]byte(seed))
	return hex.EncodeToString(sum[:])[:n]
}

func scanScenes() []scene {
	// sweep asks hosts by ICMP; the ports are type and code.
	sweep := func(request, reply int) func(*stage) {
		return func(s *stage) {
			for i := range 10 {
				s.conn(conn{at: int64(i) * second, sport: request, dst: s.outside(i), dport: reply, proto: "icmp", state: "OTH", sent: 56})
			}
		}
	}
	// slow tries four targets an hour, for three hours.
	slow := func(target func(*stage, int) (string, int)) func(*stage) {
		return func(s *stage) {
			for i := range 13 {
				dst, port := target(s, i)
				s.conn(conn{at: int64(i/4)*hour + int64(i%4)*10*minute, dst: dst, dport: port, state: "S0"})
			}
		}
	}
	return []scene{
		{
			module: "portscan", typ: "VERTICAL_PORT_SCAN", what: "ten ports of one host, all refused",
			play: func(s *stage) {
				for i := range 10 {
					s.conn(conn{at: int64(i) * second, dst: s.inside(20), dport: 20 + i, state: "REJ"})
				}
			},
		},
		{
			module: "portscan", typ: "HORIZONTAL_PORT_SCAN", what: "the SMB port of ten hosts, none of which answers",
			play: func(s *stage) {
				for i := range 10 {
					s.conn(conn{at: int64(i) * second, dst: s.outside(i), dport: 445, state: "S0"})
				}
			},
		},
		{
			module: "slowscan", typ: "VERTICAL_PORT_SCAN", what: "four ports of one host an hour, for three hours",
			play: slow(func(s *stage, i int) (string, int) { return s.outside(1), 1000 + 17*i }),
		},
		{
			module: "slowscan", typ: "HORIZONTAL_PORT_SCAN", what: "the SSH port of four hosts an hour, for three hours",
			play: slow(func(s *stage, i int) (string, int) { return s.outside(i), 22 }),
		},
		{module: "icmpscan", typ: "ICMP_ADDRESS_SCAN", what: "ten hosts pinged", play: sweep(8, 0)},
		{module: "icmpscan", typ: "ICMP_TIMESTAMP_SCAN", what: "ten hosts asked for the time by ICMP", play: sweep(13, 14)},
		{module: "icmpscan", typ: "ICMP_ADDRESS_MASK_SCAN", what: "ten hosts asked for their network mask", play: sweep(17, 18)},
		{
			module: "arpscan", typ: "ARP_SCAN", what: "ten addresses of the network asked for within ten seconds",
			play: func(s *stage) {
				for i := range 10 {
					s.arp(int64(i)*second, "request", 10, s.host(), s.inside(100+i), noMAC)
				}
			},
		},
		{
			module: "dhcpscan", typ: "DHCP_SCAN", what: "one client asks for eight addresses",
			play: func(s *stage) {
				for i := range 8 {
					s.log("dhcp", int64(i)*second, kv{
						"uids": []string{s.uid()}, "client_addr": s.host(), "server_addr": s.inside(1), "mac": s.mac(10),
						"requested_addr": s.inside(100 + i), "msg_types": []string{"REQUEST", "ACK"},
					})
				}
			},
		},
		{
			module: "dhcpscan", typ: "DHCP_STARVATION", what: "110 new clients ask one DHCP server within a minute",
			who: func(s *stage) string { return s.inside(1) },
			play: func(s *stage) {
				for i := range 110 {
					s.log("dhcp", int64(i)*second/2, kv{
						"uids": []string{s.uid()}, "client_addr": s.inside(100 + i), "server_addr": s.inside(1),
						"mac": fmt.Sprintf("0e:5a:%02x:00:00:01", i), "requested_addr": s.inside(100 + i),
						"msg_types": []string{"DISCOVER", "OFFER", "REQUEST", "ACK"},
					})
				}
			},
		},
		{
			module: "gre", typ: "GRE_TUNNEL", what: "a GRE tunnel to the Internet",
			play: func(s *stage) {
				s.session("tunnel", 0, s.outside(1), 0, kv{"id.orig_p": 0, "tunnel_type": "Tunnel::GRE", "action": "Tunnel::DISCOVER"})
			},
		},
		{
			module: "gre", typ: "GRE_SCAN", what: "GRE sent to ten hosts",
			play: func(s *stage) {
				for i := range 10 {
					s.session("tunnel", int64(i)*second, s.outside(i), 0, kv{"id.orig_p": 0, "tunnel_type": "Tunnel::GRE", "action": "Tunnel::DISCOVER"})
				}
			},
		},
	}
}

func connScenes() []scene {
	one := func(c func(*stage) conn) func(*stage) { return func(s *stage) { s.conn(c(s)) } }
	return []scene{
		{
			module: "longconn", typ: "LONG_CONNECTION", what: "a connection of two hours",
			play: one(func(s *stage) conn { return conn{dst: s.outside(1), dport: 443, service: "ssl", ms: 2 * hour} }),
		},
		{
			module: "reconnect", typ: "MULTIPLE_RECONNECTION_ATTEMPTS", what: "a server that refuses is called ten times",
			play: func(s *stage) {
				for i := range 10 {
					s.conn(conn{at: int64(i) * 20 * second, dst: s.outside(1), dport: 1177, state: "REJ"})
				}
			},
		},
		{
			module: "unknownport", typ: "UNKNOWN_PORT", what: "a connection to a port that no service has",
			play: one(func(s *stage) conn { return conn{dst: s.outside(1), dport: 50001} }),
		},
		{
			module: "multiport", typ: "CONNECTION_TO_MULTIPLE_PORTS", what: "two ports of one host that no service has",
			play: func(s *stage) {
				for i := range 2 {
					s.conn(conn{at: int64(i) * second, dst: s.outside(1), dport: 50001 + i})
				}
			},
		},
		{
			module: "portzero", typ: "PORT_0_CONNECTION", what: "a datagram from port 0",
			play: one(func(s *stage) conn { return conn{sport: -1, dst: s.outside(1), dport: 80, proto: "udp", state: "S0"} }),
		},
		{
			module: "portproto", typ: "NON_SSL_PORT_443_CONNECTION", what: "an unknown protocol on port 443",
			play: one(func(s *stage) conn { return conn{dst: s.outside(1), dport: 443} }),
		},
		{
			module: "portproto", typ: "NON_HTTP_PORT_80_CONNECTION", what: "an unknown protocol on port 80",
			play: one(func(s *stage) conn { return conn{dst: s.outside(1), dport: 80} }),
		},
		{
			module: "privateip", typ: "CONNECTION_TO_PRIVATE_IP", what: "a connection to a neighbour",
			play: one(func(s *stage) conn { return conn{dst: s.inside(20), dport: 22, service: "ssh"} }),
		},
		{
			module: "localnet", typ: "DIFFERENT_LOCALNET", what: "a connection to a private address of another network",
			play: one(func(*stage) conn { return conn{dst: "192.168.7.7", dport: 22, service: "ssh"} }),
		},
		{
			module: "ipchange", typ: "DEVICE_CHANGING_IP", what: "a device goes on under another address",
			play: func(s *stage) {
				for i, src := range []string{s.inside(9), s.inside(9), s.host(), s.host()} {
					s.conn(conn{at: int64(i) * 5 * minute, src: src, dst: s.outside(1), dport: 443, service: "ssl", mac: "00:1b:21:00:00:0a"})
				}
			},
		},
		{
			module: "upload", typ: "DATA_UPLOAD", what: "600 MB sent to one host",
			play: one(func(s *stage) conn {
				return conn{dst: s.outside(1), dport: 443, service: "ssl", ms: 5 * minute, sent: 600e6, received: 4000}
			}),
		},
		{
			module: "ddos", typ: "DDOS_SOURCE", what: "650 connections to one web server within a minute, all left half open",
			play: func(s *stage) {
				for i := range int64(650) {
					s.conn(conn{at: i * 50, sport: 1024 + int(i), dst: s.outside(1), dport: 80, state: "S0"})
				}
			},
		},
		{
			module: "p2p", typ: "P2P_TRAFFIC", what: "60 peers, each on a port of its own, every third of them gone",
			play: func(s *stage) {
				for i := range 60 {
					c := conn{at: int64(i) * second, sport: 51413, dst: fmt.Sprintf("20.%d.%d.7", s.n, i), dport: 10007 + 37*i, proto: "udp"}
					if i%3 == 0 {
						c.proto, c.state = "tcp", "S0"
					}
					s.conn(c)
				}
			},
		},
		{
			module: "p2p", typ: "P2P_BOT", what: "120 peers, nine of ten of them gone, sent the same few bytes over UDP for an hour",
			play: func(s *stage) {
				for i := range 120 {
					c := conn{at: int64(i) * 30 * second, sport: 5000, dst: fmt.Sprintf("20.%d.%d.8", s.n, i), dport: 2000 + 37*i, proto: "udp", state: "S0", sent: 34}
					if i%10 == 0 {
						c.state, c.sent, c.received = "SF", 68, 600
					}
					s.conn(c)
				}
			},
		},
		{
			module: "beacon", typ: "BEACON", what: "the same few bytes every minute, for an hour, at a port that no service has",
			play: func(s *stage) {
				for i := range int64(64) {
					s.conn(conn{at: i * minute, dst: s.outside(1), dport: 8899})
				}
			},
		},
		{
			module: "beacon", typ: "STROBE", what: "a new connection every 0.9 s, for twelve minutes",
			play: func(s *stage) {
				for i := range int64(800) {
					s.conn(conn{at: i * 900, sport: 10000 + int(i), dst: s.outside(1), dport: 443, service: "ssl"})
				}
			},
		},
		{
			module: "mining", typ: "MINING_POOL", what: "the look-up of a mining pool",
			play: func(s *stage) { s.dns(0, "pool.supportxmr.com", "A", "NOERROR", s.outside(1)) },
		},
		{
			module: "remoteaccess", typ: "REMOTE_ACCESS_TOOL", what: "ten minutes of remote desktop with a host on the Internet",
			play: one(func(s *stage) conn {
				return conn{dst: s.outside(1), dport: 3389, service: "rdp", ms: 10 * minute, sent: 50000, received: 900000}
			}),
		},
		{
			module: "spambot", typ: "SPAMBOT", what: "mail sent to servers in twenty networks",
			play: func(s *stage) {
				for i := range 20 {
					s.conn(conn{at: int64(i) * 20 * second, dst: fmt.Sprintf("20.%d.%d.25", 200+i, s.n), dport: 25, service: "smtp"})
				}
			},
		},
	}
}

func dnsScenes() []scene {
	return []scene{
		{
			module: "connnodns", typ: "CONNECTION_WITHOUT_DNS", what: "a connection to an address that no answer named",
			play: func(s *stage) { s.conn(conn{at: minute, dst: s.outside(1), dport: 443, service: "ssl"}) },
		},
		{
			module: "dnsnoconn", typ: "DNS_WITHOUT_CONNECTION", what: "a name resolved and not used",
			play: func(s *stage) {
				s.dns(0, "unused.example.com", "A", "NOERROR", s.outside(1))
				for i := range int64(8) {
					s.conn(conn{at: i * 10 * minute, dst: s.outside(2), dport: 443, service: "ssl"})
				}
			},
		},
		{
			module: "dnsflood", typ: "DNS_TUNNEL", what: "2 MB sent to a server outside in messages of port 53 that are longer than questions",
			play: func(s *stage) {
				s.conn(conn{dst: s.outside(1), dport: 53, proto: "udp", service: "dns", ms: 10 * minute, sent: 2_000_000, received: 90_000})
			},
		},
		{
			module: "ipcheck", typ: "IP_LOOKUP", what: "the look-up of a site that tells a host its public address",
			play: func(s *stage) { s.dns(0, "api.ipify.org", "A", "NOERROR", s.outside(1)) },
		},
		{
			module: "dnsflood", typ: "DNS_FLOOD", what: "1,100 queries to one resolver within nine minutes",
			play: func(s *stage) {
				for i := range int64(1100) {
					s.conn(conn{at: i * 490, sport: 20000 + int(i), dst: "8.8.8.8", dport: 53, proto: "udp", service: "dns", state: "S0", sent: 40})
				}
			},
		},
		{
			module: "dga", typ: "DGA_NXDOMAINS", what: "twenty generated domains, none of which exists",
			play: func(s *stage) {
				for i := range 20 {
					name := []byte(digits(fmt.Sprint("dga", i), 12))
					for j, c := range name { // letters alone, few of them vowels
						if c <= '9' {
							c += 'g' - '0'
						}
						name[j] = c
					}
					s.dns(int64(i)*2*second, string(name)+".com", "A", "NXDOMAIN")
				}
			},
		},
		{
			module: "dnstunnel", typ: "DNS_TUNNEL", what: "60 look-ups for text, with data in the names",
			play: func(s *stage) {
				for i := range 60 {
					name := digits(fmt.Sprint("tunnel", i), 60)
					s.dns(int64(i)*second, name+".t.tunnel.example.com", "TXT", "NOERROR", "TXT 40 "+digits(name, 40))
				}
			},
		},
		{
			module: "dnsentropy", typ: "HIGH_ENTROPY_DNS_ANSWER", what: "ciphered text in a DNS answer",
			play: func(s *stage) { s.dns(0, "a1.orders.example.com", "TXT", "NOERROR", "TXT 180 "+noise("orders", 180)) },
		},
		{
			module: "dnsinvalid", typ: "INVALID_DNS_RESOLUTION", what: "a public name with the address of the host itself",
			play: func(s *stage) { s.dns(0, "panel.parked.example.com", "A", "NOERROR", "127.0.0.1") },
		},
		{
			module: "dnsarpa", typ: "DNS_ARPA_SCAN", what: "the names of twenty neighbours asked for within two seconds",
			play: func(s *stage) {
				for i := range 20 {
					s.dns(int64(i)*100, fmt.Sprintf("%d.%d.0.10.in-addr.arpa", i+1, s.n), "PTR", "NXDOMAIN")
				}
			},
		},
		{
			module: "doh", typ: "DOH_CONNECTION", what: "DNS over HTTPS",
			play: func(s *stage) {
				s.tls(0, "104.16.248.249", kv{"server_name": "mozilla.cloudflare-dns.com", "version": "TLSv13", "ja4": browser})
			},
		},
	}
}

func tlsScenes() []scene {
	return []scene{
		{
			module: "certificate", typ: "SELF_SIGNED_CERTIFICATE", what: "a server that signed its certificate itself",
			play: func(s *stage) {
				s.tls(0, s.outside(1), kv{"server_name": "gate.example.net", "validation_status": "self signed certificate"})
			},
		},
		{
			module: "certificate", typ: "INVALID_CERTIFICATE", what: "a certificate that expired 40 days before",
			play: func(s *stage) {
				print := digits("expired", 64)
				s.tls(0, s.outside(1), kv{"server_name": "old.example.org", "cert_chain_fps": []string{print}})
				s.log("x509", 100, kv{
					"fingerprint": print, "certificate.version": 3, "certificate.subject": "CN=old.example.org",
					"certificate.issuer": "CN=R3,O=Let's Encrypt,C=US", "certificate.not_valid_before": 1_688_000_000,
					"certificate.not_valid_after": 1_696_544_000,
				})
			},
		},
		{
			module: "certname", typ: "INCOMPATIBLE_CN", what: "a certificate in the name of Google, signed by itself",
			play: func(s *stage) {
				s.tls(0, s.outside(1), kv{"subject": "CN=www.google.com,O=Google LLC,C=US", "issuer": "CN=www.google.com,O=Google LLC,C=US"})
			},
		},
		{
			module: "certname", typ: "CN_URL_MISMATCH", what: "a certificate for another name",
			play: func(s *stage) {
				print := digits("mismatch", 64)
				s.tls(0, s.outside(1), kv{"server_name": "portal.example.com", "cert_chain_fps": []string{print}})
				s.log("x509", 100, kv{
					"fingerprint": print, "certificate.version": 3, "certificate.subject": "CN=localhost", "certificate.issuer": "CN=localhost",
					"certificate.not_valid_before": 1_697_408_000, "certificate.not_valid_after": 1_705_184_000,
				})
			},
		},
		{
			module: "torlike", typ: "TOR_LIKE_TLS", what: "an invented name at a port of Tor",
			play: func(s *stage) {
				s.tls(0, s.outside(1), kv{"id.resp_p": 9001, "version": "TLSv13", "server_name": "www.jzx6qpkvn3wq.com"})
			},
		},
		{
			module: "raresig", typ: "RARE_SIGNATURE", what: "a TLS fingerprint that one host of five has, for one server",
			play: func(s *stage) {
				for i := range 4 {
					s.tls(int64(i)*second, s.outside(1), kv{"id.orig_h": s.inside(11 + i), "server_name": "www.example.org", "ja4": browser})
				}
				for i := range 6 {
					s.tls(int64(i+2)*minute, s.outside(2), kv{"server_name": "c2.example.net", "ja4": "t13d1516h2_8daaf6152771_000000000002"})
				}
			},
		},
	}
}

func httpScenes() []scene {
	get := func(host, uri string, f kv) func(*stage) {
		return func(s *stage) { s.http(0, s.outside(1), host, uri, f) }
	}
	return []scene{
		{module: "httptraffic", typ: "HTTP_TRAFFIC", what: "a web page without encryption", play: get("a.example.com", "/", kv{"user_agent": firefoxOnLinux})},
		{
			module: "useragent", typ: "SUSPICIOUS_USER_AGENT", what: "the user agent of a tool for attacks",
			play: get("a.example.com", "/x", kv{"user_agent": "sqlmap/1.8#stable (https://sqlmap.org)"}),
		},
		{
			module: "useragent", typ: "MULTIPLE_USER_AGENT", what: "a host that was Windows shows Linux",
			play: func(s *stage) {
				s.http(0, s.outside(1), "a.example.com", "/x", kv{"user_agent": chromeOnWindows})
				s.http(minute, s.outside(1), "a.example.com", "/x", kv{"user_agent": firefoxOnLinux})
			},
		},
		{
			module: "useragent", typ: "INCOMPATIBLE_USER_AGENT", what: "a host that is Windows by DHCP shows Linux",
			play: func(s *stage) {
				s.log("dhcp", 0, kv{
					"uids": []string{s.uid()}, "client_addr": s.host(), "server_addr": s.inside(1), "mac": s.mac(10),
					"requested_addr": s.host(), "assigned_addr": s.host(), "client_software": "MSFT 5.0", "msg_types": []string{"REQUEST", "ACK"},
				})
				s.http(10*second, s.outside(1), "a.example.com", "/x", kv{"user_agent": firefoxOnLinux})
			},
		},
		{
			module: "httpempty", typ: "EMPTY_CONNECTIONS", what: "the front page of a search engine asked for six times by a program",
			play: func(s *stage) {
				for i := range int64(6) {
					s.http(i*10*second, s.outside(1), "www.google.com", "/", kv{"user_agent": "Wget/1.21"})
				}
			},
		},
		{
			module: "httpmethod", typ: "WEIRD_HTTP_METHOD", what: "a method that HTTP does not have",
			play: func(s *stage) {
				f := kv{"uid": s.uid()}
				s.http(0, s.outside(1), "a.example.com", "/", kv{"uid": f["uid"], "method": "FOOBAR"})
				s.session("weird", 0, s.outside(1), 80, kv{"uid": f["uid"], "name": "unknown_HTTP_method", "addl": "FOOBAR", "notice": false, "peer": "zeek"})
			},
		},
		{
			module: "download", typ: "EXECUTABLE_MIME_TYPE", what: "a program from a server without a name",
			play: func(s *stage) {
				s.http(0, s.outside(1), s.outside(1), "/b.exe", kv{"resp_mime_types": []string{"application/x-dosexec"}})
			},
		},
		{
			module: "download", typ: "MIME_MISMATCH", what: "a program under the name of a picture",
			play: get("cdn.example.com", "/img/logo.jpg", kv{"resp_mime_types": []string{"application/x-dosexec"}, "user_agent": chromeOnWindows}),
		},
		{
			module: "download", typ: "PASTEBIN_DOWNLOAD", what: "9,000 bytes from a paste site",
			play: get("pastebin.com", "/raw/abc", kv{"response_body_len": 9000}),
		},
		{
			module: "cleartext", typ: "CLEARTEXT_CREDENTIALS", what: "a password sent by FTP",
			play: func(s *stage) {
				s.session("ftp", 0, s.outside(1), 21, kv{"user": "bert", "password": "<hidden>", "command": "RETR", "arg": "x", "reply_code": 230, "reply_msg": "OK"})
			},
		},
	}
}

func loginScenes() []scene {
	return []scene{
		{
			module: "bruteforce", typ: "PASSWORD_GUESSING", what: "twelve logins over SSH that fail",
			play: func(s *stage) {
				for i := range int64(12) {
					s.session("ssh", i*second, s.outside(1), 22, kv{
						"version": 2, "auth_success": false, "auth_attempts": 1, "client": sshClient, "server": sshServer,
					})
				}
			},
		},
		{
			module: "smtplogin", typ: "BAD_SMTP_LOGIN", what: "a login that a mail server refuses",
			play: func(s *stage) {
				s.session("smtp", 0, s.outside(1), 587, kv{"trans_depth": 1, "helo": "pc", "last_reply": "535 5.7.8 Error: authentication failed"})
			},
		},
		{
			module: "smtplogin", typ: "SMTP_LOGIN_BRUTEFORCE", what: "three logins that mail servers refuse, within six seconds",
			play: func(s *stage) {
				for i := range int64(3) {
					s.session("smtp", i*3*second, s.outside(1), 587, kv{"trans_depth": 1, "helo": "pc", "last_reply": "554 5.7.1 bad smtp-auth user"})
				}
			},
		},
		{
			module: "sshlogin", typ: "SSH_SUCCESSFUL", what: "a login over SSH that works",
			play: func(s *stage) {
				uid := s.uid()
				s.conn(conn{uid: uid, dst: s.outside(1), dport: 22, service: "ssh", ms: 5 * second, sent: 4000, received: 9000})
				s.session("ssh", second, s.outside(1), 22, kv{
					"uid": uid, "version": 2, "auth_success": true, "auth_attempts": 1, "client": sshClient, "server": sshServer,
				})
			},
		},
		{
			module: "sshversion", typ: "MULTIPLE_SSH_VERSIONS", what: "the SSH client of a host changes its version",
			play: func(s *stage) {
				for i := range 2 {
					s.log("software", int64(i)*10*minute, kv{
						"host": s.host(), "software_type": "SSH::CLIENT", "name": "OpenSSH", "version.major": 8, "version.minor": 1 + i,
						"unparsed_version": fmt.Sprintf("OpenSSH_8.%d", 1+i),
					})
				}
			},
		},
		{
			module: "login", typ: "LOGIN", what: "a login by telnet",
			play: func(s *stage) {
				s.session("login", 0, s.inside(22), 23, kv{"proto": "tcp", "success": true, "confused": false, "user": "root"})
			},
		},
	}
}

func windowsScenes() []scene {
	rpc := func(s *stage, at int64, dst, pipe, endpoint, operation string) {
		s.session("dce_rpc", at, dst, 445, kv{"rtt": 0.001, "named_pipe": pipe, "endpoint": endpoint, "operation": operation})
	}
	ticket := func(s *stage, at int64, fields kv) { s.session("kerberos", at, s.inside(2), 88, fields) }
	write := func(s *stage, share, name string) {
		s.session("smb_files", 0, s.inside(20), 445, kv{"action": "SMB::FILE_WRITE", "path": `\\PC20\` + share, "name": name, "size": 1000})
	}
	return []scene{
		{
			module: "lateral", typ: "ADMIN_SHARE_WRITE", what: "a program written to the C$ share of a neighbour",
			play: func(s *stage) { write(s, "C$", `Windows\b.dll`) },
		},
		{
			module: "lateral", typ: "REMOTE_SERVICE", what: "a service created on a neighbour",
			play: func(s *stage) { rpc(s, 0, s.inside(20), "445", "svcctl", "CreateServiceW") },
		},
		{
			module: "lateral", typ: "REMOTE_EXECUTION", what: "PsExec used on a neighbour",
			play: func(s *stage) { write(s, "ADMIN$", "PSEXESVC.exe") },
		},
		{
			module: "lateral", typ: "LATERAL_FANOUT", what: "sessions on the SMB port of ten neighbours",
			play: func(s *stage) {
				for i := range 10 {
					s.conn(conn{at: int64(i) * 5 * second, dst: s.inside(20 + i), dport: 445, ms: second, sent: 2000, received: 2000})
				}
			},
		},
		{
			module: "ransom", typ: "RANSOMWARE", what: "a hundred documents of a file server in twelve folders get a new ending",
			play: func(s *stage) {
				for i := range int64(100) {
					name := fmt.Sprintf(`team%d\report%d.docx`, i%12, i)
					s.session("smb_files", i*second/2, s.inside(20), 445, kv{
						"action": "SMB::FILE_RENAME", "path": `\\FILES\team`, "name": name + ".qlock", "prev_name": name, "size": 1000,
					})
				}
			},
		},
		{
			module: "adabuse", typ: "DCSYNC", what: "a workstation has a domain controller replicate to it",
			play: func(s *stage) {
				rpc(s, 0, s.inside(2), "445", "drsuapi", "DRSBind")
				rpc(s, second, s.inside(2), "445", "drsuapi", "DRSGetNCChanges")
			},
		},
		{
			module: "adabuse", typ: "ZEROLOGON", what: "40 calls to log on by netlogon, then a new password",
			play: func(s *stage) {
				for i := range int64(40) {
					rpc(s, i*200, s.inside(2), "445", "netlogon", []string{"NetrServerReqChallenge", "NetrServerAuthenticate3"}[i%2])
				}
				rpc(s, 9*second, s.inside(2), "445", "netlogon", "NetrServerPasswordSet2")
			},
		},
		{
			module: "adabuse", typ: "KERBEROASTING", what: "RC4 tickets for seven services within seconds",
			play: func(s *stage) {
				for i := range int64(7) {
					ticket(s, i*second, kv{
						"request_type": "TGS", "client": "anna/CORP", "service": fmt.Sprintf("MSSQLSvc/db%d.corp.example:1433", i), "success": true,
						"cipher": "rc4-hmac",
					})
				}
			},
		},
		{
			module: "adabuse", typ: "DOMAIN_ENUMERATION", what: "the members of a group listed, the sessions of five hosts",
			play: func(s *stage) {
				rpc(s, 0, s.inside(2), "445", "samr", "SamrConnect5")
				rpc(s, second, s.inside(2), "445", "samr", "SamrGetMembersInGroup")
				for i := range 5 {
					rpc(s, minute+int64(i)*second, s.inside(20+i), "445", "wkssvc", "NetrWkstaUserEnum")
				}
			},
		},
	}
}

func arpScenes() []scene {
	return []scene{
		{
			module: "arpoutside", typ: "ARP_OUTSIDE_LOCALNET", what: "an address of the Internet asked for by ARP",
			play: func(s *stage) { s.arp(0, "request", 10, s.host(), s.outside(1), noMAC) },
		},
		{
			module: "arpspoof", typ: "MITM_ARP_ATTACK", what: "a station tells a host and its router that it is the other",
			play: func(s *stage) {
				for i, who := range []int{7, 1, 10} { // that they are there
					s.arp(int64(i)*second, "request", who, s.inside(who), s.inside(1+who%7), noMAC)
				}
				for i := range int64(10) {
					s.arp((10+2*i)*second, "reply", 10, s.inside(1), s.inside(7), s.mac(7))
					s.arp((11+2*i)*second, "reply", 10, s.inside(7), s.inside(1), s.mac(1))
				}
			},
		},
		{
			module: "arpspoof", typ: "UNSOLICITED_ARP", what: "a reply to all, about an address of another",
			play: func(s *stage) {
				s.arp(0, "request", 10, s.host(), s.inside(1), noMAC)
				for i := range int64(2) {
					s.arp((10+i)*second, "reply", 10, s.host(), s.inside(7), "ff:ff:ff:ff:ff:ff")
				}
			},
		},
	}
}

func noticeScenes() []scene {
	notice := func(note, msg string, f kv) func(*stage) {
		return func(s *stage) {
			all := kv{
				"note": note, "msg": s.host() + " " + msg, "src": s.host(), "actions": []string{"Notice::ACTION_LOG"}, "suppress_for": 3600.0,
			}
			maps.Copy(all, f)
			s.log("notice", 0, all)
		}
	}
	return []scene{
		{
			module: "notice", typ: "VERTICAL_PORT_SCAN", what: "Zeek notices a port scan",
			play: notice("Scan::Port_Scan", "scanned at least 15 unique ports of host 20.1.2.3 in 0m2s", kv{"proto": "tcp", "sub": "local"}),
		},
		{
			module: "notice", typ: "HORIZONTAL_PORT_SCAN", what: "Zeek notices a scan of one port of many hosts",
			play: notice("Scan::Address_Scan", "scanned at least 25 unique hosts on port 23/tcp in 1m0s", kv{"proto": "tcp", "p": 23, "sub": "local"}),
		},
		{
			module: "notice", typ: "ICMP_ADDRESS_SCAN", what: "Zeek notices a sweep by ICMP echo",
			play: notice("ICMP::ICMPAddressScan", "performed ICMP address scan on 25 hosts", kv{"n": 25}),
		},
		{
			module: "notice", typ: "ICMP_TIMESTAMP_SCAN", what: "Zeek notices a sweep by ICMP timestamp",
			play: notice("ICMP::TimestampScan", "performed ICMP timestamp scan on 25 hosts", kv{"n": 25}),
		},
		{
			module: "notice", typ: "ICMP_ADDRESS_MASK_SCAN", what: "Zeek notices a sweep by ICMP address mask",
			play: notice("ICMP::AddressMaskScan", "performed ICMP address mask scan on 25 hosts", kv{"n": 25}),
		},
		{
			module: "notice", typ: "PASSWORD_GUESSING", what: "Zeek notices that passwords are guessed",
			play: notice("SSH::Password_Guessing", "appears to be guessing SSH passwords (seen in 30 connections).", nil),
		},
		{
			module: "notice", typ: "ZEEK_NOTICE", what: "Zeek notices something else",
			play: notice("Traceroute::Detected", "seems to be running traceroute using udp", kv{"proto": "udp"}),
		},
		{
			module: "signature", typ: "SIGNATURE_ALERT", what: "an alert of Suricata",
			play: func(s *stage) {
				s.eve(0, kv{
					"flow_id": 400, "event_type": "alert", "src_ip": s.host(), "src_port": 51000, "dest_ip": s.outside(1), "dest_port": 22,
					"proto": "TCP", "alert": kv{
						"action": "allowed", "gid": 1, "signature_id": 2001219, "rev": 20, "signature": "SELFTEST Potential SSH scan outbound",
						"category": "Attempted Information Leak", "severity": 2,
					},
				})
			},
		},
	}
}
