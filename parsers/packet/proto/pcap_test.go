package proto

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/slips-go/slips/parsers/flow"
)

// The meter around this package is written apart from it. Here is a small one
// for the tests, to see what the analyzers make of real traffic.

type tuple struct {
	orig, resp netip.AddrPort
	proto      flow.Proto
}

// testConn is a connection of the test's meter; it keeps copies of the records.
type testConn struct {
	tuple
	m        *testMeter
	a        Analyzer
	nothing  bool
	uid      string
	services []string
	side     [2]testSide
	last     int64
	open     bool // a record is between Record and Emit
}

// testSide puts the segments of one direction in order.
type testSide struct {
	known bool
	next  uint32
	held  map[uint32][]byte
}

type testMeter struct {
	set     *Set
	dhcp    *DHCP
	conns   map[tuple]*testConn
	order   []*testConn
	records []*flow.Flow
	f       *flow.Flow
	small   int // the segments are cut into pieces of this size
	spoil   func([]byte)
}

func newTestMeter() *testMeter {
	m := &testMeter{set: NewSet(), conns: make(map[tuple]*testConn)}
	m.dhcp = NewDHCP(m)
	return m
}

// Record implements Sink.
func (m *testMeter) Record(k flow.Kind, t int64) *flow.Flow {
	m.f = new(flow.Flow)
	m.f.Reset(k)
	m.f.Time = t
	return m.f
}

// Emit implements Sink.
func (m *testMeter) Emit(f *flow.Flow) { m.records = append(m.records, f) }

// Record implements Conn.
func (c *testConn) Record(k flow.Kind, t int64) *flow.Flow {
	if c.open {
		panic("a record was begun before the one before it was emitted")
	}
	c.open = true
	f := c.m.Record(k, t)
	f.Src, f.SrcPort, f.Dst, f.DstPort = c.orig.Addr(), c.orig.Port(), c.resp.Addr(), c.resp.Port()
	f.Proto, f.UID, f.HasPorts = c.proto, c.uid, true
	return f
}

// Emit implements Conn.
func (c *testConn) Emit(f *flow.Flow) {
	if !c.open {
		panic("a record was emitted twice")
	}
	c.open = false
	c.m.Emit(f)
}

// Hosts implements Conn.
func (c *testConn) Hosts() (orig, resp netip.Addr) { return c.orig.Addr(), c.resp.Addr() }

// Service implements Conn.
func (c *testConn) Service(name string) {
	if !slices.Contains(c.services, name) {
		c.services = append(c.services, name)
	}
}

// Expect implements Conn.
func (c *testConn) Expect(_, _ netip.Addr, _ uint16, _ string) {}

func (c *testConn) data(d Dir, b []byte, t int64) {
	if len(b) == 0 || c.nothing {
		return
	}
	if c.a == nil {
		if c.proto == flow.TCP {
			c.a = c.m.set.TCP(c, c.orig.Port(), c.resp.Port())
		} else if c.a = c.m.set.UDP(c, c.orig.Port(), c.resp.Port(), b); c.a == nil {
			c.nothing = true
			return
		}
	}
	if c.m.spoil != nil {
		b = bytes.Clone(b)
		c.m.spoil(b)
	}
	for c.proto == flow.TCP && c.m.small > 0 && len(b) > c.m.small {
		c.a.Data(d, bytes.Clone(b[:c.m.small]), t)
		b = b[c.m.small:]
	}
	c.a.Data(d, bytes.Clone(b), t)
	c.a.Wants(d)
}

// segment takes a TCP segment.
func (c *testConn) segment(d Dir, seq uint32, b []byte, syn bool, t int64) {
	s := &c.side[d]
	if syn {
		s.known, s.next = true, seq+1
		seq++
	}
	if len(b) == 0 {
		return
	}
	if !s.known {
		s.known, s.next = true, seq
	}
	if behind := int32(s.next - seq); behind > 0 {
		if int(behind) >= len(b) {
			return
		}
		b, seq = b[behind:], s.next
	}
	if seq != s.next {
		if s.held == nil {
			s.held = make(map[uint32][]byte)
		}
		if len(s.held[seq]) < len(b) {
			s.held[seq] = bytes.Clone(b)
		}
		if len(s.held) > 256 {
			c.flush(d, t)
		}
		return
	}
	c.data(d, b, t)
	s.next += uint32(len(b))
	for again := true; again; {
		again = false
		for q, h := range s.held {
			if behind := int32(s.next - q); behind >= 0 {
				delete(s.held, q)
				again = true
				if int(behind) < len(h) {
					c.data(d, h[behind:], t)
					s.next += uint32(len(h) - int(behind))
				}
			}
		}
	}
}

// flush gives what is held behind gaps.
func (c *testConn) flush(d Dir, t int64) {
	s := &c.side[d]
	for len(s.held) > 0 {
		best := uint32(0)
		first := true
		for q := range s.held {
			if first || int32(q-best) < 0 {
				best, first = q, false
			}
		}
		b := s.held[best]
		delete(s.held, best)
		gap := int32(best - s.next)
		if gap > 0 {
			if c.a != nil {
				c.a.Gap(d, int64(gap), t)
			}
		} else if int(-gap) >= len(b) {
			continue
		} else {
			b = b[-gap:]
		}
		c.data(d, b, t)
		s.next = best + uint32(len(s.held[best])) + uint32(len(b))
	}
}

func (m *testMeter) conn(src, dst netip.AddrPort, proto flow.Proto, flip bool) (c *testConn, d Dir) {
	if c = m.conns[tuple{src, dst, proto}]; c != nil {
		return c, Orig
	}
	if c = m.conns[tuple{dst, src, proto}]; c != nil {
		return c, Resp
	}
	t := tuple{src, dst, proto}
	if flip {
		t, d = tuple{dst, src, proto}, Resp
	}
	c = &testConn{tuple: t, m: m, uid: fmt.Sprintf("C%d", len(m.order))}
	m.conns[t] = c
	m.order = append(m.order, c)
	return c, d
}

// likely reports whether a port is a server's.
func likely(p uint16) bool {
	return tcpPort(p) != portNone || dnsPort(p) || p == 443 || p == 67 || p == 143 || p == 110 || p == 5222
}

// read takes all packets of a capture.
func (m *testMeter) read(r io.Reader) error {
	br := bufio.NewReader(r)
	magic, err := br.Peek(4)
	if err != nil {
		return err
	}
	var src interface {
		gopacket.PacketDataSource
		LinkType() layers.LinkType
	}
	if binaryBE(magic) == 0x0a0d0d0a {
		src, err = pcapgo.NewNgReader(br, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	} else {
		src, err = pcapgo.NewReader(br)
	}
	if err != nil {
		return err
	}
	frag := ip4defrag.NewIPv4Defragmenter()
	for {
		data, ci, err := src.ReadPacketData()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			return err
		}
		link := src.LinkType()
		if len(ci.AncillaryData) > 0 {
			if l, ok := ci.AncillaryData[0].(layers.LinkType); ok {
				link = l
			}
		}
		first := gopacket.Decoder(link)
		if raw, ok := src.(*pcapgo.Reader); ok && raw.LinkType() > 200 && len(data) > 0 { // raw IPv4 or IPv6, which gopacket does not know by all of their numbers
			first = layers.LayerTypeIPv4
			if data[0]>>4 == 6 {
				first = layers.LayerTypeIPv6
			}
		}
		m.packet(gopacket.NewPacket(data, first, gopacket.NoCopy), ci.Timestamp.UnixNano(), frag, netip.Addr{}, netip.Addr{})
	}
	for _, c := range m.order {
		for d := range Resp + 1 {
			c.flush(d, c.last)
		}
		if c.a != nil {
			c.a.End(c.last)
			m.set.Free(c.a)
		}
	}
	m.dhcp.End()
	return nil
}

func binaryBE(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func (m *testMeter) packet(p gopacket.Packet, t int64, frag *ip4defrag.IPv4Defragmenter, src, dst netip.Addr) {
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			if l.Flags&layers.IPv4MoreFragments != 0 || l.FragOffset != 0 {
				whole, err := frag.DefragIPv4(l)
				if err != nil || whole == nil {
					return
				}
				if whole != l {
					src, _ = netip.AddrFromSlice(l.SrcIP)
					dst, _ = netip.AddrFromSlice(l.DstIP)
					m.packet(gopacket.NewPacket(whole.Payload, whole.NextLayerType(), gopacket.NoCopy), t, frag, src, dst)
					return
				}
			}
			src, _ = netip.AddrFromSlice(l.SrcIP)
			dst, _ = netip.AddrFromSlice(l.DstIP)
		case *layers.IPv6:
			src, _ = netip.AddrFromSlice(l.SrcIP)
			dst, _ = netip.AddrFromSlice(l.DstIP)
		case *layers.TCP:
			from, to := netip.AddrPortFrom(src.Unmap(), uint16(l.SrcPort)), netip.AddrPortFrom(dst.Unmap(), uint16(l.DstPort))
			c, d := m.conn(from, to, flow.TCP, l.SYN && l.ACK || !l.SYN && likely(from.Port()) && !likely(to.Port()))
			if l.SYN && !l.ACK && c.side[d].known && l.Seq+1 != c.side[d].next && d == Orig && c.last < t-5e9 { // a new one
				c.flush(Orig, t)
				c.flush(Resp, t)
				if c.a != nil {
					c.a.End(c.last)
				}
				delete(m.conns, c.tuple)
				c, d = m.conn(from, to, flow.TCP, false)
			}
			c.last = t
			c.segment(d, l.Seq, l.LayerPayload(), l.SYN, t)
		case *layers.UDP:
			from, to := netip.AddrPortFrom(src.Unmap(), uint16(l.SrcPort)), netip.AddrPortFrom(dst.Unmap(), uint16(l.DstPort))
			c, d := m.conn(from, to, flow.UDP, likely(from.Port()) && !likely(to.Port()))
			if c.last != 0 && t-c.last > 60e9 {
				if c.a != nil {
					c.a.End(c.last)
				}
				delete(m.conns, c.tuple)
				c, d = m.conn(from, to, flow.UDP, likely(from.Port()) && !likely(to.Port()))
			}
			c.last = t
			if b := l.LayerPayload(); from.Port() == 67 || from.Port() == 68 || to.Port() == 67 {
				m.dhcp.Datagram(c.uid, from, b, t, t)
			} else {
				c.data(d, b, t)
			}
		}
	}
}

// datasets returns the folder of captures, or skips the test.
func datasets(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = "../../../../shared/datasets"
	}
	dir = filepath.Join(dir, "pcap")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real traffic to test against: %v", err)
	}
	return dir
}

// captures returns the captures that Zeek's logs lie beside, by name.
func captures(t testing.TB) map[string]string {
	t.Helper()
	dir := datasets(t)
	all := make(map[string]string)
	for _, pattern := range []string{"*.pcap", "protocols/*cap", "protocols/*.pcapng"} {
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range files {
			name := strings.TrimSuffix(filepath.Base(f), filepath.Ext(f))
			if !strings.HasPrefix(name, "tunnels_") && name != "nflog-http" { // the test's meter opens no tunnels
				all[name] = f
			}
		}
	}
	if len(all) < 100 {
		t.Skipf("%s holds %d captures only", dir, len(all))
	}
	return all
}

// meter reads one capture.
func meter(t testing.TB, path string, small int) *testMeter {
	t.Helper()
	m := newTestMeter()
	m.small = small
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := m.read(f); err != nil && testing.Verbose() {
		t.Logf("%s: %v", filepath.Base(path), err)
	}
	return m
}

// zeekLog returns the records of one of Zeek's logs of a capture.
func zeekLog(t testing.TB, capture, log string) []map[string]any {
	t.Helper()
	f, err := os.Open(filepath.Join(datasets(t), "zeek-logs", capture, log+".log"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var all []map[string]any
	for d := json.NewDecoder(f); ; {
		var r map[string]any
		if err := d.Decode(&r); err != nil {
			return all
		}
		all = append(all, r)
	}
}

func text(r map[string]any, key string) string {
	switch v := r[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		var s []string
		for _, x := range v {
			s = append(s, fmt.Sprint(x))
		}
		slices.Sort(s)
		return strings.Join(s, "|")
	default:
		return fmt.Sprint(v)
	}
}

func sorted(l []string) string {
	l = slices.Clone(l)
	slices.Sort(l)
	return strings.Join(l, "|")
}

func num[T int | int64 | uint16](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func tri(t flow.Tri) string { return [...]string{"", "false", "true"}[t] }

// column is a field that is compared.
type column struct {
	name string
	ours func(f *flow.Flow) string
}

// comparisons says for each log which fields identify a record and which are
// compared, and how many of each have to agree, in percent.
var comparisons = []struct {
	log  string
	kind flow.Kind
	key  []column
	more []column
	keys float64
	rest float64
}{
	{
		"dns", flow.DNS,
		[]column{
			{name: "trans_id", ours: func(f *flow.Flow) string { return fmt.Sprint(f.DNS.TransID) }},
			{name: "query", ours: func(f *flow.Flow) string { return f.DNS.Query }},
		},
		[]column{
			{name: "qtype_name", ours: func(f *flow.Flow) string { return f.DNS.QType }},
			{name: "qclass_name", ours: func(f *flow.Flow) string { return f.DNS.QClass }},
			{name: "rcode_name", ours: func(f *flow.Flow) string { return f.DNS.RCode }},
			{name: "answers", ours: func(f *flow.Flow) string { return sorted(f.DNS.Answers) }},
			{name: "rejected", ours: func(f *flow.Flow) string { return tri(f.DNS.Reject) }},
		},
		99, 97,
	},
	{
		"http", flow.HTTP,
		[]column{
			{name: "method", ours: func(f *flow.Flow) string { return f.HTTP.Method }},
			{name: "host", ours: func(f *flow.Flow) string { return f.HTTP.Host }},
			{name: "uri", ours: func(f *flow.Flow) string { return f.HTTP.URI }},
		},
		[]column{
			{name: "trans_depth", ours: func(f *flow.Flow) string { return num(f.HTTP.TransDepth) }},
			{name: "version", ours: func(f *flow.Flow) string { return f.HTTP.Version }},
			{name: "user_agent", ours: func(f *flow.Flow) string { return f.HTTP.UserAgent }},
			{name: "referrer", ours: func(f *flow.Flow) string { return f.HTTP.Referrer }},
			{name: "status_code", ours: func(f *flow.Flow) string { return num(f.HTTP.StatusCode) }},
			{name: "status_msg", ours: func(f *flow.Flow) string { return f.HTTP.StatusMsg }},
			{name: "request_body_len", ours: func(f *flow.Flow) string { return fmt.Sprint(f.HTTP.RequestLen) }},
			{name: "response_body_len", ours: func(f *flow.Flow) string { return fmt.Sprint(f.HTTP.ResponseLen) }},
			{name: "username", ours: func(f *flow.Flow) string { return f.HTTP.Username }},
			{name: "proxied", ours: func(f *flow.Flow) string { return sorted(f.HTTP.Proxied) }},
			{name: "resp_mime_types", ours: func(f *flow.Flow) string { return sorted(f.HTTP.RespMIMETypes) }},
			{name: "orig_mime_types", ours: func(f *flow.Flow) string { return sorted(f.HTTP.OrigMIMETypes) }},
		},
		95, 93,
	},
	{
		"ssl", flow.SSL,
		[]column{{name: "server_name", ours: func(f *flow.Flow) string { return f.SSL.ServerName }}},
		[]column{
			{name: "version", ours: func(f *flow.Flow) string { return f.SSL.Version }},
			{name: "cipher", ours: func(f *flow.Flow) string { return f.SSL.Cipher }},
			{name: "curve", ours: func(f *flow.Flow) string { return f.SSL.Curve }},
			{name: "resumed", ours: func(f *flow.Flow) string { return tri(f.SSL.Resumed) }},
			{name: "established", ours: func(f *flow.Flow) string { return tri(f.SSL.Established) }},
			{name: "last_alert", ours: func(f *flow.Flow) string { return f.SSL.LastAlert }},
			{name: "next_protocol", ours: func(f *flow.Flow) string { return f.SSL.NextProtocol }},
			{name: "cert_chain_fps", ours: func(f *flow.Flow) string { return sorted(f.SSL.CertFPs) }},
			{name: "client_cert_chain_fps", ours: func(f *flow.Flow) string { return sorted(f.SSL.ClientCertFPs) }},
			{name: "sni_matches_cert", ours: func(f *flow.Flow) string { return tri(f.SSL.SNIMatchesCert) }},
		},
		99, 97,
	},
	{
		"x509", flow.X509,
		[]column{{name: "fingerprint", ours: func(f *flow.Flow) string { return f.X509.Fingerprint }}},
		[]column{
			{name: "certificate.version", ours: func(f *flow.Flow) string { return num(f.X509.Version) }},
			{name: "certificate.serial", ours: func(f *flow.Flow) string { return f.X509.Serial }},
			{name: "certificate.subject", ours: func(f *flow.Flow) string { return f.X509.Subject }},
			{name: "certificate.issuer", ours: func(f *flow.Flow) string { return f.X509.Issuer }},
			{name: "certificate.not_valid_before", ours: func(f *flow.Flow) string { return fmt.Sprint(float64(f.X509.NotBefore) / 1e9) }},
			{name: "certificate.not_valid_after", ours: func(f *flow.Flow) string { return fmt.Sprint(float64(f.X509.NotAfter) / 1e9) }},
			{name: "certificate.key_alg", ours: func(f *flow.Flow) string { return f.X509.KeyAlg }},
			{name: "certificate.sig_alg", ours: func(f *flow.Flow) string { return f.X509.SigAlg }},
			{name: "certificate.key_type", ours: func(f *flow.Flow) string { return f.X509.KeyType }},
			{name: "certificate.key_length", ours: func(f *flow.Flow) string { return num(f.X509.KeyLength) }},
			{name: "san.dns", ours: func(f *flow.Flow) string { return sorted(f.X509.SANDNS) }},
			{name: "basic_constraints.ca", ours: func(f *flow.Flow) string { return tri(f.X509.CA) }},
		},
		97, 98,
	},
	{
		"ssh", flow.SSH,
		[]column{
			{name: "client", ours: func(f *flow.Flow) string { return f.SSH.Client }},
			{name: "server", ours: func(f *flow.Flow) string { return f.SSH.Server }},
		},
		[]column{
			{name: "version", ours: func(f *flow.Flow) string { return num(f.SSH.Version) }},
			{name: "auth_success", ours: func(f *flow.Flow) string { return tri(f.SSH.AuthSuccess) }},
			{name: "auth_attempts", ours: func(f *flow.Flow) string { return fmt.Sprint(f.SSH.AuthAttempts) }},
			{name: "cipher_alg", ours: func(f *flow.Flow) string { return f.SSH.CipherAlg }},
			{name: "mac_alg", ours: func(f *flow.Flow) string { return f.SSH.MACAlg }},
			{name: "compression_alg", ours: func(f *flow.Flow) string { return f.SSH.CompressionAlg }},
			{name: "kex_alg", ours: func(f *flow.Flow) string { return f.SSH.KexAlg }},
			{name: "host_key_alg", ours: func(f *flow.Flow) string { return f.SSH.HostKeyAlg }},
		},
		95, 95,
	},
	{
		"smtp", flow.SMTP,
		[]column{
			{name: "helo", ours: func(f *flow.Flow) string { return f.SMTP.Helo }},
			{name: "mailfrom", ours: func(f *flow.Flow) string { return f.SMTP.MailFrom }},
		},
		[]column{
			{name: "trans_depth", ours: func(f *flow.Flow) string { return num(f.SMTP.TransDepth) }},
			{name: "rcptto", ours: func(f *flow.Flow) string { return sorted(f.SMTP.RcptTo) }},
			{name: "from", ours: func(f *flow.Flow) string { return f.SMTP.From }},
			{name: "to", ours: func(f *flow.Flow) string { return sorted(f.SMTP.To) }},
			{name: "msg_id", ours: func(f *flow.Flow) string { return f.SMTP.MsgID }},
			{name: "subject", ours: func(f *flow.Flow) string { return f.SMTP.Subject }},
			{name: "last_reply", ours: func(f *flow.Flow) string { return f.SMTP.LastReply }},
			{name: "path", ours: func(f *flow.Flow) string { return sorted(f.SMTP.Path) }},
			{name: "user_agent", ours: func(f *flow.Flow) string { return f.SMTP.UserAgent }},
			{name: "tls", ours: func(f *flow.Flow) string { return tri(f.SMTP.TLS) }},
		},
		80, 85,
	},
	{
		"ftp", flow.FTP,
		[]column{
			{name: "command", ours: func(f *flow.Flow) string { return f.FTP.Command }},
			{name: "arg", ours: func(f *flow.Flow) string { return f.FTP.Arg }},
		},
		[]column{
			{name: "user", ours: func(f *flow.Flow) string { return f.FTP.User }},
			{name: "reply_code", ours: func(f *flow.Flow) string { return num(f.FTP.ReplyCode) }},
			{name: "reply_msg", ours: func(f *flow.Flow) string { return f.FTP.ReplyMsg }},
			{name: "data_channel.passive", ours: func(f *flow.Flow) string { return tri(f.FTP.DataPassive) }},
			{name: "data_channel.resp_p", ours: func(f *flow.Flow) string { return num(f.FTP.DataPort) }},
		},
		80, 85,
	},
	{
		"dhcp", flow.DHCP,
		[]column{
			{name: "mac", ours: func(f *flow.Flow) string { return f.DHCP.MAC }},
			{name: "msg_types", ours: func(f *flow.Flow) string { return sorted(f.DHCP.MsgTypes) }},
		},
		[]column{
			{name: "client_addr", ours: func(f *flow.Flow) string { return addr(f.DHCP.Client) }},
			{name: "server_addr", ours: func(f *flow.Flow) string { return addr(f.DHCP.Server) }},
			{name: "host_name", ours: func(f *flow.Flow) string { return f.DHCP.HostName }},
			{name: "client_fqdn", ours: func(f *flow.Flow) string { return f.DHCP.ClientFQDN }},
			{name: "domain", ours: func(f *flow.Flow) string { return f.DHCP.Domain }},
			{name: "requested_addr", ours: func(f *flow.Flow) string { return addr(f.DHCP.Requested) }},
			{name: "assigned_addr", ours: func(f *flow.Flow) string { return addr(f.DHCP.Assigned) }},
			{name: "lease_time", ours: func(f *flow.Flow) string { return num(f.DHCP.LeaseTime / 1e9) }},
			{name: "server_message", ours: func(f *flow.Flow) string { return f.DHCP.ServerMessage }},
		},
		85, 95,
	},
	{
		"files", flow.Files,
		[]column{{name: "md5", ours: func(f *flow.Flow) string { return f.Files.MD5 }}},
		[]column{
			{name: "sha1", ours: func(f *flow.Flow) string { return f.Files.SHA1 }},
			{name: "sha256", ours: func(f *flow.Flow) string { return f.Files.SHA256 }},
			{name: "mime_type", ours: func(f *flow.Flow) string { return f.Files.MIMEType }},
			{name: "filename", ours: func(f *flow.Flow) string { return f.Files.Filename }},
			{name: "seen_bytes", ours: func(f *flow.Flow) string { return fmt.Sprint(f.Files.SeenBytes) }},
			{name: "is_orig", ours: func(f *flow.Flow) string { return tri(f.Files.IsOrig) }},
		},
		70, 90,
	},
	{
		"software", flow.Software,
		[]column{
			{name: "software_type", ours: func(f *flow.Flow) string { return f.Software.Type }},
			{name: "unparsed_version", ours: func(f *flow.Flow) string { return f.Software.Unparsed }},
		},
		[]column{
			{name: "host", ours: func(f *flow.Flow) string { return f.Src.String() }},
			{name: "name", ours: func(f *flow.Flow) string { return f.Software.Name }},
			{name: "version.major", ours: func(f *flow.Flow) string { return version1(f.Software.Major) }},
			{name: "version.minor", ours: func(f *flow.Flow) string { return version1(f.Software.Minor) }},
			{name: "version.minor2", ours: func(f *flow.Flow) string { return version1(f.Software.Minor2) }},
			{name: "version.addl", ours: func(f *flow.Flow) string { return f.Software.Addl }},
		},
		85, 85,
	},
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func version1(n int) string {
	if n < 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// TestAgainstZeek compares the records of real captures with those of Zeek.
func TestAgainstZeek(t *testing.T) {
	files := captures(t)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	type score struct{ have, want int }
	keys, fields := make(map[string]score), make(map[string]score)
	for _, name := range names {
		m := meter(t, files[name], 0)
		for _, c := range comparisons {
			var ours []*flow.Flow
			for _, f := range m.records {
				if f.Kind == c.kind {
					ours = append(ours, f)
				}
			}
			slices.SortStableFunc(ours, func(a, b *flow.Flow) int { return cmp.Compare(a.Time, b.Time) })
			used := make([]bool, len(ours))
			theirs := zeekLog(t, name, c.log)
			slices.SortStableFunc(theirs, func(a, b map[string]any) int {
				x, _ := a["ts"].(float64)
				y, _ := b["ts"].(float64)
				return cmp.Compare(x, y)
			})
			for _, z := range theirs {
				if c.kind == flow.DNS && text(z, "query") == "" {
					continue // an answer without a query and records, or a message that is broken
				}
				if c.kind == flow.Files && (text(z, "source") != "HTTP" || text(z, "md5") == "" || text(z, "mime_type") == "" || !harmful(text(z, "mime_type"))) {
					continue // no file of those that get a record here
				}
				best := -1
				for i, f := range ours {
					if !used[i] && same(z, f, c.key) && (best < 0 || near(z, f) < near(z, ours[best])) {
						best = i
					}
				}
				s := keys[c.log]
				s.want++
				if best < 0 {
					keys[c.log] = s
					if testing.Verbose() {
						t.Logf("%s: %s: missing %s", name, c.log, describe(z, c.key))
					}
					continue
				}
				s.have++
				keys[c.log] = s
				used[best] = true
				for _, col := range c.more {
					id := c.log + "." + col.name
					v, w := col.ours(ours[best]), text(z, col.name)
					if w == "" && c.kind == flow.DNS && z["qtype"] == nil && strings.HasPrefix(col.name, "q") {
						continue // an answer without a query, of which Zeek leaves the question out
					}
					s := fields[id]
					s.want++
					if v == w {
						s.have++
					} else if testing.Verbose() {
						t.Logf("%s: %s of %s: %q, Zeek %q", name, id, describe(z, c.key), v, w)
					}
					fields[id] = s
				}
			}
			if testing.Verbose() {
				for i, f := range ours {
					if !used[i] {
						var b []string
						for _, k := range c.key {
							b = append(b, k.ours(f))
						}
						t.Logf("%s: %s: only ours: %q %v:%d -> %v:%d", name, c.log, b, f.Src, f.SrcPort, f.Dst, f.DstPort)
					}
				}
			}
		}
	}
	for _, c := range comparisons {
		k := keys[c.log]
		t.Logf("%-9s %4d of %4d records, %5.1f %%", c.log, k.have, k.want, percent(k.have, k.want))
		if percent(k.have, k.want) < c.keys {
			t.Errorf("%s: %.1f %% of Zeek's records are found, want %.0f %%", c.log, percent(k.have, k.want), c.keys)
		}
		for _, col := range c.more {
			s := fields[c.log+"."+col.name]
			t.Logf("    %-30s %5.1f %%", col.name, percent(s.have, s.want))
			if percent(s.have, s.want) < c.rest {
				t.Errorf("%s.%s: %.1f %% agree, want %.0f %%", c.log, col.name, percent(s.have, s.want), c.rest)
			}
		}
	}
}

func percent(have, want int) float64 {
	if want == 0 {
		return 100
	}
	return 100 * float64(have) / float64(want)
}

func near(z map[string]any, f *flow.Flow) float64 {
	ts, _ := z["ts"].(float64)
	return max(ts-float64(f.Time)/1e9, float64(f.Time)/1e9-ts)
}

func same(z map[string]any, f *flow.Flow, key []column) bool {
	if p := text(z, "id.orig_p"); p != "" && p != fmt.Sprint(f.SrcPort) && p != fmt.Sprint(f.DstPort) {
		return false
	}
	for _, k := range key {
		// Of an answer without a query Zeek logs the name only when there are records.
		if _, said := z[k.name]; !said && f.Kind == flow.DNS && z["qtype"] == nil {
			continue
		}
		if k.ours(f) != text(z, k.name) {
			return false
		}
	}
	return true
}

func describe(z map[string]any, key []column) string {
	var b []string
	for _, k := range key {
		b = append(b, text(z, k.name))
	}
	return fmt.Sprintf("%q %v:%v -> %v:%v", b, z["id.orig_h"], z["id.orig_p"], z["id.resp_h"], z["id.resp_p"])
}

// TestServices compares the services of connections with those in Zeek's
// conn.log, as far as this package has them.
func TestServices(t *testing.T) {
	ours := []string{"dns", "http", "ssl", "dtls", "ssh", "smtp", "ftp", "imap", "pop3", "mysql", "irc", "xmpp", "rdp"}
	have, want := 0, 0
	for name, path := range captures(t) {
		m := meter(t, path, 0)
		for _, z := range zeekLog(t, name, "conn") {
			for s := range strings.SplitSeq(text(z, "service"), ",") {
				if !slices.Contains(ours, s) {
					continue
				}
				want++
				if slices.ContainsFunc(m.order, func(c *testConn) bool {
					return slices.Contains(c.services, s) &&
						(fmt.Sprint(c.orig.Port()) == text(z, "id.orig_p") || fmt.Sprint(c.orig.Port()) == text(z, "id.resp_p"))
				}) {
					have++
				} else if testing.Verbose() {
					t.Logf("%s: no %s for %v:%v -> %v:%v", name, s, z["id.orig_h"], z["id.orig_p"], z["id.resp_h"], z["id.resp_p"])
				}
			}
		}
	}
	t.Logf("%d of %d services, %.1f %%", have, want, percent(have, want))
	if percent(have, want) < 97 {
		t.Errorf("%.1f %% of Zeek's services are found", percent(have, want))
	}
}
