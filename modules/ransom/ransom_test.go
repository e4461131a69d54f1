package ransom_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/ransom"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, ransom.Spec, "testdata/*.txtar") }

func TestConfig(t *testing.T) {
	for want, c := range map[string]ransom.Config{
		"min_files: 1":     {MinFiles: 1, MinFolders: 20},
		"min_folders: 129": {MinFiles: 100, MinFolders: 129},
	} {
		if _, err := ransom.Spec.New(&c, modules.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
}

func record(action, name, prev string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(flow.SMB)
	f.Src, f.Dst, f.DstPort, f.UID = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 445, "C1"
	f.SMB.Action, f.SMB.Path, f.SMB.Name, f.SMB.PrevName = "SMB::"+action, `\\S\x`, name, prev
	return f
}

// TestNames holds the rule to what it wants of single records.
func TestNames(t *testing.T) {
	run, err := ransom.Spec.New(ransom.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		action, name, prev string
		want               bool
	}{
		{"FILE_RENAME", `a\b.docx.lockbit`, `a\b.docx`, true},
		{"FILE_RENAME", `a\b.docx.lockbit`, "", true},
		{"FILE_RENAME", `a\Qw3.{8F2E}`, `a\b.docx`, true},
		{"FILE_RENAME", `a\b.pdf.id[1A2B].[x@y.example].eight`, `a\b.pdf`, true},
		{"FILE_RENAME", `a\b.DOCX`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b.docx`, `a\b.docx.lockbit`, false},
		{"FILE_RENAME", `a\b.docx.001`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b.docx.v12`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b.docx.bak2`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b.docx.done`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b.docx~`, `a\b.docx`, false},
		{"FILE_RENAME", `a\`, `a\b.docx`, false},
		{"FILE_RENAME", `a\b`, `a\b.docx`, false},
		{"FILE_RENAME", `a\.b`, `a\b.docx`, false},
		{"FILE_OPEN", `a\b.docx.lockbit`, "", true},
		{"FILE_OPEN", `a\b.lockbit`, "", false},
		{"FILE_OPEN", `a\b.docx`, "", false},
		{"FILE_DELETE", `a\b.docx`, "", true},
		{"FILE_DELETE", `a\b.q7x`, "", false},
		{"FILE_WRITE", `a\HOW TO RECOVER.txt`, "", true},
		{"FILE_WRITE", `a\recover.docx`, "", false},
		{"PIPE_OPEN", `decrypt.txt`, "", false},
		{"FILE_OPEN", "", "", false},
	} {
		if got := run.Chooser().Wants(record(c.action, c.name, c.prev)); got != c.want {
			t.Errorf("%s %q (was %q): wanted %v", c.action, c.name, c.prev, got)
		}
	}
}

// TestStateIsBounded has one host encrypt files without number on servers
// without number, each with an ending of its own, and leave demands.
func TestStateIsBounded(t *testing.T) {
	b := modtest.NewBench[ransom.State](t, ransom.Spec, ransom.Spec.Defaults())
	n := 0
	b.Host.Emit = func(evidence.Evidence) { n++ }
	for i := range 200_000 {
		name := fmt.Sprintf(`d%d\f%d.%s`, i/9, i, []string{"docx", "pdf", "xlsx", "jpg"}[i/20%4])
		for _, f := range []*flow.Flow{
			record("FILE_RENAME", name+fmt.Sprint(".x", i, strings.Repeat("y", 200)), name),
			record("FILE_OPEN", name+fmt.Sprint(".z", i), ""),
			record("FILE_WRITE", fmt.Sprintf(`d%d\decrypt%d.txt`, i, i/300), ""),
		} {
			f.Dst, f.UID = netip.AddrFrom4([4]byte{10, 1, 0, byte(i % 20)}), fmt.Sprintf("C%017d", i)
			if b.Runner.Chooser().Wants(f) {
				b.Handle(f)
			}
		}
	}
	if n == 0 || b.Size() > 1<<20 {
		t.Errorf("%d reports, %d bytes", n, b.Size())
	}
}

func TestWantsDoesNotAllocate(t *testing.T) {
	run, err := ransom.Spec.New(ransom.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	f := record("FILE_RENAME", `a\B.DOCX.LockBit3`, `a\B.DOCX`)
	if n := testing.AllocsPerRun(10, func() { run.Chooser().Wants(f) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRealTraffic finds nothing where files are only used.
func TestRealTraffic(t *testing.T) {
	for _, f := range []string{
		"zeek/isc-2021-10/smb_files.log", "parsers/zat/json/smb_files.log", "pcap/zeek-logs/smb_smb2_100_small_files/smb_files.log",
		"pcap/zeek-logs/smb_smb2readwrite/smb_files.log",
	} {
		for _, e := range modtest.Evidence(t, ransom.Spec, modtest.Datasets(t, f)...) {
			t.Errorf("%s: nothing is encrypted there: %s", f, e.Description)
		}
	}
}
