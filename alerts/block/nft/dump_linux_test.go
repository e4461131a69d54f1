package nft

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/slips-go/slips/alerts/block"
)

func message(t testing.TB, kind uint16, flags netlink.HeaderFlags, data []byte) []byte {
	t.Helper()
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	b, err := (&netlink.Message{
		Header: netlink.Header{Length: uint32(16 + len(data)), Type: netlink.HeaderType(kind), Flags: flags, Sequence: 7}, Data: data,
	}).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func attributes(t testing.TB, a ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// elementsMessage is a message of the kernel with one element.
func elementsMessage(t testing.TB) []byte {
	t.Helper()
	element := attributes(
		t,
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_KEY | unix.NLA_F_NESTED, Data: attributes(t, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: []byte{192, 0, 2, 1}})},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_TIMEOUT, Data: []byte{0, 0, 0, 0, 0, 0, 0x27, 0x10}},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_EXPIRATION, Data: []byte{0, 0, 0, 0, 0, 0, 0x03, 0xe8}},
		netlink.Attribute{Type: unix.NFTA_SET_ELEM_USERDATA, Data: userdata.AppendString([]byte{9, 1, 'x'}, userdata.NFTNL_UDATA_SET_ELEM_COMMENT, "offence 2 a b")},
	)
	list := attributes(t, netlink.Attribute{Type: 1 | unix.NLA_F_NESTED, Data: element})
	return message(t, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM, 0,
		append([]byte{unix.NFPROTO_INET, 0, 0, 0}, attributes(t, netlink.Attribute{Type: unix.NFTA_SET_ELEM_LIST_ELEMENTS | unix.NLA_F_NESTED, Data: list})...))
}

func TestParseDump(t *testing.T) {
	done := message(t, unix.NLMSG_DONE, netlink.Multi, make([]byte, 4))
	got, end, err := parseDump(nil, append(elementsMessage(t), done...), 7)
	want := []nftables.SetElement{{Key: []byte{192, 0, 2, 1}, Timeout: 10 * time.Second, Expires: time.Second, Comment: "offence 2 a b"}}
	if diff := cmp.Diff(want, got); diff != "" || end != (progress{done: true}) || err != nil {
		t.Errorf("done %v, %v\n%s", end, err, diff)
	}
	if _, end, err := parseDump(nil, elementsMessage(t), 7); end.done || err != nil {
		t.Errorf("a piece with more to come: done %v, %v", end, err)
	}
	if _, p, err := parseDump(nil, append(message(t, unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, make([]byte, 4)), done...), 7); p != (progress{true, true}) || err != nil {
		t.Errorf("interrupted: %+v, %v", p, err)
	}
	for _, c := range []struct {
		name string
		b    []byte
		seq  uint32
		want error
	}{
		{"error", message(t, unix.NLMSG_ERROR, 0, []byte{0xfe, 0xff, 0xff, 0xff}), 7, syscall.ENOENT},
		{"error at the end", message(t, unix.NLMSG_DONE, 0, []byte{0xff, 0xff, 0xff, 0xff}), 7, syscall.EPERM},
		{"another question", done, 8, nil},
		{"another type", message(t, 5, 0, nil), 7, nil},
		{"short", message(t, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM, 0, nil), 7, nil},
		{"cut", elementsMessage(t)[:30], 7, nil},
	} {
		if _, _, err := parseDump(nil, c.b, c.seq); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestComment gives back from the kernel's comment who asked and why, as much
// of it as nft can read.
func TestComment(t *testing.T) {
	for text, e := range map[string]block.Entry{
		"offence 2 0f8fad5b-d9cb-469f-a165-70867728950e": {Offences: 2, Alert: "0f8fad5b-d9cb-469f-a165-70867728950e"},
		"offence 1 by root":                                    {Offences: 1, By: "root"},
		"offence 1 by root: ticket 4711: a scan":               {Offences: 1, By: "root", Reason: "ticket 4711: a scan"},
		"offence 1 by uid 1000: " + strings.Repeat("a", 105):   {Offences: 1, By: "uid 1000", Reason: strings.Repeat("a", 105)},
		"offence 1 by " + strings.Repeat("b", 64) + ": reason": {Offences: 1, By: strings.Repeat("b", 64), Reason: "reason"},
	} {
		if got := comment(e); got != text {
			t.Errorf("%+v: comment %q, want %q", e, got, text)
		}
		var got block.Entry
		if parseComment(text, &got); got != e {
			t.Errorf("%q: %+v, want %+v", text, got, e)
		}
	}
	e := block.Entry{Offences: 1, By: "a:b\"\n", Reason: "gr\u00fcn " + strings.Repeat("x", 500)}
	if got, want := comment(e), "offence 1 by ab: grn "; !strings.HasPrefix(got, want+"xx") || len(got) != 128 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	for _, text := range []string{"", "offence", "offence x", "offence -1 a", "else"} {
		var got block.Entry
		if parseComment(text, &got); got != (block.Entry{}) {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func FuzzParseDump(f *testing.F) {
	f.Add(elementsMessage(f))
	f.Add(message(f, unix.NLMSG_DONE, 0, make([]byte, 4)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, _, err := parseDump(nil, b, 7)
		if err == nil && len(list)*4 > len(b) {
			t.Errorf("%d elements in %d bytes", len(list), len(b))
		}
		for _, e := range list {
			var x block.Entry
			if parseComment(e.Comment, &x); x.Offences < 0 || len(x.Alert) > block.MaxAlert || len(x.By) > block.MaxBy || len(x.Reason) > len(e.Comment) {
				t.Errorf("comment %q gives %+v", e.Comment, x)
			}
		}
	})
}

// TestNoNftables asks a kernel for a subsystem that it does not have, as one
// without nf_tables is asked by Open.
func TestNoNftables(t *testing.T) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Skipf("SKIPPED: no socket for netfilter: %v", err)
	}
	defer c.Close()
	const nobody = 15 // the last that a kernel may have, NFNL_SUBSYS_COUNT is 13
	_, err = generation(c, nobody)
	if err = explain("open nftables", err); errors.Is(err, block.ErrPermission) {
		t.Skipf("SKIPPED: root is needed: %v", err)
	}
	if !errors.Is(err, block.ErrUnsupported) || !strings.Contains(err.Error(), "modprobe nf_tables") {
		t.Errorf("%v, want what is missing and what helps", err)
	}
	if gen, err := generation(c, unix.NFNL_SUBSYS_NFTABLES); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("of nftables: %d, %v", gen, err)
	}
}
