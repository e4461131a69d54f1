package packet

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// uidLen is the length of Zeek's uids: C and 17 digits or letters, 101 bits.
const uidLen = 18

// is4 reports whether an address is one of IPv4. Zeek takes those that are
// mapped in a packet of IPv6 for the same.
func (a *addr) is4() bool { return [12]byte(a[:12]) == [12]byte{10: 0xff, 11: 0xff} }

// netip returns the address.
func (a addr) netip(v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte(a[12:]))
}

// family is the index of the version of an address.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// local reports whether an address is of this site.
func (m *Meter) local(a netip.Addr) flow.Tri {
	for _, p := range m.nets[family(a)] {
		if p.Contains(a) {
			return flow.True
		}
	}
	return flow.False
}

// mac prints an Ethernet address into a record; none when it is all zero.
func (m *Meter) mac(f *flow.Flow, a [6]byte) string {
	if a == [6]byte{} {
		return ""
	}
	b := m.text[:0]
	for i := range a {
		if i > 0 {
			b = append(b, ':')
		}
		b = hex.AppendEncode(b, a[i:i+1])
	}
	m.text = b
	return f.Hold(b)
}

// uidOf derives a uid from what identifies something: the same in each run
// over the same packets.
func uidOf(id []byte) (uid [uidLen]byte) {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	h := sha256.Sum256(id)
	hi, lo := binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])
	uid[0] = 'C'
	for i := 1; i < uidLen; i++ {
		if i <= 9 {
			uid[i], hi = digits[hi%62], hi/62
		} else {
			uid[i], lo = digits[lo%62], lo/62
		}
	}
	return uid
}

// uidText returns the uid of a connection, held by the record: a hash of its
// ends as they were at its first packet, and of its start.
func (c *conn) uidText(f *flow.Flow) string {
	if c.flags&hasUID == 0 {
		var b [64]byte
		id := append(b[:0], c.key.a[:]...)
		id = append(id, c.key.b[:]...)
		id = binary.BigEndian.AppendUint16(id, c.key.pa)
		id = binary.BigEndian.AppendUint16(id, c.key.pb)
		id = append(id, c.key.proto)
		id = binary.BigEndian.AppendUint64(id, uint64(c.began()))
		id = binary.BigEndian.AppendUint16(id, c.repeat)
		c.uid, c.flags = uidOf(id), c.flags|hasUID
	}
	return f.Hold(c.uid[:])
}

// community returns the Community ID, version 1 with seed 0, of a connection:
// https://github.com/corelight/community-id-spec. Of protocols without ports
// it leaves them out.
func (m *Meter) community(c *conn, f *flow.Flow) string {
	a, b, pa, pb := &c.orig, &c.resp, c.origP, c.respP
	icmp, oneWay := c.key.proto == 1 || c.key.proto == 58, c.key.oneWay
	if !oneWay {
		a, b, pa, pb = &c.key.a, &c.key.b, c.key.pa, c.key.pb
	}
	from := 12
	if c.flags&isV6 != 0 {
		from = 0
	}
	var buf [48]byte
	id := append(buf[:0], 0, 0)
	id = append(id, a[from:]...)
	id = append(id, b[from:]...)
	id = append(id, c.key.proto, 0)
	if icmp || c.key.proto == 6 || c.key.proto == 17 || c.key.proto == 132 {
		id = binary.BigEndian.AppendUint16(id, pa)
		id = binary.BigEndian.AppendUint16(id, pb)
	}
	h := sha1.Sum(id)
	t := append(m.text[:0], '1', ':')
	t = base64.StdEncoding.AppendEncode(t, h[:])
	m.text = t
	return f.Hold(t)
}
