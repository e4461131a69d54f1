package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/slips-go/slips/alerts/block"
)

// TestWatch changes our table and others, and ours by ourselves.
func TestWatch(t *testing.T) {
	s := newSpace(t)
	f := s.open()
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour)}))
	list(t, f)
	c := s.conn()
	ours := &nftables.Table{Name: "slips", Family: nftables.TableFamilyINet}
	set := &nftables.Set{Table: ours, Name: "hosts4", KeyType: nftables.TypeIPAddr, HasTimeout: true}
	c.FlushSet(set)
	must(t, c.Flush())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	changed := make(chan struct{}, 1000)
	go func() { done <- f.Watch(ctx, func() { changed <- struct{}{} }) }()
	defer func() {
		cancel()
		must(t, <-done)
	}()
	told := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing is told", what)
		}
		f.List(t.Context()) // what is damaged is put back, as the Manager would
		must(t, f.Block(t.Context(), nil))
		list(t, f)
		for len(changed) > 0 { // it may say so twice
			<-changed
		}
	}
	told("a change before the watch")
	for _, x := range []struct {
		name   string
		change func()
	}{
		{"an element", func() {
			must(t, c.SetAddElements(set, []nftables.SetElement{{Key: []byte{192, 0, 2, 9}, Timeout: time.Hour}}))
		}},
		{"a flushed table", func() { c.FlushTable(ours) }},
		{"a table that is gone", func() { c.DelTable(ours) }},
		{"a flushed rule set", func() { c.FlushRuleset() }},
	} {
		x.change()
		must(t, c.Flush())
		told(x.name)
	}

	// Ours, one after the other and more than the socket's buffer holds, and
	// whatever others do with what is theirs.
	for i := range 20 {
		must(t, f.Block(t.Context(), []block.Entry{entry(fmt.Sprintf("198.51.100.%d", i), time.Hour)}))
		must(t, f.Unblock(t.Context(), []netip.Prefix{entry(fmt.Sprintf("198.51.100.%d", i), time.Hour).Prefix}))
	}
	must(t, f.Block(t.Context(), many(20_000, "203.0.0.1")))
	list(t, f)
	for i := range 50 {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4} {
			other := c.AddTable(&nftables.Table{Name: "other", Family: family})
			c.AddChain(&nftables.Chain{Name: fmt.Sprint("chain", i), Table: other})
			if family == nftables.TableFamilyIPv4 { // of another family
				c.AddTable(&nftables.Table{Name: "slips", Family: family})
			}
			must(t, c.Flush())
		}
	}
	select {
	case <-changed:
		t.Error("told of what nobody else has done to us")
	case <-time.After(500 * time.Millisecond):
	}
	c.DelTable(ours)
	must(t, c.Flush())
	told("a table that is gone again")
}

// TestWatchLost loses messages, for nobody reads them while a great deal is
// changed: that is told, too.
func TestWatchLost(t *testing.T) {
	s := newSpace(t)
	f, g := s.open(), s.open()
	must(t, f.Block(t.Context(), nil))
	must(t, g.Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour)})) // so that the watch begins with a call
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	first, held, again := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1000)
	go func() {
		begun := false
		done <- f.Watch(ctx, func() {
			if !begun {
				begun = true
				close(first)
				<-held
				return
			}
			again <- struct{}{}
		})
	}()
	defer func() {
		cancel()
		must(t, <-done)
	}()
	<-first
	must(t, g.Block(t.Context(), many(20_000, "203.0.0.1"))) // some megabytes, and the buffer has 208 KiB
	c := s.conn()
	c.FlushRuleset()
	must(t, c.Flush())
	close(held)
	select {
	case <-again:
	case <-time.After(20 * time.Second):
		t.Error("nothing is told of what was lost")
	}
}

// TestNothing asks a machine on which slips has never blocked: there is no
// damage, and there are no blocks.
func TestNothing(t *testing.T) {
	s := newSpace(t)
	f := s.open()
	for range 2 {
		if l, err := f.List(t.Context()); len(l) != 0 || err != nil {
			t.Errorf("List: %v, %v", l, err)
		}
	}
	must(t, f.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}))
	if tables, err := s.conn().ListTables(); len(tables) != 0 || err != nil {
		t.Errorf("asking has made %v, %v", tables, err)
	}
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour)}))
	must(t, f.Remove(t.Context()))
	if l, err := f.List(t.Context()); len(l) != 0 || err != nil {
		t.Errorf("List after Remove: %v, %v", l, err)
	}
	// Who has only seen the table knows that it was there.
	must(t, f.Block(t.Context(), []block.Entry{entry("192.0.2.1", time.Hour)}))
	g := s.open()
	list(t, g)
	must(t, f.Remove(t.Context()))
	if _, err := g.List(t.Context()); err == nil {
		t.Error("the table is gone, and nothing is said")
	}
}
