package nft_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
)

// usual returns n addresses that alerts have blocked.
func usual(n int, base string) []block.Entry {
	list := many(n, base)
	for i := range list {
		list[i].Alert = uuid
	}
	return list
}

// cpu reports how long processors worked for this process, which on a busy
// machine says more than the clock. What nft does is another process.
func cpu(b *testing.B) func() {
	b.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/1e3/float64(b.N), "cpu-µs/op") }
}

// The bars: one more block in less than 100 µs, 100,000 in less than 1 s.

// BenchmarkBlockOne blocks one more host with this many blocked.
func BenchmarkBlockOne(b *testing.B) {
	for _, n := range []int{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("blocked=%d", n), func(b *testing.B) {
			f := newSpace(b).open()
			if err := f.Block(b.Context(), usual(n, "203.0.0.1")); err != nil {
				b.Fatal(err)
			}
			a := netip.MustParseAddr("11.0.0.1")
			defer cpu(b)()
			e := []block.Entry{{Until: time.Now().Add(time.Hour), Offences: 1, Alert: uuid}}
			for b.Loop() {
				e[0].Prefix = block.Single(a)
				a = a.Next()
				if err := f.Block(b.Context(), e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExtendOne puts the end of a block off, which takes two changes in
// one transaction.
func BenchmarkExtendOne(b *testing.B) {
	f := newSpace(b).open()
	if err := f.Block(b.Context(), usual(10_000, "203.0.0.1")); err != nil {
		b.Fatal(err)
	}
	e := []block.Entry{{Prefix: netip.MustParsePrefix("203.0.0.9/32"), Until: time.Now().Add(time.Hour), Offences: 1, Alert: uuid}}
	for b.Loop() {
		e[0].Until = e[0].Until.Add(time.Second)
		if err := f.Block(b.Context(), e); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBlockMany blocks hosts in one transaction, in an empty table.
func BenchmarkBlockMany(b *testing.B) {
	for _, c := range []struct {
		base string
		n    int
	}{{"203.0.0.1", 1000}, {"203.0.0.1", 100_000}, {"2001:db8::1", 100_000}} {
		b.Run(fmt.Sprintf("%s/%d", c.base, c.n), func(b *testing.B) {
			f := newSpace(b).open()
			list := usual(c.n, c.base)
			defer cpu(b)() // with the removal
			for b.Loop() {
				if err := f.Block(b.Context(), list); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := f.Remove(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(c.n)*float64(b.N)/b.Elapsed().Seconds(), "hosts/s")
		})
	}
}

// BenchmarkList looks at the firewall: when nobody has changed the rule set,
// and when somebody has.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		s := newSpace(b)
		f := s.open()
		if err := f.Block(b.Context(), usual(n, "203.0.0.1")); err != nil {
			b.Fatal(err)
		}
		look := func(b *testing.B) {
			b.Helper()
			if l, err := f.List(b.Context()); err != nil || len(l) != n {
				b.Fatalf("%d listed, %v", len(l), err)
			}
		}
		b.Run(fmt.Sprintf("%d/unchanged", n), func(b *testing.B) {
			look(b)
			for b.Loop() {
				look(b)
			}
		})
		b.Run(fmt.Sprintf("%d/changed", n), func(b *testing.B) {
			c := s.conn()
			for b.Loop() {
				b.StopTimer()
				c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
				if err := c.Flush(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				look(b)
			}
		})
	}
}

// BenchmarkManager takes a request from the queue to the kernel, the audit log
// and back: the cost of an alert.
func BenchmarkManager(b *testing.B) {
	guard, err := block.NewGuard(block.Network{}, nil)
	if err != nil {
		b.Fatal(err)
	}
	cfg := block.Defaults()
	cfg.MaxBlocked = 1_000_000
	m, err := block.NewManager(block.Options{
		Config: cfg, Blocker: newSpace(b).open(), Guard: guard, Log: slog.New(slog.DiscardHandler), Now: time.Now, Audit: &bytes.Buffer{},
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	ctx, cancel := context.WithCancel(b.Context())
	go func() { done <- m.Run(ctx) }()
	a := netip.MustParseAddr("11.0.0.1")
	r := block.Request{Window: time.Hour, Reason: "score 20, threshold 15", AlertID: uuid, EvidenceIDs: []string{uuid, uuid, uuid}}
	b.Run("one", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			r.Prefix = block.Single(a)
			a = a.Next()
			if _, err := m.Block(b.Context(), r); err != nil {
				b.Fatal(err)
			}
		}
	})
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkNft runs nft as others do: once for each host, and once with a file
// of 100,000.
func BenchmarkNft(b *testing.B) {
	path, err := exec.LookPath("nft")
	if err != nil {
		b.Skip("SKIPPED: nft is not installed")
	}
	s := newSpace(b)
	run := func(b *testing.B, stdin []byte, args ...string) {
		b.Helper()
		err := s.Do(func() error {
			cmd := exec.Command(path, args...)
			cmd.Stdin = bytes.NewReader(stdin)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	run(b, []byte("add table inet x; add set inet x s { type ipv4_addr; flags timeout; }"), "-f", "-")
	b.Run("one", func(b *testing.B) {
		a := netip.MustParseAddr("11.0.0.1")
		for b.Loop() {
			run(b, nil, "add", "element", "inet", "x", "s", "{ "+a.String()+" timeout 1h }")
			a = a.Next()
		}
	})
	b.Run("file/100000", func(b *testing.B) {
		var text bytes.Buffer
		text.WriteString("flush set inet x s\nadd element inet x s { ")
		for _, e := range usual(100_000, "203.0.0.1") {
			fmt.Fprintf(&text, "%s timeout 1h,\n", e.Prefix.Addr())
		}
		text.WriteString("}\n")
		for b.Loop() {
			run(b, text.Bytes(), "-f", "-")
		}
	})
}
