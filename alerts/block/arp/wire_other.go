//go:build !linux

package arp

import (
	"fmt"
	"runtime"

	"github.com/slips-go/slips/alerts/block"
)

// dial says that isolation is for Linux.
func dial(string, int) (wire, error) {
	return nil, fmt.Errorf("%w: it is done for Linux; this is %s", block.ErrUnsupported, runtime.GOOS)
}
