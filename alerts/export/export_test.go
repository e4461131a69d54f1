package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/internal/idmeftest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	hour  = int64(time.Hour)
	start = 1_700_000_000_000_000_000 // 2023-11-14T22:13:20Z
)

// sample makes evidence with every field set.
func sample(n int) *evidence.Evidence {
	p := netip.MustParseAddr("192.168.1.10")
	v := netip.MustParseAddr("203.0.113.7")
	e := &evidence.Evidence{
		Type: "VERTICAL_PORT_SCAN", Profile: p, Time: start + int64(n)*1_001_002_003,
		Attacker: evidence.IPEntity(p, evidence.Src, 0), Victim: evidence.IPEntity(v, evidence.Dst, 0),
		Level: evidence.High, Confidence: 0.8,
		Description: fmt.Sprintf("vertical port scan of 203.0.113.7 over tcp: %d ports", n), Proto: "tcp", SrcPort: 51000, DstPort: 445,
		UIDs: []string{fmt.Sprintf("C%da", n), fmt.Sprintf("C%db", n)}, Count: int64(n), Subject: fmt.Sprint(n), Module: "portscan",
		MITRE: []string{"T1046"}, Tactic: evidence.Discovery, Method: "Threshold", Window: 1, WindowStart: start, WindowEnd: start + hour,
	}
	e.Key.At = e.Time + 5_000_000_000
	e.Derive()
	return e
}

// oddities are pieces of evidence whose forms differ.
func oddities() []*evidence.Evidence {
	change := func(n int, f func(*evidence.Evidence)) *evidence.Evidence {
		e := sample(n)
		f(e)
		e.Derive()
		return e
	}
	return []*evidence.Evidence{
		sample(1),
		change(2, func(e *evidence.Evidence) { // nothing optional
			e.Victim, e.UIDs, e.MITRE, e.Proto, e.SrcPort, e.DstPort = evidence.Entity{}, nil, nil, "", 0, 0
			e.Count, e.Method, e.Level, e.Description, e.Time = 0, "", evidence.Info, "", start
		}),
		change(3, func(e *evidence.Evidence) { // the responder is blamed
			e.Type, e.Level, e.Count = "DNS_ARPA_SCAN", evidence.Critical, 0
			e.Attacker = evidence.Entity{Kind: evidence.Domain, Value: "bad.example", Direction: evidence.Dst, Port: 53}
			e.Victim = evidence.IPEntity(e.Profile, evidence.Src, 0)
		}),
		change(4, func(e *evidence.Evidence) {
			e.Type, e.Level = "MALICIOUS_URL", evidence.Medium
			e.Attacker = evidence.Entity{Kind: evidence.URL, Value: "http://bad.example:8080/a?b=\"c\"", Direction: evidence.Dst}
		}),
		change(5, func(e *evidence.Evidence) {
			e.Type, e.Level = "MALICIOUS_DOWNLOADED_FILE", evidence.Low
			e.Attacker = evidence.Entity{Kind: evidence.Hash, Value: "d41d8cd98f00b204e9800998ecf8427e", Direction: evidence.Dst}
			e.Victim = evidence.Entity{Kind: evidence.Hash, Value: "no hash"}
		}),
		change(6, func(e *evidence.Evidence) { // IPv6, and text that wants to break out
			e.Profile = netip.MustParseAddr("fe80::1%eth0.1")
			e.Attacker = evidence.IPEntity(e.Profile, evidence.Src, 0)
			e.Victim = evidence.IPEntity(netip.MustParseAddr("::ffff:10.0.0.1"), evidence.Dst, 0)
			e.Proto, e.Method = "ipv6-icmp", "Magic"
			e.Description = "user agent \"x\\y\"\n2023-11-14T22:13:20Z: forged\tline \x1b[31m\u2028\xff café. "
		}),
	}
}

func sampleAlert(list ...*evidence.Evidence) *alerts.Alert {
	a := &alerts.Alert{
		Profile: list[0].Profile, Window: 1, WindowStart: start, WindowEnd: start + hour, Time: list[0].Time, At: list[0].Key.At,
		Sum:       alerts.Sum{Base: 12.16, Tactics: []evidence.Tactic{evidence.Discovery, evidence.Impact}, Factor: 1.25, Score: 15.200000000000001},
		Threshold: 15, Confidence: 10.4 / 21.2, Level: evidence.Critical,
		ID: evidence.UUID("alert", list[0].ID),
	}
	for i, e := range list {
		a.EvidenceIDs = append(a.EvidenceIDs, e.ID)
		a.Contributions = append(a.Contributions, alerts.Contribution{
			ID: e.ID, Type: e.Type, Tactic: e.Tactic, Level: e.Level, Confidence: e.Confidence, Weight: 15 / float64(i+1), Value: 8 / float64(i+1),
		})
	}
	return a
}

func create(t *testing.T, path string, o Options) *Dir {
	t.Helper()
	d, err := Create(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closeDir(t *testing.T, d *Dir) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// golden compares got with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(got), 0o644))
	}
	if diff := cmp.Diff(read(t, path), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", name, diff)
	}
}

func TestGolden(t *testing.T) {
	d := create(t, t.TempDir(), Options{Version: "0.2.0"})
	for _, e := range oddities() {
		must(t, d.Evidence(e, 7.3333333333))
	}
	must(t, d.Alert(sampleAlert(oddities()...)))
	closeDir(t, d)
	for _, n := range names {
		golden(t, filepath.Base(n), read(t, d.Path(n)))
	}
}

func TestGoldenLive(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	clock := func() time.Time { return time.Unix(1_800_000_000, 0) }
	d := create(t, t.TempDir(), Options{Version: "0.2.0", Clock: clock, Location: zone, AnalyzerIP: netip.MustParseAddr("::ffff:192.0.2.1")})
	must(t, d.Evidence(sample(1), 8))
	must(t, d.Alert(sampleAlert(sample(1))))
	closeDir(t, d)
	golden(t, "live.log", read(t, d.Path(alertsLog)))
	golden(t, "live.json", read(t, d.Path(alertsJSON)))
}

func TestIDMEFIsValid(t *testing.T) {
	d := create(t, t.TempDir(), Options{})
	defer closeDir(t, d)
	schema := idmeftest.New()
	for _, e := range oddities() {
		if err := schema.Validate(d.appendEvent(nil, e, 1)); err != nil {
			t.Error(err)
		}
	}
	if err := schema.Validate(d.appendIncident(nil, sampleAlert(oddities()...))); err != nil {
		t.Error(err)
	}
}

// TestValidatorRejects keeps the validator honest.
func TestValidatorRejects(t *testing.T) {
	d := create(t, t.TempDir(), Options{})
	defer closeDir(t, d)
	schema, good := idmeftest.New(), string(d.appendEvent(nil, sample(1), 1))
	for _, c := range [][2]string{
		{`"2.0.3"`, `"2.D.V03"`},
		{`"ID":"`, `"ID":"x`},
		{`"Port":[445]`, `"Port":[0]`},
		{`"Port":[445]`, `"Port":[65536]`},
		{`"Port":[445]`, `"Port":[44.5]`},
		{`"Port":[445]`, `"Port":["445"]`},
		{`"Port":[445]`, `"GeoLocation":"here"`},
		{`"Port":[445]`, `"Protocol":["TCP"]`},
		{`"Port":[445]`, `"Attachment":["nowhere"]`},
		{`"203.0.113.7"`, `"203.0.113.256"`},
		{`"203.0.113.7"`, `"fe80::1::2"`},
		{`"Severity":"High"`, `"Severity":"Critical"`},
		{`"Status":"Event"`, `"Status":"event"`},
		{`"Confidence":0.8`, `"Confidence":1.01`},
		{`"StartTime":"2023-`, `"StartTime":"23-`},
		{`"StartTime":"2023-11`, `"StartTime":"2023-13`},
		{`"StartTime"`, `"EndTime"`},
		{`"Threshold"`, `"Magic"`},
		{`"Model":`, `"Type":`},
		{`"CreateTime":`, `"DeleteTime":`},
		{`"Note":"{`, `"Note":"`},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if bad == good {
			t.Errorf("%q is not in the message", c[0])
		} else if schema.Validate([]byte(bad)) == nil {
			t.Errorf("valid with %s", c[1])
		}
	}
}

func TestFloat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", math.Copysign(0, -1): "0", 15.200000000000001: "15.2", 1.0 / 3: "0.333333", 1e-9: "0", -2.5: "-2.5",
		1e20: "100000000000000000000", 1e22: "1e+22", math.NaN(): "0", math.Inf(-1): "0", 0.1 + 0.2: "0.3",
	} {
		if got := string(appendFloat(nil, v)); got != want {
			t.Errorf("%v is written as %s, want %s", v, got, want)
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"plain café 日本": "plain café 日本", "a\nb\x00c": `a\nb\x00c`, "\x1b[31m": `\x1b[31m`, "\xff\xfe": `\xff\xfe`,
		"\u2028\u202e\ufeff": `\u2028\u202e\ufeff`, `back\slash "quote"`: `back\slash "quote"`,
	} {
		if got := string(appendText(nil, in)); got != want {
			t.Errorf("%q is shown as %s, want %s", in, got, want)
		}
	}
}

// FuzzJSON: whatever the traffic says, the lines are valid JSON that decodes
// to what it was, IDMEFv2 messages are valid, and a line is one line.
func FuzzJSON(f *testing.F) {
	f.Add("", "10.0.0.1", "tcp", uint8(1), uint16(0), 0.5)
	f.Add("a\"\\\n\x00\x7f\u0085\u2028\u2029\xff\xc3\x28é😀", "fe80::1%e\"0", "x-", uint8(2), uint16(80), 1.5)
	f.Add("\xf0\x9f", "1.2.3.4", "ipv6-icmp", uint8(3), uint16(1), -1.0)
	f.Add("http://[::1]:99999/%zz", "::", "-", uint8(4), uint16(65535), math.NaN())
	f.Add("d41d8cd98f00b204e9800998ecf8427e", "", "TCP", uint8(4), uint16(65535), math.Inf(1))
	f.Add("DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", "x", "a--b", uint8(9), uint16(7), 1e300)
	schema := idmeftest.New()
	d, err := Create(f.TempDir(), Options{Version: "\x00\"v"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s, ip, proto string, kind uint8, port uint16, num float64) {
		e := &evidence.Evidence{
			Type: evidence.Type(s), Time: start, Level: evidence.Level(kind), Confidence: num, Description: s, Proto: proto, Module: s,
			Attacker: evidence.Entity{Kind: evidence.IOC(kind), Value: s, Direction: evidence.Direction(kind), Port: port},
			Victim:   evidence.Entity{Kind: evidence.IOC(kind + 1), Value: ip}, SrcPort: port, DstPort: port,
			UIDs: []string{s, ip}, MITRE: []string{s}, Method: s, WindowStart: start, WindowEnd: start,
		}
		e.Profile, _ = netip.ParseAddr(ip)
		e.Derive()

		line := AppendEvidence(nil, e)
		var got struct {
			Type, Description, Proto string
			UIDs                     []string
			Attacker, Victim         map[string]any
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); len(s) == 0 || utf8.ValidString(s) {
			if got.Description != want || got.Type != want || got.UIDs[0] != want {
				t.Errorf("%q became %q", s, got.Description)
			}
		}
		var std, own string // invalid UTF-8 is treated as encoding/json does
		b, _ := json.Marshal(s)
		if json.Unmarshal(b, &std) != nil || json.Unmarshal(appendString(nil, s), &own) != nil || std != own {
			t.Errorf("%q became %q, encoding/json says %q", s, own, std)
		}
		if string(appendString(nil, s)) != string(appendString(nil, []byte(s))) {
			t.Error("bytes and strings are written differently")
		}

		event := d.appendEvent(nil, e, num)
		if err := schema.Validate(event); err != nil {
			t.Error(err)
		}
		a := sampleAlert(e)
		a.Score, a.Confidence = num, num
		incident := d.appendIncident(nil, a)
		if err := schema.Validate(incident); err != nil {
			t.Error(err)
		}
		if al := AppendAlert(nil, a); !json.Valid(al) {
			t.Errorf("invalid JSON: %s", al)
		}
		for _, l := range [][]byte{line, event, incident, AppendAlert(nil, a), d.appendLogEvidence(nil, e), d.appendLogAlert(nil, a)} {
			if bytes.IndexByte(l, '\n') != len(l)-1 || bytes.IndexFunc(l, func(r rune) bool { return r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) }) >= 0 {
				t.Errorf("control characters in %q", l)
			}
			if !utf8.Valid(l) {
				t.Errorf("invalid UTF-8 in %q", l)
			}
		}
		for i, l := range [][]byte{line, d.appendLogEvidence(nil, e), event} {
			if _, ok := d.files[[]int{fileEvidence, fileLog, fileIDMEF}[i]].key(l[:len(l)-1]); !ok {
				t.Errorf("a crash would not recognise %q", l)
			}
		}
	})
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	d := create(t, dir, Options{})
	if _, err := Create(dir, Options{Mode: Overwrite}); !errors.Is(err, ErrInUse) {
		t.Errorf("second writer: %v", err)
	}
	must(t, d.Evidence(sample(1), 8))
	closeDir(t, d)

	_, err := Create(dir, Options{})
	var occ *OccupiedError
	if !errors.As(err, &occ) || !strings.HasPrefix(occ.Found, "alerts/") || !strings.Contains(err.Error(), "another run") {
		t.Errorf("occupied directory: %v", err)
	}
	d = create(t, dir, Options{Mode: Continue})
	closeDir(t, d)
	if read(t, d.Path(evidenceJSONL)) == "" {
		t.Error("continuing emptied the file")
	}
	must(t, os.WriteFile(d.Path("alerts/mine.txt"), []byte("x"), 0o644))
	must(t, os.WriteFile(d.Path("notes.txt"), []byte("x"), 0o644))
	d = create(t, dir, Options{Mode: Overwrite})
	closeDir(t, d)
	if read(t, d.Path(evidenceJSONL)) != "" {
		t.Error("overwriting kept the evidence")
	}
	if read(t, d.Path("alerts/mine.txt")) != "x" || read(t, d.Path("notes.txt")) != "x" {
		t.Error("overwriting touched files of others")
	}

	run := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(run, "metadata"), 0o755))
	must(t, os.WriteFile(filepath.Join(run, "metadata", "run.json"), nil, 0o644))
	if _, err := Create(run, Options{}); !errors.As(err, &occ) || occ.Found != runFile {
		t.Errorf("directory with run.json: %v", err)
	}
	if l, _ := os.ReadDir(run); len(l) != 1 {
		t.Error("a refused directory was changed")
	}

	other := t.TempDir() // a directory in use for something else is fine
	must(t, os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o644))
	must(t, os.Mkdir(filepath.Join(other, "alerts"), 0o755))
	closeDir(t, create(t, other, Options{}))
}

func TestCreateNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o644))
	if _, err := Create(file, Options{}); err == nil || !strings.Contains(err.Error(), "is a file") {
		t.Errorf("a file as directory: %v", err)
	}
	_, err := Create(filepath.Join(file, "below"), Options{})
	var we *WriteError
	if !errors.As(err, &we) || !strings.Contains(err.Error(), "not writable") || !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("below a file: %v", err)
	}
	if os.Geteuid() == 0 {
		if _, err := Create("/proc/slips-test", Options{}); !errors.As(err, &we) {
			t.Errorf("below /proc: %v", err)
		}
		return // root may write where others may not
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o555))
	if _, err := Create(dir, Options{}); !errors.As(err, &we) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("read-only directory: %v", err)
	}
}

// full puts /dev/full in the place of a file.
func full(t *testing.T, o *outFile) {
	t.Helper()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full on this system: %v", err)
	}
	must(t, o.f.Close())
	o.f = f
}

func TestDiskFull(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsTSV})
	full(t, d.files[fileEvidence])
	must(t, d.Evidence(sample(1), 8)) // in the buffer
	err := d.Flush()
	var we *WriteError
	if !errors.As(err, &we) || we.Path != d.Path(evidenceJSONL) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error is %v", err)
	}
	if want := "write " + d.Path(evidenceJSONL) + ": no space left on device"; err.Error() != want {
		t.Errorf("error reads %q, want %q", err, want)
	}
	if err := d.Evidence(sample(2), 8); !errors.As(err, &we) {
		t.Errorf("the error is not sticky: %v", err)
	}
	if !errors.Is(d.Err(), syscall.ENOSPC) || d.Lost() != 2 {
		t.Errorf("Err is %v, %d lines lost, want 2", d.Err(), d.Lost())
	}
	if _, err := d.Marks(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a checkpoint was possible: %v", err)
	}
	if err := d.Close(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close says %v", err)
	}
	if n := strings.Count(read(t, d.Path(alertsLog)), "\n"); n != 2 {
		t.Errorf("the other files have %d lines, want 2", n)
	}
}

func TestFlushMakesLinesVisible(t *testing.T) {
	d := create(t, t.TempDir(), Options{})
	defer closeDir(t, d)
	must(t, d.Evidence(sample(1), 8))
	must(t, d.Flush())
	for _, n := range []string{evidenceJSONL, alertsLog, alertsJSON} {
		if strings.Count(read(t, d.Path(n)), "\n") != 1 {
			t.Errorf("%s has no line after Flush", n)
		}
	}
}

func TestMetadataAndSummary(t *testing.T) {
	d := create(t, t.TempDir(), Options{})
	defer closeDir(t, d)
	run := Run{
		Version: "0.2.0", CommandLine: []string{"slips", "-f", "conn.log"}, Inputs: []string{"conn.log"},
		Start: time.Unix(1_700_000_000, 0).UTC(),
	}
	must(t, d.WriteMetadata(run, []byte("detection: {}\n")))
	end := run.Start.Add(time.Minute)
	run.End = &end
	must(t, d.WriteMetadata(run, nil))
	if got := read(t, d.Path(configFile)); got != "detection: {}\n" {
		t.Errorf("configuration is %q", got)
	}
	golden(t, "run.json", read(t, d.Path(runFile)))

	s := &Summary{
		Version: "0.2.0", Records: 3, Kinds: map[string]int64{"dns": 1, "conn": 2},
		Sources:  []SourceSummary{{Name: "b", Records: 1, Rejected: map[string]int64{"invalid time": 2}}, {Name: "a", Error: "truncated input"}},
		Rejected: map[string]int64{"invalid time": 2}, Profiles: ProfileSummary{Seen: 2},
		Evidence: EvidenceSummary{Total: 1, Types: map[evidence.Type]int64{"A": 1}},
		Modules:  []ModuleSummary{{Name: "z"}, {Name: "portscan", Calls: 3}},
		Stream:   Span(start, start+hour), Wall: 0.5, Rate: 6, PeakRSS: 1 << 20,
	}
	must(t, d.WriteSummary(s))
	golden(t, "summary.json", read(t, d.Path(summaryFile)))
	must(t, d.WriteSummary(new(Summary)))
	if got := read(t, d.Path(summaryFile)); strings.Contains(got, `"records_by_kind": null`) || strings.Contains(got, `"sources": null`) {
		t.Errorf("empty lists are null: %s", got)
	}
	if l, _ := filepath.Glob(filepath.Join(d.path, "*", "*.tmp")); len(l) > 0 {
		t.Errorf("left over: %v", l)
	}
}

// TestKeysAreStable pins the keys of the JSON lines and their order.
func TestKeysAreStable(t *testing.T) {
	want := "id type time profile window window_start window_end attacker victim threat_level confidence description module " +
		"proto dst_port src_port uids count mitre tactic"
	for _, e := range oddities() {
		if got := topKeys(t, AppendEvidence(nil, e)); got != want {
			t.Errorf("evidence has the keys %s", got)
		}
	}
	want = "id profile window window_start window_end time score base factor tactics threshold confidence threat_level evidence_ids contributions omitted"
	if got := topKeys(t, AppendAlert(nil, sampleAlert(sample(1)))); got != want {
		t.Errorf("alert has the keys %s", got)
	}
}

func topKeys(t *testing.T, line []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for d.More() {
		k, err := d.Token()
		must(t, err)
		keys = append(keys, k.(string))
		var v json.RawMessage
		must(t, d.Decode(&v))
	}
	return strings.Join(keys, " ")
}

func TestAllocations(t *testing.T) {
	d := create(t, t.TempDir(), Options{Version: "1"})
	defer closeDir(t, d)
	e := sample(1)
	if n := testing.AllocsPerRun(200, func() { must(t, d.Evidence(e, 3)) }); n > 4 {
		t.Errorf("%v allocations for one piece of evidence in three files", n)
	}
}

func BenchmarkEvidence(b *testing.B) {
	d, err := Create(b.TempDir(), Options{Version: "1"})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	e := sample(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Evidence(e, 3); err != nil {
			b.Fatal(err)
		}
	}
}
