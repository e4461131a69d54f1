package packet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// printed writes down all that a record says, in one line.
func printed(t *testing.T, f *flow.Flow) string {
	t.Helper()
	var part any
	switch f.Kind {
	case flow.DNS:
		part = f.DNS
	case flow.HTTP:
		part = f.HTTP
	case flow.SSL, flow.QUIC:
		part = f.SSL
	case flow.X509:
		part = f.X509
	case flow.Files:
		part = f.Files
	case flow.SSH:
		part = f.SSH
	case flow.SMTP:
		part = f.SMTP
	case flow.FTP:
		part = f.FTP
	case flow.DHCP:
		part = f.DHCP
	case flow.ARP:
		part = f.ARP
	case flow.Software:
		part = f.Software
	case flow.Tunnel:
		part = f.Tunnel
	case flow.Weird:
		part = f.Weird
	case flow.Conn:
	default:
		t.Fatalf("a record of kind %v", f.Kind)
	}
	base := *f
	base.Parts = nil // what earlier records left
	a, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(part)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(f.Kind.String()+string(a)+string(b), ":null", ":[]") // an empty list is an empty list
}

// TestSameRecords has the same packets give the same records, byte for byte
// and to the nanosecond: with a record of their own or one for all, and through
// a Source whatever the sizes of its batches.
func TestSameRecords(t *testing.T) {
	dir := captures(t)
	for _, name := range []string{"test7-malicious.pcap", "test-cc-capture-1.pcap", "protocols/markofu_portscan.pcap", "protocols/dce-rpc_mapi.pcap", "protocols/tunnels_Teredo.pcap"} {
		t.Run(base(name), func(t *testing.T) {
			path := filepath.Join(dir, name)
			if _, err := os.Stat(path); err != nil {
				t.Skip(err)
			}
			all, _ := keep(t, path)
			for i := range all {
				all[i].Time += int64(i%7) * 137 // ns, which µs would round away
			}
			var want []string
			m := New(Options{Emit: func(f *flow.Flow) { want = append(want, printed(t, f)) }})
			for _, p := range all {
				m.Feed(p)
			}
			m.End()

			t.Run("own memory", func(t *testing.T) {
				var kept []*flow.Flow
				m := New(Options{Next: func(flow.Kind) *flow.Flow { kept = append(kept, new(flow.Flow)); return kept[len(kept)-1] }})
				for _, p := range all {
					p.Data = slices.Clone(p.Data)
					m.Feed(p)
					clear(p.Data) // nothing is kept of it
				}
				m.End()
				var got []string
				for _, f := range kept {
					got = append(got, printed(t, f))
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Error(short(d))
				}
			})
			for _, every := range []int{0, 1, 3, 1000} {
				s := NewSource("x", "x", Options{}, nil)
				var got []string
				done := make(chan struct{})
				go func() {
					defer close(done)
					for b := range s.Input().C {
						for i := range b.Flows {
							got = append(got, printed(t, &b.Flows[i]))
						}
						b.Release()
					}
				}()
				for i, p := range all {
					s.Feed(t.Context(), p)
					if every > 0 && i%every == 0 {
						s.Idle(t.Context(), p.Time) // ends a batch
					}
				}
				s.Close(t.Context())
				<-done
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("a batch at least every %d packets: %s", every, short(d))
				}
			}
		})
	}
}

// short cuts a difference to what one can read.
func short(s string) string {
	lines := strings.SplitN(s, "\n", 40)
	return strings.Join(lines[:min(len(lines), 30)], "\n")
}
