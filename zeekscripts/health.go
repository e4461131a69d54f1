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
	// somebody is told. Below it detections hardly change.
	lossWorthTelling = 0.1
)

// health reads what Zeek's logs say about Zeek itself.
type health struct {
	w                     *watch
	reporter, stats, loss *follower
	alive                 time.Time // when stats.log grew last
}

func newHealth(w *watch) *health {
	at := func(name string) *follower { return &follower{path: filepath.Join(w.dir, name)} }
	return &health{w: w, reporter: at("reporter.log"), stats: at("stats.log"), loss: at("capture_loss.log"), alive: time.Now()}
}

// silent reports whether Zeek has not written its statistics for too long.
func (h *health) silent() bool { return time.Since(h.alive) > h.w.s.o.Silence }

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
		msg := clip(strings.Map(printable, r.Message), 500)
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
		h.alive = time.Now()
		var r struct {
			TS      float64 `json:"ts"`
			Proc    int64   `json:"pkts_proc"`
			Dropped int64   `json:"pkts_dropped"`
			Link    int64   `json:"pkts_link"`
		}
		if json.Unmarshal(b, &r) != nil || r.Dropped <= 0 {
			return
		}
		all := max(r.Link, r.Proc+r.Dropped)
		h.tell(Loss{Log: "stats", Time: stamp(r.TS), Dropped: r.Dropped, Of: all, Percent: 100 * float64(r.Dropped) / float64(all)})
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

// follower reads the lines that are added to a log, which may be rotated.
type follower struct {
	path string
	was  os.FileInfo
	at   int64
}

// lines calls fn for each whole line that is new, in order. What is between
// two looks in a log that was rotated meanwhile is not read: the loss of a
// minute or a message at most.
func (f *follower) lines(fn func([]byte)) {
	file, err := os.Open(f.path)
	if err != nil {
		return // not there yet
	}
	defer func() { _ = file.Close() }() // only read
	st, err := file.Stat()
	if err != nil {
		return
	}
	if f.was == nil || !os.SameFile(f.was, st) || st.Size() < f.at {
		f.at = 0
	}
	f.was = st
	b, err := io.ReadAll(io.NewSectionReader(file, f.at, maxRead))
	if err != nil {
		return
	}
	end := bytes.LastIndexByte(b, '\n') + 1
	if end == 0 && len(b) == maxRead {
		end = len(b) // one line that is no log's
	}
	f.at += int64(end)
	for line := range bytes.Lines(b[:end]) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			fn(line)
		}
	}
}
