package suricata

import (
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/slips-go/slips/parsers/flow"
)

// Suricata's flow.state says how far its own flow table got, not whether the
// two hosts talked: a connection refused by a RST is "closed", like one that
// ended well, and a UDP answer or a SYN-ACK that was not acknowledged need not
// change it. The state of a record is therefore read off what was seen, the
// first line that applies:
//
//	no packet towards the client, or none to the server  NotEstablished
//	not TCP (UDP, ICMP, others): packets both ways       Established
//	TCP, by tcp.state
//	  syn_sent, syn_recv                                 NotEstablished
//	  established and those behind it, but "closed"      Established
//	TCP closed or without tcp.state, by the flags of both sides
//	  client sent SYN: server SYN and client ACK         Established
//	                   else (refused, half-open scan)    NotEstablished
//	  no SYN of the client: both ACK, and the server
//	                   said more than RST                Established
//	                   else                              NotEstablished
//	TCP without any flags, by flow.state
//	  established, bypassed                              Established
//	  closed, with packets that must have held data      Established
//	  else                                               NotEstablished
//
// When a record counts no packets at all only flow.state is left: established
// and bypassed are Established, the rest is not.
//
// A netflow event tells one direction only. TCP is Established when that side
// sent an ACK that was not just part of refusing (RST without SYN); anything
// but TCP is Established, because calling each half NotEstablished would make
// a scanner of every server.

// The TCP flags that matter here.
const (
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// tcpInfo is the tcp object of a flow or netflow event. The flags are zero
// when they are not logged, or Suricata tracked no session.
type tcpInfo struct {
	state                   []byte
	any, toServer, toClient byte // flags
}

func readTCP(o *fastjson.Object) tcpInfo {
	if o == nil {
		return tcpInfo{}
	}
	return tcpInfo{
		state:    raw(o.Get("state")),
		any:      hexFlags(o.Get("tcp_flags")),
		toServer: hexFlags(o.Get("tcp_flags_ts")),
		toClient: hexFlags(o.Get("tcp_flags_tc")),
	}
}

func hexFlags(v *fastjson.Value) byte {
	b := raw(v)
	if len(b) == 0 || len(b) > 2 {
		return 0
	}
	n, err := strconv.ParseUint(flow.Alias(b), 16, 8)
	if err != nil {
		return 0
	}
	return byte(n)
}

// flowState returns the state of a flow event whose counts f already has.
func flowState(f *flow.Flow, tcp tcpInfo) flow.State {
	said := f.RawState == "established" || f.RawState == "bypassed"
	switch {
	case f.OrigPkts == 0 && f.RespPkts == 0:
		return stateOf(said)
	case f.OrigPkts == 0 || f.RespPkts == 0:
		return flow.NotEstablished
	case f.Proto != flow.TCP:
		return flow.Established
	}
	switch string(tcp.state) {
	case "syn_sent", "syn_recv":
		return flow.NotEstablished
	case "established", "fin_wait1", "fin_wait2", "time_wait", "last_ack", "close_wait", "closing":
		return flow.Established
	}
	ts, tc := tcp.toServer, tcp.toClient
	switch {
	case ts&flagSYN != 0:
		return stateOf(tc&flagSYN != 0 && ts&flagACK != 0)
	case ts|tc != 0:
		return stateOf(ts&flagACK != 0 && tc&flagACK != 0 && tc != flagRST|flagACK)
	}
	return stateOf(said || f.RawState == "closed" && hasData(f))
}

// hasData reports whether some packet of f must have held data: whether
// either side's are larger on average than a TCP packet can be without, which
// is Ethernet with a VLAN tag, IPv6 and a full set of TCP options.
func hasData(f *flow.Flow) bool {
	const bare = 18 + 40 + 60
	return f.OrigBytes/f.OrigPkts > bare || f.RespBytes/f.RespPkts > bare
}

// halfState returns the state of a netflow event.
func halfState(p flow.Proto, tcp tcpInfo) flow.State {
	if p != flow.TCP {
		return flow.Established
	}
	refused := tcp.any&flagRST != 0 && tcp.any&flagSYN == 0
	return stateOf(tcp.any&flagACK != 0 && !refused)
}

// fromServer reports whether a netflow event, which is logged once for each
// direction and does not say which, tells what a server sent: it refused a
// connection, or its port is a privileged one and the other is not.
func fromServer(f *flow.Flow, tcp tcpInfo) bool {
	if tcp.any&flagRST != 0 && tcp.any&flagSYN == 0 {
		return true
	}
	const privileged = 1024
	return f.HasPorts && !f.Proto.IsICMP() && f.SrcPort < privileged && f.DstPort >= privileged
}

func stateOf(established bool) flow.State {
	if established {
		return flow.Established
	}
	return flow.NotEstablished
}
