package online

import (
	"context"
	"net/netip"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector keeps the answers it is given.
type collector struct {
	mu      sync.Mutex
	answers []Answer
	came    chan struct{} // one token for each
}

func newCollector() *collector { return &collector{came: make(chan struct{}, 10_000)} }

func (c *collector) Record(a Answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, a)
	c.came <- struct{}{}
	return nil
}

func (c *collector) all() []Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Answer(nil), c.answers...)
}

// running starts a and returns what ends it. The error of Run fails the test.
func running(t *testing.T, a *Asker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// answered returns the next n answers.
func (c *collector) wait(t *testing.T, n int) []Answer {
	t.Helper()
	for range n {
		select {
		case <-c.came:
		case <-t.Context().Done():
			t.Fatal("the test ended before the answers")
		}
	}
	all := c.all()
	return all[len(all)-n:]
}

// The public addresses and the name that tests ask about. No test sends them
// anywhere but to servers on this machine.
const (
	publicV4   = "8.8.8.8"
	publicV6   = "2001:4860:4860::8888"
	publicName = "www.example.co.uk"
	someMD5    = "8ed4b4ed952526d89899e723f3488de4"
)

func about(kind intel.Kind, text string) subject {
	s := subject{kind: kind, text: text}
	if kind == intel.Address {
		s.addr = netip.MustParseAddr(text)
	}
	return s
}

// fake is a service that a test plays.
type fake func(ctx context.Context, s subject) (flow.LookupPart, error)

func (f fake) ask(ctx context.Context, s subject) (flow.LookupPart, error) { return f(ctx, s) }

// fakes makes an Asker with one service that is asked about addresses.
func fakes(t *testing.T, o Options, l Limits, f fake) *Asker {
	t.Helper()
	o.Config = DefaultConfig()
	l.Enabled = true
	a, err := newAsker(o, []*spec{{
		name: "fake", asks: []occasion{{Evidence, []intel.Kind{intel.Address, intel.Domain}}},
		limits: func(*Config) Limits { return l },
		build:  func(*Options) (service, error) { return f, nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
