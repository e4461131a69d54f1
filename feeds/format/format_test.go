package format

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/intel"
)

// show renders an indicator: kind and value, then what its entry says.
func show(i intel.Indicator) string {
	var b strings.Builder
	b.WriteString(i.Kind.String() + " ")
	if i.Prefix.IsValid() {
		b.WriteString(i.Prefix.String())
	}
	b.WriteString(i.Value)
	if i.Level != intel.FeedLevel {
		fmt.Fprintf(&b, " level=%d", i.Level)
	}
	if i.Description != "" {
		fmt.Fprintf(&b, " %q", i.Description)
	}
	if len(i.Tags) > 0 {
		fmt.Fprintf(&b, " %v", i.Tags)
	}
	for _, t := range []int64{i.Since, i.Expires} {
		if t != 0 {
			b.WriteString(" " + time.Unix(t, 0).UTC().Format("2006-01-02T15:04:05"))
		}
	}
	if i.Rank != 0 {
		fmt.Fprintf(&b, " rank=%d", i.Rank)
	}
	return b.String()
}

func parse(o Options, in string) (got []string, rep Report, err error) {
	rep, err = Parse(strings.NewReader(in), o, func(i intel.Indicator) error {
		got = append(got, show(i))
		return nil
	})
	return got, rep, err
}

var now = time.Date(2026, 9, 10, 0, 0, 0, 0, time.UTC)

type feedCase struct {
	name     string
	o        Options
	in       string
	want     []string
	rejected map[string]int
	notes    map[string]int
	comments int
	err      error
}

const (
	md5a  = "00112233445566778899aabbccddeeff"
	sha1a = "00112233445566778899aabbccddeeff00112233"
	sha2a = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	jarma = "27d40d40d29d40d1dc42d43d00041d4689ee210389f4f6b4b5b1b93f92252d"
	ja4a  = "t13d1516h2_8daaf6152771_b186095e22b6"
)

func feedCases() []feedCase {
	return []feedCase{
		{
			name: "lines", o: Options{Format: "lines"}, comments: 5,
			in: "\xef\xbb\xbf# first\r\n1.1.1.1\r\n; second\n// third\n\n  8.8.8.8 # scanner of\tports \n9.9.9.0/24 ; DROP\nEvil.Example.COM.\n*.bad.example.org // all\n" +
				".b\u00fccher.example\nhxxp://a.example[.]com:80/X?q#frag\nhttps://u:p@a.example.com:8443\n" + md5a + "\n" + strings.ToUpper(sha1a) + "\n" + sha2a + "\nAS64500\n" +
				jarma + "\n" + ja4a + "\nJoe@Mail.Example.com\n127.0.0.1 one.example.com two.example.com\n1.2.3.4:8080 c2\n2606:4700::6810:1 x\n::ffff:5.5.5.5\n" +
				"6.6.6.1-6.6.6.4\n1.1.1.77/24\n#end\n",
			want: []string{
				"ip 1.1.1.1/32", `ip 8.8.8.8/32 "scanner of ports"`, `range 9.9.9.0/24 "DROP"`, "domain evil.example.com",
				`domain bad.example.org "all"`, "domain xn--bcher-kva.example", "url a.example.com/X?q", "url a.example.com:8443/", "md5 " + md5a,
				"sha1 " + sha1a, "sha256 " + sha2a, "asn 64500", "jarm " + jarma, "ja4 " + ja4a, "email joe@mail.example.com",
				"domain one.example.com", "domain two.example.com", `ip 1.2.3.4/32 "c2"`, `ip 2606:4700::6810:1/128 "x"`, "ip 5.5.5.5/32",
				"ip 6.6.6.1/32", "range 6.6.6.2/31", "ip 6.6.6.4/32", "range 1.1.1.0/24",
			},
			notes: map[string]int{"port dropped": 1, "host bits cleared": 1},
		},
		{
			name: "refused", o: Options{Format: "lines"},
			in: "10.0.0.1\n192.168.0.0/16\n0.0.0.0/0\n64.0.0.0/7\n10.1.1.1-10.1.1.9\n1.0.0.0-2.0.0.0\nfe80::1%eth0\nlocalhost\ncom\nco.uk\ngithub.io\nw*w.example.com\n" +
				"a..example.com\nhttp://10.0.0.1/x\nhttp://nohost/\n256.1.1.1\nhello world\n" + strings.Repeat("a", 70) + ".example.com\n1.1.1.1/33\nx@y\n2400::/8\n9.9.9.9-9.9.9.1\n",
			rejected: map[string]int{
				"not a public address": 5, "range too broad": 3, "not an indicator": 4, "public suffix": 2, "wildcard inside a name": 1,
				"bad domain name": 2, "name of one label": 1, "bad address": 3, "bad e-mail address": 1,
			},
		},
		{
			name: "private", o: Options{Format: "lines", Private: true},
			in:       "10.0.0.1\n192.168.0.0/16\nfc00::/7\n240.0.0.0/4\n0.0.0.0/0\nhttp://10.0.0.1/\n10.0.0.0-10.255.255.255\n",
			want:     []string{"ip 10.0.0.1/32", "range 192.168.0.0/16", "range fc00::/7", "range 240.0.0.0/4", "url 10.0.0.1/", "range 10.0.0.0/8"},
			rejected: map[string]int{"range too broad": 1},
		},
		{
			name: "declared kinds", o: Options{Format: "lines", Kinds: []intel.Kind{intel.JA3, intel.JA3S, intel.ASN}},
			in:       md5a + "\n64500\nAS7\n1.1.1.1\nxyz\n",
			want:     []string{"ja3 " + md5a, "ja3s " + md5a, "asn 7"},
			rejected: map[string]int{"kind not wanted": 1, "not an indicator": 2},
		},
		{
			name: "declared fingerprints", o: Options{Format: "lines", Kinds: []intel.Kind{intel.JA3, intel.JA3S}},
			in: md5a + "\nxyz\n", want: []string{"ja3 " + md5a, "ja3s " + md5a}, rejected: map[string]int{"bad hash": 1},
		},
		{
			name: "declared as numbers", o: Options{Format: "lines", Kinds: []intel.Kind{intel.ASN}},
			in: "64500\nAS7\nxyz\n", want: []string{"asn 64500", "asn 7"}, rejected: map[string]int{"bad as number": 1},
		},
		{
			name: "csv by number loses no line", o: Options{Format: "csv", Now: now, Columns: Columns{Value: "2", Level: "1", Description: "3", Tags: "4", Expires: "5", Since: "6"}},
			in: "high,1.1.1.1,\"a, \"\"b\"\"\",x|y,2030-01-01,2026-01-02 03:04:05\nodd,2.2.2.2\n,3.3.3.3,,,2020-01-01\nlow,4.4.4.4,\"open\nlow\n",
			want: []string{
				`ip 1.1.1.1/32 level=3 "a, \"b\"" [x y] 2026-01-02T03:04:05 2030-01-01T00:00:00`, "ip 2.2.2.2/32",
			},
			notes: map[string]int{"unknown level": 1}, rejected: map[string]int{"expired": 1, "quote not closed": 1, "columns missing": 1},
		},
		{
			name: "csv by name", o: Options{Format: "csv", Columns: Columns{Separator: ";", Value: "IOC", Kind: "type", Confidence: "conf", Description: "3"}},
			in: "# prose\ntype;ioc;why;conf\nip:port;1.1.1.1:80;w;10\nsha256_hash;" + sha2a + ";v;69\nfqdn;a.example.com;;100\nyara;x;;\nmd5;zz;;\n", comments: 2,
			want:     []string{`ip 1.1.1.1/32 level=1 "w"`, "sha256 " + sha2a + ` level=2 "v"`, "domain a.example.com level=3"},
			rejected: map[string]int{"type of entry not supported": 1, "bad hash": 1}, notes: map[string]int{"port dropped": 1},
		},
		{name: "csv without its header", o: Options{Format: "csv", Columns: Columns{Value: "ioc"}}, in: "a,b\n1.1.1.1,x\n", err: ErrNoColumns},
		{name: "csv header first", o: Options{Format: "csv", Columns: Columns{Header: true, Separator: "tab", Value: "2"}}, in: "x\ty\n1\t1.1.1.1\n", want: []string{"ip 1.1.1.1/32"}, comments: 1},
		{
			name: "hosts", o: Options{Format: "hosts"}, comments: 1,
			in:       "# h\n127.0.0.1 localhost\n::1 ip6-localhost\n0.0.0.0 ads.example.com # x\n0.0.0.0\ttrack.example.net\tb.example.net\n8.8.8.8 dns.example.com\nplain.example.org\n0.0.0.0 1.1.1.1\n",
			want:     []string{`domain ads.example.com "x"`, "domain track.example.net", "domain b.example.net", "domain plain.example.org"},
			rejected: map[string]int{"local name": 2, "type of entry not supported": 1, "kind not wanted": 1},
		},
		{
			name: "netset", o: Options{Format: "netset"}, comments: 1, in: "#\n1.1.1.0/24\n2.2.2.2/32\n3.3.3.0 - 3.3.3.255\n224.0.0.0/3\nevil.example.com\n",
			want:     []string{"range 1.1.1.0/24", "ip 2.2.2.2/32", "range 3.3.3.0/24"},
			rejected: map[string]int{"not a public address": 1, "kind not wanted": 1},
		},
		{
			name: "ipsum", o: Options{Format: "ipsum"}, comments: 1, in: "# IPsum\n1.1.1.1\t2\n1.1.1.2\t3\n1.1.1.3\t6\n1.1.1.4\tx\n",
			want:     []string{`ip 1.1.1.1/32 level=1 "on 2 lists"`, `ip 1.1.1.2/32 level=2 "on 3 lists"`, `ip 1.1.1.3/32 level=3 "on 6 lists"`},
			rejected: map[string]int{"columns missing": 1},
		},
		{
			name: "zeek", o: Options{Format: "zeek"}, comments: 3,
			in: "#separator x\n#fields\tindicator\tindicator_type\tmeta.source\tmeta.desc\tmeta.confidence\n1.1.1.1\tIntel::ADDR\tsrc one\twhy\t90\n1.1.2.0/24\tIntel::SUBNET\t-\t-\t-\n" +
				"a.example.com/x\\x2cy\tIntel::URL\nb.example.com\tIntel::DOMAIN\n" + sha2a + "\tIntel::FILE_HASH\n" + sha1a + "\tIntel::CERT_HASH\nme@example.com\tIntel::EMAIL\nx.exe\tIntel::FILE_NAME\nc.example.com\n" +
				"#fields\tindicator_type\tindicator\nIntel::ADDR\t3.3.3.3\n",
			want: []string{
				`ip 1.1.1.1/32 level=3 "why" [src one]`, "range 1.1.2.0/24", "url a.example.com/x,y", "domain b.example.com", "sha256 " + sha2a,
				"cert_sha1 " + sha1a, "email me@example.com", "ip 3.3.3.3/32",
			},
			rejected: map[string]int{"type of entry not supported": 1, "columns missing": 1},
		},
		{name: "zeek without fields", o: Options{Format: "zeek"}, in: "1.1.1.1\tIntel::ADDR\n", err: ErrNoColumns},
		{
			name: "threatfox", o: Options{Format: "threatfox"}, comments: 3,
			in: "####\n#\n# \"first_seen_utc\",\"ioc_id\",\"ioc_value\",\"ioc_type\",\"threat_type\",\"fk_malware\",\"malware_alias\",\"malware_printable\",\"last_seen_utc\",\"confidence_level\",\"is_compromised\",\"reference\",\"tags\",\"anonymous\",\"reporter\"\n" +
				"\"2026-09-01 10:00:00\", \"1\", \"5.5.5.5:443\", \"ip:port\", \"botnet_cc\", \"win.x\", \"A,B\", \"Xbot\", \"\", \"100\", \"0\", \"None\", \"c2,x\", \"0\", \"me\"\n" +
				"\"2026-09-01 10:00:00\", \"2\", \"" + sha2a + "\", \"sha256_hash\", \"payload\", \"win.x\", \"\", \"Xbot\", \"\", \"20\", \"0\", \"\", \"None\", \"0\", \"me\"\n",
			want: []string{
				`ip 5.5.5.5/32 level=3 "Xbot, botnet_cc" [c2 x] 2026-09-01T10:00:00`, "sha256 " + sha2a + ` level=1 "Xbot, payload" 2026-09-01T10:00:00`,
			},
			notes: map[string]int{"port dropped": 1},
		},
		{
			name: "threatfox json", o: Options{Format: "threatfox"},
			in: `{"7":[{"ioc_value":"evil.example.com","ioc_type":"domain","threat_type":"botnet_cc","malware_printable":"X","first_seen_utc":"2026-09-01 10:00:00","confidence_level":50,"tags":"a,b"}],` +
				`"x":{"y":[1,{"z":2}]},"8":[{"ioc":"http://evil.example.com/a","ioc_type":"url","tags":["t",null]},{"ioc_type":"domain"},7]}`,
			want: []string{`domain evil.example.com level=2 "X, botnet_cc" [a b] 2026-09-01T10:00:00`, "url evil.example.com/a [t]"}, rejected: map[string]int{"columns missing": 1, "bad json": 1},
		},
		{name: "threatfox refuses", o: Options{Format: "threatfox"}, in: `{"query_status":"unknown_auth_key"}`, err: ErrRefused},
		{
			name: "urlhaus", o: Options{Format: "urlhaus"}, comments: 2,
			in:   "# URLhaus\n# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter\n\"1\",\"2026-09-01 00:00:00\",\"http://1.1.1.1:5/a,b\",\"online\",\"\",\"malware_download\",\"elf,mirai\",\"https://urlhaus.abuse.ch/url/1/\",\"r\"\n",
			want: []string{`url 1.1.1.1:5/a,b "malware_download" [elf mirai] 2026-09-01T00:00:00`},
		},
		{name: "urlhaus text", o: Options{Format: "urlhaus"}, in: "# x\nhttp://a.example.com/x\n", want: []string{"url a.example.com/x"}, comments: 1},
		{
			name: "feodo", o: Options{Format: "feodo"}, comments: 2,
			in:   "#\n\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\"2026-01-13 21:41:15\",\"34.204.119.63\",\"443\",\"offline\",\"2026-03-01\",\"QakBot\"\n",
			want: []string{`ip 34.204.119.63/32 "QakBot" 2026-01-13T21:41:15`},
		},
		{name: "feodo old", o: Options{Format: "feodo"}, comments: 1, in: "# Firstseen,DstIP,DstPort,LastOnline,Malware\n2020-10-29 19:16:38,5.5.5.5,80,2020-11-02,Heodo\n", want: []string{`ip 5.5.5.5/32 "Heodo" 2020-10-29T19:16:38`}},
		{name: "feodo text", o: Options{Format: "feodo"}, comments: 1, in: "# a\n5.5.5.5\n", want: []string{"ip 5.5.5.5/32"}},
		{
			name: "feodo json", o: Options{Format: "feodo"}, in: `[{"ip_address":"5.5.5.5","port":443,"status":"online","hostname":null,"first_seen":"2026-01-01 00:00:00","malware":"Q"}]`,
			want: []string{`ip 5.5.5.5/32 "Q" 2026-01-01T00:00:00`},
		},
		{
			name: "sslbl_cert", o: Options{Format: "sslbl_cert"}, comments: 1, in: "# Listingdate,SHA1,Listingreason\n2024-09-02 06:17:52," + sha1a + ",X C&C\n",
			want: []string{"cert_sha1 " + sha1a + ` "X C&C" 2024-09-02T06:17:52`},
		},
		{
			name: "sslbl_cert mirror", o: Options{Format: "sslbl_cert"}, comments: 1, in: "\ufeffSHA1,ListingReason,ListingDate\r\n" + sha1a + ",X,12/22/2023 6:58\r\n",
			want: []string{"cert_sha1 " + sha1a + ` "X" 2023-12-22T06:58:00`},
		},
		{
			name: "sslbl_ja3", o: Options{Format: "sslbl_ja3"}, comments: 1, in: "# ja3_md5,Firstseen,Lastseen,Listingreason\n" + md5a + ",2017-07-14 18:08:15,2019-07-27 20:42:54,Dridex\n",
			want: []string{"ja3 " + md5a + ` "Dridex" 2017-07-14T18:08:15`},
		},
		{name: "sslbl_ip", o: Options{Format: "sslbl_ip"}, comments: 1, in: "# Firstseen,DstIP,DstPort\n2026-07-01 10:00:00,5.5.5.5,443\n", want: []string{"ip 5.5.5.5/32 2026-07-01T10:00:00"}},
		{
			name: "misp", o: Options{Format: "misp"},
			in: `{"Event":{"info":"Case","threat_level_id":"1","Attribute":[{"type":"ip-dst","value":"5.5.5.0/24","to_ids":true,"timestamp":"1767225600"},{"type":"link","value":"https://a.example.com","to_ids":true},` +
				`{"type":"domain","value":"no.example.com","to_ids":false},{"type":"domain","value":"gone.example.com","to_ids":true,"deleted":true},{"type":"domain|ip","value":"d.example.com|5.5.5.5","to_ids":true}],` +
				`"Object":[{"comment":"dropper","Attribute":[{"type":"filename|sha256","value":"x.exe|` + sha2a + `","to_ids":true,"Tag":[{"name":"tlp:clear"}]}]}],"Tag":[{"name":"apt"}]}}`,
			want: []string{
				`range 5.5.5.0/24 level=3 "Case" [apt] 2026-01-01T00:00:00`, `domain d.example.com level=3 "Case" [apt]`, `ip 5.5.5.5/32 level=3 "Case" [apt]`,
				"sha256 " + sha2a + ` level=3 "Case: dropper" [apt tlp:clear]`,
			},
			rejected: map[string]int{"type of entry not supported": 1, "marked as harmless": 1, "revoked": 1},
		},
		{name: "misp search", o: Options{Format: "misp"}, in: `{"response":[{"Event":{"info":"A","Attribute":[{"type":"url","value":"http://x.example.com"}]}}]}`, want: []string{`url x.example.com/ "A"`}},
		{name: "misp hashes.csv", o: Options{Format: "misp"}, in: md5a + ",5f1f-aa\n", err: ErrValueHashes},
		{
			name: "misp_warninglist", o: Options{Format: "misp_warninglist", Private: true}, in: `{"description":"d","list":["10.0.0.0/8","1.1.1.1","x"],"name":"Good","type":"cidr","version":1}`,
			want: []string{`range 10.0.0.0/8 level=0 "Good" [known_good]`, `ip 1.1.1.1/32 level=0 "Good" [known_good]`}, rejected: map[string]int{"bad address": 1},
		},
		{name: "warninglist of hosts", o: Options{Format: "misp_warninglist"}, in: `{"list":[".a.example.com","b.example.com"],"name":"N","type":"hostname"}`, want: []string{`domain a.example.com level=0 "N" [known_good]`, `domain b.example.com level=0 "N" [known_good]`}},
		{name: "warninglist of regexes", o: Options{Format: "misp_warninglist"}, in: `{"list":["/x/"],"type":"regex"}`, err: ErrWarningType},
		{
			name: "stix", o: Options{Format: "stix", Now: now}, comments: 1,
			in: `{"type":"bundle","id":"bundle--1","objects":[{"type":"identity","name":"me"},` +
				`{"type":"indicator","name":"N","pattern":"[ipv4-addr:value = '5.5.5.5' OR ipv4-addr:value ISSUBSET '6.6.6.0/24']","pattern_type":"stix","valid_from":"2026-01-01T00:00:00Z","valid_until":"2027-01-01T00:00:00.5Z","confidence":80,"labels":["l"],"indicator_types":["c2"]},` +
				`{"type":"indicator","pattern":"[file:hashes.'SHA-256' = '` + sha2a + `' AND file:name = 'x']"},{"type":"indicator","revoked":true,"pattern":"[url:value='http://a.example.com']"},` +
				`{"type":"indicator","valid_until":"2026-09-09T00:00:00Z","pattern":"[url:value='http://a.example.com']"},{"type":"indicator","pattern_type":"yara","pattern":"rule x {}"},` +
				`{"type":"indicator","pattern":"[domain-name:value='a.example.com' AND domain-name:resolves_to_refs[*].value='5.5.5.5']"},{"type":"indicator","pattern":"nonsense"},{"type":"indicator","indicator_types":["benign"],"pattern":"[url:value='x']"}]}`,
			want: []string{
				`ip 5.5.5.5/32 level=3 "N" [c2 l] 2026-01-01T00:00:00 2027-01-01T00:00:00`, `range 6.6.6.0/24 level=3 "N" [c2 l] 2026-01-01T00:00:00 2027-01-01T00:00:00`, "sha256 " + sha2a,
			},
			rejected: map[string]int{"revoked": 1, "expired": 1, "type of entry not supported": 1, "bad only together with others": 1, "bad pattern": 1, "marked as harmless": 1},
		},
		{name: "taxii", o: Options{Format: "stix"}, in: `{"more":true,"next":"5","objects":[{"type":"indicator","pattern":"[domain-name:value = 'A.Example.com']"}]}`, want: []string{"domain a.example.com"}},
		{name: "taxii without objects", o: Options{Format: "stix"}, in: `{}`},
		{
			name: "maltrail", o: Options{Format: "maltrail"}, comments: 4,
			in:   "# Aliases: x\n\n# Reference: https://r.example.com/1\n# Reference: https://r.example.com/2\n5.5.5.5:21\nevil.example.com\nevil.example.com/path\n/only/path\n(a|b).example.com\nhttp://6.6.6.6\n",
			want: []string{`ip 5.5.5.5/32 "https://r.example.com/1"`, `domain evil.example.com "https://r.example.com/1"`, `url evil.example.com/path "https://r.example.com/1"`, `url 6.6.6.6/ "https://r.example.com/1"`}, rejected: map[string]int{"type of entry not supported": 2},
			notes: map[string]int{"port dropped": 1},
		},
		{name: "maltrail csv", o: Options{Format: "maltrail"}, comments: 1, in: "trail,info,reference\nevil.example.com,\"x, (malware)\",(static)\n", want: []string{`domain evil.example.com "x, (malware) ((static))"`}},
		{
			name: "tranco", o: Options{Format: "tranco"}, in: "1,google.com\r\n2,github.io\r\nx,a.com\r\n", want: []string{"popular google.com rank=1"},
			rejected: map[string]int{"public suffix": 1, "columns missing": 1},
		},
		{name: "spamhaus_drop", o: Options{Format: "spamhaus_drop"}, comments: 1, in: "; Spamhaus\n1.10.16.0/20 ; SBL256894\n", want: []string{`range 1.10.16.0/20 "SBL256894"`}},
		{
			name: "spamhaus_drop json", o: Options{Format: "spamhaus_drop"}, comments: 1, in: `{"cidr":"1.10.16.0/20","sblid":"SBL1","rir":"apnic"}` + "\n" + `{"asn":64500,"rir":"x","asname":"Bad"}` + "\n" + `{"cidr":` + "\n" + `{"type":"metadata","size":2}` + "\n",
			want: []string{`range 1.10.16.0/20 "SBL1"`, `asn 64500 "Bad"`}, rejected: map[string]int{"bad json": 1},
		},
		{
			name: "tor", o: Options{Format: "tor"}, comments: 3, in: "1.2.3.4\nExitNode 4273E6\nPublished 2021-11-02 11:01:07\nLastStatus 2021-11-02 23:00:00\nExitAddress 176.10.99.200 2021-11-02 23:17:02\nExitAddress\n",
			want: []string{`ip 1.2.3.4/32 "Tor exit"`, `ip 176.10.99.200/32 "Tor exit" 2021-11-02T23:17:02`}, rejected: map[string]int{"columns missing": 1},
		},
		{name: "otx", o: Options{Format: "otx"}, comments: 1, in: "#x\n5.5.5.5 # Malicious Host CN,,39.9,116.3\n", want: []string{`ip 5.5.5.5/32 "Malicious Host CN"`}},
		{
			name: "cert_pl", o: Options{Format: "cert_pl", Now: now},
			in:   `[{"RegisterPositionId":1,"DomainAddress":"new.example.com","InsertDate":"2026-09-03T00:00:00","DeleteDate":null},{"DomainAddress":"old.example.com","InsertDate":"2026-09-02T23:59:59"},{"DomainAddress":"gone.example.com","InsertDate":"2026-09-08T00:00:00","DeleteDate":"2026-09-09T00:00:00"}]`,
			want: []string{"domain new.example.com 2026-09-03T00:00:00 2026-09-10T00:00:00"}, rejected: map[string]int{"expired": 1, "revoked": 1},
		},
		{
			name: "rstcloud", o: Options{Format: "rstcloud"},
			in:   `{"ip":{"v4":"45.83.122.166","num":1},"fseen":1679011200,"src":{"name":["repos","b"]},"tags":{"str":["malware"],"codes":[10]},"threat":["cs"],"fp":{"alarm":"false"}}` + "\n" + `{"ip":{"v4":"5.5.5.5"},"fp":{"alarm":"true"}}` + "\n" + `{"domain":"evil.example.com","src":{"name":"x"}}` + "\nx\n",
			want: []string{`ip 45.83.122.166/32 "repos" [malware cs] 2023-03-17T00:00:00`, `domain evil.example.com "x"`}, rejected: map[string]int{"marked as harmless": 1, "bad json": 1},
		},
		{
			name: "slips_iocs", o: Options{Format: "slips_iocs"}, comments: 1, in: "# IP, Threat level, Description\n23.253.126.58,high,Simda CC\nb.example.com, huge, X, tag\n68.183.53.0/24,low\n10.0.0.1,low,mine\nAS64500,,y\n",
			want:     []string{`ip 23.253.126.58/32 level=3 "Simda CC"`, `domain b.example.com level=2 "X" [tag]`, "range 68.183.53.0/24 level=1", `asn 64500 level=2 "y"`},
			rejected: map[string]int{"not a public address": 1}, notes: map[string]int{"unknown level": 2},
		},
		{name: "slips_ja3", o: Options{Format: "slips_ja3"}, in: md5a + ",high,X\n", want: []string{"ja3 " + md5a + ` level=3 "X"`, "ja3s " + md5a + ` level=3 "X"`}},
		{name: "slips_jarm", o: Options{Format: "slips_jarm"}, in: jarma + ",medium,X\nabc,low,Y\n", want: []string{"jarm " + jarma + ` level=2 "X"`}, rejected: map[string]int{"bad hash": 1}},
		{
			name: "slips_fp_hashes", o: Options{Format: "slips_fp_hashes"}, comments: 1, in: "# d, MD5\nEmpty, or not, " + md5a + "," + sha1a + "\nnone, here\n" + sha2a + "\n" + md5a + "," + sha1a + "\n",
			want: []string{
				"md5 " + md5a + ` level=0 "Empty, or not" [known_good]`, "sha1 " + sha1a + ` level=0 "Empty, or not" [known_good]`,
				"sha256 " + sha2a + " level=0 [known_good]", "md5 " + md5a + " level=0 [known_good]", "sha1 " + sha1a + " level=0 [known_good]",
			}, rejected: map[string]int{"bad hash": 1},
		},
		{name: "rita", o: Options{Format: "rita"}, in: "1.1.1.1\na.example.com\n", want: []string{"ip 1.1.1.1/32", "domain a.example.com"}},
		{name: "a web page", o: Options{Format: "lines"}, in: "\r\n <!DOCTYPE html><html>", err: ErrHTML},
		{name: "a web page for json", o: Options{Format: "stix"}, in: "<html>", err: ErrHTML},
		{name: "json for text", o: Options{Format: "netset"}, in: `{"error":"x"}`, err: ErrNotText},
		{name: "text for json", o: Options{Format: "cert_pl"}, in: "Too many requests", err: ErrNotJSON},
		{name: "gzip", o: Options{Format: "lines"}, in: "\x1f\x8b\x08", err: ErrPacked},
		{name: "json cut short", o: Options{Format: "feodo"}, in: `[{"ip_address":"5.5.5.5"},`, want: []string{"ip 5.5.5.5/32"}, err: io.ErrUnexpectedEOF},
		{name: "json twice", o: Options{Format: "feodo"}, in: `[]x`, err: nil},
		{name: "unknown", o: Options{Format: "nosuch"}, err: ErrFormat},
		{name: "empty", o: Options{Format: "stix"}},
	}
}

func TestFormats(t *testing.T) {
	covered := make(map[string]bool)
	for _, c := range feedCases() {
		t.Run(c.name, func(t *testing.T) {
			covered[c.o.Format] = true
			got, rep, err := parse(c.o, c.in)
			if c.name == "json twice" {
				if err == nil {
					t.Error("what follows the value was not refused")
				}
				return
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if c.err != nil {
				return
			}
			if c.rejected == nil {
				c.rejected = map[string]int{}
			}
			if c.notes == nil {
				c.notes = map[string]int{}
			}
			if d := cmp.Diff(c.rejected, rep.Rejected); d != "" {
				t.Errorf("rejected: %s\n%v", d, rep.Examples)
			}
			if d := cmp.Diff(c.notes, rep.Notes); d != "" {
				t.Errorf("notes: %s", d)
			}
			if rep.Comments != c.comments || rep.Indicators != len(got) {
				t.Errorf("%d comments, want %d; %d indicators, want %d", rep.Comments, c.comments, rep.Indicators, len(got))
			}
			n := 0
			for _, v := range rep.Rejected {
				n += v
			}
			if len(rep.Examples) != min(n, maxExamples) {
				t.Errorf("%d examples of %d rejected", len(rep.Examples), n)
			}
			slow, _, err := func() (got []string, rep Report, err error) {
				rep, err = Parse(iotest.OneByteReader(strings.NewReader(c.in)), c.o, func(i intel.Indicator) error {
					got = append(got, show(i))
					return nil
				})
				return
			}()
			if d := cmp.Diff(got, slow); d != "" || err != nil {
				t.Errorf("read byte by byte: %v %s", err, d)
			}
		})
	}
	for _, n := range Names() {
		if !covered[n] {
			t.Errorf("no case for %s", n)
		}
	}
	if !slices.IsSorted(Names()) {
		t.Error("formats are not in order, which Parse relies on")
	}
}

func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", maxLine+5000)
	got, rep, err := parse(Options{Format: "lines"}, "1.1.1.1\n"+long+"\n2.2.2.2\n"+long)
	if err != nil || !slices.Equal(got, []string{"ip 1.1.1.1/32", "ip 2.2.2.2/32"}) {
		t.Fatal(got, err)
	}
	if rep.Lines != 4 || rep.Rejected[ErrTooLong.Error()] != 2 || rep.Examples[1].Line != 4 {
		t.Errorf("%+v", rep)
	}
	if e := rep.Examples[0].String(); !strings.HasPrefix(e, "line 2: \"xxx") || !strings.HasSuffix(e, "line too long") {
		t.Error(e)
	}
}

func TestErrorOfAddAndReader(t *testing.T) {
	stop := errors.New("enough")
	for _, c := range []struct{ format, in string }{{"lines", "#\n1.1.1.1\n2.2.2.2\n"}, {"feodo", `[{"ip_address":"1.1.1.1"},{"ip_address":"2.2.2.2"}]`}} {
		n := 0
		rep, err := Parse(strings.NewReader(c.in), Options{Format: c.format}, func(intel.Indicator) error { n++; return stop })
		if !errors.Is(err, stop) || n != 1 || rep.Indicators != 1 {
			t.Errorf("%s: %v after %d calls", c.format, err, n)
		}
		_, err = Parse(io.MultiReader(strings.NewReader(c.in[:8]), iotest.ErrReader(stop)), Options{Format: c.format}, func(intel.Indicator) error { return nil })
		if !errors.Is(err, stop) {
			t.Errorf("%s: an error of the reader became %v", c.format, err)
		}
	}
}

// TestJSONValueBound feeds one endless text: the reading must stop.
func TestJSONValueBound(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`[{"ip_address":"`), &repeat{n: 3 * maxValue})
	_, err := Parse(endless, Options{Format: "feodo"}, func(intel.Indicator) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

type repeat struct{ n int }

func (r *repeat) Read(b []byte) (int, error) {
	if r.n <= 0 {
		return 0, io.EOF
	}
	for i := range b {
		b[i] = 'a'
	}
	r.n -= len(b)
	return len(b), nil
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]string{
		"2026-01-02 03:04:05": "2026-01-02T03:04:05Z", "2026-01-02 03:04:05 UTC": "2026-01-02T03:04:05Z", "2026-01-02": "2026-01-02T00:00:00Z",
		"2026-01-02T03:04:05.123Z": "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00": "2026-01-02T01:04:05Z", "12/22/2023 6:58": "2023-12-22T06:58:00Z",
		"1767225600": "2026-01-01T00:00:00Z", "1767225600000": "2026-01-01T00:00:00Z", "1767225600.5": "2026-01-01T00:00:00Z",
		"": "", "7": "", "2026-13-01": "", "2300-01-01": "", "yesterday": "", "99999999999999999999": "", "1..2345678901": "",
	} {
		got, ok := parseTime(in)
		s := ""
		if ok {
			s = time.Unix(got, 0).UTC().Format(time.RFC3339)
		}
		if s != want {
			t.Errorf("%q: %q, want %q", in, s, want)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		" a\tb\n": "a b", "a\x00b\u0085c\u2028d": "a b c d", "\xff": "\uFFFD", strings.Repeat("\u00fc", 100): strings.Repeat("\u00fc", 32),
	} {
		if got := clean(in, 65); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
