//go:build !linux

package nft

import "context"

// Watch says that blocking is for Linux.
func (*Firewall) Watch(context.Context, func()) error { return unsupported() }
