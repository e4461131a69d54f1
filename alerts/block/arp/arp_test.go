package arp

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/slips-go/slips/alerts/block"
)

func TestMain(m *testing.M) {
	if child := os.Getenv(childEnv); child != "" {
		os.Exit(runChild(child))
	}
	goleak.VerifyTestMain(m)
}

// childEnv says what this program does as a child of a test.
const childEnv = "ARP_TEST_CHILD"

func runChild(what string) int {
	o := Options{
		Config: Defaults(), Interfaces: []string{"eth0"}, Network: network(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	var err error
	if o.Guard, err = block.NewGuard(block.Network{}, nil); err != nil {
		fmt.Println(err)
		return 1
	}
	if what == "open" {
		o.Interfaces = []string{os.Args[1]}
	}
	i, err := New(block.NewMemory(time.Now), o)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if err := i.Block(context.Background(), []block.Entry{{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Until: time.Now().Add(time.Hour)}}); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := i.Run(context.Background()); err != nil { // until it is killed
		fmt.Println(err)
	}
	return 1
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// The machines of the tests.
var (
	ownMAC      = MAC{2, 0xaa, 0, 0, 0, 9}
	gatewayMAC  = MAC{2, 0xaa, 0, 0, 0, 1}
	attackerMAC = MAC{2, 0xaa, 0, 0, 0, 0x66}
	printerMAC  = MAC{2, 0xaa, 0, 0, 0, 0x70}
)

// lan is a wire with machines that answer. It runs in a bubble of synctest.
type lan struct {
	mu     sync.Mutex
	hosts  map[netip.Addr]MAC
	view   view
	sent   [][]byte
	in     chan []byte
	ended  chan struct{}
	closed bool
	fail   error // of send and of dial
	dials  int
}

func newLAN() *lan {
	return &lan{
		hosts: map[netip.Addr]MAC{
			ip("192.0.2.1"): gatewayMAC, ip("192.0.2.66"): attackerMAC, ip("192.0.2.70"): printerMAC,
			ip("192.0.2.8"): {2, 0xaa, 0, 0, 0, 8}, // our other interface
		},
		view: view{mac: ownMAC, addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::9/64")}},
	}
}

func (w *lan) dial(string) (wire, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dials++; w.fail != nil {
		return nil, w.fail
	}
	w.in, w.ended, w.closed = make(chan []byte, 10_000), make(chan struct{}), false
	return w, nil
}

func (w *lan) send(b []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail != nil {
		return w.fail
	}
	w.sent = append(w.sent, slices.Clone(b))
	m, _ := parse(b)
	if mac, ok := w.hosts[m.tpa]; ok && m.op == opRequest && m.sha == ownMAC {
		w.in <- frame(m.sha, mac, message{opReply, mac, m.tpa, m.sha, m.spa})
	}
	return nil
}

func (w *lan) receive(b []byte) (int, error) {
	w.mu.Lock()
	in, ended := w.in, w.ended
	w.mu.Unlock()
	select {
	case f := <-in:
		return copy(b, f), nil
	case <-ended:
		return 0, os.ErrClosed
	}
}

func (w *lan) look() (view, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.fail
}

func (w *lan) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		close(w.ended)
	}
	w.closed = true
	return nil
}

// asks puts a broadcast question on the wire, as a machine does.
func (w *lan) asks(mac MAC, from, about string) {
	w.in <- ask(mac, ip(from), ip(about))
}

// took returns what was sent since the last call, without repetitions: who is
// told, that who is where. Questions are left out.
func (w *lan) took() (list []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.sent {
		m, ok := parse(append(append(slices.Clone(b[:6]), b[22:28]...), b[12:]...)) // the sender is us, and says so
		if !ok || b[0] == 0xff {
			continue
		}
		where := m.sha.String()
		for name, mac := range map[string]MAC{"gateway": gatewayMAC, "attacker": attackerMAC, "printer": printerMAC, "us": ownMAC} {
			if m.sha == mac {
				where = name
			}
		}
		if strings.HasPrefix(where, "02:") && m.sha[1] != 0xaa {
			where = "nowhere"
		}
		line := fmt.Sprintf("%v: %v is at %s", MAC(b[:6]), m.spa, where)
		if !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	w.sent = nil
	slices.Sort(list)
	return list
}

// frames returns how many frames that are no questions were sent since the
// last took.
func (w *lan) frames() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.sent {
		if b[0] != 0xff {
			n++
		}
	}
	return n
}

// questions returns how many questions were sent since the last took.
func (w *lan) questions() int {
	n := w.frames()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent) - n
}

func (w *lan) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func network() block.Network {
	return block.Network{
		Own: []netip.Addr{ip("192.0.2.9"), ip("192.0.2.8")}, Local: []netip.Prefix{netip.MustParsePrefix("192.0.2.9/24")},
		Gateways: []netip.Addr{ip("192.0.2.1"), ip("fe80::1"), ip("203.0.113.1")},
		DNS:      []netip.Addr{ip("192.0.2.53")}, DHCP: []netip.Addr{ip("192.0.2.67")},
	}
}

func allow(t testing.TB, list ...string) *block.Guard {
	t.Helper()
	allowed, err := block.Config{AllowList: list}.Allowed()
	if err != nil {
		t.Fatal(err)
	}
	g, err := block.NewGuard(block.Network{}, allowed)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// locked is a buffer that two goroutines use.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is an Isolator that runs in a bubble.
type bench struct {
	t     *testing.T
	i     *Isolator
	mem   *block.Memory
	w     *lan
	log   locked
	audit locked
	read  int // of audit
	stop  func()
}

func start(t *testing.T, change func(*lan, *Options)) *bench {
	t.Helper()
	b := &bench{t: t, mem: block.NewMemory(time.Now), w: newLAN()}
	o := Options{
		Config: Defaults(), Interfaces: []string{"eth0"}, Network: network(), Guard: allow(t, "192.0.2.200"), Audit: &b.audit,
		Log: slog.New(slog.NewTextHandler(&b.log, nil)), Now: time.Now,
	}
	if change != nil {
		change(b.w, &o)
	}
	i, err := open(b.mem, o, b.w.dial)
	if err != nil {
		t.Fatal(err)
	}
	b.i = i
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	b.stop = func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	synctest.Wait()
	return b
}

func (b *bench) block(d time.Duration, list ...string) {
	b.t.Helper()
	var entries []block.Entry
	for _, s := range list {
		p, err := block.ParsePrefix(s)
		if err != nil {
			b.t.Fatal(err)
		}
		entries = append(entries, block.Entry{Prefix: p, Until: time.Now().Add(d), Offences: 1, Alert: "a1"})
	}
	if err := b.i.Block(b.t.Context(), entries); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

// pass lets time pass.
func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// records returns what was written to the audit log since the last call.
func (b *bench) records() (list []string) {
	b.t.Helper()
	text := b.audit.String()
	for line := range strings.Lines(text[b.read:]) {
		var r block.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			b.t.Fatalf("%q: %v", line, err)
		}
		if r.Time.IsZero() {
			b.t.Errorf("%q has no time", line)
		}
		text := string(r.Action) + " " + r.Prefix + " " + r.Reason
		if r.DryRun {
			text += " (dry)"
		}
		list = append(list, text)
	}
	b.read = len(text)
	return list
}

func (b *bench) want(what string, got, want []string) {
	b.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		b.t.Errorf("%s (-want +got)\n%s", what, diff)
	}
}

// The lies that isolate the attacker from the gateway and from the printer,
// and the truth.
func lies() []string {
	return []string{
		"02:aa:00:00:00:01: 192.0.2.66 is at nowhere", "02:aa:00:00:00:66: 192.0.2.1 is at nowhere",
	}
}

func liesPrinter() []string {
	return []string{
		"02:aa:00:00:00:66: 192.0.2.70 is at nowhere", "02:aa:00:00:00:70: 192.0.2.66 is at nowhere",
	}
}

func truth() []string {
	return []string{
		"02:aa:00:00:00:01: 192.0.2.66 is at attacker", "02:aa:00:00:00:66: 192.0.2.1 is at gateway",
	}
}

func with(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return all
}

// TestIsolate follows an attacker from the block to its end.
func TestIsolate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.block(10*time.Minute, "192.0.2.66", "198.51.100.7")
		b.want("at once", b.w.took(), lies())
		nowhere := fake(ownMAC, ip("192.0.2.66"), 0)
		b.want("audit", b.records(), []string{
			"isolate 192.0.2.66 on eth0, at 02:aa:00:00:00:66, told as " + nowhere.String() + ", gateways [192.0.2.1]",
		})
		for _, d := range []time.Duration{250, 1100, 10_000, 10_000} { // ms
			b.pass(d*time.Millisecond - time.Millisecond)
			b.want("too early", b.w.took(), nil)
			b.pass(time.Millisecond)
			if n := b.w.frames(); n != 4 {
				t.Errorf("%d frames after %d ms, want 4", n, d)
			}
			b.want("again", b.w.took(), lies())
		}
		if got, err := b.i.List(t.Context()); err != nil || len(got) != 2 {
			t.Errorf("List: %v, %v", got, err)
		}
		b.pass(time.Minute)
		b.w.took()
		if s := b.i.Stats(); s.Isolated != 1 || s.Peers != 1 || s.Isolations != 1 || s.Refused[notLocal] != 1 || s.Failures != 0 {
			t.Errorf("stats %+v", s)
		}
		// The end that was told first is put off.
		b.block(20*time.Minute, "192.0.2.66")
		b.pass(19 * time.Minute)
		b.w.took()
		b.want("audit", b.records(), nil)
		b.pass(58*time.Second + 500*time.Millisecond)
		b.w.took()
		b.pass(time.Second + 500*time.Millisecond)
		b.want("the end", b.w.took(), truth())
		b.want("audit", b.records(), []string{"rejoin 192.0.2.66 the block has ended"})
		b.pass(500 * time.Millisecond)
		b.want("the truth", b.w.took(), truth())
		b.pass(time.Second)
		b.want("the truth", b.w.took(), truth())
		b.pass(time.Second)
		b.want("the truth", b.w.took(), truth())
		b.pass(time.Hour)
		b.want("then nothing", b.w.took(), nil)
		b.stop()
		b.want("at the end of the program", b.w.took(), nil)
		if s := b.i.Stats(); s.Isolated != 0 || s.Rejoined != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// TestOurs tells lies of ours from those of others, for a detection of them.
func TestOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		lie := tell(ownMAC, attackerMAC, ip("192.0.2.66"), ip("192.0.2.1"), fake(ownMAC, ip("192.0.2.66"), 0))[1]
		other := tell(attackerMAC, gatewayMAC, ip("192.0.2.1"), ip("192.0.2.66"), fake(ownMAC, ip("192.0.2.66"), 0))[1]
		answer := frame(fake(ownMAC, ip("192.0.2.66"), 0), gatewayMAC, message{opReply, gatewayMAC, ip("192.0.2.1"), fake(ownMAC, ip("192.0.2.66"), 0), ip("192.0.2.66")})
		check := func(when string, want bool) {
			t.Helper()
			if got := b.i.Ours(lie); got != want {
				t.Errorf("%s: a lie is ours: %v, want %v", when, got, want)
			}
			for what, f := range map[string][]byte{
				"a lie": lie, "an answer to it": answer, "what we ask": ask(ownMAC, ip("192.0.2.9"), ip("192.0.2.1")),
				"what the isolated host asks": ask(attackerMAC, ip("192.0.2.66"), ip("192.0.2.70")),
			} {
				if got := b.i.Involved(f); got != want {
					t.Errorf("%s: %s belongs to it: %v, want %v", when, what, got, want)
				}
			}
			if b.i.Involved(ask(gatewayMAC, ip("192.0.2.1"), ip("192.0.2.70"))) || b.i.Involved(nil) {
				t.Errorf("%s: what others say belongs to it", when)
			}
			for _, f := range [][]byte{other, lie[:41], nil, ask(ownMAC, ip("192.0.2.9"), ip("192.0.2.66"))} {
				if b.i.Ours(f) {
					t.Errorf("%s: %x is ours", when, f)
				}
			}
		}
		check("before", false)
		b.block(time.Minute, "192.0.2.66")
		check("isolated", true)
		b.pass(2 * time.Minute)
		check("after", false)
		b.stop()
	})
}

// TestRelease ends isolations in the other ways: by an operator, because the
// host must not be isolated any more, and because the program stops.
func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		single := netip.MustParsePrefix("192.0.2.66/32")
		again := func() {
			t.Helper()
			b.pass(time.Minute)
			b.w.took()
			b.block(time.Hour, "192.0.2.66")
			b.want("isolated", b.w.took(), lies())
			b.records()
		}
		again()
		if err := b.i.Unblock(t.Context(), []netip.Prefix{single}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want("unblocked", b.w.took(), truth())
		b.want("audit", b.records(), []string{"rejoin 192.0.2.66 the block has ended"})
		b.pass(time.Second)
		b.w.took()
		b.block(time.Hour, "192.0.2.66") // while the truth is still told
		b.want("isolated again", b.w.took(), lies())
		b.pass(5 * time.Second)
		b.want("and nothing else", b.w.took(), lies())
		b.records()

		n := network()
		n.DNS = append(n.DNS, ip("192.0.2.66"))
		if err := b.i.Protect(allow(t), n); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want("a server", b.w.took(), truth())
		b.want("audit", b.records(), []string{"rejoin 192.0.2.66 DNS server in use", "refuse 192.0.2.66 not isolated: DNS server in use"})
		b.pass(time.Minute)
		b.want("a server", b.w.took(), truth())
		if err := b.i.Protect(allow(t), network()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want("none any more", b.w.took(), lies())
		b.records()

		// The gateway is another machine by now. It is told the truth where it is.
		other := MAC{2, 0xaa, 0, 0, 0, 2}
		b.w.change(func() { b.w.hosts[ip("192.0.2.1")] = other })
		began := time.Now()
		b.stop()
		if d := time.Since(began); d != 2500*time.Millisecond {
			t.Errorf("Run ended after %v, want 2.5s", d)
		}
		got := b.w.took()
		for _, want := range []string{"02:aa:00:00:00:02: 192.0.2.66 is at attacker", "02:aa:00:00:00:66: 192.0.2.1 is at 02:aa:00:00:00:02"} {
			if !slices.Contains(got, want) {
				t.Errorf("%q was not told:\n%s", want, strings.Join(got, "\n"))
			}
		}
		b.want("audit", b.records(), []string{"rejoin 192.0.2.66 the program stops"})
	})
}

// TestRefuse asks for what must not be isolated.
func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(w *lan, o *Options) {
			w.hosts[ip("192.0.2.2")] = gatewayMAC
			w.hosts[ip("192.0.2.3")] = ownMAC
			w.hosts[ip("192.0.2.4")] = MAC{0, 0, 0x5e, 0, 1, 7}
			w.view.cached = map[netip.Addr]MAC{ip("192.0.2.5"): {1, 0, 0x5e, 0, 0, 1}, ip("192.0.2.6"): {0, 0, 0x0c, 0x9f, 0xf1, 2}}
			o.Config.Max = 2
		})
		b.block(time.Hour, "192.0.2.1", "192.0.2.9", "192.0.2.53", "192.0.2.67", "192.0.2.200", "192.0.2.0", "192.0.2.255", "192.0.2.64/28",
			"2001:db8::66", "2001:db9::66", "203.0.113.1", "127.0.0.1")
		b.block(time.Hour, "192.0.2.2")
		b.block(time.Hour, "192.0.2.3") // never answers in truth; the fake one does, and its answers are ours
		b.block(time.Hour, "192.0.2.4")
		b.pass(5 * time.Second)
		want := []string{
			"refuse 192.0.2.0 not isolated: address of a network", "refuse 192.0.2.1 not isolated: gateway",
			"refuse 192.0.2.2 not isolated: it has the gateway's hardware address (proxy ARP, or it poses as the gateway)",
			"fail 192.0.2.3 not isolated yet",
			"refuse 192.0.2.4 not isolated: it has a hardware address that routers share",
			"refuse 192.0.2.9 not isolated: own address", "refuse 192.0.2.53 not isolated: DNS server in use",
			"refuse 192.0.2.64/28 not isolated: a network, and hosts are isolated", "refuse 192.0.2.67 not isolated: DHCP server in use",
			"refuse 192.0.2.200 not isolated: allow-list", "refuse 192.0.2.255 not isolated: broadcast",
			"refuse 2001:db8::66 not isolated: IPv6, which does not use ARP",
		}
		got := b.records()
		slices.Sort(got)
		slices.Sort(want)
		b.want("audit", got, want)
		b.want("nobody was told anything", b.w.took(), nil)
		if s := b.i.Stats(); s.Refused[notLocal] != 3 || s.Refused["gateway"] != 1 || s.Isolated != 0 {
			t.Errorf("stats %+v", s)
		}
		b.pass(10 * time.Minute)
		b.want("said once", b.records(), nil)
		if err := b.i.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.3/32")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()

		b.block(time.Hour, "192.0.2.5", "192.0.2.6")
		got = b.records()
		b.want("by the neighbour table", got, []string{
			"refuse 192.0.2.5 not isolated: its hardware address is none of a host", "refuse 192.0.2.6 not isolated: it has a hardware address that routers share",
		})
		b.block(30*time.Minute, "192.0.2.66", "192.0.2.70")
		b.w.change(func() { b.w.hosts[ip("192.0.2.71")] = MAC{2, 0xaa, 0, 0, 0, 0x71} })
		b.block(time.Hour, "192.0.2.71")
		got = b.records()
		b.want("too many", got[len(got)-1:], []string{"refuse 192.0.2.71 not isolated: max is reached"})
		if s := b.i.Stats(); s.Isolated != 2 || s.Refused["max is reached"] != 1 {
			t.Errorf("stats %+v", s)
		}
		b.pass(31 * time.Minute)
		got = b.records()
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "isolate 192.0.2.71") }) {
			t.Errorf("no room was made: %q", got)
		}
		b.stop()
	})
}

// TestPeers tells those that the attacker has to do with, and nobody else.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		// What happens before is nobody's business.
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.70")
		b.pass(time.Minute)
		b.want("before", b.w.took(), nil)
		b.block(time.Hour, "192.0.2.66")
		b.pass(20 * time.Second)
		b.want("the gateway alone", b.w.took(), lies())

		// The attacker asks for the printer, for nobody, and for us.
		b.pass(time.Millisecond)
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.70")
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.99")
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.9")
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.8")
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.255")
		b.w.asks(attackerMAC, "0.0.0.0", "192.0.2.66")
		b.w.asks(printerMAC, "192.0.2.70", "192.0.2.71")
		synctest.Wait()
		b.want("at once", b.w.took(), liesPrinter())
		b.pass(20 * time.Second)
		b.want("both", b.w.took(), with(lies(), liesPrinter()))
		if s := b.i.Stats(); s.Peers != 2 {
			t.Errorf("stats %+v", s)
		}

		// The gateway asks for the attacker, thus tells it the truth.
		b.w.asks(gatewayMAC, "192.0.2.1", "192.0.2.66")
		synctest.Wait()
		b.want("the gateway asks", b.w.took(), lies())
		// Someone who asks all the time is not told more for it.
		for range 1000 {
			b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.1")
			b.pass(time.Millisecond)
		}
		if n := b.w.frames(); n > 11*4+4 {
			t.Errorf("%d frames in a second", n)
		}
		// It tells everybody where it is.
		b.pass(15 * time.Second)
		b.w.took()
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.66")
		synctest.Wait()
		b.want("announced", b.w.took(), with(lies(), liesPrinter()))

		if err := b.i.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.66/32")}); err != nil {
			t.Fatal(err)
		}
		b.pass(2600 * time.Millisecond)
		b.want("everybody who was told", b.w.took(), with(truth(), []string{
			"02:aa:00:00:00:66: 192.0.2.70 is at printer", "02:aa:00:00:00:70: 192.0.2.66 is at attacker",
		}))
		b.stop()
	})
}

// TestGateways isolates where this machine is the gateway itself, and not
// where the gateway's hardware address cannot be known.
func TestGateways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(_ *lan, o *Options) { o.Network.Gateways = []netip.Addr{ip("192.0.2.9"), ip("203.0.113.1")} })
		b.block(time.Hour, "192.0.2.66")
		b.want("nobody to tell yet", b.w.took(), nil)
		b.w.asks(printerMAC, "192.0.2.70", "192.0.2.66")
		synctest.Wait()
		b.want("a neighbour asks", b.w.took(), liesPrinter())
		n := network()
		if err := b.i.Protect(allow(t), n); err != nil {
			t.Fatal(err)
		}
		b.pass(time.Minute)
		b.want("a gateway is new", b.w.took(), with(lies(), liesPrinter()))
		b.stop()

		b = start(t, func(w *lan, _ *Options) { delete(w.hosts, ip("192.0.2.1")) })
		b.block(time.Hour, "192.0.2.70")
		b.pass(time.Minute)
		b.want("no gateway answers", b.records(), []string{"fail 192.0.2.70 not isolated yet"})
		b.want("and nobody is told", b.w.took(), nil)
		b.w.change(func() { b.w.hosts[ip("192.0.2.1")] = gatewayMAC })
		b.pass(time.Minute)
		if got := b.records(); len(got) != 1 || !strings.HasPrefix(got[0], "isolate 192.0.2.70") {
			t.Errorf("the gateway is back: %q", got)
		}
		b.stop()
	})
}

// TestScan has the attacker ask for every address there is.
func TestScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(w *lan, _ *Options) {
			w.view.addrs = []netip.Prefix{netip.MustParsePrefix("192.0.2.9/21")}
			for n := range 1000 {
				a := netip.AddrFrom4([4]byte{192, 0, byte(4 + n/250), byte(1 + n%250)})
				w.hosts[a] = MAC{2, 0xaa, 1, 0, byte(n >> 8), byte(n)}
			}
		})
		b.block(time.Hour, "192.0.2.66")
		for a := ip("192.0.0.1"); a.Less(ip("192.0.7.255")); a = a.Next() {
			b.w.asks(attackerMAC, "192.0.2.66", a.String())
			synctest.Wait()
		}
		if s := b.i.Stats(); s.Peers > maxPeers || s.Crowded == 0 {
			t.Errorf("at once: %+v", s)
		}
		b.pass(10 * time.Second) // those that do not exist make room
		for n := range 1000 {
			b.w.asks(attackerMAC, "192.0.2.66", netip.AddrFrom4([4]byte{192, 0, byte(4 + n/250), byte(1 + n%250)}).String())
			synctest.Wait()
		}
		if s := b.i.Stats(); s.Peers != maxPeers {
			t.Errorf("in the end: %+v", s)
		}
		// Questions are bounded: what nobody answers is not asked for without end.
		if n := b.w.questions(); n > askTries*(maxAsking+1000)+100 {
			t.Errorf("%d questions", n)
		}
		b.stop()
	})
}

// TestTwo isolates two hosts that talk with each other: the end of one is not
// the end of the other.
func TestTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.block(time.Hour, "192.0.2.66")
		b.block(2*time.Hour, "192.0.2.70")
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.70")
		synctest.Wait()
		b.pass(time.Hour - time.Second)
		b.w.took()
		b.pass(20 * time.Second)
		got := b.w.took()
		for _, not := range []string{"02:aa:00:00:00:66: 192.0.2.70 is at printer", "02:aa:00:00:00:70: 192.0.2.66 is at attacker"} {
			if slices.Contains(got, not) {
				t.Errorf("the other is isolated, and was told: %s", not)
			}
		}
		if !slices.Contains(got, "02:aa:00:00:00:01: 192.0.2.66 is at attacker") {
			t.Errorf("the gateway was not told:\n%s", strings.Join(got, "\n"))
		}
		b.pass(time.Hour + 10*time.Second)
		got = b.w.took()
		for _, want := range []string{"02:aa:00:00:00:66: 192.0.2.70 is at printer", "02:aa:00:00:00:70: 192.0.2.66 is at attacker"} {
			if !slices.Contains(got, want) {
				t.Errorf("not told in the end: %s", want)
			}
		}
		b.stop()
	})
}

// TestLearn believes answers to questions only, and no target about others.
func TestLearn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(w *lan, _ *Options) { delete(w.hosts, ip("192.0.2.66")) })
		b.block(24*time.Hour, "192.0.2.66")
		b.pass(5 * time.Second)
		b.want("nobody answers", b.records(), []string{"fail 192.0.2.66 not isolated yet"})
		b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = attackerMAC })
		b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.33") // it is there
		synctest.Wait()
		b.want("when it shows", b.w.took(), lies())
		b.records()
		for range 120 { // the attacker poses as the gateway, also while we ask
			b.w.in <- frame(ownMAC, attackerMAC, message{opReply, attackerMAC, ip("192.0.2.1"), ownMAC, ip("192.0.2.9")})
			b.pass(time.Second)
		}
		b.want("nothing but the lie", b.w.took(), lies())
		// Another machine takes the address: it is what is blocked.
		other := MAC{2, 0xaa, 0, 0, 0, 0x67}
		b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = other })
		b.w.asks(other, "192.0.2.66", "192.0.2.66")
		b.pass(react)
		if got := b.w.took(); !slices.Contains(got, "02:aa:00:00:00:67: 192.0.2.1 is at nowhere") {
			t.Errorf("the new one was not told:\n%s", strings.Join(got, "\n"))
		}
		if !strings.Contains(b.log.String(), "another hardware address") {
			t.Error(b.log.String())
		}
		// It changed again, and is asked at the end.
		b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = MAC{2, 0xaa, 0, 0, 0, 0x68} })
		b.stop()
		got := b.w.took()
		for _, want := range []string{"02:aa:00:00:00:01: 192.0.2.66 is at 02:aa:00:00:00:68", "02:aa:00:00:00:68: 192.0.2.1 is at gateway"} {
			if !slices.Contains(got, want) {
				t.Errorf("%q was not told:\n%s", want, strings.Join(got, "\n"))
			}
		}
	})
}

// TestSteer has an isolated attacker answer with the hardware address of a
// victim, so that we fool that one. The attacker is released, for it cannot be
// told from the victim, and the victim hears no lie.
func TestSteer(t *testing.T) {
	const gatewayToo = "it has the gateway's hardware address (proxy ARP, or it poses as the gateway)"
	const printerToo = "192.0.2.70 has its hardware address too"
	released := func(why string) []string {
		return []string{"rejoin 192.0.2.66 its hardware address has changed: " + why, "refuse 192.0.2.66 not isolated: " + why}
	}
	know := func(w *lan, _ *Options) { w.view.cached = map[netip.Addr]MAC{ip("192.0.2.70"): printerMAC} }
	for _, c := range []struct {
		name   string
		victim MAC
		change func(*lan, *Options)
		why    string
	}{
		{"gateway", gatewayMAC, nil, gatewayToo},
		{"in the neighbour table", printerMAC, know, printerToo},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t, c.change)
				b.block(24*time.Hour, "192.0.2.66")
				b.pass(30 * time.Second)
				b.w.took()
				b.records()
				b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = c.victim })
				b.pass(time.Minute)
				b.want("audit", b.records(), released(c.why))
				b.want("lies of before, and the truth", b.w.took(), with(lies(), truth()))
				b.pass(5 * time.Minute)
				b.want("then nothing", b.w.took(), nil)
				b.want("audit", b.records(), nil)
				b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = attackerMAC })
				b.pass(2 * time.Minute)
				b.want("it is itself again", b.w.took(), lies())
				b.stop()
			})
		})
	}
	t.Run("found out later", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, nil)
			b.block(24*time.Hour, "192.0.2.66")
			b.pass(2 * time.Second)
			b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = printerMAC })
			b.pass(2 * time.Minute)
			b.w.took()
			b.records()
			b.w.asks(attackerMAC, "192.0.2.66", "192.0.2.70") // so we ask too, and the printer answers
			b.pass(10 * time.Second)
			b.want("audit", b.records(), released(printerToo))
			got := b.w.took()
			for _, want := range with(truth(), []string{"02:aa:00:00:00:70: 192.0.2.1 is at gateway"}) {
				if !slices.Contains(got, want) {
					t.Errorf("%q was not told:\n%s", want, strings.Join(got, "\n"))
				}
			}
			b.pass(10 * time.Minute)
			b.want("then nothing", b.w.took(), nil)
			b.stop()
		})
	})
	t.Run("from the start", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, know)
			b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = printerMAC })
			b.block(24*time.Hour, "192.0.2.66")
			b.pass(10 * time.Minute)
			b.want("audit", b.records(), []string{"refuse 192.0.2.66 not isolated: " + printerToo})
			b.want("nobody was told", b.w.took(), nil)
			b.stop()
		})
	})
	// While the truth is told, everything is judged again.
	t.Run("judged again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, nil)
			b.block(24*time.Hour, "192.0.2.66")
			b.pass(2 * time.Second)
			b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = gatewayMAC })
			b.w.asks(gatewayMAC, "192.0.2.66", "192.0.2.66")
			synctest.Wait()
			b.want("audit", b.records()[1:], released(gatewayToo))
			b.w.took()
			if err := b.i.Protect(allow(t), network()); err != nil {
				t.Fatal(err)
			}
			b.pass(5 * time.Second)
			b.want("nothing but the truth", b.w.took(), truth())
			b.stop()
		})
	})
}

// TestRemembered isolates what the neighbour table still knows by the address
// of before, and a machine that is blocked by two addresses.
func TestRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, func(w *lan, _ *Options) {
			w.view.cached = map[netip.Addr]MAC{ip("192.0.2.65"): attackerMAC, ip("192.0.2.70"): attackerMAC}
		})
		b.block(time.Hour, "192.0.2.66") // nobody is at .65, and .70 is the printer
		b.w.took()
		b.pass(3 * time.Second)
		b.want("isolated", b.w.took(), lies())
		b.stop()

		b = start(t, func(w *lan, _ *Options) {
			w.hosts[ip("192.0.2.68")] = attackerMAC
			w.view.cached = map[netip.Addr]MAC{ip("192.0.2.66"): attackerMAC, ip("192.0.2.68"): attackerMAC}
		})
		b.block(time.Hour, "192.0.2.66", "192.0.2.68")
		b.pass(5 * time.Second)
		if s := b.i.Stats(); s.Isolated != 2 {
			t.Errorf("stats %+v: %q", s, b.records())
		}
		b.stop()
	})
}

// TestMoves follows a target to a few hardware addresses, and tells all of
// them the truth in the end.
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.block(24*time.Hour, "192.0.2.66")
		told := func() (macs []string) {
			for _, line := range b.w.took() {
				if mac, what, _ := strings.Cut(line, ": "); strings.HasPrefix(what, "192.0.2.1 ") {
					macs = append(macs, mac)
				}
			}
			return macs
		}
		told()
		for n := range byte(10) {
			mac := MAC{2, 0xaa, 0, 0, 2, n}
			b.w.change(func() { b.w.hosts[ip("192.0.2.66")] = mac })
			b.w.asks(mac, "192.0.2.66", "192.0.2.66")
			b.pass(time.Minute)
			if got := slices.Contains(told(), mac.String()); got != (n < maxMoves) {
				t.Errorf("move %d: the new address is told: %v", n+1, got)
			}
		}
		if n := strings.Count(b.log.String(), "another hardware address"); n != maxMoves {
			t.Errorf("said %d times, want %d", n, maxMoves)
		}
		b.stop()
		want := []string{attackerMAC.String()}
		for n := range byte(maxMoves) {
			want = append(want, MAC{2, 0xaa, 0, 0, 2, n}.String())
		}
		got := told()
		slices.Sort(got)
		slices.Sort(want)
		b.want("in the end", got, want)
	})
}

// TestRestart isolates what List finds.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.mem.Block(t.Context(), []block.Entry{{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Until: time.Now().Add(time.Hour), Alert: "of before"}})
		b.pass(time.Minute)
		b.want("nobody has looked", b.w.took(), nil)
		b.mem.Hook = func(op block.Op) error {
			if op.Name != "list" {
				return errors.New("no")
			}
			return nil
		}
		if _, err := b.i.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.want("found", b.w.took(), lies())
		// What the firewall did not do changes nothing.
		if err := b.i.Unblock(t.Context(), []netip.Prefix{netip.MustParsePrefix("192.0.2.66/32")}); err == nil {
			t.Error("no error")
		}
		if err := b.i.Block(t.Context(), []block.Entry{{Prefix: netip.MustParsePrefix("192.0.2.70/32"), Until: time.Now().Add(time.Hour)}}); err == nil {
			t.Error("no error")
		}
		b.pass(20 * time.Second)
		b.want("still", b.w.took(), lies())
		b.stop()
	})
}

// TestDryRun runs under a Manager that blocks nobody.
func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.stop() // another one, below
		var audit, log locked
		o := b.i.o
		o.Audit, o.Log = &audit, slog.New(slog.NewTextHandler(&log, nil))
		i, err := open(nil, o, b.w.dial)
		if err != nil {
			t.Fatal(err)
		}
		cfg := block.Defaults()
		cfg.DryRun = true
		m, err := block.NewManager(block.Options{Config: cfg, Blocker: i, Guard: allow(t), Log: o.Log, Now: time.Now, Audit: &audit})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- m.Run(ctx) }()
		go func() { done <- i.Run(ctx) }()
		m.Submit(block.Request{Prefix: netip.MustParsePrefix("192.0.2.66/32"), Window: time.Hour})
		b.pass(time.Minute)
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		b.want("nobody was told", b.w.took(), nil)
		if s := i.Stats(); s.Isolations != 1 || s.Frames == 0 {
			t.Errorf("stats %+v: want questions", s)
		}
		for _, want := range []string{"would have isolated", "would have blocked"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log has no %q", want)
			}
		}
		if n := strings.Count(audit.String(), `"dry_run":true`); n != 3 {
			t.Errorf("%d lines of a dry run, want 3: block, isolate, rejoin\n%s", n, &audit)
		}
	})
}

// TestWhoAsked has a block before what it leads to, though both are written by
// goroutines of their own, and names the operator as such.
func TestWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.block(time.Second, "192.0.2.66") // its hardware address is known from here on
		b.pass(10 * time.Second)
		b.stop()
		o := b.i.o
		var text locked
		log := block.NewLog(&text)
		o.Audit = log
		i, err := open(block.NewMemory(time.Now), o, b.w.dial)
		if err != nil {
			t.Fatal(err)
		}
		dawdle := func(block.Record) { // before the Manager writes; by the clock the Isolator could not be waited for, for it waits for a lock
			for range 1000 {
				runtime.Gosched()
			}
		}
		m, err := block.NewManager(block.Options{
			Config: block.Defaults(), Blocker: i, Guard: allow(t), Log: o.Log, Now: time.Now, Audit: log, Tell: dawdle,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- m.Run(ctx) }()
		go func() { done <- i.Run(ctx) }()
		for range 20 {
			req := block.Request{Prefix: netip.MustParsePrefix("192.0.2.66/32"), For: time.Hour, By: "root", Reason: "ticket"}
			if _, err := m.Block(t.Context(), req); err != nil {
				t.Error(err)
			}
			b.pass(5 * time.Second)
			if _, _, err := m.Unblock(t.Context(), "joe", "", req.Prefix); err != nil {
				t.Error(err)
			}
			b.pass(5 * time.Second)
		}
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
		var got []string
		for line := range strings.Lines(text.String()) {
			var r block.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(r.Action)+" "+r.Alert+"by "+r.By)
		}
		want := slices.Repeat([]string{"block by root", "isolate by root", "unblock by joe", "rejoin by root"}, 20)
		b.want("the log", got, want)
	})
}

// TestLost loses the interface for a while.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, nil)
		b.block(time.Hour, "192.0.2.66")
		b.w.took()
		b.w.change(func() { b.w.fail = errors.New("no such device"); close(b.w.ended); b.w.closed = true })
		b.pass(time.Minute)
		b.want("gone", b.w.took(), nil)
		b.w.change(func() { b.w.fail = nil })
		b.pass(21 * time.Second)
		b.want("back", b.w.took(), lies())
		if n := strings.Count(b.log.String(), "until it is back"); n < 1 || n > 2 {
			t.Errorf("said %d times\n%s", n, &b.log)
		}
		b.w.change(func() { b.w.fail = errors.New("no buffers") })
		b.pass(30 * time.Second)
		b.w.change(func() { b.w.fail = nil })
		if n := strings.Count(b.log.String(), "was not sent"); n != 1 {
			t.Errorf("said %d times\n%s", n, &b.log)
		}
		b.stop()
		b.want("in the end", b.w.took(), truth())
	})
}

// BenchmarkOurs is what a capture pays for each frame.
func BenchmarkOurs(b *testing.B) {
	i := &Isolator{}
	told := make(map[MAC]MAC)
	for n := range byte(16) {
		told[fake(ownMAC, ip("192.0.2.66"), n)] = ownMAC
	}
	i.affair.Store(&affair{fakes: told})
	other := make([]byte, 1500) // most are no ARP
	other[12] = 8
	for _, c := range []struct {
		name  string
		frame []byte
		want  bool
	}{{"other", other, false}, {"arp", ask(ownMAC, ip("192.0.2.9"), ip("192.0.2.66")), false}, {"ours", tell(ownMAC, attackerMAC, ip("192.0.2.66"), ip("192.0.2.1"), fake(ownMAC, ip("192.0.2.66"), 3))[0], true}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if i.Ours(c.frame) != c.want {
					b.Fatal(c.name)
				}
			}
		})
	}
}

// BenchmarkStep looks at as many targets and pairs as there can be by default,
// which a frame of ARP makes happen, when nothing is due.
func BenchmarkStep(b *testing.B) {
	o := Options{Config: Defaults(), Interfaces: []string{"eth0"}, Guard: allow(b), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	w := newLAN()
	i, err := open(block.NewMemory(time.Now), o, w.dial)
	if err != nil {
		b.Fatal(err)
	}
	defer i.Close()
	now := time.Now()
	l := &loop{Isolator: i, targets: make(map[netip.Addr]*target), look: now.Add(time.Hour)}
	for n := range o.Config.Max {
		t := &target{
			addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + n)}), port: i.ports[0], state: isolated, mac: attackerMAC, macs: []MAC{attackerMAC},
			entry: block.Entry{Until: now.Add(time.Hour)}, next: now.Add(time.Hour), peers: make(map[netip.Addr]*pair),
		}
		l.targets[t.addr] = t
		for k := range maxPeers {
			a := netip.AddrFrom4([4]byte{192, 0, 3, byte(k)})
			i.ports[0].hosts[a] = &host{mac: printerMAC, known: true}
			t.peers[a] = &pair{addr: a, next: now.Add(time.Hour)}
		}
	}
	for b.Loop() {
		l.step(now)
	}
}

func TestOpen(t *testing.T) {
	w := newLAN()
	o := Options{Config: Defaults(), Interfaces: []string{"eth0"}, Guard: allow(t), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	try := func(what, want string, o Options, dial func(string) (wire, error)) {
		t.Helper()
		if i, err := open(nil, o, dial); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
			if i != nil {
				i.Close()
			}
		}
	}
	bad := o
	bad.Config.Every = 0
	try("no interval", "every is 0s", bad, w.dial)
	bad = o
	bad.Config.Max = 0
	try("none", "max is 0", bad, w.dial)
	bad = o
	bad.Guard = nil
	try("no guard", "needs a guard", bad, w.dial)
	try("a tunnel", "no interface to work on", o, func(string) (wire, error) { return nil, errNoARP })
	try("not allowed", `on "eth0": no permission`, o, func(string) (wire, error) { return nil, block.ErrPermission })
	i, err := open(nil, o, w.dial)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil || !w.closed {
		t.Errorf("Close: %v, closed %v", err, w.closed)
	}
}

// TestFrames compares frames with what RFC 826 says, written by hand.
func TestFrames(t *testing.T) {
	hexOf := func(b []byte) string { return hex.EncodeToString(b) }
	lie := MAC{2, 1, 2, 3, 4, 5}
	got := tell(ownMAC, attackerMAC, ip("192.0.2.66"), ip("192.0.2.1"), lie)
	want := []string{
		"02aa00000066" + "02aa00000009" + "0806" + "0001" + "0800" + "06" + "04" + "0001" + "020102030405" + "c0000201" + "000000000000" + "c0000242",
		"02aa00000066" + "02aa00000009" + "0806" + "0001" + "0800" + "06" + "04" + "0002" + "020102030405" + "c0000201" + "02aa00000066" + "c0000242",
	}
	for i := range want {
		if hexOf(got[i]) != want[i] {
			t.Errorf("frame %d\n%s, want\n%s", i, hexOf(got[i]), want[i])
		}
	}
	question := hexOf(ask(ownMAC, ip("192.0.2.9"), ip("192.0.2.66")))
	if want := "ffffffffffff" + "02aa00000009" + "0806" + "0001" + "0800" + "06" + "04" + "0001" + "02aa00000009" + "c0000209" + "000000000000" + "c0000242"; question != want {
		t.Errorf("question\n%s, want\n%s", question, want)
	}
	if m := fake(ownMAC, ip("192.0.2.66"), 0); m[0] != 2 || m == fake(ownMAC, ip("192.0.2.67"), 0) || m == fake(ownMAC, ip("192.0.2.66"), 1) || m != fake(ownMAC, ip("192.0.2.66"), 0) {
		t.Errorf("a fake address is %v", m)
	}
}

// FuzzParse reads anything; what it takes is written the same.
func FuzzParse(f *testing.F) {
	f.Add(ask(ownMAC, ip("192.0.2.9"), ip("192.0.2.66")))
	f.Add(append(tell(ownMAC, attackerMAC, ip("192.0.2.66"), ip("192.0.2.1"), ownMAC)[0], make([]byte, 18)...))
	f.Add(tell(ownMAC, attackerMAC, ip("192.0.2.66"), ip("192.0.2.1"), printerMAC)[0][:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, ok := parse(b)
		if !ok {
			return
		}
		if again := frame(MAC(b[:6]), MAC(b[6:12]), m); !bytes.Equal(again, b[:frameLen]) {
			t.Errorf("%x is read as %+v and written as %x", b, m, again)
		}
		if !m.sha.host() || m.sha != MAC(b[6:12]) {
			t.Errorf("%x is from %v", b, m.sha)
		}
	})
}
