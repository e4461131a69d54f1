package main

import (
	"context"
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
}

// newOwnNetwork looks at the network; nil when nobody wants to know.
func newOwnNetwork(o *runOptions, w *firewall, log *slog.Logger) (*ownNetwork, error) {
	if len(o.Interfaces) == 0 && w == nil {
		return nil, nil
	}
	m := &ownNetwork{host: host.New(log), firewall: w, interfaces: o.Interfaces}
	n, err := m.host.Snapshot()
	if err != nil {
		if w != nil {
			return nil, &codeError{exitBlock, err}
		}
		log.Warn("own addresses and the gateway are not known", "err", err)
		return nil, nil
	}
	m.use(n)
	return m, nil
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
	m.firewall.use(n)
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
// for a port that only listens.
func homesOf(name string) (nets []netip.Prefix) {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return nil
	}
	addrs, err := i.Addrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLinkLocalUnicast() && !p.IsSingleIP() {
			nets = append(nets, p.Masked())
		}
	}
	return nets
}

// run returns what has to run beside the pipeline until ctx is done.
func (m *ownNetwork) run(ctx context.Context, log *slog.Logger) (tasks []func() error) {
	if m == nil {
		return nil
	}
	return []func() error{func() error {
		if err := m.host.Watch(ctx, m.use); err != nil {
			log.Warn("changes of this machine's network are not followed", "err", err)
		}
		return nil
	}}
}
