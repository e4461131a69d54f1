package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// connLines are lines of a conn.log in which a host scans.
func connLines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, `{"ts":%d.5,"uid":"C%d","id.orig_h":"10.0.0.5","id.orig_p":40001,"id.resp_h":"10.0.1.%d","id.resp_p":445,"proto":"tcp",`+
			`"conn_state":"S0","history":"S","orig_pkts":1,"orig_ip_bytes":60,"resp_pkts":0,"resp_ip_bytes":0}`+"\n", 1700000000+i, i, i%250)
	}
	return b.String()
}

// appendFile writes on in a file.
func appendFile(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}

// logged reports whether slips.log holds a text.
func logged(t testing.TB, out, text string) func() bool {
	t.Helper()
	return func() bool { return strings.Contains(readFile(t, filepath.Join(out, "slips.log")), text) }
}

// A follower that stops when a log was just rotated, and nothing or half a
// line is in the new file, does not read the old one again.
func TestStopBehindRotation(t *testing.T) {
	for _, half := range []string{"", connLines(10, 11)[:40]} {
		for name, rotate := range map[string]func(log string) error{
			"rename": func(log string) error { return os.Rename(log, log[:len(log)-len(".log")]+".09:00:00-10:00:00.log") },
			"copy": func(log string) error {
				writeFile(t, log+".1", readFile(t, log))
				return os.Truncate(log, 0)
			},
		} {
			t.Run(fmt.Sprint(name, len(half)), func(t *testing.T) {
				dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
				log := filepath.Join(dir, "conn.log")
				writeFile(t, log, connLines(0, 10))
				args := []string{dir, "--set", "follow.poll_interval=5ms", "--set", "profiler.checkpoint_interval=100ms", "-vv"}
				f := follow(t, out, args...)
				wait(t, "the first records", func() bool { return begun(out) })
				must(t, rotate(log))
				appendFile(t, log, half)
				wait(t, "the follower to see it", func() bool {
					return logged(t, out, "log renamed")() || logged(t, out, "log truncated")()
				})
				f.stop(t)
				f = follow(t, out, args...)
				appendFile(t, log, connLines(10, 20)[len(half):])
				f.stop(t)
				got := results(t, out)
				if got.summary.Records != 20 {
					t.Errorf("%d records, want 20", got.summary.Records)
				}
			})
		}
	}
}

// Lines that are passed over are counted once, however often the follower
// was stopped behind them.
func TestPassedOverOnce(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	log := filepath.Join(dir, "eve.json")
	const flow = `{"timestamp":"2024-03-12T09:00:0%d.000000+0000","flow_id":%d,"event_type":"flow","src_ip":"10.0.0.1","src_port":4000,"dest_ip":"10.0.0.2",` +
		`"dest_port":80,"proto":"TCP","flow":{"pkts_toserver":1,"pkts_toclient":1,"bytes_toserver":60,"bytes_toclient":60,"start":"2024-03-12T09:00:00.000000+0000","state":"closed"}}` + "\n"
	writeFile(t, log, fmt.Sprintf(flow, 1, 1)+`{"timestamp":"2024-03-12T09:00:01.000000+0000","event_type":"stats","stats":{}}`+"\n"+"{\n")
	for i := range 4 {
		f := follow(t, out, dir, "--set", "profiler.checkpoint_interval=100ms")
		if i == 2 {
			appendFile(t, log, fmt.Sprintf(flow, 2, 2)+"{\n")
		}
		f.stop(t)
	}
	s := results(t, out).summary
	rejected := int64(0)
	for _, n := range s.Rejected {
		rejected += n
	}
	if s.Records != 2 || s.Ignored != 1 || rejected != 2 {
		t.Errorf("%d records, %d ignored, %d rejected, want 2, 1, 2", s.Records, s.Ignored, rejected)
	}
}

// A follower with another configuration says that its state does not fit,
// goes on reading where the last one stopped, and reports nothing twice.
func TestChangedConfiguration(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	log := filepath.Join(dir, "conn.log")
	writeFile(t, log, connLines(0, 15))
	follow(t, out, dir).stop(t)
	before := (&outcome{dir: out}).unique(t, "evidence.jsonl", "id")
	if len(before) == 0 {
		t.Fatal("no evidence: the test shows nothing")
	}
	read := 15
	for _, c := range []struct {
		setting string
		fits    bool
	}{
		{"modules.portscan.min_hosts=5", false},
		{"modules.portscan.min_hosts=5", true},
		{"parameters.time_window_width=600", false},
		{"modules.disable=portscan", false},
		{"modules.disable=longconn", false},
		{"profiler.lanes=3", false},
		{"profiler.lanes=2", true},
	} {
		must(t, os.Remove(filepath.Join(out, "slips.log")))
		appendFile(t, log, connLines(read, read+10))
		read += 10
		follow(t, out, dir, "--set", c.setting).stop(t)
		if told := logged(t, out, "configuration has changed")(); told == c.fits {
			t.Errorf("%s: slips.log says that the state does not fit: %v", c.setting, told)
		}
		o := &outcome{dir: out}
		after := o.unique(t, "evidence.jsonl", "id")
		o.unique(t, "alerts.jsonl", "id")
		o.unique(t, "alerts.json", "ID")
		kept := make(map[string]bool)
		for _, line := range after {
			kept[line] = true
		}
		for _, line := range before {
			if !kept[line] {
				t.Errorf("%s: evidence is gone: %s", c.setting, line)
			}
		}
		before = after
	}
}
