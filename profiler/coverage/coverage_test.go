package coverage

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/all"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// watch shows a Watch the records of logs, thinned out, as often as it takes to
// be believed.
func watch(t testing.TB, logs []log, gone ...string) *Watch {
	t.Helper()
	w := New(all.Specs(), nil)
	for _, l := range logs {
		thin, ok := l.without(t, gone)
		if !ok {
			continue
		}
		batches := thin.records()
		for n := 0; n < 60 && len(batches) > 0; n++ {
			for _, b := range batches {
				w.Flow(&b.Flows[0], profile.Window{})
			}
		}
	}
	return w
}

// types returns the types of effects, those that are not certain in brackets.
func types(list []Effect) (names []string) {
	for _, e := range list {
		if !e.Certain {
			names = append(names, "("+string(e.Type)+")")
			continue
		}
		names = append(names, string(e.Type))
	}
	return names
}

// Each field that a record shows is seen in the logs of the corpus, and is
// found missing, alone, when it is taken away.
func TestFieldsAreSeen(t *testing.T) {
	var logs []log
	all := trials(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		cases := all[name]
		for _, c := range cases[:len(cases)-1] { // the last is the capture that all have
			logs = append(logs, c.logs...)
		}
	}
	logs = append(logs, captured(t)...)
	missing := func(r *Report) (names []string) {
		for _, m := range r.MissingFields {
			names = append(names, m.Log+"."+m.Field)
		}
		return names
	}
	before := missing(watch(t, logs).Report())
	for _, x := range things() {
		if x.seen == nil {
			continue
		}
		if slices.Contains(before, x.name) {
			t.Errorf("%s is said to be missing, with all logs there", x.name)
		}
		var some []log // the other logs change nothing about it
		for _, l := range logs {
			if l.kind == kindOf(x.name) {
				some = append(some, l)
			}
		}
		without := missing(watch(t, some, x.name).Report())
		if !slices.Contains(without, x.name) && x.instead == "" {
			t.Errorf("%s is taken away, and missing is only %v", x.name, without)
		}
	}
}

// Without a log or a field of the self-test's capture that are the types which
// it cannot find any more, and no others.
func TestReportOfCapture(t *testing.T) {
	logs := captured(t)
	whole := watch(t, logs).Report()
	if len(whole.Off) > 0 {
		t.Errorf("with all logs there cannot be found %v", types(whole.Off))
	}
	for _, tt := range []struct {
		gone string
		off  string
	}{
		{"arp", "(ARP_OUTSIDE_LOCALNET) (ARP_SCAN) (MITM_ARP_ATTACK) (UNSOLICITED_ARP)"},
		{"login", "(LOGIN)"}, // there is an arp.log, so that our scripts are loaded
		{"arp login software", "ARP_OUTSIDE_LOCALNET ARP_SCAN LOGIN MITM_ARP_ATTACK UNSOLICITED_ARP"},
		{"ssl.ja3", "MALICIOUS_JA3"},
		{"ssl.ja3s", "MALICIOUS_JA3S"},
		{"ssl.ja4", "MALICIOUS_JA4"},
		{"ssl.ja3 ssl.ja3s ssl.ja4", "MALICIOUS_JA3 MALICIOUS_JA3S MALICIOUS_JA4"},
		{"conn.orig_l2_addr", "DEVICE_CHANGING_IP"},
		{"http.user_agent", "INCOMPATIBLE_USER_AGENT MULTIPLE_USER_AGENT"},
		{"dns.answers", "DNS_WITHOUT_CONNECTION HIGH_ENTROPY_DNS_ANSWER INVALID_DNS_RESOLUTION THREAT_INTELLIGENCE_ANSWER_OF_BLACKLISTED_QUERY THREAT_INTELLIGENCE_BLACKLISTED_DNS_ANSWER"},
		{"smtp.last_reply", "BAD_SMTP_LOGIN SMTP_LOGIN_BRUTEFORCE"},
		{"dhcp", "(DHCP_SCAN) (DHCP_STARVATION) (INCOMPATIBLE_USER_AGENT)"},
		{"tunnel", "(GRE_SCAN) (GRE_TUNNEL)"},
		{"files.md5 files.sha256", ""}, // by SHA-1
		{"ssh.auth_success", ""},
	} {
		r := watch(t, logs, strings.Fields(tt.gone)...).Report()
		if diff := cmp.Diff(strings.Fields(tt.off), append([]string{}, types(r.Off)...)); diff != "" {
			t.Errorf("without %s (-want +got):\n%s", tt.gone, diff)
		}
	}
}

// A type that several modules have is off when it is in all of them.
func TestSeveralModules(t *testing.T) {
	logs := captured(t)
	find := func(list []Effect, typ evidence.Type) *Effect {
		if i := slices.IndexFunc(list, func(e Effect) bool { return e.Type == typ }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	r := watch(t, logs, "dns").Report()
	tunnel := find(r.Weaker, "DNS_TUNNEL") // by the size of queries in conn.log
	if find(r.Off, "DNS_TUNNEL") != nil || tunnel == nil || !slices.Equal(tunnel.Modules, []string{"dnstunnel"}) {
		t.Errorf("without dns: off %v, DNS_TUNNEL %+v", types(r.Off), tunnel)
	}
	only := func(names ...string) []modules.Spec {
		return slices.DeleteFunc(all.Specs(), func(s modules.Spec) bool { return !slices.Contains(names, s.Name) })
	}
	w := watch(t, logs, "dns")
	w.specs = only("dnstunnel")
	if r = w.Report(); find(r.Off, "DNS_TUNNEL") == nil || r.Types != 1 {
		t.Errorf("without dns and dnsflood: off %v of %d types", types(r.Off), r.Types)
	}
}

// What other sensors do not know, and how conn.log tells of logs that are off.
func TestLogs(t *testing.T) {
	reasons := func(w *Watch) map[string]Why {
		m := make(map[string]Why)
		for _, x := range w.Report().MissingLogs {
			m[x.Log] = x.Why
			if x.Hint == "" {
				t.Errorf("nothing is said that helps against no %s", x.Log)
			}
		}
		return m
	}
	conns := func(sensor flow.Sensor, service string) *Watch {
		w := New(all.Specs(), nil)
		f := flow.Flow{Kind: flow.Conn, Sensor: sensor, Service: service, State: flow.Established}
		for range minSigns {
			w.Flow(&f, profile.Window{})
		}
		return w
	}
	t.Run("zeek", func(t *testing.T) {
		w := conns(flow.Zeek, "ssl,http")
		got := reasons(w)
		for log, want := range map[string]Why{"ssl": Suppressed, "http": Suppressed, "dns": NoTraffic, "ssh": NoTraffic, "arp": Unwritten, "login": Unwritten, "software": Unwritten} {
			if got[log] != want {
				t.Errorf("%s: %q, want %q", log, got[log], want)
			}
		}
		w.Log(flow.Of(flow.HTTP) | flow.NoKind)
		w.Header(flow.SSL, []string{"ts", "uid", "ja3"})
		got = reasons(w)
		if got["ssl"] != "" || got["http"] != "" {
			t.Errorf("logs that were found are missing: %v", got)
		}
		r := w.Report()
		has := func(field string) bool {
			return slices.ContainsFunc(r.MissingFields, func(m MissingField) bool { return m.Log == "ssl" && m.Field == field })
		}
		if has("ja3") || !has("ja4") || !has("server_name") || !has("is_doh") {
			t.Errorf("by the header are missing %+v", r.MissingFields)
		}
	})
	t.Run("no conn", func(t *testing.T) {
		w := New(all.Specs(), nil)
		w.Log(flow.Of(flow.DNS))
		if got := reasons(w); got["conn"] != Suppressed || got["dns"] != "" {
			t.Errorf("%v", got)
		}
	})
	for _, s := range []flow.Sensor{flow.Argus, flow.Nfdump} {
		w := conns(s, "")
		for log, why := range reasons(w) {
			if why != Unwritten || log == "conn" {
				t.Errorf("%v: %s: %q", s, log, why)
			}
		}
		r := w.Report()
		off := types(r.Off)
		for _, typ := range []string{"DGA_NXDOMAINS", "MALICIOUS_JA3", "CLEARTEXT_CREDENTIALS", "ARP_SCAN", "RARE_SIGNATURE"} {
			if !slices.Contains(off, typ) {
				t.Errorf("%v: %s is not off", s, typ)
			}
		}
		for _, typ := range []string{"HORIZONTAL_PORT_SCAN", "BEACON", "LONG_CONNECTION", "DNS_TUNNEL"} {
			if slices.Contains(off, typ) {
				t.Errorf("%v: %s is off", s, typ)
			}
		}
		if len(r.MissingFields) > 0 {
			t.Errorf("%v: fields of Zeek are missed: %+v", s, r.MissingFields)
		}
	}
	t.Run("suricata", func(t *testing.T) {
		got := reasons(conns(flow.Suricata, "tls"))
		for log, want := range map[string]Why{"ssl": Suppressed, "dns": NoTraffic, "x509": Unwritten, "login": Unwritten, "notice": Unwritten} {
			if got[log] != want {
				t.Errorf("%s: %q, want %q", log, got[log], want)
			}
		}
	})
	t.Run("subjects", func(t *testing.T) {
		w := conns(flow.Suricata, "tls")
		var f flow.Flow
		f.Reset(flow.SSL)
		f.Sensor, f.SSL.Subject = flow.Suricata, "CN=a"
		w.Flow(&f, profile.Window{})
		if got := reasons(w); got["x509"] != "" {
			t.Error("x509 is missed although the records of TLS have the subject")
		}
		if r := w.Report(); slices.ContainsFunc(r.Weaker, func(e Effect) bool { return slices.Contains(e.Missing, "x509.fingerprint") }) {
			t.Errorf("its fields are missed: %+v", r.Weaker)
		}
	})
	t.Run("certificates", func(t *testing.T) { // of Zeek 5 and later, of which no connection showed one
		w := New(all.Specs(), nil)
		w.Header(flow.SSL, []string{"ts", "uid", "cert_chain_fps"})
		missing := func() bool {
			return slices.ContainsFunc(w.Report().MissingFields, func(m MissingField) bool { return m.Field == "subject" })
		}
		if missing() {
			t.Error("the subject is missed although x509.log would have it")
		}
		var f flow.Flow
		f.Reset(flow.SSL)
		f.SSL.CertFPs = []string{"00"}
		for range minSigns {
			w.Flow(&f, profile.Window{})
		}
		if got := reasons(w); got["x509"] != Suppressed || !missing() {
			t.Errorf("with fingerprints and without x509.log: %v, subject missing is %t", got, missing())
		}
	})
	t.Run("hashes of certificates", func(t *testing.T) { // as Zeek 8 logs them by itself: by SHA-256, and not in files.log
		w := New(all.Specs(), nil)
		var ssl, file flow.Flow
		ssl.Reset(flow.SSL)
		file.Reset(flow.Files)
		ssl.SSL.CertFPs, file.Files.Source = []string{strings.Repeat("0", 64)}, "HTTP"
		off := func() *Effect {
			r := w.Report()
			i := slices.IndexFunc(r.Off, func(e Effect) bool { return e.Type == "MALICIOUS_SSL_CERT" && e.Certain })
			if i < 0 {
				return nil
			}
			return &r.Off[i]
		}
		for range 20 {
			w.Flow(&ssl, profile.Window{})
		}
		if off() == nil {
			t.Error("without files.log no certificate can be found in a list, and that is not said")
		}
		for range 20 {
			w.Flow(&file, profile.Window{})
		}
		if e := off(); e == nil || !strings.Contains(strings.Join(e.Hints, " "), "log_x509_in_files_log") {
			t.Errorf("no certificate can be found in a list, and that is not said: %+v", e)
		}
		file.Files.Source, file.Files.SHA1 = "SSL", strings.Repeat("0", 40)
		w.Flow(&file, profile.Window{})
		if off() != nil {
			t.Error("files.log has the SHA-1 of a certificate")
		}
	})
	t.Run("our scripts", func(t *testing.T) {
		w := conns(flow.Zeek, "dns")
		w.Scripts()
		got := reasons(w)
		for log, want := range map[string]Why{"dns": Suppressed, "arp": NoTraffic, "login": NoTraffic, "software": NoTraffic} {
			if got[log] != want {
				t.Errorf("%s: %q, want %q", log, got[log], want)
			}
		}
	})
	t.Run("ja3 of suricata", func(t *testing.T) {
		w := conns(flow.Suricata, "tls")
		var f flow.Flow
		f.Reset(flow.SSL)
		f.Sensor, f.SSL.JA4, f.SSL.ServerName, f.SSL.Established = flow.Suricata, "t13d", "example.org", flow.True
		for range 50 {
			w.Flow(&f, profile.Window{})
		}
		var missing []string
		for _, m := range w.Report().MissingFields {
			missing = append(missing, m.Log+"."+m.Field)
		}
		if diff := cmp.Diff([]string{"ssl.ja3", "ssl.ja3s"}, missing); diff != "" {
			t.Errorf("missing fields (-want +got):\n%s", diff)
		}
	})
	t.Run("the meter", func(t *testing.T) {
		w := conns(flow.Zeek, "dns")
		w.Meter(flow.Of(flow.Conn, flow.DNS, flow.ARP))
		got := reasons(w)
		for log, want := range map[string]Why{"dns": Suppressed, "arp": NoTraffic, "kerberos": Unwritten} {
			if got[log] != want {
				t.Errorf("%s: %q, want %q", log, got[log], want)
			}
		}
	})
}

// Few records are no proof that a field is not logged, unless a header is.
func TestBelieved(t *testing.T) {
	w := New(all.Specs(), nil)
	var f flow.Flow
	f.Reset(flow.SSL)
	ja3 := func() bool {
		return slices.ContainsFunc(w.Report().MissingFields, func(m MissingField) bool { return m.Field == "ja3" })
	}
	for range 19 {
		w.Flow(&f, profile.Window{})
	}
	if ja3() {
		t.Error("19 records are believed")
	}
	w.Flow(&f, profile.Window{})
	if !ja3() {
		t.Error("20 records are not believed")
	}
	f.SSL.JA3 = strings.Repeat("0", 32)
	for n := range 2 * sampleOne {
		w.Flow(&f, profile.Window{})
		if n == 0 && ja3() {
			t.Error("a record with the field changes nothing")
		}
	}
	late := New(all.Specs(), nil)
	f.SSL.JA3 = ""
	for range sampleAll {
		late.Flow(&f, profile.Window{})
	}
	w, f.SSL.JA3 = late, "x"
	for range sampleOne {
		w.Flow(&f, profile.Window{})
	}
	if ja3() {
		t.Error("a field that comes late is not noticed")
	}
}

// A follower judges once, after ten minutes of connections, or an hour of
// other logs.
func TestTell(t *testing.T) {
	for _, tt := range []struct {
		kind flow.Kind
		at   time.Duration
		want int
	}{
		{flow.Conn, judgeConn - 1, 0},
		{flow.Conn, judgeConn, 1},
		{flow.Conn, 3 * judgeAny, 1},
		{flow.DNS, judgeConn, 0},
		{flow.DNS, judgeAny - 1, 0},
		{flow.DNS, judgeAny, 1},
	} {
		told := 0
		w := New(all.Specs(), func(r *Report) {
			told++
			if r.Records[tt.kind.String()] == 0 {
				t.Errorf("%v: the report is of %v", tt.kind, r.Records)
			}
		})
		var f flow.Flow
		f.Reset(tt.kind)
		f.Time, f.At = 1, 1
		w.Flow(&f, profile.Window{})
		f.Time, f.At = 1+int64(tt.at), 1+int64(tt.at)
		w.Flow(&f, profile.Window{})
		w.Flow(&f, profile.Window{})
		if told != tt.want {
			t.Errorf("%v over %v: told %d times, want %d", tt.kind, tt.at, told, tt.want)
		}
	}
}

// The terminal gets a few lines that name what is missing, what is off, and
// what helps; the log all of it; and summary.json is what can be read back.
func TestText(t *testing.T) {
	logs := captured(t)
	if lines := watch(t, logs, "mysql").Report().Lines(); len(lines) > 5 {
		t.Errorf("with nearly all there:\n%s", strings.Join(lines, "\n"))
	}
	few := New(all.Specs(), nil)
	for range minRecords {
		if lines := few.Report().Lines(); len(lines) > 0 {
			t.Fatalf("of a handful of records:\n%s", strings.Join(lines, "\n"))
		}
		few.Flow(&flow.Flow{Kind: flow.Conn, RawState: "SF"}, profile.Window{})
	}
	if len(few.Report().Lines()) == 0 {
		t.Errorf("of %d records nothing is told", minRecords)
	}
	r := watch(t, logs, "arp", "login", "ssl.ja3", "ssl.ja4", "conn.orig_l2_addr", "x509").Report()
	text := strings.Join(r.Lines(), "\n")
	for _, want := range []string{
		"8 of ", "no arp, login log: ARP_OUTSIDE_LOCALNET, ARP_SCAN, LOGIN and 2 more off", "slips zeek-scripts install",
		"ssl log without ja3, ja4: MALICIOUS_JA3, MALICIOUS_JA4 off; RARE_SIGNATURE", "conn log without orig_l2_addr: DEVICE_CHANGING_IP off",
		"@load policy/protocols/conn/mac-logging", "no traffic seen that belongs into:",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var gone []string
	for _, x := range things() {
		if !strings.HasPrefix(x.name, "conn.") || strings.HasSuffix(x.name, "addr") {
			gone = append(gone, x.name)
		}
	}
	if lines := watch(t, logs, gone...).Report().Lines(); len(lines) > maxLines || !strings.Contains(strings.Join(lines, "\n"), " more logs or fields") {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &back); diff != "" {
		t.Errorf("read back (-wrote +read):\n%s", diff)
	}
	if strings.Contains(string(b), "null") {
		t.Errorf("an empty list is null: %s", b)
	}
}

// A record costs no memory.
func TestFlowDoesNotAllocate(t *testing.T) {
	w := watch(t, captured(t), "dns.AA", "ssl.ja3")
	f := flow.Flow{Kind: flow.Conn, Service: "ssl,http", State: flow.Established}
	if n := testing.AllocsPerRun(1000, func() { w.Flow(&f, profile.Window{}) }); n > 0 {
		t.Errorf("%v allocations for a record", n)
	}
}

// The hints of things and the names of their logs are there.
func TestThings(t *testing.T) {
	seen := make(map[string]bool)
	used := make(map[string]bool)
	for _, r := range table() {
		for _, x := range slices.Concat(r.off, r.fewer, r.more) {
			for x := range strings.SplitSeq(x, "+") {
				used[x] = true
			}
		}
	}
	for _, x := range things() {
		if kindOf(x.name) == flow.NumKinds || fieldOf(x.name) == "" || x.hint.String() == "" || (x.seen == nil) != (x.min == 0) {
			t.Errorf("%+v", x)
		}
		if seen[x.name] {
			t.Errorf("%s is listed twice", x.name)
		}
		seen[x.name] = true
		if !used[x.name] && x.name != "ssl.is_doh" && x.name != "arp.dst_mac" {
			t.Logf("no case depends on %s", x.name)
		}
		delete(used, x.name)
	}
	for x := range maps.Keys(used) {
		if fieldOf(x) != "" {
			t.Errorf("the table needs %s, which is not in things", x)
		}
	}
}

func BenchmarkFlow(b *testing.B) {
	for _, name := range []string{"all there", "much missing"} {
		b.Run(name, func(b *testing.B) {
			var gone []string
			if name != "all there" {
				gone = []string{"conn.orig_l2_addr", "conn.history", "conn.service", "conn.duration"}
			}
			w := watch(b, captured(b), gone...)
			w.tell = func(*Report) {}
			f := flow.Flow{Kind: flow.Conn, State: flow.Established, Proto: flow.TCP}
			b.ReportAllocs()
			for b.Loop() {
				w.Flow(&f, profile.Window{})
			}
		})
	}
}
