package arp

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slips-go/slips/alerts/block"
)

// told is a firewall that tells of one change.
type told struct{ block.Blocker }

func (told) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return nil
}

// TestWatch has the Manager hear through the Isolator what the firewall tells,
// and one that tells nothing is no failure.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			inner block.Blocker
			calls int
		}{{told{block.NewMemory(time.Now)}, 1}, {block.NewMemory(time.Now), 0}} {
			ctx, cancel := context.WithCancel(t.Context())
			calls, done := 0, make(chan error, 1)
			go func() { done <- (&Isolator{inner: c.inner}).Watch(ctx, func() { calls++ }) }()
			synctest.Wait()
			if calls != c.calls || len(done) > 0 {
				t.Errorf("%T: told %d times, want %d; has ended: %v", c.inner, calls, c.calls, len(done) > 0)
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%T: %v", c.inner, err)
			}
		}
	})
}
