package selftest

import "fmt"

// The lists of indicators: those of the directory of local lists, which are
// known by their names, and those that feedsYAML names.
const (
	iocs    = "local/own_malicious_iocs.csv"
	ja3s    = "local/own_malicious_JA3.csv"
	jarms   = "local/own_malicious_JARM.csv"
	intel   = "local/selftest.intel"
	ranges  = "local/selftest.netset"
	names   = "names.hosts"
	systems = "systems.txt"
	servers = "fingerprints.csv"
	exits   = "exits.txt"
)

// heads are what the lists begin with, by name.
func heads() map[string]string {
	return map[string]string{
		iocs:    "# indicator, level, description, tag\n",
		ja3s:    "# JA3, level, description, tag\n",
		jarms:   "# JARM, level, description, tag\n",
		intel:   "#fields\tindicator\tindicator_type\tmeta.source\tmeta.desc\n",
		ranges:  "# networks\n",
		names:   "# as a hosts file\n",
		systems: "# numbers of autonomous systems\n",
		servers: "fingerprint,kind,about\n",
		exits:   "# exit nodes of Tor\n",
	}
}

// feedsYAML is the operator's list of feeds. The program's own are empty here,
// as nothing is fetched.
const feedsYAML = `# Feeds of the self-test, beside this file.
feeds:
  selftest-names:
    path: names.hosts
    format: hosts
    level: high
    tags: [c2]
  selftest-systems:
    path: systems.txt
    format: lines
    kinds: [asn]
    level: medium
    tags: [malware]
  selftest-fingerprints:
    path: fingerprints.csv
    format: csv
    columns: { value: fingerprint, kind: kind, description: about }
    level: high
    tags: [c2]
  selftest-exits:
    path: exits.txt
    format: lines
    kinds: [ip]
    level: info
    tags: [tor-exit]
`

// visitor is somebody on the Internet who comes to the host of the scene.
func visitor(s *stage) string { return s.outside(7) }

// intelScenes are about things that feeds list.
func intelScenes() []scene {
	return []scene{
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP", what: "a connection to a listed address",
			play: func(s *stage) {
				s.list(iocs, s.outside(1)+",high,Self-test command server,c2")
				s.conn(conn{dst: s.outside(1), dport: 443, service: "ssl"})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP", what: "a visitor from a listed network", who: visitor,
			play: func(s *stage) {
				s.list(ranges, fmt.Sprintf("20.%d.0.0/24", s.n))
				s.conn(conn{src: visitor(s), dst: s.host(), dport: 80, service: "http"})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_BLACKLISTED_ASN", what: "a connection into a listed autonomous system",
			play: func(s *stage) {
				s.system(64500, "Self-test Hosting")
				s.list(systems, "AS64500")
				s.conn(conn{dst: s.outside(1), dport: 443, service: "ssl"})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN", what: "the server below a listed name, by TLS",
			play: func(s *stage) {
				s.list(iocs, "c2.example.net,high,Self-test command server,c2")
				s.tls(0, s.outside(1), kv{"server_name": "eu.c2.example.net", "ja4": browser})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY", what: "a listed name is resolved, and its address connected to",
			play: func(s *stage) {
				s.list(names, "0.0.0.0 panel.example.net")
				s.dns(0, "panel.example.net", "A", "NOERROR", s.outside(1))
				s.conn(conn{at: second, dst: s.outside(1), dport: 443, service: "ssl"})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER", what: "a name turns out to be an alias of a listed one",
			play: func(s *stage) {
				s.list(names, "0.0.0.0 tracker.example.net")
				s.dns(0, "metrics.shop.example.com", "A", "NOERROR", "tracker.example.net", s.outside(1))
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_MALICIOUS_URL", what: "a listed URL fetched",
			play: func(s *stage) {
				s.list(intel, "files.example.net/loader.bin\tIntel::URL\tselftest\tSelf-test loader")
				s.http(0, s.outside(1), "files.example.net", "/loader.bin", kv{"user_agent": chromeOnWindows})
			},
		},
		{
			module: "threatintel", typ: "MALICIOUS_DOWNLOADED_FILE", what: "a listed file received",
			play: func(s *stage) {
				sum := digits("listed file", 64)
				s.list(intel, sum+"\tIntel::FILE_HASH\tselftest\tSelf-test loader")
				s.file(0, kv{"mime_type": "application/zip", "sha256": sum})
			},
		},
		{
			module: "threatintel", typ: "MALICIOUS_JA3", what: "a TLS client with a listed JA3",
			play: func(s *stage) {
				print := digits("ja3", 32)
				s.list(ja3s, print+",high,Self-test bot,malware")
				s.tls(0, s.outside(1), kv{"ja3": print})
			},
		},
		{
			module: "threatintel", typ: "MALICIOUS_JA3S", what: "a TLS server with a listed JA3S",
			play: func(s *stage) {
				print := digits("ja3s", 32)
				s.list(servers, print+",ja3s,Self-test command server")
				s.tls(0, s.outside(1), kv{"ja3s": print})
			},
		},
		{
			module: "threatintel", typ: "MALICIOUS_JA4", what: "a TLS client with a listed JA4",
			play: func(s *stage) {
				const print = "t13d190900_5e1f7e570001_5e1f7e570002"
				s.list(servers, print+",ja4,Self-test bot")
				s.tls(0, s.outside(1), kv{"ja4": print})
			},
		},
		{
			module: "threatintel", typ: "MALICIOUS_SSL_CERT", what: "a server with a listed certificate",
			play: func(s *stage) {
				print := digits("listed certificate", 40)
				s.list(intel, print+"\tIntel::CERT_HASH\tselftest\tSelf-test command server")
				s.tls(0, s.outside(1), kv{"cert_chain_fps": []string{print}})
			},
		},
		{
			module: "threatintel", typ: "THREAT_INTELLIGENCE_MALICIOUS_EMAIL", what: "a mail to a listed mailbox",
			play: func(s *stage) {
				s.list(intel, "drop@example.net\tIntel::EMAIL\tselftest\tSelf-test mailbox")
				s.session("smtp", 0, s.outside(1), 25, kv{
					"trans_depth": 1, "helo": "pc", "mailfrom": "eva@example.org", "rcptto": []string{"drop@example.net"}, "last_reply": "250 2.0.0 Ok",
				})
			},
		},
		{
			module: "threatintel", typ: "TOR_EXIT_NODE", what: "a connection to an exit node of Tor",
			play: func(s *stage) {
				s.list(exits, s.outside(1))
				s.conn(conn{dst: s.outside(1), dport: 443, service: "ssl"})
			},
		},
	}
}

// lookupScenes are about what online services answer to what the traffic gave
// rise to. Nobody is asked: lookup.log has the answers.
func lookupScenes() []scene {
	return []scene{
		{
			module: "youngdomain", typ: "YOUNG_DOMAIN", what: "contact with a domain that is three days old",
			play: func(s *stage) {
				s.dns(0, "www.example.co.uk", "A", "NOERROR", s.outside(1))
				s.tls(second, s.outside(1), kv{"server_name": "www.example.co.uk", "ja4": browser})
				s.lookup(2*second, "rdap", "domain", "example.co.uk", kv{"registered": begin/1000 - 3*24*3600})
			},
		},
		{
			module: "reputation", typ: "THREAT_INTELLIGENCE_MALICIOUS_URL", what: "a program fetched from a URL that URLhaus lists",
			play: func(s *stage) {
				s.http(0, s.outside(1), s.outside(1), "/bins/x.arm7", kv{"resp_mime_types": []string{"application/x-executable"}})
				s.lookup(second, "urlhaus", "url", s.outside(1)+"/bins/x.arm7", kv{"verdict": "malware_download, online"})
			},
		},
		{
			module: "reputation", typ: "MALICIOUS_DOWNLOADED_FILE", what: "a file that 41 of 70 engines at VirusTotal call bad",
			play: func(s *stage) {
				sum := digits("known file", 32)
				s.file(0, kv{"mime_type": "application/x-dosexec", "md5": sum})
				s.lookup(second, "virustotal", "md5", sum, kv{"malicious": 41, "total": 70, "verdict": "trojan.selftest"})
			},
		},
		{
			module: "reputation", typ: "THREAT_INTELLIGENCE_FROM_BLACKLISTED_IP", what: "a visitor that Spamhaus lists", who: visitor,
			play: func(s *stage) {
				s.conn(conn{src: visitor(s), dst: s.host(), dport: 22, service: "ssh"})
				s.lookup(second, "dnsbl", "ip", visitor(s), kv{
					"id.orig_h": visitor(s), "id.resp_h": s.host(), "id.resp_p": 22, "lists": []string{"SBL"}, "malicious": 1, "total": 1,
				})
			},
		},
		{
			module: "reputation", typ: "THREAT_INTELLIGENCE_TO_BLACKLISTED_IP", what: "a connection to an address that AbuseIPDB calls abusive",
			play: func(s *stage) {
				s.conn(conn{dst: s.outside(1), dport: 443, service: "ssl"})
				s.lookup(second, "abuseipdb", "ip", s.outside(1), kv{"score": 0.95, "verdict": "9 reports by 5 users in 90 days"})
			},
		},
		{
			module: "reputation", typ: "THREAT_INTELLIGENCE_BLACKLISTED_DOMAIN", what: "a name that 12 of 92 engines at VirusTotal call bad",
			play: func(s *stage) {
				s.dns(0, "update.shop.example.org", "A", "NOERROR", s.outside(1))
				s.lookup(second, "virustotal", "domain", "update.shop.example.org", kv{"malicious": 12, "total": 92})
			},
		},
		{
			module: "reputation", typ: "MALICIOUS_JARM", what: "a TLS server without a name answers like a listed one",
			play: func(s *stage) {
				print := "29d29d15d29d29d21c29d29d29d29d" + digits("jarm", 32)
				s.list(jarms, print+",high,Self-test command server,c2")
				s.tls(0, s.outside(1), kv{"ja4": browser})
				s.lookup(second, "jarm", "ip", s.outside(1), kv{"jarm": print})
			},
		},
	}
}
