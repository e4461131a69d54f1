package suricata

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// dataset opens a file of the shared datasets, or skips the test.
func dataset(t *testing.T, path string) *os.File {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "datasets")
	}
	f, err := os.Open(filepath.Join(dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED, real traffic is missing: %v (set SLIPS_DATASETS)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestDatasets(t *testing.T) {
	tests := []struct {
		path   string
		kinds  map[flow.Kind]int
		states map[flow.State]int // of connections
	}{
		{
			path: "suricata/eve-scanned-home.json",
			kinds: map[flow.Kind]int{
				flow.Conn: 3512, flow.Alert: 745, flow.DNS: 680, flow.HTTP: 56, flow.Weird: 3, flow.Files: 3, flow.SSL: 1,
			},
			// Counted apart, with a script over the file's own words: 1,939 SYNs
			// answered by RST, 977 UDP flows without an answer, 15 TCP flows
			// without a session, 3 SYN-ACKs never acknowledged and 15 SYN scans of
			// an open port make 2,949; the others talked.
			states: map[flow.State]int{flow.NotEstablished: 2949, flow.Established: 563},
		},
		{path: "suricata/eve-small.json", kinds: map[flow.Kind]int{flow.Alert: 13}},
	}
	for _, tt := range tests {
		t.Run(filepath.Base(tt.path), func(t *testing.T) {
			in := bufio.NewScanner(dataset(t, tt.path))
			in.Buffer(nil, 1<<20)
			d, f := New(), new(flow.Flow)
			kinds, states := map[flow.Kind]int{}, map[flow.State]int{}
			for n := 1; in.Scan(); n++ {
				if n == 1 && !Sniff(in.Bytes()) {
					t.Error("not recognised by its first line")
				}
				if err := d.Decode(f, in.Bytes()); err != nil {
					t.Fatalf("line %d: %v", n, err)
				}
				kinds[f.Kind]++
				if !f.Src.IsValid() || !f.Dst.IsValid() || f.UID == "" || f.Time == 0 || !f.HasPorts {
					t.Fatalf("line %d: address, uid, time or port missing: %+v", n, f)
				}
				switch f.Kind {
				case flow.Conn:
					states[f.State]++
				case flow.DNS:
					if f.DNS.Query == "" || f.DNS.QType == "" || f.DstPort != 53 {
						t.Fatalf("line %d: %+v", n, f.DNS)
					}
					if f.DNS.Response && (f.DNS.RCode != "NOERROR" || len(f.DNS.Answers) == 0 || len(f.DNS.Answers) != len(f.DNS.TTLs)) {
						t.Fatalf("line %d: answer: %+v", n, f.DNS)
					}
				case flow.Alert:
					if f.Alert.SID == 0 || f.Alert.Signature == "" || f.Alert.Severity == 0 {
						t.Fatalf("line %d: %+v", n, f.Alert)
					}
				}
			}
			if err := in.Err(); err != nil {
				t.Fatal(err)
			}
			for k := range flow.NumKinds {
				if kinds[k] != tt.kinds[k] {
					t.Errorf("%s: %d records, want %d", k, kinds[k], tt.kinds[k])
				}
			}
			for _, s := range []flow.State{flow.StateUnknown, flow.Established, flow.NotEstablished} {
				if states[s] != tt.states[s] {
					t.Errorf("state %q: %d connections, want %d", s, states[s], tt.states[s])
				}
			}
		})
	}
}
