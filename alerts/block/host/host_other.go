//go:build !linux

package host

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/slips-go/slips/alerts/block"
)

// Host is for Linux, as blocking is.
type Host struct{}

// New returns a Host that knows nothing.
func New(*slog.Logger) *Host { return &Host{} }

// LogTo does nothing.
func (*Host) LogTo(*slog.Logger) {}

// Snapshot says that this is for Linux.
func (*Host) Snapshot() (block.Network, error) {
	return block.Network{}, fmt.Errorf("look at the network: %w: it is done for Linux; this is %s", block.ErrUnsupported, runtime.GOOS)
}

// Watch says that this is for Linux.
func (h *Host) Watch(context.Context, func(block.Network)) error {
	_, err := h.Snapshot()
	return err
}
