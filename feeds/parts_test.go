package feeds

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/feeds/format"
	"github.com/slips-go/slips/feeds/intel"
)

// stixIndicator is one object as a TAXII server has it.
func stixIndicator(n int, modified, more string) string {
	return fmt.Sprintf(`{"type": "indicator", "spec_version": "2.1", "id": "indicator--00000000-0000-4000-8000-%012d",
		"created": "2024-01-01T00:00:00Z", "modified": %q, "valid_from": "2024-01-01T00:00:00Z", "pattern_type": "stix",
		"pattern": "[ipv4-addr:value = '9.9.7.%d']"%s}`, n, modified, n, more)
}

// taxii is a TAXII 2.1 server with one collection, two objects a page.
type taxii struct {
	objects []string // in the order in which they were added, one per second
	byDate  bool     // pages are continued by added_after instead of next
	asked   []string // queries
	problem string
}

func (s *taxii) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, password, _ := r.BasicAuth(); user != "reader" || password != "pw" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if a := r.Header.Get("Accept"); a != taxiiType {
		s.problem = "Accept is " + a
	}
	w.Header().Set("Content-Type", taxiiType)
	stamp := func(i int) string { return time.Date(2024, 5, 1, 0, 0, i, 0, time.UTC).Format(time.RFC3339) }
	switch r.URL.Path {
	case "/taxii2/":
		_, _ = fmt.Fprintf(w, `{"title": "t", "default": "http://%s/api/", "api_roots": ["http://%[1]s/api/"]}`, r.Host)
	case "/api/":
		_, _ = io.WriteString(w, `{"title": "root", "versions": ["application/taxii+json;version=2.1"], "max_content_length": 1}`)
	case "/api/collections/":
		_, _ = io.WriteString(w, `{"collections": [{"id": "c-0", "title": "Low"}, {"id": "c-1", "title": "High", "can_read": true}]}`)
	case "/api/collections/c-1/objects/":
		q := r.URL.Query()
		s.asked = append(s.asked, q.Get("added_after")+"|"+q.Get("next"))
		from := 0
		for q.Get("added_after") != "" && from < len(s.objects) && stamp(from) <= q.Get("added_after") {
			from++
		}
		if n := q.Get("next"); n != "" {
			from, _ = strconv.Atoi(n)
		}
		if from >= len(s.objects) {
			_, _ = io.WriteString(w, `{}`)
			return
		}
		to := min(from+2, len(s.objects))
		w.Header().Set(taxiiAdded, stamp(to-1))
		next := ""
		if to < len(s.objects) {
			next = `"more": true, `
			if !s.byDate {
				next += fmt.Sprintf(`"next": "%d", `, to)
			}
		}
		_, _ = fmt.Fprintf(w, `{%s"objects": [%s]}`, next, strings.Join(s.objects[from:to], ","))
	default:
		http.NotFound(w, r)
	}
}

// A collection is pulled page by page, later only what was added; revoked and
// outdated objects go.
func TestTAXII(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	write(t, key, "pw")
	for _, byDate := range []bool{false, true} {
		s := &taxii{byDate: byDate}
		for i := range 5 {
			s.objects = append(s.objects, stixIndicator(i+1, "2024-05-01T00:00:00Z", ""))
		}
		s.objects = append(s.objects, `{"type": "identity", "id": "identity--1", "name": "somebody"}`)
		web := newSite()
		for _, p := range []string{"/taxii2/", "/api/", "/api/collections/", "/api/collections/c-1/objects/"} {
			web.set(p, s.ServeHTTP)
		}
		base := serve(t, web)
		for _, path := range []string{"/taxii2/", "/api/"} {
			s.asked = nil
			src := source("a", base+path)
			src.Format, src.Collection, src.User, src.KeyFile = "stix", "High", "reader", key
			m := manager(t, Options{Sources: []Source{src}})
			if r := update(t, m, false, "a"); r.Outcome != Added || r.Count != 5 {
				t.Fatalf("%+v", r)
			}
			want := []string{"|", "|2", "|4"}
			if byDate {
				want = []string{"|", "2024-05-01T00:00:01Z|", "2024-05-01T00:00:03Z|"}
			}
			if d := cmp.Diff(want, s.asked); d != "" || s.problem != "" {
				t.Errorf("pages (-want +got):\n%s%s", d, s.problem)
			}
			s.asked = nil
			if r := update(t, m, false, "a"); r.Outcome != Unchanged || r.Count != 5 {
				t.Errorf("%+v", r)
			}
			was := s.objects
			s.objects = append(slices.Clone(was), stixIndicator(6, "2024-06-01T00:00:00Z", ""),
				stixIndicator(1, "2024-06-01T00:00:00Z", `, "revoked": true`),
				stixIndicator(2, "2023-06-01T00:00:00Z", `, "revoked": true`), // older than what we have
				stixIndicator(3, "2024-06-01T00:00:00Z", `, "valid_until": "2024-06-02T00:00:00Z"`))
			if r := update(t, m, false, "a"); r.Outcome != Changed || r.Count != 4 {
				t.Errorf("%+v", r)
			}
			for n, want := range map[int]bool{1: false, 2: true, 3: false, 4: true, 6: true} {
				if got := knows(m.View(), fmt.Sprintf("9.9.7.%d", n)); got != want {
					t.Errorf("object %d is known: %v", n, got)
				}
			}
			if len(s.asked) < 2 || s.asked[0] != "2024-05-01T00:00:05Z|" {
				t.Errorf("the second pull is not of what was added: %q", s.asked)
			}
			s.objects = was
		}
		src := source("a", base+"/api/")
		src.Format, src.Collection, src.User, src.KeyFile = "stix", "None", "reader", key
		if r := update(t, manager(t, Options{Sources: []Source{src}}), false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, `no collection "None"`) {
			t.Errorf("%+v", r)
		}
		web.set("/api/collections/c-1/objects/", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"more": true, "next": "same", "objects": []}`)
		})
		src.Collection = "c-1"
		if r := update(t, manager(t, Options{Sources: []Source{src}}), false, "a"); r.Outcome != Failed || !strings.Contains(r.Reason, "but not where") {
			t.Errorf("a server that never ends: %+v", r)
		}
	}
}

// A MISP feed is its events; only those that changed are fetched again.
func TestMISP(t *testing.T) {
	web := newSite()
	base := serve(t, web)
	stamps := map[string]int64{}
	id := func(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
	event := func(n int, addr string) {
		stamps[id(n)]++
		web.set("/feed/"+id(n)+".json", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, "{\n\"Event\": {\"uuid\": %q, \"info\": \"event\\n%d\", \"timestamp\": \"1700000000\",\n"+
				"\"Attribute\": [{\"type\": \"ip-dst\", \"category\": \"Network activity\", \"to_ids\": true, \"value\": %q, \"timestamp\": \"1700000000\"}]}}\n", id(n), n, addr)
		})
	}
	manifest := func() {
		list := map[string]any{"../../etc/passwd": map[string]any{"timestamp": "1"}}
		for id, stamp := range stamps {
			list[id] = map[string]any{"timestamp": fmt.Sprint(1_700_000_000 + stamp), "info": "x"}
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		web.set("/feed/manifest.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
	}
	for n := 1; n <= 4; n++ {
		event(n, fmt.Sprintf("9.9.6.%d", n))
	}
	manifest()
	src := source("a", base+"/feed/")
	src.Format = "misp"
	m := manager(t, Options{Sources: []Source{src}})
	if r := update(t, m, false, "a"); r.Outcome != Added || r.Count != 4 || web.requests() != 5 {
		t.Fatalf("%+v after %d requests", r, web.requests())
	}
	before := web.requests()
	if r := update(t, m, false, "a"); r.Outcome != Unchanged || web.requests()-before != 1 {
		t.Errorf("%+v after %d requests", r, web.requests()-before)
	}
	event(2, "9.9.6.22")
	delete(stamps, id(3))
	manifest()
	before = web.requests()
	if r := update(t, m, false, "a"); r.Outcome != Changed || r.Count != 3 || web.requests()-before != 2 {
		t.Errorf("%+v after %d requests", r, web.requests()-before)
	}
	for addr, want := range map[string]bool{"9.9.6.1": true, "9.9.6.2": false, "9.9.6.22": true, "9.9.6.3": false, "9.9.6.4": true} {
		if got := knows(m.View(), addr); got != want {
			t.Errorf("%s is known: %v", addr, got)
		}
	}
	event(5, "9.9.6.5")
	manifest()
	web.set("/feed/"+id(5)+".json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{no json") })
	if r := update(t, m, false, "a"); r.Outcome != Refused || r.Count != 3 {
		t.Errorf("%+v", r)
	}
	web.status("/feed/"+id(5)+".json", http.StatusNotFound) // withdrawn
	if r := update(t, m, false, "a"); r.Outcome != Unchanged || r.Count != 3 {
		t.Errorf("%+v", r)
	}
}

// A file on this machine is a feed too, packed or not.
func TestPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.txt")
	write(t, path, addresses(3))
	src := source("a", "")
	src.Path = path
	m := manager(t, Options{Sources: []Source{src}, Offline: true})
	if r := update(t, m, false, "a"); r.Outcome != Added || r.Count != 3 {
		t.Fatalf("%+v", r)
	}
	if r := update(t, m, false, "a"); r.Outcome != Unchanged {
		t.Errorf("%+v", r)
	}
	write(t, path, addresses(4))
	if r := update(t, m, false, "a"); r.Outcome != Changed || r.Count != 4 {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if r := update(t, m, false, "a"); r.Outcome != Failed || r.Count != 4 || !knows(m.View(), "9.9.0.4") {
		t.Errorf("%+v", r)
	}
}

// The local lists of the original are read by their names, others by their
// endings; the first line is not lost.
func TestLocalFormats(t *testing.T) {
	dir := t.TempDir()
	md5 := strings.Repeat("ab", 16)
	write(t, filepath.Join(dir, "own_malicious_iocs.csv"), "9.9.5.1,high,first line\nbad.example.net,low,a name\n10.1.2.0/24,medium,ours\nAS64496,high,a network\n")
	write(t, filepath.Join(dir, "own_malicious_JA3.csv"), "# comment\n"+md5+",high,a client\n")
	write(t, filepath.Join(dir, "known_fp_md5_hashes.csv"), "an installer,"+strings.Repeat("cd", 16)+"\n")
	write(t, filepath.Join(dir, "zeek.intel"), "#fields\tindicator\tindicator_type\tmeta.source\n9.9.5.2\tIntel::ADDR\tx\n")
	write(t, filepath.Join(dir, "more.netset"), "9.9.128.0/20\n")
	write(t, filepath.Join(dir, "names.txt"), "evil.example.org\n")
	write(t, filepath.Join(dir, "partly.txt"), "9.9.5.3\nno indicator here\n")
	write(t, filepath.Join(dir, "README.md"), "9.9.5.9\n")
	m := manager(t, Options{Local: dir})
	v, err := m.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"9.9.5.1": true, "10.1.2.3": true, "9.9.5.2": true, "9.9.130.1": true, "9.9.5.3": true, "9.9.5.9": false,
	} {
		if got := knows(v, addr); got != want {
			t.Errorf("%s is known: %v", addr, got)
		}
	}
	if !v.Domain("www.bad.example.net").OK() || !v.Domain("evil.example.org").OK() || !v.ASN(64496).OK() ||
		!v.Text(intel.JA3, md5).OK() || !v.Text(intel.JA3S, md5).OK() {
		t.Error("a list is not read")
	}
	l := v.Address(netip.MustParseAddr("9.9.5.1")).At(0)
	if l.Level != 3 || l.Description != "first line" || !slices.Contains(l.Feed.Tags, localTag) || l.Feed.Name != "own_malicious_iocs.csv" {
		t.Errorf("listing %+v of %+v", l, l.Feed)
	}
	st, err := m.Status()
	if err != nil || len(st) != 7 {
		t.Errorf("%d lists, %v", len(st), err)
	}
	for _, s := range st {
		want := "in use"
		if s.Name == "partly.txt" {
			want = `in use, with faults: line 2: "no": not an indicator`
		}
		if s.State() != want || s.Meta.Refused != "" {
			t.Errorf("%s: %q, want %q", s.Name, s.State(), want)
		}
	}
}

// States of local lists, as edits go wrong and are mended; a version of another
// format is read as what it is.
func TestLocalStates(t *testing.T) {
	local, dir := t.TempDir(), filepath.Join(t.TempDir(), "feeds")
	path := filepath.Join(local, "x.csv")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	load := func() (*intel.View, string) {
		m := manager(t, Options{Local: local, Dir: dir, Now: func() time.Time { return now }})
		v, err := m.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v, states(t, m)["x.csv"]
	}
	write(t, path, "9.9.5.1,high,x\nrubbish,high,y\n")
	if v, got := load(); got != `in use, with faults: line 2: field value: "rubbish": not an indicator` || !knows(v, "9.9.5.1") {
		t.Error(got)
	}
	write(t, path, "0.0.0.0 bad.example.net\n0.0.0.0 worse.example.net\n")
	if v, got := load(); got != "in use" || !v.Domain("bad.example.net").OK() {
		t.Error(got)
	}
	write(t, path, "1.1.1.1,high\nrubbish,high,y\n")
	if v, got := load(); !strings.HasPrefix(got, "newest version refused: ") || knows(v, "1.1.1.1") || !v.Domain("worse.example.net").OK() {
		t.Error(got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, path, `{"objects": [`)
	if v, got := load(); !strings.HasPrefix(got, "newest version refused: ") || v.Has(intel.Domain) {
		t.Error(got)
	}
}

// Providers' files are known by what is in them, and numbers are nothing.
func TestGuess(t *testing.T) {
	const (
		md5    = "00112233445566778899aabbccddeeff"
		sha1   = "00112233445566778899aabbccddeeff00112233"
		banner = "################################################################\n# abuse.ch Database Dump (CSV)                                 #\n# Last updated: 2026-09-01 10:00:00 (UTC)                      #\n#\n"
	)
	threatfoxRow := `"2026-09-01 10:00:00", "17", "5.5.5.5:443", "ip:port", "botnet_cc", "win.x", "A,B", "Xbot", "", "100", "0", "None", "c2", "0", "me"` + "\n"
	for _, c := range []struct{ name, text, want string }{
		{
			"urlhaus.csv", banner + "# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter\r\n\"3\",\"2026-09-01 00:00:00\",\"http://5.5.5.5:5/a\",\"online\",\"\",\"malware_download\",\"elf\",\"https://urlhaus.abuse.ch/url/3/\",\"r\"\r\n",
			"urlhaus url:5.5.5.5:5/a malware_download",
		},
		{
			"no-head.csv", "\"3\",\"2026-09-01 00:00:00\",\"http://5.5.5.5:5/a\",\"online\",\"\",\"malware_download\",\"elf\",\"https://urlhaus.abuse.ch/url/3/\",\"r\"\n",
			"csv url:5.5.5.5:5/a",
		},
		{"urlhaus.json", `{"3":[{"dateadded":"2026-09-01 00:00:00 UTC","url":"http://5.5.5.5/a","url_status":"online","threat":"malware_download","tags":["elf"]}]}`, "urlhaus url:5.5.5.5/a malware_download"},
		{
			"x.csv", banner + `# "first_seen_utc","ioc_id","ioc_value","ioc_type","threat_type","fk_malware","malware_alias","malware_printable","last_seen_utc","confidence_level","is_compromised","reference","tags","anonymous","reporter"` + "\n" + threatfoxRow,
			"threatfox ip:5.5.5.5/32 Xbot, botnet_cc",
		},
		{"x.json", `{"17":[{"ioc_value":"a.example.com","ioc_type":"domain","malware_printable":"X"}]}`, "threatfox domain:a.example.com X"},
		{"x.json", `{"query_status":"ok","data":[{"id":"1","ioc":"a.example.com","ioc_type":"domain"}]}`, "threatfox domain:a.example.com"},
		{"x.csv", banner + `"first_seen_utc","dst_ip","dst_port","c2_status","last_online","malware"` + "\n" + `"2026-01-13 21:41:15","5.5.5.5","443","offline","2026-03-01","QakBot"` + "\n", "feodo ip:5.5.5.5/32 QakBot"},
		{"x.json", `[{"ip_address":"5.5.5.5","port":443,"status":"online","hostname":null,"malware":"Q"}]`, "feodo ip:5.5.5.5/32 Q"},
		{"x.csv", banner + "# Listingdate,SHA1,Listingreason\n2024-09-02 06:17:52," + sha1 + ",X C&C\n", "sslbl_cert cert_sha1:" + sha1 + " X C&C"},
		{"x.csv", "\xef\xbb\xbfSHA1,ListingReason,ListingDate\r\n" + sha1 + ",X C&C,12/22/2023 6:58\r\n", "sslbl_cert cert_sha1:" + sha1 + " X C&C"},
		{"x.csv", banner + "# ja3_md5,Firstseen,Lastseen,Listingreason\n" + md5 + ",2017-07-14 18:08:15,2019-07-27 20:42:54,Dridex\n", "sslbl_ja3 ja3:" + md5 + " Dridex"},
		{"x.csv", banner + "# Firstseen,DstIP,DstPort\n2026-07-01 10:00:00,5.5.5.5,443\n", "sslbl_ip ip:5.5.5.5/32"},
		{"top-1m.csv", "1,example.com\r\n2,example.org\r\n3,a.example.net\r\n", "tranco popular:example.com popular:example.org popular:a.example.net"},
		{"ipsum.txt", "# IPsum Threat Intelligence Feed\n#\n# IP\tnumber of (black)lists\n#\n5.5.5.5\t10\n", "ipsum ip:5.5.5.5/32 on 10 lists"},
		{"x.txt", "127.0.0.1 localhost\n::1 localhost\n0.0.0.0 a.example.com\n0.0.0.0 b.example.com\n", "hosts domain:a.example.com domain:b.example.com"},
		{"drop_v4.json", `{"cidr":"1.10.16.0/20","sblid":"SBL1","rir":"apnic"}` + "\n" + `{"type":"metadata","size":1}` + "\n", "spamhaus_drop range:1.10.16.0/20 SBL1"},
		{"asndrop.json", `{"asn":64500,"rir":"x","domain":"a.example","cc":"US","asname":"Bad"}` + "\n", "spamhaus_drop asn:64500 Bad"},
		{"list.json", `{"description":"d","list":["a.example.com"],"matching_attributes":["domain"],"name":"Good","type":"hostname","version":1}`, "misp_warninglist domain:a.example.com Good"},
		{"x.json", `{"Event":{"info":"I","Attribute":[{"type":"domain","value":"a.example.com","to_ids":true}]}}`, "misp domain:a.example.com I"},
		{"x.json", `{"response":[{"Event":{"info":"I","Attribute":[{"type":"domain","value":"a.example.com"}]}}]}`, "misp domain:a.example.com I"},
		{"x.json", `[{"RegisterPositionId":1,"DomainAddress":"a.example.com","InsertDate":"2026-09-09T00:00:00","DeleteDate":null}]`, "cert_pl domain:a.example.com"},
		{"x.json", `{"ip":{"v4":"5.5.5.5","num":1},"fseen":1679011200,"src":{"name":["repos"]}}` + "\n", "rstcloud ip:5.5.5.5/32 repos"},
		{"x", "ExitNode 4273E6\nPublished 2021-11-02 11:01:07\nExitAddress 5.5.5.5 2021-11-02 23:17:02\n", "tor ip:5.5.5.5/32 Tor exit"},
		{"x.csv", "first_seen,Indicator,Threat Level,Malware family,tags\n2026-01-01,5.5.5.5,High,\"Bot, new\",a\n", "csv ip:5.5.5.5/32 Bot, new"},
		{"x.csv", "id;date;hash;comment\n1;2026-01-01;" + sha1 + ";bad, as seen\n", "csv sha1:" + sha1 + " bad, as seen cert_sha1:" + sha1 + " bad, as seen"},
		{"x.csv", "# rank,ip,reason\n1,5.5.5.5,scans\n", "csv ip:5.5.5.5/32 scans"},
		{"x.csv", "5.5.5.5,2026-01-01,2026-01-02\n", "csv ip:5.5.5.5/32"},
		{"x.csv", "1,x\n2,y\n", "slips_iocs ! not an indicator"},
		{"x.csv", "5.5.5.5,high,first\nAS64500,low,second\n64501,low,third\n", "slips_iocs ip:5.5.5.5/32 first asn:64500 second ! not an indicator"},
		{"known_fp_md5_hashes.csv", md5 + "\n", "slips_fp_hashes md5:" + md5},
	} {
		path := filepath.Join(t.TempDir(), c.name)
		write(t, path, c.text)
		s := Source{}
		got := ""
		rep, err := Read(path, &s, time.Date(2026, 9, 10, 0, 0, 0, 0, time.UTC), func(in intel.Indicator) error {
			value := in.Value
			if in.Prefix.IsValid() {
				value = in.Prefix.String()
			}
			got += strings.TrimSuffix(fmt.Sprintf(" %v:%s %s", in.Kind, value, in.Description), " ")
			return nil
		})
		for reason := range rep.Rejected {
			if s.Format != "hosts" {
				got += " ! " + reason
			}
		}
		if got = s.Format + got; err != nil || got != c.want {
			t.Errorf("%s: %v\n got %q\nwant %q", c.name, err, got, c.want)
		}
	}
}

func FuzzGuess(f *testing.F) {
	f.Add("x.csv", "a;b\n1;5.5.5.5\n")
	f.Add("x.json", `{"a":[{"ioc":1}]}`)
	f.Add("x", "\xef\xbb\xbf[[[{\"cidr\":")
	f.Fuzz(func(t *testing.T, name, text string) {
		how, columns := guess(name, []byte(text))
		s := Source{Name: "x", Path: "x", Format: how, Columns: columns, MaxSize: 1 << 20}
		if err := s.check(); err != nil || !slices.Contains(format.Names(), how) {
			t.Fatalf("%q: %v", how, err)
		}
		rep, err := s.parse(strings.NewReader(text), time.Unix(1, 0), 0, func(intel.Indicator) error { return nil })
		if how == "csv" && columns.Value == "" || err == nil && rep.Lines < 0 {
			t.Fatalf("%+v, %+v", columns, rep)
		}
	})
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	md5 := strings.Repeat("ab", 16)
	write(t, filepath.Join(dir, "own_malicious_iocs.csv"), "9.9.5.1,high,host\n9.9.5.0/24,low,net\nbad.example.net,medium,name\nAS64496,high,as\n")
	write(t, filepath.Join(dir, "own_malicious_JA3.csv"), md5+",high,client\n")
	write(t, filepath.Join(dir, "urls.txt"), "http://www.bad.example.net:8080/x?y=1\n")
	v, err := manager(t, Options{Local: dir}).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v = v.WithAS(func(netip.Addr) (uint32, string) { return 64496, "EXAMPLE" })
	for _, c := range []struct{ query, kind, want string }{
		{"9.9.5.1", "ip", "ip 9.9.5.1=2 asn AS64496=1"},
		{"9[.]9[.]5[.]2", "ip", "asn AS64496=1 ip 9.9.5.0/24=1"},
		{"9.9.5.0/28", "range", "range 9.9.5.0/24=1 range 9.9.5.1=2"},
		{"9.9.5.0/24", "range", "range 9.9.5.0/24=1 range 9.9.5.1=2"},
		{"BAD.example.net.", "domain", "domain bad.example.net=1"},
		{"a.b.bad.example.net", "domain", "domain bad.example.net=1"},
		{"good.example.net", "domain", ""},
		{"hxxp://www.bad.example.net:8080/x?y=1", "url", "url www.bad.example.net:8080/x?y=1=1 domain bad.example.net=1"},
		{"http://9.9.5.1/z", "url", "ip 9.9.5.1=2 asn AS64496=1"},
		{"AS64496", "asn", "asn AS64496=1"},
		{strings.Repeat("AB:", 15) + "ab", "md5", "ja3 " + md5 + "=1 ja3s " + md5 + "=1"},
		{strings.ToUpper(md5), "md5", "ja3 " + md5 + "=1 ja3s " + md5 + "=1"},
	} {
		a, err := Lookup(v, c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		var got []string
		for _, h := range a.Hits {
			got = append(got, fmt.Sprintf("%v %s=%d", h.Kind, h.Indicator, len(h.Listings)))
		}
		if text := strings.Join(got, " "); text != c.want || a.Kind.String() != c.kind {
			t.Errorf("%s: a %v with %q, want %q", c.query, a.Kind, text, c.want)
		}
	}
	if _, err := Lookup(v, "no indicator"); err == nil {
		t.Error("that is no indicator")
	}
	if a, err := Lookup(nil, "9.9.5.1"); err != nil || len(a.Hits) != 0 {
		t.Errorf("without a view: %+v, %v", a, err)
	}
}

// spreadsheet is the frame of an XLSX file.
func spreadsheet(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	z := zip.NewWriter(&b)
	for _, name := range []string{"[Content_Types].xml", "xl/workbook.xml"} {
		if _, err := z.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, text, format string // format: given, not guessed
		want               string
	}{
		{"a.txt", "9.9.9.1\nbad.example.net\n", "", "lines domain=1 ip=1"},
		{"a.intel", "#fields\tindicator\tindicator_type\n9.9.9.1\tIntel::ADDR\n", "", "zeek ip=1"},
		{"a.json", `{"type": "bundle", "id": "bundle--1", "objects": [` + stixIndicator(1, "2024-01-01T00:00:00Z", "") + `]}`, "", "stix ip=1"},
		{"own_malicious_iocs.csv", "10.0.0.1,high,x\n", "", "slips_iocs ip=1"},
		{"tor", "9.9.9.1\n", "tor", "tor ip=1"},
		{"bad", "what\nis\nthis\n9.9.9.1\n", "", "lines ip=1 | 3 of 4 entries were rejected"},
		{"html", "<html>", "", "!a web page"},
		{"book.xlsx", spreadsheet(t), "", "!a spreadsheet"},
		{"tranco.csv", "1,example.com\n", "tranco", "tranco popular=1"},
	} {
		path := filepath.Join(dir, c.name)
		write(t, path, c.text)
		rep, err := Check(path, Source{Format: c.format}, now)
		got := rep.Format
		for _, k := range slices.Sorted(func(yield func(string) bool) {
			for k, n := range rep.Kinds {
				if !yield(fmt.Sprintf("%s=%d", k, n)) {
					return
				}
			}
		}) {
			got += " " + k
		}
		if rep.Verdict != "" {
			got += " | " + rep.Verdict
		}
		if err != nil {
			got = "!" + err.Error()
			c.want = strings.TrimPrefix(c.want, "!")
		}
		if !strings.HasPrefix(got, c.want) && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := Check(dir, Source{}, now); err == nil {
		t.Error("a directory is no feed")
	}
}

func FuzzCollection(f *testing.F) {
	f.Add(`{"more": true, "next": "x", "objects": [` + stixIndicator(1, "2024-01-01T00:00:00Z", "") + `]}`)
	f.Add(`{"objects": null, "a": [1, {"b": []}]}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, text string) {
		c := collection{objects: make(map[string]stixObject), limit: 1 << 12}
		if _, _, err := c.read(strings.NewReader(text)); err != nil {
			return
		}
		size := int64(0)
		for _, o := range c.objects {
			size += int64(len(o.raw))
		}
		if size != c.size || size > c.limit {
			t.Fatalf("size is said to be %d, is %d", c.size, size)
		}
		var one, two strings.Builder
		again := collection{objects: make(map[string]stixObject), limit: 1 << 12}
		if err := c.write(&one); err != nil {
			t.Fatal(err)
		}
		if _, _, err := again.read(strings.NewReader(one.String())); err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, one.String())
		}
		if err := again.write(&two); err != nil || one.String() != two.String() {
			t.Fatalf("written twice: %v\n%s\n%s", err, one.String(), two.String())
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"name": "a", "content": "a.1.feed.zst"}`))
	f.Add([]byte(`{"name": "a", "content": "a.1/../../x"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := store{t.TempDir()}
		if err := os.WriteFile(s.path("a"+metaSuffix), text, 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := s.meta("a")
		if m.Name != "a" || filepath.Dir(s.path(m.Content)) != s.dir && m.Content != "" {
			t.Fatalf("%+v, %v", m, err)
		}
	})
}
