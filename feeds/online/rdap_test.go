package online

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

const rdapDomain = `{"objectClassName":"domain","ldhName":"EXAMPLE.COM","events":[{"eventAction":"expiration","eventDate":"2030-01-01T00:00:00Z"},
 {"eventAction":"registration","eventDate":"2020-09-13T12:26:40Z"}],
 "entities":[{"roles":["registrar"],"vcardArray":["vcard",[["fn",{},"text","A Registrar"]]]},
 {"roles":["registrant"],"vcardArray":["vcard",[["version",{},"text","4.0"],["fn",{},"text","REDACTED FOR PRIVACY"],["org",{"type":"work"},"text","Example a.s."],
 ["adr",{},"text",["","","Street","City","","12345","CZ"]]]]}]}`

const rdapNetwork = `{"objectClassName":"ip network","name":"NET-1","country":"us","arin_originas0_originautnums":[64500],
 "entities":[{"roles":["registrant"],"vcardArray":["vcard",[["fn",{},"text","Example Inc."],["adr",{"cc":"US"},"text",["","","","","","",""]]]]}]}`

// registry plays IANA and the registries; handle answers all but bootstraps.
func registry(t *testing.T, handle http.HandlerFunc) (o *Options, bootstraps *atomic.Int64) {
	t.Helper()
	bootstraps = new(atomic.Int64)
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	file := func(path, entries string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			bootstraps.Add(1)
			fmt.Fprintf(w, `{"version":"1.0","services":[[%s,["ftp://x/","%s/r/"]],[["broken"]]]}`, entries, server.URL)
		})
	}
	file("/dns.json", `["com","net"]`)
	file("/ipv4.json", `["8.0.0.0/8"]`)
	file("/ipv6.json", `["2001:4800::/23"]`)
	mux.HandleFunc("/", handle)
	o = configured(t, server.URL)
	o.Config.RDAP.Whois = ""
	return o, bootstraps
}

func TestRDAP(t *testing.T) {
	o, bootstraps := registry(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/r/domain/example.com":
			http.Redirect(w, r, "/r/elsewhere", http.StatusFound) // as from registry to registrar
		case "/r/elsewhere":
			io.WriteString(w, rdapDomain)
		case "/r/ip/8.8.8.8", "/r/ip/2001:4860:4860::8888":
			io.WriteString(w, rdapNetwork)
		case "/r/domain/odd.com":
			io.WriteString(w, `{"objectClassName":"domain","events":[{"eventAction":"registration","eventDate":"last week"}],"entities":[{"roles":"registrant","vcardArray":[1,2]},{"roles":["registrant"],"vcardArray":["vcard",[[],["fn"],["org",{},"text",["Unit",7]]]]}]}`)
		case "/r/domain/forbidden.com":
			w.WriteHeader(http.StatusForbidden)
		case "/r/domain/help.com":
			io.WriteString(w, `{"objectClassName":"help"}`)
		default:
			http.NotFound(w, r)
		}
	})
	s := built(t, "rdap", o)
	network := flow.LookupPart{Found: flow.True, Registrant: "Example Inc.", ASOrg: "Example Inc.", ASN: 64500, Country: "US"}
	for _, c := range []struct {
		about subject
		want  flow.LookupPart
		err   string
	}{
		{about(intel.Domain, "example.com"), flow.LookupPart{Found: flow.True, Registered: 1600000000e9, Registrant: "Example a.s.", Country: "CZ"}, "none"},
		{about(intel.Domain, "other.net"), unknown(), "none"},
		{about(intel.Domain, "odd.com"), flow.LookupPart{Found: flow.True, Registrant: "Unit"}, "none"},
		{about(intel.Domain, "example.cz"), flow.LookupPart{}, "subject"},    // no server is known
		{about(intel.Domain, "forbidden.com"), flow.LookupPart{}, "subject"}, // one registry is not the service
		{about(intel.Domain, "help.com"), flow.LookupPart{}, "failure"},
		{about(intel.Address, publicV4), network, "none"},
		{about(intel.Address, publicV6), network, "none"},
		{about(intel.Address, "9.9.9.9"), flow.LookupPart{}, "subject"},
	} {
		got, err := s.ask(t.Context(), c.about)
		if errKind(err) != c.err {
			t.Errorf("%s: %s, %v; want %s", c.about.text, errKind(err), err, c.err)
		}
		if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.about.text, d)
		}
	}
	if n := bootstraps.Load(); n != 3 {
		t.Errorf("the bootstrap files were fetched %d times", n)
	}
}

func TestBootstrapStaleBeatsNone(t *testing.T) {
	var fetched atomic.Int64
	var broken atomic.Bool
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/dns.json", func(w http.ResponseWriter, _ *http.Request) {
		fetched.Add(1)
		if broken.Load() {
			io.WriteString(w, `<html>`)
			return
		}
		fmt.Fprintf(w, `{"services":[[["com"],["%s"]]]}`, server.URL)
	})
	mux.HandleFunc("/domain/example.com", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, rdapDomain) })
	o := configured(t, server.URL)
	o.Config.RDAP.Whois = ""
	now := time.Unix(1700000000, 0)
	o.Now = func() time.Time { return now }
	broken.Store(true)
	s := built(t, "rdap", o)
	ask := func(want string, fetches int64) {
		t.Helper()
		_, err := s.ask(t.Context(), about(intel.Domain, "example.com"))
		if errKind(err) != want || fetched.Load() != fetches {
			t.Errorf("%s, %v, %d fetches; want %s, %d", errKind(err), err, fetched.Load(), want, fetches)
		}
	}
	ask("failure", 1)
	broken.Store(false)
	ask("none", 2)
	broken.Store(true)
	now = now.Add(25 * time.Hour)
	ask("none", 3)
	ask("none", 3) // not with each question
	now = now.Add(11 * time.Minute)
	ask("none", 4)
}

// whoisDialer serves WHOIS for the servers of a map, by what they are asked.
func whoisDialer(t *testing.T, servers map[string]map[string]string) dialer {
	t.Helper()
	at := listen(t, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		server, query, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), "|")
		if reply, known := servers[server][query]; ok && known {
			io.WriteString(c, reply)
			return
		}
		io.Copy(io.Discard, c) // a server that hangs
	})
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if servers[address] == nil {
			return nil, errors.New("connection refused")
		}
		c, err := new(net.Dialer).DialContext(ctx, network, at.String())
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(c, address+"|")
		return c, err
	}
}

func TestWhoisFallback(t *testing.T) {
	o, _ := registry(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	o.Config.RDAP.Whois = "whois.iana.org:43"
	o.dial = whoisDialer(t, map[string]map[string]string{
		"whois.iana.org:43": {
			"cz":      "% IANA WHOIS server\n\ndomain:       CZ\nwhois:        whois.nic.cz\n",
			"com":     "refer: whois.verisign-grs.com\n",
			"io":      "whois: 127.0.0.1\n",
			"dev":     "domain: DEV\nstatus: ACTIVE\n",
			"pl":      "whois: whois.dns.pl\n",
			publicV4:  "refer:        whois.arin.net\n",
			"9.9.9.9": strings.Repeat("x", maxWhois+1),
		},
		"whois.nic.cz:43": {
			"example.cz": "% (c) comment: created: 1999\ndomain:       example.cz\nregistrant:   SB:X\ncreated:      13.09.2020 12:26:40\norg:          Example a.s.\ncountry:      CZ\n",
			"free.cz":    "%ERROR:101: no entries found\n% \n% No entries found.\n",
			"odd.cz":     "\xff\xfe binary \x00",
			"empty.cz":   "",
		},
		"whois.verisign-grs.com:43": {"example.com": "   Domain Name: EXAMPLE.COM\r\n   Creation Date: 2020-09-13T12:26:40Z\r\n   Registrant Organization: REDACTED FOR PRIVACY\r\n   Registrant Country: CZ\r\n"},
		"whois.arin.net:43":         {publicV4: "# comment\nNetRange: 8.8.8.0 - 8.8.8.255\nNetName: GOGL\nOriginAS: AS15169\nOrganization: Google LLC (GOGL)\nOrgName: Google LLC\nCountry: US\nCreated: 2010\n"},
		"whois.dns.pl:43":           {},
	})
	s := built(t, "rdap", o)
	at := int64(1600000000e9)
	for _, c := range []struct {
		about subject
		want  flow.LookupPart
		err   string
	}{
		{about(intel.Domain, "example.cz"), flow.LookupPart{Found: flow.True, Registered: at, Registrant: "Example a.s.", Country: "CZ"}, "none"},
		{about(intel.Domain, "example.com"), flow.LookupPart{Found: flow.True, Registered: at, Country: "CZ"}, "none"},
		{about(intel.Domain, "free.cz"), unknown(), "none"},
		{about(intel.Domain, "odd.cz"), flow.LookupPart{}, "subject"}, // RDAP knew no server
		{about(intel.Domain, "empty.cz"), flow.LookupPart{}, "subject"},
		{about(intel.Domain, "example.io"), flow.LookupPart{}, "subject"}, // refers to this machine
		{about(intel.Domain, "example.dev"), flow.LookupPart{}, "subject"},
		{about(intel.Address, publicV4), flow.LookupPart{Found: flow.True, Registrant: "Google LLC", ASOrg: "Google LLC", ASN: 15169, Country: "US"}, "none"},
		{about(intel.Address, "8.8.4.4"), flow.LookupPart{}, "failure"}, // hangs
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if c.err == "failure" {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		}
		got, err := s.ask(ctx, c.about)
		cancel()
		if errKind(err) != c.err {
			t.Errorf("%s: %s, %v; want %s", c.about.text, errKind(err), err, c.err)
		}
		if d := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.about.text, d)
		}
	}
}

// A quota is kept: another way to the same registry is not looked for.
func TestNoWhoisAroundAQuota(t *testing.T) {
	o, _ := registry(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) })
	o.Config.RDAP.Whois = "whois.iana.org:43"
	o.dial = func(context.Context, string, string) (net.Conn, error) {
		t.Error("asked WHOIS")
		return nil, errors.New("no")
	}
	if _, err := built(t, "rdap", o).ask(t.Context(), about(intel.Domain, "example.com")); errKind(err) != "quota 0s" {
		t.Errorf("%v", err)
	}
}

// RDAP may be sent on to another host, but not into a private network.
func TestRDAPRedirects(t *testing.T) {
	o, _ := registry(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.168.1.1/admin?reboot", http.StatusFound)
	})
	_, err := built(t, "rdap", o).ask(t.Context(), about(intel.Domain, "example.com"))
	if err == nil || !strings.Contains(err.Error(), "redirected into a private network") {
		t.Errorf("%v", err)
	}
}

func TestDates(t *testing.T) {
	for text, want := range map[string]string{
		"2020-09-13T12:26:40Z": "2020-09-13 12:26:40", "2020-09-13T12:26:40.000+0200": "2020-09-13 10:26:40", "2020-09-13": "2020-09-13 00:00:00",
		"2020-09-13 12:26:40": "2020-09-13 12:26:40", "2020-09-13 12:26:40 CLST": "2020-09-13 00:00:00", "2020/09/13": "2020-09-13 00:00:00",
		"13.09.2020 12:26:40": "2020-09-13 12:26:40", "13-Sep-2020": "2020-09-13 00:00:00", "20200913 #12345": "2020-09-13 00:00:00",
		"2020.09.13 12:26:40": "2020-09-13 12:26:40", "1999. 11. 24.": "1999-11-24 00:00:00", "2020/09/13 (JST)": "2020-09-13 00:00:00",
		"2020-09-13T12:26:40": "2020-09-13 12:26:40", "before Aug-1996": "", "": "", "1970-01-01": "", "9999-01-01": "", "0000-00-00": "",
	} {
		got := ""
		if ns := date(text); ns != 0 {
			got = time.Unix(0, ns).UTC().Format(time.DateTime)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzWhois(f *testing.F) {
	f.Add("domain: a\ncreated: 2020-01-01\nregistrant: x\n", true)
	f.Add("[Domain Name] X.JP\n[登録年月日] 2001/02/03\n", true)
	f.Add("NetRange: 8.8.8.0\nOriginAS: AS1\nCountry: us", false)
	f.Fuzz(func(t *testing.T, text string, domain bool) {
		kind := intel.Address
		if domain {
			kind = intel.Domain
		}
		p, err := parseWhois(text, kind)
		if err != nil {
			return
		}
		if p.Found == flow.Unset || len(p.Registrant) > maxText || p.Registered < 0 || len(p.Country) != 0 && len(p.Country) != 2 {
			t.Errorf("%+v of %q", p, text)
		}
	})
}

func FuzzRDAP(f *testing.F) {
	f.Add([]byte(rdapDomain))
	f.Add([]byte(rdapNetwork))
	f.Fuzz(func(t *testing.T, b []byte) {
		server := prefixServer(b)
		for _, s := range []subject{about(intel.Domain, "example.com"), about(intel.Address, publicV4)} {
			p, err := server.rdap(t.Context(), s)
			if err != nil {
				continue
			}
			if p = bound(p); p.Found == flow.Unset || len(p.Registrant) > maxText {
				t.Errorf("%+v of %q", p, b)
			}
		}
	})
}

// prefixServer is an RDAP client whose server says b, without a network.
func prefixServer(b []byte) *rdap {
	now := time.Unix(1700000000, 0)
	w := &web{client: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(b))), Request: r}, nil
	})}}
	prefix := netip.MustParsePrefix("8.0.0.0/8").String()
	known := &bootstrap{services: map[string]string{"com": "https://r.example/", prefix: "https://r.example/"}, fetched: now}
	return &rdap{web: w, now: func() time.Time { return now }, bootstrap: map[string]*bootstrap{"dns.json": known, "ipv4.json": known}}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
