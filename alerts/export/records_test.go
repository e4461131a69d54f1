package export

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// conn is a connection some seconds after the start, as the sequencer hands
// it on from a single log.
func conn(src, dst string, sec int64) *flow.Flow {
	at := start + sec*int64(time.Second)
	return &flow.Flow{
		Time: at, Own: at, At: at, UID: fmt.Sprint("C", sec), Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), SrcPort: 4000, DstPort: 80,
		HasPorts: true, Proto: flow.TCP, State: flow.Established, Duration: 5e7, OrigBytes: 50, RespBytes: 100,
	}
}

// win is the window a record starts in.
func win(f *flow.Flow) profile.Window { return profile.WindowOf(f.Time, start, hour) }

func writeLetters(t *testing.T, o Options, flows ...*flow.Flow) string {
	t.Helper()
	o.Letters = true
	d := create(t, t.TempDir(), o)
	for _, f := range flows {
		must(t, d.Letters().Flow(f, win(f)))
	}
	closeDir(t, d)
	return read(t, d.Path(lettersFile))
}

// Rows are in the order of windows and of first flows, and what is no whole
// connection between two hosts has none.
func TestLetters(t *testing.T) {
	other := conn("10.0.0.1", "192.0.2.2", 30)
	other.Proto, other.HasPorts, other.DstPort = flow.ProtoUnknown, false, 0
	dns, open, nobody := conn("10.0.0.1", "192.0.2.1", 31), conn("10.0.0.1", "192.0.2.1", 32), conn("10.0.0.1", "192.0.2.1", 33)
	dns.Kind, open.Open, nobody.Dst = flow.DNS, true, netip.Addr{}
	self := conn("10.0.0.1", "10.0.0.1", 34)
	v6 := conn("fe80::1%e\tth", "2001:db8::1", 35)
	flows := []*flow.Flow{
		conn("10.0.0.2", "192.0.2.1", 3700), conn("10.0.0.1", "192.0.2.1", 0), conn("10.0.0.1", "192.0.2.1", 10), other, dns, open, nobody,
		self, v6, conn("10.0.0.1", "192.0.2.1", 20), conn("10.0.0.1", "192.0.2.1", 30), conn("10.0.0.1", "192.0.2.1", 3600),
	}
	want := `Outtuple	Letters
10.0.0.1-192.0.2.1-80-tcp-timewindow1	11a,a,
10.0.0.1-192.0.2.2-0-unknown-timewindow1	1
10.0.0.1-10.0.0.1-80-tcp-timewindow1	1
fe80::1%e\x09th-2001:db8::1-80-tcp-timewindow1	1
10.0.0.2-192.0.2.1-80-tcp-timewindow2	1
10.0.0.1-192.0.2.1-80-tcp-timewindow2	1
`
	if d := cmp.Diff(want, writeLetters(t, Options{}, flows...)); d != "" {
		t.Error(d)
	}
	both := `Outtuple	Letters
10.0.0.1-192.0.2.1-80-tcp-timewindow1	11a,a,
192.0.2.1-10.0.0.1-80-tcp-timewindow1-in	11a,a,
10.0.0.1-10.0.0.1-80-tcp-timewindow1	1
`
	var few []*flow.Flow
	for _, f := range flows[1:] {
		if f.Dst == netip.MustParseAddr("192.0.2.1") && f.Time < start+hour || f == self {
			few = append(few, f)
		}
	}
	if d := cmp.Diff(both, writeLetters(t, Options{Both: true}, few...)); d != "" {
		t.Error(d)
	}
}

// A window is written once the connections have reached the third behind it,
// and a record that is later begins a row of its own.
func TestLettersWaitForTheirWindow(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true})
	w := d.Letters()
	write := func(sec, clock int64) string {
		t.Helper()
		f := conn("10.0.0.1", "192.0.2.1", sec)
		f.Own = start + clock*int64(time.Second)
		must(t, w.Flow(f, win(f)))
		must(t, w.Flush())
		return strings.ReplaceAll(strings.TrimPrefix(read(t, d.Path(lettersFile)), lettersHeader), "10.0.0.1-192.0.2.1-80-tcp-timewindow", "")
	}
	for _, c := range []struct {
		sec, clock int64
		want       string
	}{
		{0, 0, ""},
		{10, 10, ""},
		{10799, 10799, ""},          // the end of the third window
		{20, 10799, ""},             // late, but not too late
		{10800, 10800, "1\t11a,\n"}, // the fourth begins
		{30, 10900, "1\t11a,\n"},
		{40, 10901, "1\t11a,\n"},
		{14400, 14400, "1\t11a,\n1\t11\n"}, // with window 2 there would be something to write too
	} {
		if got := write(c.sec, c.clock); got != c.want {
			t.Errorf("behind the record of %d: %q, want %q", c.sec, got, c.want)
		}
	}
	if s := w.Stats(); s.Tuples != 2 || s.Pending != 3 || s.Flows != 8 {
		t.Errorf("stats %+v", s)
	}
	must(t, w.Finish())
	closeDir(t, d)
	if s := w.Stats(); s.Tuples != 5 || s.Pending != 0 {
		t.Errorf("stats %+v", s)
	}
}

// The widest window does not overflow and closes at the end.
func TestLettersInOneWindow(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true})
	const width = int64(200 * 365 * 24 * time.Hour)
	for _, at := range []int64{start, 0, flow.MaxTime} {
		f := conn("10.0.0.1", "192.0.2.1", 0)
		f.Time, f.Own = at, at
		must(t, d.Letters().Flow(f, profile.WindowOf(at, start-width/2, width)))
	}
	if s := d.Letters().Stats(); s.Pending != 1 {
		t.Errorf("stats %+v", s)
	}
	closeDir(t, d)
	if got := read(t, d.Path(lettersFile)); strings.Count(got, "\n") != 2 {
		t.Errorf("written: %.200s", got)
	}
}

func TestLettersBounds(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true})
	w := d.Letters()
	w.max.tuples, w.max.symbols, w.max.bytes = 3, 5, 100
	for i, f := range []*flow.Flow{
		conn("10.0.0.1", "192.0.2.1", 3600), conn("10.0.0.1", "192.0.2.1", 0), conn("10.0.0.1", "192.0.2.1", 10),
		conn("10.0.0.1", "192.0.2.1", 20),   // "11a,"
		conn("10.0.0.1", "192.0.2.1", 30),   // would be "11a,a,": does not fit
		conn("10.0.0.1", "192.0.2.1", 30),   // "a" would fit, and would leave a hole
		conn("10.0.0.1", "192.0.2.2", 40),   // the third tuple
		conn("10.0.0.1", "192.0.2.3", 3650), // makes room
	} {
		if err := w.Flow(f, win(f)); err != nil {
			t.Fatal(i, err)
		}
	}
	must(t, w.Flush())
	want := lettersHeader + "10.0.0.1-192.0.2.1-80-tcp-timewindow1\t11a,\n10.0.0.1-192.0.2.2-80-tcp-timewindow1\t1\n"
	if d := cmp.Diff(want, read(t, d.Path(lettersFile))); d != "" {
		t.Error(d)
	}
	if s := w.Stats(); s.ClosedEarly != 1 || s.Dropped != 2 || s.Pending != 2 || w.tuples != 2 || w.bytes != 2 {
		t.Errorf("stats %+v, %d tuples, %d bytes", s, w.tuples, w.bytes)
	}
	w.max.bytes = 2
	f := conn("10.0.0.1", "192.0.2.3", 3660)
	must(t, w.Flow(f, win(f)))
	if s := w.Stats(); s.ClosedEarly != 2 || w.tuples != 1 || w.bytes != 1 {
		t.Errorf("stats %+v, %d tuples, %d bytes", s, w.tuples, w.bytes)
	}
	closeDir(t, d)
}

// script of connections and other records for the tests of restarts.
func recordScript(seed uint64, n int) []*flow.Flow {
	rnd := rand.New(rand.NewPCG(seed, 5))
	var flows []*flow.Flow
	clock := int64(0)
	for i := range n {
		clock += rnd.Int64N(200)
		f := conn(fmt.Sprint("10.0.0.", rnd.IntN(3)), fmt.Sprint("192.0.2.", rnd.IntN(3)), max(0, clock-rnd.Int64N(2)*rnd.Int64N(20_000)))
		f.Own, f.UID = start+clock*int64(time.Second), fmt.Sprint("C", i)
		f.Duration, f.OrigBytes = rnd.Int64N(20e9), rnd.Int64N(2000)
		if rnd.IntN(4) == 0 {
			f.Kind, f.Service = flow.ARP, strings.Repeat("x", rnd.IntN(600))
			f.Parts = &flow.Parts{ARP: &flow.ARPPart{Operation: strings.Repeat("y", rnd.IntN(600))}}
		}
		flows = append(flows, f)
	}
	return flows
}

// TestRecordsSurviveRestart: stopped cleanly or killed at any point, letters
// and timeline come out the same.
func TestRecordsSurviveRestart(t *testing.T) {
	o := Options{Letters: true, Timeline: true, Both: true}
	write := func(d *Dir, flows []*flow.Flow) {
		for _, f := range flows {
			must(t, d.Letters().Flow(f, win(f)))
			must(t, d.Timeline().Flow(f, win(f)))
		}
		must(t, d.Flush())
	}
	flows := recordScript(1, 600)
	ref := create(t, t.TempDir(), o)
	write(ref, flows)
	closeDir(t, ref)
	files := []string{lettersFile, TimelineFile}
	if s := ref.Letters().Stats(); s.Tuples < 100 || s.Flows < 400 {
		t.Fatalf("the script does not try enough: %+v", s)
	}
	rnd := rand.New(rand.NewPCG(3, 9))
	for round := range 40 {
		path := t.TempDir()
		d := create(t, path, o)
		var marks map[string]int64
		var state []byte
		saved, at := 0, 0
		for at < len(flows) {
			next := min(len(flows), at+rnd.IntN(150))
			write(d, flows[at:next])
			at = next
			switch rnd.IntN(3) {
			case 0:
				m, err := d.Marks()
				must(t, err)
				var b bytes.Buffer
				must(t, d.Letters().Save(gob.NewEncoder(&b)))
				marks, state, saved = maps.Clone(m), b.Bytes(), at
			case 1:
				clean := rnd.IntN(2) == 0
				if clean || rnd.IntN(2) == 0 {
					closeDir(t, d)
				} else {
					must(t, d.lock.Close()) // killed
				}
				for _, name := range files {
					if p := filepath.Join(path, name); !clean {
						must(t, os.Truncate(p, marks[name]+rnd.Int64N(int64(len(read(t, p)))-marks[name]+1)))
					}
				}
				o := o
				o.Mode = Continue
				d = create(t, path, o)
				must(t, d.Resume(marks, clean))
				if state != nil {
					must(t, d.Letters().Load(gob.NewDecoder(bytes.NewReader(state))))
				}
				at = saved
			}
		}
		closeDir(t, d)
		for _, name := range files {
			if diff := cmp.Diff(read(t, ref.Path(name)), read(t, filepath.Join(path, name))); diff != "" {
				t.Fatalf("round %d: %s (-want +got):\n%.1500s", round, name, diff)
			}
		}
		if diff := cmp.Diff(ref.Letters().Stats(), d.Letters().Stats()); diff != "" {
			t.Fatalf("round %d: stats (-want +got):\n%s", round, diff)
		}
	}
}

func TestLettersLoadRefusesGarbage(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true})
	defer closeDir(t, d)
	if err := d.Letters().Load(gob.NewDecoder(strings.NewReader("garbage"))); err == nil || !strings.Contains(err.Error(), "load letters") {
		t.Errorf("error is %v", err)
	}
}

func TestRecordsDiskFull(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true, Timeline: true})
	full(t, d.Letters().out)
	full(t, d.Timeline().out)
	f := conn("10.0.0.1", "192.0.2.1", 0)
	must(t, d.Letters().Flow(f, win(f)))
	must(t, d.Letters().Finish()) // into the buffer
	must(t, d.Timeline().Flow(f, win(f)))
	var we *WriteError
	if err := d.Flush(); !errors.As(err, &we) || d.Lost() != 3 { // header, row, activity
		t.Errorf("error %v, lost %d", err, d.Lost())
	}
	if err := d.Timeline().Flow(f, win(f)); !errors.As(err, &we) {
		t.Errorf("the error is not sticky: %v", err)
	}
	if err := d.Letters().Flow(f, win(f)); !errors.As(err, &we) {
		t.Errorf("the error is not sticky: %v", err)
	}
	if err := d.Err(); !errors.As(err, &we) {
		t.Errorf("Err says %v", err)
	}
	if err := d.Close(); !errors.As(err, &we) {
		t.Errorf("Close says %v", err)
	}
}

// An earlier run's files go with --overwrite.
func TestRecordsOverwritten(t *testing.T) {
	path := t.TempDir()
	o := Options{Letters: true, Timeline: true}
	d := create(t, path, o)
	f := conn("10.0.0.1", "192.0.2.1", 0)
	must(t, d.Letters().Flow(f, win(f)))
	must(t, d.Timeline().Flow(f, win(f)))
	closeDir(t, d)
	closeDir(t, create(t, path, Options{Mode: Overwrite}))
	for _, name := range []string{lettersFile, TimelineFile} {
		if _, err := os.Stat(d.Path(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}

// TestRecordsConcurrently is for the race detector: the sequencer writes while
// the collector looks.
func TestRecordsConcurrently(t *testing.T) {
	d := create(t, t.TempDir(), Options{Letters: true, Timeline: true})
	flows := recordScript(2, 2000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, f := range flows {
			if err := errors.Join(d.Letters().Flow(f, win(f)), d.Timeline().Flow(f, win(f))); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		must(t, d.Flush())
		_, err := d.Marks()
		must(t, err)
		var b bytes.Buffer
		must(t, d.Letters().Save(gob.NewEncoder(&b)))
		if d.Lost() != 0 || d.Err() != nil || d.Letters().Stats().Lost != 0 {
			t.Error("something was lost")
		}
	}
	wg.Wait()
	closeDir(t, d)
	if n := strings.Count(read(t, d.Path(TimelineFile)), "\n"); n != len(flows) {
		t.Errorf("%d activities of %d records", n, len(flows))
	}
}

// timeline returns what is written of records, without what comes before the kind.
func timeline(t *testing.T, both bool, flows ...*flow.Flow) []string {
	t.Helper()
	d := create(t, t.TempDir(), Options{Timeline: true, Both: both})
	for _, f := range flows {
		must(t, d.Timeline().Flow(f, window(1)))
	}
	closeDir(t, d)
	var out []string
	for line := range strings.Lines(read(t, d.Path(TimelineFile))) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
		_, rest, _ := strings.Cut(line, `"kind":`)
		out = append(out, strings.TrimSuffix(rest, "\n"))
	}
	return out
}

func TestTimelineLine(t *testing.T) {
	d := create(t, t.TempDir(), Options{Timeline: true})
	must(t, d.Timeline().Flow(conn("10.0.0.1", "2001:db8::1", 0), window(1)))
	must(t, d.Timeline().Flow(&flow.Flow{Time: start}, window(-2)))
	closeDir(t, d)
	want := `{"profile":"10.0.0.1","window":1,"ts":"2023-11-14T22:13:20.000000000Z","uid":"C0","kind":"conn","dport_name":"HTTP","preposition":"to",` +
		`"daddr":"2001:db8::1","dport/proto":"80/tcp","state":"Established","sent":50,"recv":100,"tot":150,"duration":0.050}
{"profile":null,"window":-2,"ts":"2023-11-14T22:13:20.000000000Z","kind":"conn","dport_name":"????",` +
		`"warning":"protocol not recognised; No data exchange!","sent":0,"recv":0,"tot":0,"duration":0.000}
`
	if d := cmp.Diff(want, read(t, d.Path(TimelineFile))); d != "" {
		t.Error(d)
	}
}

// What is told of each sort of connection.
func TestTimelineConnections(t *testing.T) {
	change := func(change func(*flow.Flow)) *flow.Flow {
		f := conn("10.0.0.1", "192.0.2.1", 0)
		change(f)
		return f
	}
	for want, f := range map[string]*flow.Flow{
		`"dport_name":"SSL,HTTP"`: change(func(f *flow.Flow) { f.Service = "ssl,http" }),
		`"dport_name":"DOMAIN","preposition":"to","daddr":"192.0.2.1","dport/proto":"53/udp"`: change(func(f *flow.Flow) { f.Proto, f.DstPort = flow.UDP, 53 }),
		`"dport_name":"????"`:                        change(func(f *flow.Flow) { f.DstPort = 61000 }),
		`"warning":"protocol not recognised","sent"`: change(func(f *flow.Flow) { f.DstPort = 0 }),
		`"warning":"No data exchange!"`:              change(func(f *flow.Flow) { f.OrigBytes, f.RespBytes = 0, 0 }),
		`"duration":1.235`:                           change(func(f *flow.Flow) { f.Duration = 1_234_500_000 }),
		`"dport_name":"ICMP","preposition":"to","daddr":"192.0.2.1","dport/proto":"icmp","state":"Established","sent":50,"recv":100,"tot":150,"duration":0.050,"info":{"message":"echo"}}`: change(
			func(f *flow.Flow) { f.Proto, f.SrcPort, f.DstPort = flow.ICMP, 8, 0 }),
		`"info":{"message":"port unreachable"}`: change(func(f *flow.Flow) { f.Proto, f.SrcPort, f.DstPort = flow.ICMP, 3, 3 }),
		`"info":{"message":"time exceeded"}`:    change(func(f *flow.Flow) { f.Proto, f.SrcPort, f.DstPort = flow.ICMP6, 3, 0 }),
		`"info":{"message":"neighbour solicitation"}`: change(func(f *flow.Flow) {
			f.Proto, f.SrcPort, f.DstPort, f.Src = flow.ICMP, 135, 0, netip.MustParseAddr("fe80::1")
		}),
		`"info":{"message":"type 99"}`:          change(func(f *flow.Flow) { f.Proto, f.SrcPort, f.DstPort = flow.ICMP, 99, 0 }),
		`"info":{"message":"host unreachable"}`: change(func(f *flow.Flow) { f.Proto, f.HasPorts, f.State = flow.ICMP, false, flow.ICMPHostUnreachable }),
		`"dport_name":"IGMP","preposition":"to","daddr":"192.0.2.1","dport/proto":"igmp","state":"Established","sent":0`: change(func(f *flow.Flow) {
			f.Proto, f.HasPorts, f.DstPort, f.OrigBytes, f.RespBytes = flow.IGMP, false, 0, 0, 0
		}),
		`"info":{"open":"yes"}`: change(func(f *flow.Flow) { f.Open = true }),
		`"sent":9223372036854775807,"recv":100,"tot":9223372036854775807`: change(func(f *flow.Flow) { f.OrigBytes = math.MaxInt64 }),
	} {
		if got := timeline(t, false, f)[0]; !strings.Contains(got, want) {
			t.Errorf("%s does not have %s", got, want)
		}
	}
	both := timeline(t, true, conn("10.0.0.1", "192.0.2.1", 0), conn("10.0.0.1", "10.0.0.1", 0))
	if len(both) != 3 || !strings.Contains(both[1], `"preposition":"from","daddr":"10.0.0.1","dport/proto":"80/tcp","state":"Established","sent":100,"recv":50,`) {
		t.Errorf("both sides: %s", both)
	}
}

// What is told of records of other kinds.
func TestTimelineInfo(t *testing.T) {
	yes, no := flow.True, flow.False
	for _, c := range []struct {
		kind flow.Kind
		part flow.Parts
		want string
	}{
		{flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "a.example", QType: "A", RCode: "NOERROR", Answers: []string{"b.example", "192.0.2.9"}}}, `{"query":"a.example","type":"A","answers":["b.example","192.0.2.9"]}`},
		{flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "a.example", RCode: "NXDOMAIN"}}, `{"query":"a.example","rcode":"NXDOMAIN"}`},
		{
			flow.HTTP,
			flow.Parts{HTTP: &flow.HTTPPart{Method: "GET", Host: "a.example", URI: "/x", Version: "1.1", StatusCode: 404, StatusMsg: "Not Found", RespMIMETypes: []string{"text/html"}, UserAgent: "curl\x1b", ResponseLen: 9}},
			`{"request":"GET http://a.example/x HTTP/1.1","status":"404 Not Found","mime":["text/html"],"user_agent":"curl\u001b","recv":9}`,
		},
		{flow.HTTP, flow.Parts{HTTP: &flow.HTTPPart{Method: "CONNECT", Host: "a.example", URI: "a.example:443", Version: "HTTP/1.1"}}, `{"request":"CONNECT a.example:443 HTTP/1.1"}`},
		{
			flow.SSL,
			flow.Parts{SSL: &flow.SSLPart{Subject: "CN=a.example,O=A", Validation: "OK", Resumed: no, Established: yes, Version: "TLSv12", ServerName: "a.example"}},
			`{"sni":"a.example","subject":"CN=a.example","trusted":"yes","resumed":"no","established":"yes","version":"TLSv12"}`,
		},
		{flow.QUIC, flow.Parts{SSL: &flow.SSLPart{Validation: "certificate has expired"}}, `{"trusted":"no","validation":"certificate has expired"}`},
		{flow.SSL, flow.Parts{SSL: &flow.SSLPart{}}, `{"trusted":"??"}`},
		{flow.SSH, flow.Parts{SSH: &flow.SSHPart{AuthSuccess: yes, AuthAttempts: 2, Client: "c", Server: "s"}}, `{"login":"successful","attempts":2,"client":"c","server":"s"}`},
		{flow.SSH, flow.Parts{SSH: &flow.SSHPart{AuthAttempts: -1}}, `{"login":"??"}`},
		{flow.FTP, flow.Parts{FTP: &flow.FTPPart{User: "u", Command: "RETR", Arg: "x", ReplyCode: 226, ReplyMsg: "done"}}, `{"user":"u","command":"RETR x","reply":"226 done"}`},
		{flow.SMTP, flow.Parts{SMTP: &flow.SMTPPart{MailFrom: "a", RcptTo: []string{"b", "c"}, Subject: "s", LastReply: "250 OK"}}, `{"from":"a","to":["b","c"],"subject":"s","reply":"250 OK"}`},
		{
			flow.DHCP,
			flow.Parts{DHCP: &flow.DHCPPart{MsgTypes: []string{"REQUEST", "ACK"}, MAC: "m", HostName: "h", Assigned: netip.MustParseAddr("10.0.0.9")}},
			`{"messages":["REQUEST","ACK"],"mac":"m","host_name":"h","assigned":"10.0.0.9"}`,
		},
		{flow.ARP, flow.Parts{ARP: &flow.ARPPart{Operation: "request", SenderHW: "m"}}, `{"operation":"request","sender":"m"}`},
		{flow.Software, flow.Parts{Software: &flow.SoftwarePart{Name: "nginx", Major: 1, Minor: 2, Minor2: -1}}, `{"name":"nginx","version":"1.2"}`},
		{flow.Weird, flow.Parts{Weird: &flow.WeirdPart{Name: "w"}}, `{"name":"w"}`},
		{flow.Notice, flow.Parts{Notice: &flow.NoticePart{Note: "N", Msg: strings.Repeat("é", 400)}}, `{"note":"N","message":"` + strings.Repeat("é", 256) + `…"}`},
		{flow.DNS, flow.Parts{DNS: &flow.DNSPart{Query: "a", Answers: make([]string, 60)}}, `{"query":"a","answers":["` + strings.Repeat(`","`, 50) + `…"]}`},
		{flow.X509, flow.Parts{X509: &flow.X509Part{Subject: "CN=a", NotAfter: start}}, `{"subject":"CN=a","not_after":"2023-11-14T22:13:20.000000000Z"}`},
		{flow.Kerberos, flow.Parts{Kerberos: &flow.KerberosPart{RequestType: "AS", Client: "c", Success: no, ErrorMsg: "e"}}, `{"request":"AS","client":"c","result":"failed","error":"e"}`},
		{flow.SIP, flow.Parts{SIP: &flow.SIPPart{Method: "INVITE", URI: "sip:x", StatusCode: 200, Status: "OK"}}, `{"request":"INVITE sip:x","status":"200 OK"}`},
		{flow.Alert, flow.Parts{Alert: &flow.AlertPart{Signature: "S", Severity: 1}}, `{"signature":"S","severity":1}`},
	} {
		got := timeline(t, false, &flow.Flow{Time: start, Kind: c.kind, Parts: &c.part})[0]
		_, info, _ := strings.Cut(got, `"info":`)
		if d := cmp.Diff(c.want+"}", info); d != "" {
			t.Errorf("%s: %s", c.kind, d)
		}
	}
	f := conn("192.0.2.1", "10.0.0.1", 0)
	f.Kind, f.SrcPort, f.DstPort, f.Proto = flow.Files, 80, 4000, flow.ProtoUnknown
	f.Parts = &flow.Parts{Files: &flow.FilesPart{IsOrig: no, MIMEType: "x"}}
	d := create(t, t.TempDir(), Options{Timeline: true})
	must(t, d.Timeline().Flow(f, window(1)))
	closeDir(t, d)
	want := `"kind":"files","preposition":"from","daddr":"192.0.2.1","dport/proto":"80","info":{"mime":"x","way":"received"}}`
	if got := read(t, d.Path(TimelineFile)); !strings.HasPrefix(got, `{"profile":"10.0.0.1"`) || !strings.Contains(got, want) {
		t.Errorf("a file that was received: %s", got)
	}
}

// Records of every kind, full and empty, have a line that is JSON; full ones
// have something to say.
func TestTimelineEveryKind(t *testing.T) {
	for k := range flow.NumKinds {
		var empty, filled flow.Flow
		empty.Reset(k)
		filled.Reset(k)
		if filled.Parts != nil {
			for _, p := range reflect.ValueOf(filled.Parts).Elem().Fields() {
				if !p.IsNil() {
					fillStruct(p.Elem())
				}
			}
		}
		got := timeline(t, true, &empty, &filled)
		if len(got) != 2 || k != flow.Conn && !strings.Contains(got[1], `"info":{"`) {
			t.Errorf("%s: %s", k, got)
		}
	}
}

func fillStruct(v reflect.Value) {
	for _, x := range v.Fields() {
		switch x.Kind() {
		case reflect.String:
			x.SetString("a\"b\x00\xff")
		case reflect.Int, reflect.Int64:
			x.SetInt(5)
		case reflect.Uint8, reflect.Uint16:
			x.SetUint(2)
		case reflect.Bool:
			x.SetBool(true)
		case reflect.Slice:
			if x.Type().Elem().Kind() == reflect.String {
				x.Set(reflect.ValueOf([]string{"a", "b"}))
			}
		}
	}
}

func BenchmarkLetters(b *testing.B) {
	d, err := Create(b.TempDir(), Options{Letters: true})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	flows := recordScript(1, 1000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f := flows[i%len(flows)]
		if err := d.Letters().Flow(f, win(f)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkTimeline(b *testing.B) {
	d, err := Create(b.TempDir(), Options{Timeline: true})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	f := conn("10.0.0.1", "192.0.2.1", 0)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Timeline().Flow(f, window(1)); err != nil {
			b.Fatal(err)
		}
	}
}
