package agree

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// record returns a record of the meter between two hosts.
func record(k flow.Kind, at int64, sp, dp uint16) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time, f.Proto, f.SrcPort, f.DstPort = at, flow.TCP, sp, dp
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	return f
}

// logs writes logs of Zeek and returns their folder.
func logs(t *testing.T, byName map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range byName {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCompare has records that agree, differ, are missing and are too many.
func TestCompare(t *testing.T) {
	const ends = `"id.orig_h":"10.0.0.1","id.resp_h":"192.0.2.1","id.resp_p":80,"proto":"tcp",`
	dir := logs(t, map[string]string{
		"conn": `{"ts":100.0,` + ends + `"id.orig_p":1,"conn_state":"SF","history":"Sh","orig_bytes":5,"resp_bytes":7,"orig_pkts":1,"resp_pkts":1,"duration":2.0}
{"ts":200.0,` + ends + `"id.orig_p":2,"conn_state":"S0","history":"S"}
{"ts":300.0,` + ends + `"id.orig_p":3,"conn_state":"S0","history":"S"}
{"ts":300.5,` + ends + `"id.orig_p":3,"conn_state":"REJ","history":"Sr"}
{"ts":400.0,` + ends + `"id.orig_p":4,"conn_state":"S0","history":"S"}
`,
		"ssl": `{"ts":100.1,` + ends + `"id.orig_p":1,"server_name":"a.example"}
{"ts":200.1,` + ends + `"id.orig_p":2,"server_name":"b.example"}
{"ts":300.1,` + ends + `"id.orig_p":3,"server_name":"d.example"}
this is no record
`,
	})
	same := record(flow.Conn, 100*second, 1, 80)
	same.RawState, same.History, same.OrigBytes, same.RespBytes, same.OrigPkts, same.RespPkts, same.Duration = "SF", "Sh", 5, 7, 1, 1, 2*second+1000
	same.Service = "ssl" // Zeek has none
	late := record(flow.Conn, 200*second+2e6, 2, 80)
	second3 := record(flow.Conn, 300*second+5e8, 3, 80)
	second3.RawState, second3.History = "REJ", "Sr"
	first3 := record(flow.Conn, 300*second, 3, 80)
	first3.RawState, first3.History = "S1", "S"
	extra := record(flow.Conn, 500*second, 5, 80)
	a := record(flow.SSL, 100*second, 1, 80)
	a.SSL.ServerName = "a.example"
	b := record(flow.SSL, 200*second, 2, 80)
	b.SSL.ServerName = "c.example"

	c, err := Compare("x", []*flow.Flow{second3, same, late, first3, extra, a, b}, dir)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Score)
	for _, k := range []string{"conn", "conn.state", "conn.history", "conn.bytes", "conn.duration", "conn.service", "ssl", "ssl.server_name"} {
		got[k] = c.Scores[k]
	}
	want := map[string]Score{
		"conn": {3, 5}, "conn.state": {2, 3}, "conn.history": {3, 3}, "conn.bytes": {3, 3}, "conn.duration": {3, 3}, "conn.service": {2, 3},
		"ssl": {2, 3}, "ssl.server_name": {1, 2},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c.Extra["conn"] != 2 || c.Rejected != 1 {
		t.Errorf("%d more, %d rejected", c.Extra["conn"], c.Rejected)
	}

	table := new(Table)
	table.Add(c)
	missed := strings.Join(table.Missed(), "\n")
	for _, w := range []string{"conn agrees in 42.86 % (3 of 7)", "conn.state agrees in 66.67 %", "ssl agrees in 66.67 %", "ssl.server_name agrees in 50.00 %"} {
		if !strings.Contains(missed, w) {
			t.Errorf("not said: %s\n%s", w, missed)
		}
	}
	if s := table.String(); !strings.Contains(s, "66.67 %") || !strings.Contains(s, "1 lines of Zeek's logs were not decoded") {
		t.Errorf("table\n%s", s)
	}
	if s := table.Differences(1); !strings.Contains(s, `conn.state of 300.000000 tcp 10.0.0.1:3 > 192.0.2.1:80: "S1", zeek "S0"`) {
		t.Errorf("differences\n%s", s)
	}
}

// TestSetBack shows a capture of which the clock is set back, and judges it not.
func TestSetBack(t *testing.T) {
	good := &Capture{Name: "good", Scores: map[string]Score{"conn": {5, 5}}}
	back := &Capture{Name: "back", Scores: map[string]Score{"conn": {1, 9}}, Extra: map[string]int{"conn": 2}, Diffs: []Difference{{What: "conn"}}, SetBack: true}
	table := new(Table)
	table.Add(good)
	table.Add(back)
	if m := table.Missed(); len(m) != 0 {
		t.Errorf("missed %q", m)
	}
	if c := table.Total().Scores["conn"]; c != (Score{5, 5}) {
		t.Errorf("total %v", c)
	}
	if s := table.String(); !strings.Contains(s, "not judged") || !strings.Contains(s, "11.11 %") {
		t.Errorf("table\n%s", s)
	}
	if s := table.Differences(1); s != "" {
		t.Errorf("differences\n%s", s)
	}
	back.SetBack = false
	if m := table.Missed(); len(m) != 1 {
		t.Errorf("missed %q of one that is judged", m)
	}
}

// TestCompareNothing has no logs, which is an error, and empty ones, which
// are not: then each record of the meter is one too many.
func TestCompareNothing(t *testing.T) {
	if _, err := Compare("x", nil, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no error without a folder")
	}
	c, err := Compare("x", []*flow.Flow{record(flow.Conn, 1, 1, 2)}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	table := new(Table)
	table.Add(c)
	if m := table.Missed(); len(m) != 1 || !strings.HasPrefix(m[0], "conn agrees in 0.00 % (0 of 1)") {
		t.Errorf("missed %q", m)
	}
	if m := new(Table).Missed(); len(m) != 0 {
		t.Errorf("an empty table misses %q", m)
	}
}
