package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/host"
	"github.com/slips-go/slips/profiler/profile"
)

// ownNetwork is what this machine knows about the network that a live run
// watches, followed as it changes. A nil *ownNetwork knows nothing.
type ownNetwork struct {
	host       *host.Host
	firewall   *firewall // may be nil
	interfaces []string  // captured on; none when logs are followed
	network    atomic.Pointer[profile.Network]
	unknown    error // why nothing is known
	log        *slog.Logger
}

// newOwnNetwork looks at the network, while the process still has the rights to
// read all that says something about it; nil when nobody wants to know.
func newOwnNetwork(o *runOptions) (m *ownNetwork, n block.Network, err error) {
	blocks := blockSection(o.Config).Enabled
	if len(o.Interfaces) == 0 && !blocks {
		return nil, n, nil
	}
	m = &ownNetwork{host: host.New(discard()), interfaces: o.Interfaces}
	if n, err = m.host.Snapshot(); err != nil {
		if blocks {
			return nil, n, &codeError{exitBlock, err}
		}
		m.unknown = err
		return m, n, nil
	}
	m.learn(n)
	return m, n, nil
}

// look returns what is known now, as profiler.Config.Network; nil when the
// machine's network need not be the one that is watched.
func (m *ownNetwork) look() func() *profile.Network {
	if m == nil || len(m.interfaces) == 0 {
		return nil
	}
	return m.network.Load
}

// use takes up a change.
func (m *ownNetwork) use(n block.Network) {
	if err := m.firewall.use(n); err != nil {
		m.log.Error("what must never be blocked cannot be renewed; what was known still holds", "err", err)
	}
	m.learn(n)
}

// learn takes up what the pipeline wants to know.
func (m *ownNetwork) learn(n block.Network) {
	next := &profile.Network{DHCPServers: n.DHCP}
	for _, name := range m.interfaces {
		next.Home = append(next.Home, homesOf(name)...)
	}
	for _, g := range n.Gateways { // those of other interfaces are not of the watched network
		if next.IsHome(g) {
			next.Gateway = g
			break
		}
	}
	m.network.Store(next)
}

// homesOf returns the networks of an interface, link-local ones left out; none
// for a port that only listens, and for one that is gone.
func homesOf(name string) (nets []netip.Prefix) {
	addrs, err := addressesOf(name)
	if err != nil {
		return nil
	}
	for _, p := range addrs {
		if !p.Addr().IsLinkLocalUnicast() && !p.IsSingleIP() {
			nets = append(nets, p.Masked())
		}
	}
	return nets
}

// addressesOf returns the addresses of an interface, each with the length of
// its network.
func addressesOf(name string) (list []netip.Prefix, err error) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", name, err)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", name, err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p)
		}
	}
	return list, nil
}

// run returns what has to run beside the pipeline until ctx is done.
func (m *ownNetwork) run(ctx context.Context, log *slog.Logger) (tasks []func() error) {
	if m == nil {
		return nil
	}
	m.log = log
	m.host.LogTo(log)
	if m.unknown != nil {
		log.Warn("own addresses and the gateway are not known", "err", m.unknown)
		return nil
	}
	return []func() error{func() error {
		if err := m.host.Watch(ctx, m.use); err != nil {
			log.Warn("changes of this machine's network are not followed", "err", err)
		}
		return nil
	}}
}
