package block

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Op is a call that a Memory was given.
type Op struct {
	Name     string // "block", "unblock" or "list"
	Entries  []Entry
	Prefixes []netip.Prefix
}

// Memory is a Blocker that blocks nobody: it keeps entries until they end. Dry
// runs and tests use it.
type Memory struct {
	// Hook is called before each call is carried out, if set; an error from it
	// is what the call returns, and nothing is changed. It must not keep the
	// slices. It is set before the first call.
	Hook func(Op) error

	now     func() time.Time
	mu      sync.Mutex
	entries map[netip.Prefix]Entry
}

var _ Blocker = (*Memory)(nil)

// NewMemory returns a Memory that blocks nothing yet.
func NewMemory(now func() time.Time) *Memory {
	return &Memory{now: now, entries: make(map[netip.Prefix]Entry)}
}

func (m *Memory) hook(op Op) error {
	if m.Hook == nil {
		return nil
	}
	return m.Hook(op)
}

// Block implements Blocker.
func (m *Memory) Block(_ context.Context, entries []Entry) error {
	if err := m.hook(Op{Name: "block", Entries: entries}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.entries[e.Prefix] = e
	}
	return nil
}

// Unblock implements Blocker.
func (m *Memory) Unblock(_ context.Context, prefixes []netip.Prefix) error {
	if err := m.hook(Op{Name: "unblock", Prefixes: prefixes}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range prefixes {
		delete(m.entries, p)
	}
	return nil
}

// List implements Blocker. It forgets what has ended.
func (m *Memory) List(context.Context) ([]Entry, error) {
	if err := m.hook(Op{Name: "list"}); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]Entry, 0, len(m.entries))
	now := m.now()
	for p, e := range m.entries {
		if !e.Until.After(now) {
			delete(m.entries, p)
			continue
		}
		list = append(list, e)
	}
	return list, nil
}
