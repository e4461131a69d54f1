package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dumpBuffer is how much of an answer is taken at a time. The kernel sizes the
// pieces of a dump by the reads it has seen, up to 32 KiB, and walks through
// the set from its start for each piece. The library reads pages, with which
// 100,000 elements take 7 to 30 s.
const dumpBuffer = 64 << 10

// maxDumps is how often a set is read until nothing new is found.
const maxDumps = 8

// dump reads the elements of s. A hash that grows, which the kernel does some
// time after elements were added, is rearranged between the pieces of an
// answer, and some elements are in none. So an answer in pieces is asked for
// again, until it brings nothing new.
func (f *Firewall) dump(s *nftables.Set) ([]nftables.SetElement, error) {
	type key struct {
		addr string
		end  bool
	}
	var all []nftables.SetElement
	seen := make(map[key]bool)
	for range maxDumps {
		list, pieces, err := f.dumpOnce(s)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the elements of set %s: %w", s.Name, err)
		}
		before := len(all)
		for _, e := range list {
			if k := (key{string(e.Key), e.IntervalEnd}); !seen[k] {
				seen[k] = true
				all = append(all, e)
			}
		}
		if pieces == 1 || len(all) == before {
			return all, nil
		}
	}
	return nil, fmt.Errorf("read the elements of set %s: it changes all the time", s.Name)
}

// dumpOnce reads what the kernel says about the elements of s, and in how many
// pieces it does.
func (f *Firewall) dumpOnce(s *nftables.Set) (list []nftables.SetElement, pieces int, err error) {
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_ELEM_LIST_TABLE, Data: []byte(s.Table.Name + "\x00")},
		{Type: unix.NFTA_SET_ELEM_LIST_SET, Data: []byte(s.Name + "\x00")},
	})
	if err != nil {
		return nil, 0, err
	}
	sent, err := f.raw.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSETELEM, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(s.Table.Family), unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, 0, err
	}
	rc, err := f.raw.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	interrupted := false
	buf := make([]byte, dumpBuffer)
	for {
		n, err := receive(rc, buf)
		if err != nil {
			return nil, 0, err
		}
		before := len(list)
		var p progress
		if list, p, err = parseDump(list, buf[:n], sent.Header.Sequence); err != nil {
			return nil, 0, err
		}
		if len(list) > before {
			pieces++
		}
		interrupted = interrupted || p.interrupted
		switch {
		case p.done && interrupted:
			return nil, 0, unix.EINTR
		case p.done:
			return list, max(pieces, 1), nil
		}
	}
}

// progress says how far an answer is.
type progress struct {
	done        bool // nothing comes behind
	interrupted bool // somebody changed the set meanwhile
}

// parseDump appends the elements in a piece of an answer to list. It keeps
// nothing of b.
func parseDump(list []nftables.SetElement, b []byte, seq uint32) (_ []nftables.SetElement, p progress, err error) {
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, p, fmt.Errorf("%d bytes that are no messages: %w", len(b), err)
	}
	for _, m := range messages {
		if m.Header.Seq != seq {
			return nil, p, errors.New("an answer to something else")
		}
		p.interrupted = p.interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
		switch m.Header.Type {
		case unix.NLMSG_ERROR, unix.NLMSG_DONE:
			if len(m.Data) >= 4 {
				if code := int32(binary.NativeEndian.Uint32(m.Data)); code < 0 {
					return nil, p, syscall.Errno(-code)
				}
			}
			p.done = true
			return list, p, nil
		case unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM:
			if len(m.Data) < 4 {
				return nil, p, errors.New("a message without a header")
			}
			if list, err = parseElements(list, m.Data[4:]); err != nil {
				return nil, p, err
			}
		default:
			return nil, p, fmt.Errorf("a message of type %#x", m.Header.Type)
		}
	}
	return list, p, nil
}

// parseElements appends the elements in the attributes b to list.
func parseElements(list []nftables.SetElement, b []byte) ([]nftables.SetElement, error) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return nil, err
	}
	for ad.Next() {
		if ad.Type() != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				var e nftables.SetElement
				ad.Nested(func(ad *netlink.AttributeDecoder) error { return parseElement(&e, ad) })
				list = append(list, e)
			}
			return nil
		})
	}
	return list, ad.Err()
}

func parseElement(e *nftables.SetElement, ad *netlink.AttributeDecoder) error {
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_ELEM_KEY:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.NFTA_DATA_VALUE {
						e.Key = ad.Bytes() // a copy
					}
				}
				return nil
			})
		case unix.NFTA_SET_ELEM_FLAGS:
			e.IntervalEnd = ad.Uint32()&unix.NFT_SET_ELEM_INTERVAL_END != 0
		case unix.NFTA_SET_ELEM_TIMEOUT:
			e.Timeout = milliseconds(ad.Uint64())
		case unix.NFTA_SET_ELEM_EXPIRATION:
			e.Expires = milliseconds(ad.Uint64())
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = elementComment(ad.Bytes())
		}
	}
	return nil
}

// milliseconds returns n ms, or what a Duration can hold.
func milliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(1<<63-1)/uint64(time.Millisecond))) * time.Millisecond
}

// elementComment finds the comment in user data: type, length, text with a
// zero. It may be anybody's, so nothing about it is taken for granted.
func elementComment(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		text := b[2 : 2+int(b[1])]
		if userdata.Type(b[0]) == userdata.NFTNL_UDATA_SET_ELEM_COMMENT {
			for i, c := range text {
				if c == 0 {
					return string(text[:i])
				}
			}
			return string(text)
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// receive waits for a datagram on a socket of netlink and returns how much of
// buf it fills.
func receive(rc syscall.RawConn, buf []byte) (n int, err error) {
	var failed error
	err = rc.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	return n, errors.Join(err, failed)
}
