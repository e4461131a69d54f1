//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// follow is "bench follow".
func follow(ctx context.Context, args []string, stdout io.Writer) error {
	var o follower
	fs := flag.NewFlagSet("bench follow", flag.ContinueOnError)
	fs.StringVar(&o.slips, "slips", "./slips", "the program to measure")
	fs.IntVar(&o.rate, "rate", 10_000, "conn records a second; each hundredth makes evidence")
	fs.DurationVar(&o.length, "length", 10*time.Second, "how long to write")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	if o.rate < perWrite || o.rate > 1_000_000 || o.length < time.Second || o.length > time.Hour {
		return fmt.Errorf("follow: -rate must be in %d..1000000, -length in 1s..1h", perWrite)
	}
	ok := true
	for _, c := range []struct {
		name string
		dns  time.Duration // between two writes to dns.log; 0: there is none
	}{
		{"conn.log alone", 0},
		{"with a busy dns.log", 10 * time.Millisecond},
		{"with a dns.log that gets a record every 5 s", 5 * time.Second},
	} {
		good, err := o.run(ctx, stdout, c.name, c.dns)
		if err != nil {
			return fmt.Errorf("follow: %s: %w", c.name, err)
		}
		ok = ok && good
	}
	if !ok {
		return errors.New("follow: a bar was missed")
	}
	return nil
}

type follower struct {
	slips  string
	rate   int
	length time.Duration
}

// perWrite is how many records one write brings. The last of them is a
// connection between hosts not seen before that has lasted long enough to be
// reported, so every write makes one piece of evidence.
const perWrite = 100

// patience bounds the wait for the evidence of the last write.
const patience = 10 * time.Second

// run follows logs in a directory of its own and reports whether the bar was met.
func (o *follower) run(ctx context.Context, stdout io.Writer, name string, dns time.Duration) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "bench-follow-*")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	logs, out := filepath.Join(dir, "logs"), filepath.Join(dir, "out")
	if err := os.Mkdir(logs, 0o755); err != nil {
		return false, err
	}
	w, err := newLogs(logs, dns)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, w.close()) }()

	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, o.slips, "-q", "--follow", logs, "-o", out)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return false, err
	}
	defer func() {
		_ = cmd.Process.Kill() // it has ended, unless this function failed
		_ = cmd.Wait()
	}()
	r := &watcher{path: filepath.Join(out, "alerts", "evidence.jsonl"), sent: w.sent, buf: make([]byte, 1<<16)}
	// What is measured is a program that is under way, so the first record
	// must have come through.
	if err := w.write(perWrite, time.Now()); err != nil {
		return false, err
	}
	if err := r.until(1, time.Now().Add(patience)); err != nil {
		return false, fmt.Errorf("%w: %s", err, stderr.String())
	}
	r.late = r.late[:0]

	every := time.Second * perWrite / time.Duration(o.rate)
	start := time.Now()
	nextDNS := start
	for next := start; next.Sub(start) < o.length; next = next.Add(every) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if dns > 0 && !next.Before(nextDNS) {
			if err := w.lookup(time.Now()); err != nil {
				return false, err
			}
			nextDNS = nextDNS.Add(dns)
		}
		if err := w.write(perWrite, time.Now()); err != nil {
			return false, err
		}
		for {
			if err := r.look(time.Now()); err != nil {
				return false, err
			}
			rest := time.Until(next.Add(every))
			if rest <= 0 {
				break
			}
			time.Sleep(min(rest, time.Millisecond))
		}
	}
	behind := time.Since(start) - o.length // of the plan; the machine was too busy to write that fast
	missing := r.until(len(w.sent), time.Now().Add(patience))

	stop := time.Now()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return false, err
	}
	if err := cmd.Wait(); err != nil {
		return false, fmt.Errorf("end: %w: %s", err, stderr.String())
	}
	ended := time.Since(stop)

	slices.Sort(r.late)
	at := func(q float64) time.Duration { return r.late[min(len(r.late)-1, int(q*float64(len(r.late))))] }
	p99 := at(0.99)
	word := "PASS"
	if ok = missing == nil && p99 <= 200*time.Millisecond; !ok {
		word = "FAIL"
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	_, err = fmt.Fprintf(stdout, "%s  %s, %d conn records/s: %d of %d evidence after p50 %.1f ms, p99 %.1f ms, max %.1f ms; p99 at most 200\n"+
		"      writing was %.0f ms behind at the end; slips took %.2f s of CPU in %.1f s, and %.0f ms to end; %s\n",
		word, name, o.rate, len(r.late)+1, len(w.sent), ms(at(0.5)), ms(p99), ms(r.late[len(r.late)-1]),
		ms(behind), cpu.Seconds(), time.Since(start).Seconds(), ms(ended), load())
	if missing != nil {
		_, _ = fmt.Fprintf(stdout, "      %v\n", missing) // as the line above, which was written
	}
	return ok, err
}

// logWriter writes the logs that are followed.
type logWriter struct {
	conn, dns *os.File
	sent      map[string]time.Time // by uid of the records that make evidence
	enc       encoder
	buf       []byte
	rec       record
	n         uint64
}

func newLogs(dir string, dns time.Duration) (*logWriter, error) {
	w := &logWriter{sent: make(map[string]time.Time), enc: encoder{json: true, servers: []server{{
		name: "www.example.org", v4: netip.AddrFrom4([4]byte{93, 184, 215, 14}),
	}}}}
	var err error
	if w.conn, err = os.Create(filepath.Join(dir, "conn.log")); err != nil {
		return nil, err
	}
	if dns > 0 {
		if w.dns, err = os.Create(filepath.Join(dir, "dns.log")); err != nil {
			return nil, errors.Join(err, w.conn.Close())
		}
	}
	return w, nil
}

func (w *logWriter) close() error {
	if w.dns == nil {
		return w.conn.Close()
	}
	return errors.Join(w.conn.Close(), w.dns.Close())
}

// write appends n records that end now, with one write.
func (w *logWriter) write(n int, now time.Time) error {
	w.buf = w.buf[:0]
	for i := range n {
		w.n++
		r := &w.rec
		*r = record{
			kind: connLog, uid: w.n, extra: scramble(w.n), server: -1, sp: uint16(32768 + w.n%28000), dp: 443,
			src:   netip.AddrFrom4([4]byte{10, 1, byte(w.n % 4000 >> 8), byte(w.n % 4000)}),
			dst:   netip.AddrFrom4([4]byte{93, 184, byte(scramble(w.n) % 200), 14}),
			proto: "tcp", service: "ssl", state: "SF", history: "ShADadFf", dur: 900_000,
			origBytes: 900, respBytes: 5000, origPkts: 8, respPkts: 9, origHeader: 40, respHeader: 40,
		}
		if i == n-1 {
			r.dur = 1800e6
			r.src = netip.AddrFrom4([4]byte{10, 9, byte(w.n / perWrite >> 8), byte(w.n / perWrite)})
			w.sent[string(id(nil, 'C', r.uid))] = now
		}
		r.ts = now.UnixMicro() - r.dur
		w.buf = w.enc.line(w.buf, r)
	}
	_, err := w.conn.Write(w.buf)
	return err
}

// lookup appends ten answers of a moment ago to dns.log, with one write.
func (w *logWriter) lookup(now time.Time) error {
	w.buf = w.buf[:0]
	for range 10 {
		w.n++
		w.rec = record{
			kind: dnsLog, uid: w.n, extra: scramble(w.n), dur: 2000, sp: 40000, dp: 53, proto: "udp",
			src: netip.AddrFrom4([4]byte{10, 1, 0, byte(w.n)}), dst: gateway, ts: now.UnixMicro() - 2000,
		}
		w.buf = w.enc.line(w.buf, &w.rec)
	}
	_, err := w.dns.Write(w.buf)
	return err
}

// watcher looks for evidence as it is written.
type watcher struct {
	path string
	file *os.File
	sent map[string]time.Time // shared with the writer, same goroutine
	buf  []byte
	held []byte          // of a line that is not complete yet
	late []time.Duration // for each piece of evidence
	seen int
}

// look reads what is new at the time now.
func (r *watcher) look(now time.Time) error {
	if r.file == nil {
		f, err := os.Open(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		r.file = f
	}
	for {
		n, err := r.file.Read(r.buf)
		r.held = append(r.held, r.buf[:n]...)
		for {
			i := bytes.IndexByte(r.held, '\n')
			if i < 0 {
				break
			}
			if err := r.line(r.held[:i], now); err != nil {
				return err
			}
			r.held = r.held[i+1:]
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// line finds out which record a line of evidence is about.
func (r *watcher) line(line []byte, now time.Time) error {
	if !bytes.Contains(line, []byte(`"LONG_CONNECTION"`)) {
		return nil
	}
	_, rest, _ := bytes.Cut(line, []byte(`"uids":["`))
	uid, _, ok := bytes.Cut(rest, []byte(`"`))
	at, known := r.sent[string(uid)]
	if !ok || !known {
		return fmt.Errorf("evidence for no record that was written: %s", strconv.Quote(string(line)))
	}
	r.seen++
	r.late = append(r.late, now.Sub(at))
	return nil
}

// until looks until n pieces of evidence are there.
func (r *watcher) until(n int, deadline time.Time) error {
	for r.seen < n {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d pieces of evidence are missing after %v", n-r.seen, n, patience)
		}
		if err := r.look(time.Now()); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}
