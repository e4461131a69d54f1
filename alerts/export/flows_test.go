package export

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/alerts"
	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
)

// sampleFlows has the oddities: no uid, no address, no ports, ICMP, foreign
// characters, ground truth.
func sampleFlows() []*flow.Flow {
	return []*flow.Flow{
		{
			Time: start + 1, UID: "C1", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("2001:db8::1"), SrcPort: 51000, DstPort: 443,
			HasPorts: true, Proto: flow.TCP, State: flow.Established, Service: "ssl", Duration: 1_500_000_001,
			OrigBytes: 100, RespBytes: 2000, OrigPkts: 5, RespPkts: 6, Label: "Malicious", DetailedLabel: "PartOfAHorizontalPortScan",
		},
		{Time: start + 2, UID: "C1", Kind: flow.DNS, Src: netip.MustParseAddr("10.0.0.1"), Proto: flow.UDP, Duration: -5},
		{Time: start + 3, Kind: flow.ARP, Service: "-", Label: "a\tb\nc\\d\x00\xffé"},
		{Time: start + 4, UID: "C2", Proto: flow.ICMP, HasPorts: true, State: flow.ICMPEcho, Src: netip.MustParseAddr("fe80::1%eth\t0")},
		{Time: start + 5, UID: "C3", Src: netip.MustParseAddr("10.0.0.2")},
	}
}

func TestFlowsGolden(t *testing.T) {
	for _, format := range []FlowFormat{FlowsTSV, FlowsJSONL} {
		d := create(t, t.TempDir(), Options{Flows: format})
		w := d.Flows()
		for _, f := range sampleFlows() {
			must(t, w.Flow(f, window(1)))
		}
		behind, other := sample(1), sample(2)
		behind.UIDs, other.UIDs = []string{"C1", "C9", "C1", ""}, []string{"C1", "C2"}
		after := sample(3)
		after.UIDs = []string{"C3"}
		other.Level = evidence.Info // it names C2 and adds to no score
		must(t, d.Evidence(behind, 8))
		must(t, d.Evidence(other, 8))
		must(t, d.Alert(sampleAlert(behind)))
		must(t, d.Evidence(after, 9)) // counts as if it had come before the alert
		must(t, w.CloseWindow(window(1)))
		closeDir(t, d)
		golden(t, "labeled_flows."+string(format), read(t, d.Path(flowsPath(format))))
		if s := w.Stats(); s.Records != 5 || s.Malicious != 3 || s.Pending != 0 {
			t.Errorf("stats: %+v", s)
		}
		for i, l := range strings.SplitAfter(read(t, d.Path(flowsPath(format))), "\n") {
			switch {
			case l == "":
			case format == FlowsJSONL && strings.Join(columns[:], " ") != topKeys(t, []byte(l)):
				t.Errorf("keys of %s", l)
			case format == FlowsTSV && strings.Count(l, "\t") != len(columns)-1:
				t.Errorf("line %d has %d columns", i, strings.Count(l, "\t")+1)
			}
		}
	}
}

// TestFlowsWaitForTheirWindow: records of the open window are not written,
// those of the closed one are, and late ones come with the next close.
func TestFlowsWaitForTheirWindow(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsJSONL})
	w := d.Flows()
	f := func(uid string) *flow.Flow { return &flow.Flow{UID: uid, Time: start} }
	must(t, w.Flow(f("A"), window(1)))
	must(t, w.Flow(f("B"), window(2)))
	must(t, w.CloseWindow(window(1)))
	must(t, w.Flow(f("C"), window(1)))
	must(t, w.Flush())
	if got := uids(t, d); got != "A" || w.Stats().Pending != 2 {
		t.Errorf("written: %s, stats %+v", got, w.Stats())
	}
	must(t, w.CloseWindow(window(2)))
	must(t, w.CloseWindow(window(7))) // nothing in it
	must(t, w.Flush())
	if got := uids(t, d); got != "A B" {
		t.Errorf("written: %s", got)
	}
	closeDir(t, d)
	if got := uids(t, d); got != "A B C" {
		t.Errorf("written: %s", got)
	}
}

func TestCloseBefore(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsJSONL})
	w := d.Flows()
	for _, n := range []int64{3, 1, 4, 2} {
		must(t, w.Flow(&flow.Flow{UID: fmt.Sprintf("C%d", n)}, window(n)))
	}
	for _, c := range []struct {
		t    int64
		want string
	}{{start, ""}, {window(1).End - 1, ""}, {window(2).End, "C1 C2"}, {1<<63 - 1, "C1 C2 C3 C4"}} {
		must(t, w.CloseBefore(c.t, time.Hour))
		must(t, w.Flush())
		if got := uids(t, d); got != c.want {
			t.Errorf("up to %d written: %q, want %q", c.t-start, got, c.want)
		}
	}
	closeDir(t, d)
}

func uids(t *testing.T, d *Dir) string {
	t.Helper()
	var got []string
	for l := range strings.Lines(read(t, d.Path(flowsPath(FlowsJSONL)))) {
		var v struct{ UID, Label string }
		must(t, json.Unmarshal([]byte(l), &v))
		if v.Label == "malicious" {
			v.UID += "!"
		}
		got = append(got, v.UID)
	}
	return strings.Join(got, " ")
}

func TestFlowsSpillToDisk(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsJSONL})
	w := d.Flows()
	const n = 5000
	for i := range n {
		must(t, w.Flow(&flow.Flow{UID: fmt.Sprintf("C%d", i), Service: strings.Repeat("s", 100)}, window(1)))
	}
	if l, err := os.ReadDir(d.Path(spoolDir)); err != nil || len(l) != 1 {
		t.Errorf("spool: %v, %v", l, err)
	}
	if len(w.spools[start].buf) > spoolBuffer {
		t.Errorf("%d bytes in memory", len(w.spools[start].buf))
	}
	closeDir(t, d)
	got := strings.Fields(uids(t, d))
	if len(got) != n || got[0] != "C0" || got[n-1] != fmt.Sprintf("C%d", n-1) {
		t.Errorf("%d records, from %s to %s", len(got), got[0], got[len(got)-1])
	}
}

func TestFlowsBounds(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsJSONL})
	w := d.Flows()
	w.max.spools, w.max.mentions = 2, 3
	for i, n := range []int64{1, 2, 1, 3} { // 2 was not used longest
		must(t, w.Flow(&flow.Flow{UID: fmt.Sprintf("C%d", i)}, window(n)))
	}
	must(t, w.Flush())
	if got := uids(t, d); got != "C1" || w.Stats().ClosedEarly != 1 {
		t.Errorf("written early: %s, stats %+v", got, w.Stats())
	}
	e := sample(1)
	e.UIDs = []string{"C0", "C2", "C3", "C4", "C5"}
	must(t, w.Evidence(e, 1))
	must(t, w.Evidence(e, 1)) // the same again takes no more room
	if s := w.Stats(); s.DroppedUIDs != 2 || w.entries != 3 {
		t.Errorf("stats %+v, %d entries", s, w.entries)
	}
	must(t, w.Alert(sampleAlert(e)))
	must(t, w.CloseWindow(window(2)))
	if w.entries != 3 {
		t.Error("evidence of the window before was forgotten at once")
	}
	must(t, w.CloseWindow(window(3)))
	if w.entries != 0 || len(w.uids) != 0 || len(w.evidence) != 0 {
		t.Errorf("%d entries, %d uids, %d pieces of evidence left", w.entries, len(w.uids), len(w.evidence))
	}
	closeDir(t, d)
	if got := uids(t, d); got != "C1 C3! C0 C2" {
		t.Errorf("written: %s", got)
	}
}

func TestFlowsDiskFull(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsTSV})
	w := d.Flows()
	full(t, w.out)
	must(t, w.Flow(sampleFlows()[0], window(1)))
	must(t, w.CloseWindow(window(1))) // into the buffer
	var we *WriteError
	if err := d.Flush(); !errors.As(err, &we) || d.Lost() != 2 { // header and record
		t.Errorf("error %v, lost %d", err, d.Lost())
	}
	if err := d.Close(); !errors.As(err, &we) {
		t.Errorf("Close says %v", err)
	}

	d = create(t, t.TempDir(), Options{Flows: FlowsTSV})
	w = d.Flows()
	must(t, os.RemoveAll(d.Path(spoolDir)))
	var err error
	for range 10_000 {
		if err = w.Flow(sampleFlows()[0], window(1)); err != nil {
			break
		}
	}
	if !errors.As(err, &we) || w.Stats().Lost == 0 {
		t.Errorf("error is %v", err)
	}
	if err := w.Flow(sampleFlows()[0], window(1)); !errors.As(err, &we) {
		t.Errorf("the error is not sticky: %v", err)
	}
	if err := d.Close(); !errors.As(err, &we) {
		t.Errorf("Close says %v", err)
	}
}

func TestFlowsLoadRefusesLostSpool(t *testing.T) {
	path := t.TempDir()
	d := create(t, path, Options{Flows: FlowsTSV})
	must(t, d.Flows().Flow(sampleFlows()[0], window(1)))
	marks, err := d.Marks()
	must(t, err)
	var b bytes.Buffer
	must(t, d.Flows().Save(gob.NewEncoder(&b)))
	closeDir(t, d)
	must(t, os.RemoveAll(d.Path(spoolDir)))
	d = create(t, path, Options{Flows: FlowsTSV, Mode: Continue})
	defer closeDir(t, d)
	must(t, d.Resume(marks, true))
	if err := d.Flows().Load(gob.NewDecoder(&b)); !errors.Is(err, ErrChanged) {
		t.Errorf("error is %v", err)
	}
	var other bytes.Buffer
	must(t, gob.NewEncoder(&other).Encode(savedFlows{Format: FlowsJSONL}))
	if err := d.Flows().Load(gob.NewDecoder(&other)); err == nil || !strings.Contains(err.Error(), `saved as "jsonl"`) {
		t.Errorf("another format: %v", err)
	}
	if err := d.Flows().Load(gob.NewDecoder(strings.NewReader("garbage"))); err == nil {
		t.Error("garbage was loaded")
	}
}

// The evidence behind a label is in one order, whatever the order in which it was
// found and whether the writer was started again in between.
func TestFlowsNameEvidenceInOrder(t *testing.T) {
	labelled := func(order []int, restart bool) string {
		path := t.TempDir()
		d := create(t, path, Options{Flows: FlowsJSONL})
		must(t, d.Flows().Flow(&flow.Flow{UID: "C1"}, window(1)))
		for _, i := range order {
			e := sample(i)
			e.UIDs = []string{"C1"}
			must(t, d.Evidence(e, 1))
		}
		if restart {
			marks, err := d.Marks()
			must(t, err)
			var b bytes.Buffer
			must(t, d.Flows().Save(gob.NewEncoder(&b)))
			closeDir(t, d)
			d = create(t, path, Options{Flows: FlowsJSONL, Mode: Continue})
			must(t, d.Resume(marks, true))
			must(t, d.Flows().Load(gob.NewDecoder(&b)))
		}
		closeDir(t, d)
		return read(t, d.Path("flows/labeled_flows.jsonl"))
	}
	want := labelled([]int{0, 1, 2, 3, 4, 5}, false)
	if !strings.Contains(want, sample(3).ID) {
		t.Fatalf("no evidence in %s", want)
	}
	for _, restart := range []bool{false, true} {
		if d := cmp.Diff(want, labelled([]int{5, 2, 4, 0, 3, 1}, restart)); d != "" {
			t.Errorf("restart %v: %s", restart, d)
		}
	}
}

// TestFlowsConcurrently is for the race detector: the sequencer writes while
// the collector labels.
func TestFlowsConcurrently(t *testing.T) {
	d := create(t, t.TempDir(), Options{Flows: FlowsTSV})
	w := d.Flows()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 2000 {
			if err := w.Flow(&flow.Flow{UID: fmt.Sprintf("C%d", i)}, window(int64(1+i/100))); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 200 {
		e := sample(i)
		must(t, d.Evidence(e, 1))
		must(t, d.Alert(&alerts.Alert{Profile: e.Profile, WindowStart: e.WindowStart, WindowEnd: e.WindowEnd, EvidenceIDs: []string{e.ID}}))
		must(t, w.CloseWindow(window(int64(1+i/10))))
		must(t, d.Flush())
	}
	wg.Wait()
	closeDir(t, d)
	if s := w.Stats(); s.Records != 2000 || s.Pending != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestParseFlowFormat(t *testing.T) {
	for in, want := range map[string]FlowFormat{"": NoFlows, "tsv": FlowsTSV, "jsonl": FlowsJSONL} {
		if got, err := ParseFlowFormat(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if _, err := ParseFlowFormat("csv"); err == nil || !strings.Contains(err.Error(), `"csv"`) {
		t.Errorf("csv: %v", err)
	}
}

func TestTSVField(t *testing.T) {
	for in, want := range map[string]string{"-": `\x2d`, "a-b": "a-b", "a\tb": `a\x09b`, `\`: `\\`, "é\xff": `é\xff`, "\x7f": `\x7f`} {
		if got := string(appendField(nil, in)); got != want {
			t.Errorf("%q is written as %s, want %s", in, got, want)
		}
	}
	var o fields
	o.seconds(-1_000_000_005)
	if diff := cmp.Diff("-1.000000005", string(o.b)); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkFlow(b *testing.B) {
	d, err := Create(b.TempDir(), Options{Flows: FlowsTSV})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	f := sampleFlows()[0]
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Flows().Flow(f, window(1)); err != nil {
			b.Fatal(err)
		}
	}
}
