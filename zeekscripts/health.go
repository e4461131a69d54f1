package zeekscripts

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxRead bounds what is read of one log at one look.
	maxRead = 1 << 20
	// maxReported is how many messages of Zeek are logged at one look.
	maxReported = 20
	// lossWorthTelling is the part of packets lost, in percent, from which on
	// somebody is warned. Below it detections hardly change.
	lossWorthTelling = 0.1
)

// pausedPolls is how many times the time between two ticks one may last before
// it counts as a pause of all of us.
const pausedPolls = 2

// health reads what Zeek's logs say about Zeek itself.
type health struct {
	w                     *watch
	reporter, stats, loss *follower
	alive                 time.Time // when something was heard of Zeek last, or it came on
	ticked                time.Time // when resume was called last
	unheard               bool      // for so long that it was told
	read, written         int64     // how far it had come by then; of a pcap
	told                  packets   // by stats.log
}

// packets counts what a Zeek took from its source, and what was dropped before
// because Zeek was too slow.
type packets struct{ taken, dropped int64 }

func newHealth(w *watch) *health {
	at := func(name string) *follower { return &follower{path: filepath.Join(w.dir, name)} }
	return &health{w: w, reporter: at("reporter.log"), stats: at("stats.log"), loss: at("capture_loss.log"), alive: time.Now(), ticked: time.Now()}
}

// heard notes a sign of life.
func (h *health) heard() {
	if h.unheard {
		h.w.log.Warn("zeek is heard of again", "after", time.Since(h.alive).Round(time.Millisecond))
		h.w.s.blind(h.w.source, time.Time{})
	}
	h.alive, h.unheard = time.Now(), false
}

// resume is called at each tick. After a pause of the machine or the container,
// in which Zeek could say nothing either, its silence is counted anew.
func (h *health) resume() {
	now := time.Now()
	if now.Sub(h.ticked) > pausedPolls*h.w.s.o.poll {
		h.alive = now
	}
	h.ticked = now
}

// silent reports whether nothing has been heard of a live Zeek for too long. It
// says so earlier, once.
func (h *health) silent() bool {
	d := time.Since(h.alive)
	if d > h.w.s.o.quiet && !h.unheard {
		h.unheard = true
		h.w.log.Warn("nothing is heard of zeek, which says each few seconds that it lives", "for", d.Round(time.Millisecond))
		h.w.s.blind(h.w.source, h.alive)
	}
	return d > h.w.s.o.Silence
}

// stalls reports whether a Zeek that reads a pcap has come no further for too
// long: it reads packets, and then writes logs.
func (h *health) stalls(in *feed) bool {
	read, waits := in.at()
	written := h.w.written()
	if waits || read != h.read || written != h.written {
		h.read, h.written, h.alive = read, written, time.Now()
	}
	return time.Since(h.alive) > h.w.s.o.Silence
}

// written is how much there is of logs, in bytes.
func (w *watch) written() (n int64) {
	names, err := logsIn(w.dir)
	if err != nil {
		return 0
	}
	for _, name := range names {
		if st, err := os.Lstat(filepath.Join(w.dir, name)); err == nil {
			n += st.Size()
		}
	}
	return n
}

// poll reads what is new.
func (h *health) poll() {
	reported, more := 0, 0
	h.reporter.lines(func(b []byte) {
		var r struct{ Level, Message, Location string }
		if json.Unmarshal(b, &r) != nil {
			return
		}
		if reported++; reported > maxReported {
			more++
			return
		}
		msg := clip(strings.Map(printable, h.w.users(r.Message)), 500)
		if strings.HasSuffix(r.Level, "INFO") {
			h.w.log.Debug("zeek reports", "message", msg)
		} else {
			h.w.log.Warn("zeek reports", "level", strings.TrimPrefix(r.Level, "Reporter::"), "message", msg, "at", clip(r.Location, 200))
		}
	})
	if more > 0 {
		h.w.log.Warn("zeek reports more than is shown here; see reporter.log", "messages", more)
	}
	h.stats.lines(func(b []byte) {
		h.heard()
		var r struct {
			TS      float64 `json:"ts"`
			Proc    int64   `json:"pkts_proc"`
			Dropped int64   `json:"pkts_dropped"`
			Link    int64   `json:"pkts_link"`
		}
		const most = 1 << 60 // so that sums of two fit
		if json.Unmarshal(b, &r) == nil && r.Proc >= 0 && r.Proc < most && r.Dropped >= 0 && r.Dropped < most {
			h.count(packets{r.Proc, r.Dropped}, r.Link, stamp(r.TS))
		}
	})
	h.loss.lines(func(b []byte) {
		var r struct {
			TS   float64 `json:"ts"`
			Gaps int64   `json:"gaps"`
			Acks int64   `json:"acks"`
			Lost float64 `json:"percent_lost"`
		}
		if json.Unmarshal(b, &r) == nil {
			h.tell(Loss{Log: "capture_loss", Time: stamp(r.TS), Dropped: r.Gaps, Of: r.Acks, Percent: r.Lost})
		}
	})
}

// count tells of packets since the last call; link of them arrived.
func (h *health) count(n packets, link int64, at time.Time) {
	h.told.taken += n.taken
	h.told.dropped += n.dropped
	h.w.s.stats(h.w.source, n)
	if n.dropped > 0 {
		all := max(link, n.taken+n.dropped)
		h.tell(Loss{Log: "stats", Time: at, Dropped: n.dropped, Of: all, Percent: 100 * float64(n.dropped) / float64(all)})
	}
}

// end reads what is left when Zeek has ended. Its last words count all of its
// packets, also those of a stats.log that came and was rotated between two looks.
func (h *health) end(all packets) {
	h.poll()
	if rest := (packets{max(all.taken-h.told.taken, 0), max(all.dropped-h.told.dropped, 0)}); rest != (packets{}) {
		h.count(rest, 0, time.Now().UTC())
	}
	for _, f := range []*follower{h.reporter, h.stats, h.loss} {
		f.close()
	}
}

func (h *health) tell(l Loss) {
	if l.Source = h.w.source; l.Percent >= lossWorthTelling {
		h.w.s.loss(l)
	}
}

// stamp is the time of Zeek's seconds since 1970.
func stamp(s float64) time.Time {
	whole, part := math.Modf(s)
	if !(whole >= 0 && whole < 1<<40) {
		return time.Time{}
	}
	return time.Unix(int64(whole), int64(part*1e9)).UTC()
}

// follower reads the lines that are added to a log, which may be rotated or
// removed: the file stays open until another one has its name.
type follower struct {
	path string
	file *os.File
	at   int64
}

// lines calls fn for each whole line that is new, in order.
func (f *follower) lines(fn func([]byte)) {
	for f.open() {
		now, err := os.Stat(f.path) // before it is read: a log that has lost its name is complete
		st, err2 := f.file.Stat()
		if err2 != nil {
			return
		}
		if st.Size() < f.at { // emptied
			f.at = 0
		}
		if more := f.read(fn); more || err != nil || os.SameFile(now, st) {
			return
		}
		f.close()
	}
}

// open opens the log unless it is open, and reports whether it is.
func (f *follower) open() bool {
	if f.file != nil {
		return true
	}
	file, err := os.Open(f.path)
	if err != nil {
		return false // not there yet
	}
	f.file, f.at = file, 0
	return true
}

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close() // only read
		f.file = nil
	}
}

// read calls fn for what is new in the open file, and reports whether there may
// be more.
func (f *follower) read(fn func([]byte)) (more bool) {
	b, err := io.ReadAll(io.NewSectionReader(f.file, f.at, maxRead))
	if err != nil {
		return true
	}
	more = len(b) == maxRead
	end := bytes.LastIndexByte(b, '\n') + 1
	if end == 0 && more {
		end = len(b) // one line that is no log's
	}
	f.at += int64(end)
	for line := range bytes.Lines(b[:end]) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			fn(line)
		}
	}
	return more
}
