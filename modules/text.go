package modules

import (
	"net/netip"
	"strings"
)

// UID returns the uids of evidence that rests on one record: a copy of its
// uid, nil when it has none.
func UID(uid string) []string {
	if uid == "" {
		return nil
	}
	return []string{strings.Clone(uid)}
}

// KeepUID adds a copy of uid to uids, the oldest first, and keeps the newest
// limit of them. It changes uids in place; a uid that is empty adds nothing.
func KeepUID(uids []string, uid string, limit int) []string {
	if uid == "" {
		return uids
	}
	if len(uids) == limit {
		copy(uids, uids[1:])
		uids = uids[:limit-1]
	}
	return append(uids, strings.Clone(uid))
}

// Clip returns foreign text for a description: at most limit bytes of it, cut
// between characters, and an ellipsis where something is missing.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}

// Where writes a server as address:port; the address alone when the port is 0,
// which stands for not logged.
func Where(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return netip.AddrPortFrom(a, port).String()
}

// Address returns the address that a text consists of, such as an answer of
// DNS. It looks before it parses, because names are common and a failed parse
// allocates.
func Address(s string) (netip.Addr, bool) {
	if len(s) < 2 || len(s) > 45 {
		return netip.Addr{}, false
	}
	digits := '0' <= s[0] && s[0] <= '9' && '0' <= s[len(s)-1] && s[len(s)-1] <= '9'
	if !digits && strings.IndexByte(s, ':') < 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}
