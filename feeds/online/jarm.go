package online

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/parsers/flow"
)

// prober makes the JARM fingerprint of a TLS server: ten different
// ClientHellos, and a hash of what the server chooses each time. The algorithm
// is that of Salesforce's JARM, version 1.0 of November 2020; hashes compare
// with those in lists only when every byte of it is kept.
type prober struct {
	dial   dialer
	random io.Reader
}

func newJARM(o *Options) (service, error) {
	o.Log.Warn("jarm is enabled: slips connects to servers that it suspects, and they can see that")
	return prober{o.dial, rand.Reader}, nil
}

// The lengths of a fingerprint: of each answer two digits for the cipher and a
// letter for the version, then half a SHA-256.
const (
	probeCount = 10
	jarmLength = 3*probeCount + 32
)

func (j prober) ask(ctx context.Context, s subject) (p flow.LookupPart, err error) {
	if s.port == 0 {
		return p, oddly("a server is asked at a port, and there is none")
	}
	hash, err := j.fingerprint(ctx, netip.AddrPortFrom(s.addr, s.port))
	if err != nil {
		return p, oddly("%s", plain(err)) // the server's fault, and it is another one each time
	}
	p.JARM, p.Found = hash, flow.True
	if strings.Trim(hash, "0") == "" {
		p.Found = flow.False // it takes connections and speaks no TLS
	}
	return p, nil
}

// fingerprint probes a server. A server that cannot be reached has none.
func (j prober) fingerprint(ctx context.Context, server netip.AddrPort) (string, error) {
	var chosen [probeCount]string
	for i, p := range probes() {
		c, err := j.probe(ctx, server, p)
		if err != nil {
			return "", fmt.Errorf("probe %d of %d: %w", i+1, probeCount, err)
		}
		chosen[i] = c
	}
	return jarmHash(chosen[:]), nil
}

// maxHello is how much of an answer is looked at, as in the original.
const maxHello = 1484

// probe sends one ClientHello and returns what the server chose.
func (j prober) probe(ctx context.Context, server netip.AddrPort, p probe) (string, error) {
	hello, err := p.hello(server.Addr().String(), j.random)
	if err != nil {
		return "", err
	}
	c, err := j.dial(ctx, "tcp", server.String())
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()                         // there is nothing to lose
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // which ends a read that hangs
	defer stop()
	if _, err := c.Write(hello); err != nil {
		return none, nil //nolint:nilerror // a server that hangs up on this hello is a trait of it
	}
	b := make([]byte, maxHello)
	n, err := io.ReadAtLeast(c, b, 5)
	if err == nil {
		// The record may come in pieces.
		if want := min(5+int(binary.BigEndian.Uint16(b[3:])), len(b)); n < want {
			var m int
			m, err = io.ReadAtLeast(c, b[n:], want-n)
			n += m
		}
	}
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return "", errors.New("the server does not answer")
	}
	return serverHello(b[:n]), nil
}

// none stands for a server that chose nothing.
const none = "|||"

// The records and messages of TLS, RFC 8446.
const (
	recordAlert      = 21
	recordHandshake  = 22
	messageServer    = 2
	messageCert      = 11
	extensionALPN    = 16
	sessionIDLength  = 43 // where it stands in a record with a ServerHello
	serverHelloStart = 9  // where the version stands
)

// serverHello returns "cipher|version|ALPN|extensions" of a record: hex, hex,
// text, and the types in hex joined by hyphens in the server's order.
func serverHello(b []byte) string {
	if len(b) <= sessionIDLength || b[0] != recordHandshake || b[5] != messageServer {
		return none
	}
	id := int(b[sessionIDLength])
	if len(b) < id+46 {
		return none
	}
	start := hex.EncodeToString(b[id+44:id+46]) + "|" + hex.EncodeToString(b[serverHelloStart:serverHelloStart+2]) + "|"
	alpn, types, ok := helloExtensions(b, id)
	if !ok {
		return start + "|"
	}
	return start + alpn + "|" + types
}

func helloExtensions(b []byte, id int) (alpn, types string, ok bool) {
	at := id + 47
	if len(b) < at+2 || b[at] == messageCert || id+42 >= int(binary.BigEndian.Uint16(b[3:])) {
		return "", "", false
	}
	// Two servers answer with certificates where extensions belong; the original knows them by these bytes.
	if len(b) >= id+53 && bytes.Equal(b[id+50:id+53], []byte{0x0e, 0xac, 0x0b}) ||
		len(b) >= 85 && bytes.Equal(b[82:85], []byte{0x0f, 0xf0, 0x0b}) {
		return "", "", false
	}
	end := at + 2 + int(binary.BigEndian.Uint16(b[at:]))
	var names []string
	for at += 2; at < end-1; {
		if len(b) < at+4 {
			return "", "", false
		}
		typ, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		value := b[at+4 : min(at+4+n, len(b))]
		if typ == extensionALPN && alpn == "" && len(value) > 3 {
			alpn = string(value[3:])
		}
		names = append(names, fmt.Sprintf("%04x", typ))
		at += 4 + n
	}
	return alpn, strings.Join(names, "-"), true
}

// jarmHash returns the fingerprint of ten answers.
func jarmHash(chosen []string) string {
	var b, rest strings.Builder
	empty := true
	for _, c := range chosen {
		empty = empty && c == none
		cipher, c, _ := strings.Cut(c, "|")
		version, c, _ := strings.Cut(c, "|")
		alpn, extensions, _ := strings.Cut(c, "|")
		b.WriteString(cipherDigits(cipher))
		b.WriteByte(versionLetter(version))
		rest.WriteString(alpn)
		rest.WriteString(extensions)
	}
	if empty {
		return strings.Repeat("0", jarmLength)
	}
	sum := sha256.Sum256([]byte(rest.String()))
	return b.String() + hex.EncodeToString(sum[:16])
}

// cipherDigits returns the rank of a cipher, counted from 1, among those that
// are offered, in the order of JARM's table: by number, but TLS 1.3 last.
func cipherDigits(cipher string) string {
	if cipher == "" {
		return "00"
	}
	n, err := strconv.ParseUint(cipher, 16, 16)
	rank := 1
	for _, c := range ciphers() {
		if tls13(c) == tls13(uint16(n)) && c < uint16(n) || !tls13(c) && tls13(uint16(n)) {
			rank++
		}
	}
	if err != nil || !slices.Contains(ciphers(), uint16(n)) {
		rank = len(ciphers()) + 1
	}
	return fmt.Sprintf("%02x", rank)
}

func tls13(cipher uint16) bool { return cipher>>8 == 0x13 }

// versionLetter returns a to f for 0300 to 0305, 0 for none.
func versionLetter(version string) byte {
	if len(version) != 4 || version[3] < '0' || version[3] > '5' {
		return '0'
	}
	return 'a' + version[3] - '0'
}

// ciphers are those that the probes offer, in their order.
func ciphers() []uint16 {
	return []uint16{
		0x0016, 0x0033, 0x0067, 0xc09e, 0xc0a2, 0x009e, 0x0039, 0x006b, 0xc09f, 0xc0a3, 0x009f, 0x0045, 0x00be, 0x0088,
		0x00c4, 0x009a, 0xc008, 0xc009, 0xc023, 0xc0ac, 0xc0ae, 0xc02b, 0xc00a, 0xc024, 0xc0ad, 0xc0af, 0xc02c, 0xc072,
		0xc073, 0xcca9, 0x1302, 0x1301, 0xcc14, 0xc007, 0xc012, 0xc013, 0xc027, 0xc02f, 0xc014, 0xc028, 0xc030, 0xc060,
		0xc061, 0xc076, 0xc077, 0xcca8, 0x1305, 0x1304, 0x1303, 0xcc13, 0xc011, 0x000a, 0x002f, 0x003c, 0xc09c, 0xc0a0,
		0x009c, 0x0035, 0x003d, 0xc09d, 0xc0a1, 0x009d, 0x0041, 0x00ba, 0x0084, 0x00c0, 0x0007, 0x0004, 0x0005,
	}
}

// order is how a probe arranges what it offers.
type order uint8

const (
	forward order = iota
	backward
	topHalf    // the first half, backward
	bottomHalf // the second half
	middleOut  // from the middle to both ends
)

// arrange returns s in an order.
func arrange[T any](s []T, o order) []T {
	n := len(s)
	switch o {
	case backward:
		s = slices.Clone(s)
		slices.Reverse(s)
	case bottomHalf:
		s = s[(n+1)/2:]
	case topHalf: // the middle of an odd number belongs to it
		s = slices.Clone(s[:(n+1)/2])
		slices.Reverse(s)
	case middleOut:
		out := make([]T, 0, n)
		lower, upper := n/2-1, n/2
		if n%2 == 1 {
			out = append(out, s[n/2])
			upper++
		}
		for ; upper < n; lower, upper = lower-1, upper+1 {
			out = append(out, s[upper], s[lower])
		}
		s = out
	case forward:
	}
	return s
}

// probe is one of the ten ClientHellos.
type probe struct {
	version  uint16 // that it says to speak
	ciphers  order
	no13     bool   // without the ciphers of TLS 1.3
	grease   bool   // with values that mean nothing, RFC 8701
	rare     bool   // with application protocols that are seldom seen
	versions uint16 // the highest in the list of versions; 0: no list
	lists    order  // of the application protocols and the versions
}

const (
	tls10 = 0x0301
	tls11 = 0x0302
	tls12 = 0x0303
	tlsV3 = 0x0304
)

func probes() []probe {
	return []probe{
		{version: tls12, ciphers: forward, versions: tls12, lists: backward},
		{version: tls12, ciphers: backward, versions: tls12},
		{version: tls12, ciphers: topHalf},
		{version: tls12, ciphers: bottomHalf, rare: true},
		{version: tls12, ciphers: middleOut, grease: true, rare: true, lists: backward},
		{version: tls11, ciphers: forward},
		{version: tlsV3, ciphers: forward, versions: tlsV3, lists: backward},
		{version: tlsV3, ciphers: backward, versions: tlsV3},
		{version: tlsV3, ciphers: forward, no13: true, versions: tlsV3},
		{version: tlsV3, ciphers: middleOut, grease: true, versions: tlsV3, lists: backward},
	}
}

// hello returns the record of the ClientHello to a host, which is the text of
// its address as in the original. Chance goes into it from random.
func (p *probe) hello(host string, random io.Reader) ([]byte, error) {
	var chance [32 + 32 + 32 + 4]byte // random, session, key share, GREASE
	if _, err := io.ReadFull(random, chance[:]); err != nil {
		return nil, fmt.Errorf("making a hello: %w", err)
	}
	grease := func(i int) []byte { // 0x0a0a, 0x1a1a … 0xfafa
		if !p.grease {
			return nil
		}
		g := chance[96+i]&0xf0 | 0x0a
		return []byte{g, g}
	}
	list := ciphers()
	if p.no13 {
		list = slices.DeleteFunc(list, tls13)
	}
	suites := grease(0)
	for _, c := range arrange(list, p.ciphers) {
		suites = binary.BigEndian.AppendUint16(suites, c)
	}

	var ext []byte
	add := func(typ uint16, body ...[]byte) {
		ext = binary.BigEndian.AppendUint16(ext, typ)
		ext = append(ext, vector16(bytes.Join(body, nil))...)
	}
	if g := grease(1); g != nil {
		add(binary.BigEndian.Uint16(g))
	}
	add(0x0000, vector16([]byte{0}, vector16([]byte(host))))                      // server_name
	add(0x0017)                                                                   // extended_master_secret
	add(0x0001, []byte{1})                                                        // max_fragment_length
	add(0xff01, []byte{0})                                                        // renegotiation_info
	add(0x000a, vector16([]byte{0x00, 0x1d, 0x00, 0x17, 0x00, 0x18, 0x00, 0x19})) // supported_groups
	add(0x000b, []byte{1, 0})                                                     // ec_point_formats
	add(0x0023)                                                                   // session_ticket
	add(extensionALPN, vector16(bytes.Join(arrange(p.protocols(), p.lists), nil)))
	add(0x000d, vector16([]byte{4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1, 2, 1})) // signature_algorithms
	share := append([]byte{0x00, 0x1d}, vector16(chance[64:96])...)
	if g := grease(2); g != nil {
		share = slices.Concat(g, vector16([]byte{0}), share)
	}
	add(0x0033, vector16(share)) // key_share
	add(0x002d, []byte{1, 1})    // psk_key_exchange_modes
	if p.versions != 0 {
		var all [][]byte
		for v := uint16(tls10); v <= p.versions; v++ {
			all = append(all, binary.BigEndian.AppendUint16(nil, v))
		}
		versions := append(grease(3), bytes.Join(arrange(all, p.lists), nil)...)
		add(0x002b, []byte{byte(len(versions))}, versions) // supported_versions
	}

	outer, inner := p.version, p.version
	if p.version == tlsV3 { // RFC 8446 keeps it out of these two
		outer, inner = tls10, tls12
	}
	body := slices.Concat(
		binary.BigEndian.AppendUint16(nil, inner), chance[:32], []byte{32}, chance[32:64],
		vector16(suites), []byte{1, 0}, vector16(ext),
	)
	message := slices.Concat([]byte{1, 0}, vector16(body)) // a length of three bytes
	return slices.Concat(binary.BigEndian.AppendUint16([]byte{recordHandshake}, outer), vector16(message)), nil
}

// protocols are the application protocols that a probe offers, each with its
// length before it.
func (p *probe) protocols() [][]byte {
	var all [][]byte
	for _, name := range []string{"http/0.9", "http/1.0", "http/1.1", "spdy/1", "spdy/2", "spdy/3", "h2", "h2c", "hq"} {
		if p.rare && (name == "http/1.1" || name == "h2") {
			continue
		}
		all = append(all, append([]byte{byte(len(name))}, name...))
	}
	return all
}

// vector16 returns the parts with their length in two bytes before them.
func vector16(parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)
}
