//go:build !linux

package live

import (
	"context"
	"fmt"
	"runtime"

	"github.com/slips-go/slips/parsers/packet"
)

// Capture is for Linux.
type Capture struct{}

// Open says that this is for Linux.
func Open(o Options) (*Capture, error) {
	return nil, fmt.Errorf("capture on %q: %w; this is %s", o.Interface, ErrUnsupported, runtime.GOOS)
}

// Run says that this is for Linux.
func (*Capture) Run(context.Context, func(packet.Packet), func(now int64)) error {
	return ErrUnsupported
}

// Stats returns none.
func (*Capture) Stats() Stats { return Stats{} }

// Link returns none.
func (*Capture) Link() packet.Link { return 0 }

// Close does nothing.
func (*Capture) Close() {}
