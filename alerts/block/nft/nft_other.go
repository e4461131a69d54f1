//go:build !linux

package nft

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/slips-go/slips/alerts/block"
)

// Firewall is not there on this system.
type Firewall struct{}

var (
	_ block.Blocker = (*Firewall)(nil)
	_ block.Cutter  = (*Firewall)(nil)
)

func unsupported() error {
	return fmt.Errorf("%w: blocking needs nftables, which is part of Linux; this is %s", block.ErrUnsupported, runtime.GOOS)
}

// Open says that blocking is for Linux.
func Open(Config) (*Firewall, error) { return nil, unsupported() }

// Close does nothing.
func (*Firewall) Close() error { return nil }

// Block says that blocking is for Linux.
func (*Firewall) Block(context.Context, []block.Entry) error { return unsupported() }

// Unblock says that blocking is for Linux.
func (*Firewall) Unblock(context.Context, []netip.Prefix) error { return unsupported() }

// List says that blocking is for Linux.
func (*Firewall) List(context.Context) ([]block.Entry, error) { return nil, unsupported() }

// Cut says that blocking is for Linux.
func (*Firewall) Cut(context.Context, []netip.Prefix) (int, error) { return 0, unsupported() }

// Remove says that blocking is for Linux.
func (*Firewall) Remove(context.Context) error { return unsupported() }
