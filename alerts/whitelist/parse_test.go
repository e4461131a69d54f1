package whitelist

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
)

func mustParse(t testing.TB, lines ...string) *List {
	t.Helper()
	l, err := Parse("test.conf", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{ // "" for no entry
		"":                         "",
		"; ip,1.2.3.4,both,alerts": "",
		"# ip,1.2.3.4,both,alerts": "",
		`"IoCType","IoCValue","Direction","IgnoreType"`:      "",
		"ip,1.2.3.4,both,alerts":                             "ip,1.2.3.4,both,alerts",
		" ip , 1.2.3.4 ,\tboth, alerts ":                     "ip,1.2.3.4,both,alerts",
		"IP,1.2.3.4,SRC,Flows":                               "ip,1.2.3.4,src,flows",
		"ip,::ffff:1.2.3.4,dst,both":                         "ip,1.2.3.4,dst,both",
		"ip,2001:DB8:0::1,dst,both":                          "ip,2001:db8::1,dst,both",
		"ip,10.0.0.0/8,dst,both":                             "ip,10.0.0.0/8,dst,both",
		"range,10.0.0.0/8,dst,both":                          "ip,10.0.0.0/8,dst,both",
		"range,10.0.0.1/32,dst,both":                         "ip,10.0.0.1,dst,both",
		"range,2001:db8::/32,dst,both":                       "ip,2001:db8::/32,dst,both",
		"domain,WWW.Example.COM.,dst,flows":                  "domain,www.example.com,dst,flows",
		"domain,bücher.example,dst,flows":                    "domain,xn--bcher-kva.example,dst,flows",
		"domain,_ldap._tcp.corp.lan,dst,flows":               "domain,_ldap._tcp.corp.lan,dst,flows",
		"domain,lan,dst,flows":                               "domain,lan,dst,flows",
		"mac,00-1B-44-11-3A-B7,src,both":                     "mac,00:1b:44:11:3a:b7,src,both",
		"mac,001b.4411.3ab7,src,both":                        "mac,00:1b:44:11:3a:b7,src,both",
		"organization,Google,both,alerts":                    "organization,google,both,alerts",
		"asn,as64496,both,alerts":                            "asn,AS64496,both,alerts",
		"asn,64496,both,alerts":                              "asn,AS64496,both,alerts",
		"port,443,dst,flows":                                 "port,443,dst,flows",
		"port,443/TCP,dst,flows":                             "port,443/tcp,dst,flows",
		"ja3,6734F37431670B3AB4292B8F60F29984,src,both":      "ja3,6734f37431670b3ab4292b8f60f29984,src,both",
		"evidence,horizontal_port_scan,src,alerts":           "evidence,HORIZONTAL_PORT_SCAN,src,alerts",
		"module,portscan,src,alerts":                         "module,portscan,src,alerts",
		"ip,10.0.0.5&evidence=PORT_SCAN,src,alerts":          "ip,10.0.0.5&evidence=PORT_SCAN,src,alerts",
		"ip, 10.0.0.5 & DST.port=9100/tcp,src,flows":         "ip,10.0.0.5&dst.port=9100/tcp,src,flows",
		"evidence,X&dst.range=10.0.0.0/8,both,alerts":        "evidence,X&dst.ip=10.0.0.0/8,both,alerts",
		"ip,1.2.3.4,both,alerts,2026-12-31":                  "ip,1.2.3.4,both,alerts,2027-01-01T00:00:00Z",
		"ip,1.2.3.4,both,alerts, 2026-12-31T18:00:00+02:00 ": "ip,1.2.3.4,both,alerts,2026-12-31T16:00:00Z",
		"ip,1.2.3.4,both,alerts,,our scanner, in the lab":    `ip,1.2.3.4,both,alerts,,"our scanner, in the lab"`,
		`ip,1.2.3.4,both,alerts,," the ""new"" one "`:        `ip,1.2.3.4,both,alerts,,"the ""new"" one"`,
		`ip,1.2.3.4,both,alerts,`:                            "ip,1.2.3.4,both,alerts",
		"\ufeffip,1.2.3.4,both,alerts\r":                     "ip,1.2.3.4,both,alerts",
	} {
		l, err := Parse("f", strings.NewReader(in))
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if got := strings.TrimSuffix(l.String(), "\n"); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"ip,1.2.3.4,both":                                            `line "ip,1.2.3.4,both": want type,value,direction,ignore`,
		"1.2.3.4":                                                    `line "1.2.3.4": want`,
		"host,1.2.3.4,both,alerts":                                   `type "host": want ip, range, domain`,
		"ip,1.2.3,both,alerts":                                       `value "1.2.3": want an address`,
		"ip,fe80::1%eth0,both,alerts":                                `value "fe80::1%eth0": want an address`,
		"range,1.2.3.4,both,alerts":                                  `value "1.2.3.4": want a range`,
		"ip,10.0.0.5/8,both,alerts":                                  `value "10.0.0.5/8": has bits set behind its length: want 10.0.0.0/8`,
		"ip,0.0.0.0/0,both,alerts":                                   `value "0.0.0.0/0": covers everything`,
		"ip,::/0,both,alerts":                                        `value "::/0": covers everything`,
		"ip,::ffff:1.2.3.0/120,both,alerts":                          `write it as IPv4`,
		"domain,*.example.com,both,alerts":                           `without the star`,
		"domain,.example.com,both,alerts":                            `without the star or dot`,
		"domain,com,both,alerts":                                     `value "com": is a public suffix`,
		"domain,co.uk,both,alerts":                                   `is a public suffix`,
		"domain,1.2.3.4,both,alerts":                                 `is an address: use ip`,
		"domain,exa mple..com,both,alerts":                           `value "example..com": not a name`,
		"domain,,both,alerts":                                        `value "": not a name`,
		"domain,a/b.example,both,alerts":                             `not a name`,
		"mac,00:11:22,both,alerts":                                   `value "00:11:22": want six bytes`,
		"mac,00:11:22:33:44:55:66:77,both,alerts":                    `want six bytes`,
		"organization,initech,both,alerts":                           `value "initech": want one of akamai`,
		"asn,AS0,both,alerts":                                        `want a number such as`,
		"asn,AS4294967296,both,alerts":                               `want a number such as`,
		"asn,64496,both,flows":                                       `ignore "flows": a record does not say its AS`,
		"port,0,both,alerts":                                         `want a port`,
		"port,65536,both,alerts":                                     `want a port`,
		"port,443/,both,alerts":                                      `want a port`,
		"port,443/icmp,both,alerts":                                  `want a port`,
		"ja3,abc,both,alerts":                                        `want 32 hex`,
		"evidence,A-B,both,alerts":                                   `want the name of a type`,
		"evidence,A,both,both":                                       `ignore "both": a record does not say its type of evidence`,
		"module,,both,alerts":                                        `want the name of a module`,
		"ip,1.2.3.4&module=x,both,flows":                             `does not say its module`,
		"ip,1.2.3.4&,both,alerts":                                    `value "": want type=value`,
		"ip,1.2.3.4&x=y,both,alerts":                                 `type "x"`,
		"ip,1.2.3.4&src.module=x,both,alerts":                        `value "src.module=x": the module is on neither side`,
		"ip,1.2.3.4&ip=1.2.3.4,both,alerts":                          `said twice`,
		"ip,1.2.3.4" + strings.Repeat("&port=1", 8) + ",both,alerts": `more than 8 conditions`,
		"ip,1.2.3.4,sorc,alerts":                                     `direction "sorc": want src, dst or both`,
		"ip,1.2.3.4,both,all":                                        `ignore "all": want flows, alerts or both`,
		"ip,1.2.3.4,both,alerts,soon":                                `expiry "soon"`,
		"ip,1.2.3.4,both,alerts,2026-02-30":                          `expiry "2026-02-30"`,
		"ip,1.2.3.4,both,alerts,1066-10-14":                          `expiry "1066-10-14"`,
		"ip,1.2.3.4,both,alerts,9999-01-01":                          `expiry "9999-01-01"`,
		`ip,1.2.3.4,both,alerts,,"a`:                                 `reason`,
		`ip,1.2.3.4,both,alerts,,"a" b"`:                             `reason`,
		"ip,1.2.3.4,both,alerts,,\x1b[31m":                           `control characters`,
		"ip,1.2.3.4,both,alerts,,\xff":                               `not UTF-8`,
		"ip,1.2.3.4,both,alerts,," + strings.Repeat("x", maxLine):    `longer than 4096 bytes`,
	} {
		l, err := Parse("dir/w.conf", strings.NewReader("; a comment\nip,9.9.9.9,dst,both\n"+in+"\n"))
		if l != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %s", in, err, want)
			continue
		}
		if e := (*Error)(nil); !errors.As(err, &e) || e.Line != 3 || e.File != "dir/w.conf" || !strings.HasPrefix(err.Error(), "dir/w.conf:3: ") {
			t.Errorf("%.60q: %v names another place", in, err)
		}
	}
}

func TestParseTellsOfSeveralErrors(t *testing.T) {
	_, err := Parse("w", strings.NewReader("ip,x,both,alerts\nip,1.2.3.4,both,alerts\nip,y,both,alerts\n"))
	if err == nil || !strings.Contains(err.Error(), "w:1:") || !strings.Contains(err.Error(), "w:3:") {
		t.Errorf("%v does not name both lines", err)
	}
	_, err = Parse("w", strings.NewReader(strings.Repeat("x\n", 1000)))
	if n := strings.Count(err.Error(), "\n"); n != maxErrors {
		t.Errorf("%d lines of error, want %d", n+1, maxErrors+1)
	}
}

func TestParseBounds(t *testing.T) {
	var b strings.Builder
	for i := range maxEntries + 1 {
		fmt.Fprintf(&b, "ip,10.%d.%d.%d,both,alerts\n", i>>16, i>>8&255, i&255)
	}
	if _, err := Parse("w", strings.NewReader(b.String())); err == nil || !strings.Contains(err.Error(), "more than 100000 entries") {
		t.Errorf("too many entries: %v", err)
	}
	if _, err := Parse("w", strings.NewReader(strings.Repeat("#\n", maxFile/2+1))); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("too large a file: %v", err)
	}
}

func TestLastLineWins(t *testing.T) {
	l := mustParse(t,
		"ip,1.2.3.4,src,alerts", "range,10.0.0.0/8,src,both", "ip,1.2.3.4&port=80,src,both",
		"# ip,1.2.3.4,src,alerts", "ip,1.2.3.4,dst,flows", "ip,10.0.0.0/8,dst,alerts",
		"evidence,X&ip=1.2.3.4,src,alerts", "ip,1.2.3.4&evidence=X,dst,alerts", "ip,1.2.3.4&evidence=Y,dst,alerts")
	want := "ip,1.2.3.4&port=80,src,both\nip,1.2.3.4,dst,flows\nip,10.0.0.0/8,dst,alerts\n" +
		"ip,1.2.3.4&evidence=X,dst,alerts\nip,1.2.3.4&evidence=Y,dst,alerts\n"
	if got := l.String(); got != want {
		t.Errorf("entries\n%swant\n%s", got, want)
	}
	if d := cmp.Diff([]string{
		"test.conf:4: this is a comment and leaves line 1 in force; the original would take it back",
		"test.conf:1: replaced by line 5", "test.conf:2: replaced by line 6", "test.conf:7: replaced by line 8",
	}, l.Notices()); d != "" {
		t.Errorf("notices: %s", d)
	}
}

func TestOrganizationOfFlowsIsNoticed(t *testing.T) {
	if n := mustParse(t, "organization,google,both,both", "organization,apple,both,alerts").Notices(); len(n) != 1 || !strings.Contains(n[0], "test.conf:1:") {
		t.Errorf("notices %q, want one about line 1", n)
	}
}

func TestExpiry(t *testing.T) {
	l := mustParse(t, "ip,1.2.3.4,both,both,2026-12-31", "ip,1.2.3.5,both,both", "ip,1.2.3.6,both,both,2026-06-01T12:00:00Z")
	at := time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC).UnixNano()
	if r := l.Expired(at); len(r) != 1 || r[0].Line != 3 {
		t.Errorf("on the last day %v have expired, want that of line 3", r)
	}
	if r := l.Expired(at + int64(time.Second)); len(r) != 2 {
		t.Errorf("on the day after %v have expired, want two", r)
	}
	for _, c := range []struct {
		at   int64
		want bool
	}{{at, true}, {at + int64(time.Second), false}} {
		e := evidence.Evidence{Time: c.at, Attacker: evidence.IPEntity(netip.MustParseAddr("1.2.3.4"), evidence.Dst, 0)}
		if _, ok := l.Evidence(&e); ok != c.want {
			t.Errorf("at %d: dropped %v, want %v", c.at, ok, c.want)
		}
		f := conn("10.0.0.1", "1.2.3.4", 443)
		f.At = c.at
		if got := NewFlows(l, new(Tally)).Ignore(f); got != c.want {
			t.Errorf("at %d: record ignored %v, want %v", c.at, got, c.want)
		}
	}
}

func TestCheck(t *testing.T) {
	l := mustParse(t, "ip,1.2.3.4&evidence=BEACON&module=beacon,both,alerts")
	if err := l.Check([]evidence.Type{"BEACON"}, []string{"beacon"}); err != nil {
		t.Error(err)
	}
	if err := l.Check(nil, []string{"beacon"}); err == nil || err.Error() != `test.conf:1: value "BEACON": there is no such type of evidence` {
		t.Error(err)
	}
	if err := l.Check([]evidence.Type{"BEACON"}, nil); err == nil || !strings.Contains(err.Error(), `"beacon": there is no such module`) {
		t.Error(err)
	}
}

func TestNilList(t *testing.T) {
	var l *List
	if _, ok := l.Evidence(&evidence.Evidence{}); ok || l.Len() != 0 || l.Name() != "" || l.Digest() != "" || l.Rules() != nil ||
		l.Notices() != nil || l.Expired(1) != nil || l.WithHome(nil) != nil || l.Check(nil, nil) != nil || l.String() != "" || l.ExplainFlow(conn("1.1.1.1", "2.2.2.2", 1)) != nil {
		t.Error("the nil list is not empty")
	}
	if NewFlows(nil, new(Tally)).Ignore(conn("1.1.1.1", "2.2.2.2", 1)) {
		t.Error("the nil list ignores a record")
	}
}

func TestDefault(t *testing.T) {
	l, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	if l.Len() < 20 || l.flows != nil || len(l.Notices()) > 0 {
		t.Errorf("%d entries, notices %v", l.Len(), l.Notices())
	}
	// Its header must not lie: what it shows as examples is valid.
	examples := 0
	for line := range strings.Lines(DefaultText()) {
		line = strings.TrimLeft(strings.TrimSpace(line), "# ")
		if strings.HasPrefix(line, "ip,") || strings.HasPrefix(line, "organization,") {
			examples++
			if _, err := parseEntry(line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
	if examples < 5 {
		t.Errorf("%d examples found", examples)
	}
	for _, name := range OrganizationNames() {
		if !strings.Contains(DefaultText(), name) {
			t.Errorf("the header does not name %s", name)
		}
	}
}

func TestOrganizations(t *testing.T) {
	names := OrganizationNames()
	for _, want := range []string{"google", "microsoft", "apple", "facebook", "twitter"} { // those of the original
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("no %s", want)
		}
	}
	for _, n := range names {
		o, err := LoadOrganization(n)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(o.Sources) == 0 || o.About == "" || len(o.Domains)+len(o.Prefixes) == 0 {
			t.Errorf("%s: sources %q, %d domains, %d prefixes", n, o.Sources, len(o.Domains), len(o.Prefixes))
		}
		for _, p := range o.Prefixes {
			if p.Bits() < 8 || p.Addr().IsPrivate() || p.Addr().IsLoopback() || p.Addr().IsMulticast() {
				t.Errorf("%s: %s is no network of an organisation", n, p)
			}
		}
		for _, d := range o.Domains {
			if got, want := canonicalDomain(d); got != d {
				t.Errorf("%s: %s: %s", n, d, want)
			}
		}
	}
	if _, err := LoadOrganization("../whitelist.conf"); err == nil {
		t.Error("a file outside the folder was read")
	}
}

func TestWatcher(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.conf")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ip,1.2.3.4,both,alerts\n")
	l, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWatcher(path, l)
	look := func(what string, entries int, wrong string) {
		t.Helper()
		l, err := w.Changed()
		if l.Len() != entries || (err != nil) != (wrong != "") || err != nil && !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %d entries, %v; want %d, %q", what, l.Len(), err, entries, wrong)
		}
	}
	look("as loaded", 0, "")
	look("again", 0, "")
	write("ip,1.2.3.4,both,alerts\nip,1.2.3.5,both,alerts\n")
	look("edited", 2, "")
	write("ip,1.2.3.4,both,alerts\nip,1.2.3.6,both,alerts\n") // the same size, perhaps the same time
	look("edited at once", 2, "")
	look("unchanged", 0, "")
	write("ip,1.2.3.x,both,alerts\n")
	look("a bad edit", 0, "w.conf:1: value")
	look("still bad", 0, "")
	write("ip,1.2.3.4,both,alerts\nip,1.2.3.6,both,alerts\n")
	look("repaired", 2, "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	look("removed", 0, "no such file")
	look("still removed", 0, "")
	write("ip,1.2.3.4,both,alerts\n")
	look("back", 1, "")
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestTally(t *testing.T) {
	var a, b Tally
	r := Rule{Line: 7, Text: "ip,1.2.3.4,both,both"}
	a.flow(&r)
	a.flow(&r)
	r.Line = 3
	a.Evidence(r)
	a.Evidence(Rule{Line: 1, Text: "x"})
	want := []Count{{1, "x", 0, 1}, {3, r.Text, 2, 1}}
	if d := cmp.Diff(want, a.Counts()); d != "" {
		t.Error(d)
	}
	b.Restore(a.Counts())
	b.Evidence(r)
	want[1].Evidence++
	if d := cmp.Diff(want, b.Counts()); d != "" {
		t.Error(d)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ip,10.0.0.5&evidence=X,src,alerts,2026-12-31,\"a \"\"b\"\"\"", "domain,bücher.example,dst,flows", "#x\n;y\nmac,00-11-22-33-44-55,src,both",
		"\"IoCType\"\nport,443/tcp&dst.ip=::/1,both,both", "organization,google,both,alerts", "ja3,6734f37431670b3ab4292b8f60f29984,src,both,,r",
		"asn,1,both,alerts\nasn,AS1,src,alerts",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse("f", strings.NewReader(s))
		if err != nil {
			if l != nil {
				t.Fatal("a list with an error")
			}
			return
		}
		if l.Len() > strings.Count(s, "\n")+1 {
			t.Fatalf("%d entries of %q", l.Len(), s)
		}
		text := l.String()
		m, err := Parse("f", strings.NewReader(text))
		if err != nil {
			t.Fatalf("%q, written as %q: %v", s, text, err)
		}
		if m.String() != text {
			t.Fatalf("%q is written as %q and then as %q", s, text, m.String())
		}
	})
}
