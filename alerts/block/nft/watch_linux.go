package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableAttribute is the number of the attribute with the table's name in every
// message of nftables that is about something in a table: NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE and so on.
const tableAttribute = unix.NFTA_TABLE_NAME

// Watch implements block.Watcher. The kernel tells what each transaction has
// changed, and the number of the rule set behind it. What is not about our
// table, such as all that docker does, is passed over; for the rest, that number
// says whether the change was ours.
func (f *Firewall) Watch(ctx context.Context, changed func()) error {
	for {
		// When the kernel had no room for a message, what was lost may have been
		// about us. It says so once until everything is read, so the watch is begun
		// anew.
		if err := f.watch(ctx, changed); !errors.Is(err, unix.ENOBUFS) {
			return explain("watch nftables", err)
		}
	}
}

// watch does what Watch does until messages are lost.
func (f *Firewall) watch(ctx context.Context, changed func()) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1), NetNS: f.cfg.NetNS})
	if err != nil {
		return err
	}
	defer conn.Close()                                                                   //nolint:errcheck // there is nothing to lose in a socket of netlink
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }) // the past: ends what waits
	defer stop()
	if f.behind(ctx) { // by what came before we listened
		changed()
	}
	for touched := false; ; {
		messages, err := conn.Receive()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if m.Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
				touched = touched || touches(m.Data, f.cfg.Table)
				continue
			}
			if touched && f.behind(ctx) {
				changed()
			}
			touched = false
		}
	}
}

// touches reports whether the message b of nftables may be about the table of
// that name in the family inet.
func touches(b []byte, table string) bool {
	if len(b) < 4 { // family, version, and two bytes that are of no use
		return true
	}
	if b[0] != unix.NFPROTO_INET {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return true
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		if ad.Type() == tableAttribute {
			return ad.String() == table
		}
	}
	return true
}

// behind reports whether the rule set is another than the one that is known,
// or cannot be asked for. It waits for changes of ours that are under way.
func (f *Firewall) behind(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, cutTimeout)
	defer cancel()
	known := false
	err := f.use(ctx, "watch nftables", func() error {
		gen, err := f.generation()
		known = f.ready && gen == f.gen
		return err
	})
	return err != nil || !known
}
