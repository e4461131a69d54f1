package packet

import (
	"net/netip"

	"github.com/slips-go/slips/parsers/flow"
)

// arp takes an ARP message about IPv4 over Ethernet: each request and each
// reply is a record.
func (m *Meter) arp(f *frame, b []byte) {
	if len(b) < 28 || be16(b[2:]) != etherIPv4 || b[4] != 6 || b[5] != 4 {
		m.count(BadARP)
		return
	}
	var op string
	switch be16(b[6:]) {
	case 1:
		op = "request"
	case 2:
		op = "reply"
	default:
		m.count(BadARP)
		return
	}
	r := m.record(flow.ARP)
	r.Time, r.Proto = m.told(f.t), flow.ProtoARP
	r.Src, r.Dst = netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
	r.LocalOrig, r.LocalResp = m.local(r.Src), m.local(r.Dst)
	r.VLAN, r.InnerVLAN = f.vlan, f.inner
	if f.mac {
		r.SrcMAC, r.DstMAC = m.mac(r, f.src), m.mac(r, f.dst)
	}
	r.ARP.Operation = op
	r.ARP.SenderHW, r.ARP.TargetHW = m.mac(r, [6]byte(b[8:])), m.mac(r, [6]byte(b[18:]))
	m.emit(r)
}
