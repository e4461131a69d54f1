package parsers

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// The folders in which Zeek and those who package it keep logs, with logs in
// columns and in JSON: each record is read once, the rotations of a log are
// one source in the order of time, and what is no log is passed over.

// jsonLog gives records of the seconds from..to-1 as a log of Zeek in JSON.
func jsonLog(from, to int) string {
	var b strings.Builder
	for ; from < to; from++ {
		fmt.Fprintf(&b, `{"ts":%d.5,"uid":"%d","id.orig_h":"10.0.0.1","id.orig_p":1000,"id.resp_h":"10.0.0.2","id.resp_p":80,"proto":"tcp","duration":0.1,"conn_state":"SF"}`+"\n", 1600000000+from, from)
	}
	return b.String()
}

// dnsLog is a log of dns in columns.
func dnsLog(from, to int) string {
	var b strings.Builder
	b.WriteString("#separator \\x09\n#set_separator\t,\n#path\tdns\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tquery\n")
	for ; from < to; from++ {
		fmt.Fprintf(&b, "%d.5\t%d\t10.0.0.1\t1000\t10.0.0.53\t53\tudp\texample.org\n", 1600000000+from, from)
	}
	return b.String()
}

// own gives a log of what Zeek writes about itself.
func own(path, fields string, values ...string) string {
	return "#separator \\x09\n#path\t" + path + "\n#fields\t" + fields + "\n" + strings.Join(values, "\n") + "\n"
}

// clutter puts beside logs what Zeek and its tools leave there.
func clutter(t *testing.T, dir string) {
	t.Helper()
	for name, text := range map[string]string{
		"stdout.log": "max memory size             (kbytes, -m) unlimited\n", "stderr.log": "listening on eth0\n\n1600000009.5 received termination signal\n",
		"stdout": "", "stderr": "warning in /opt/zeek/share/zeek/site/local.zeek, line 3: deprecated\n",
		".cmdline": "-i eth0 -U .status -p zeekctl local.zeek\n", ".pid": "4711\n", ".startup": "1600000000\n", ".status": "RUNNING [net_run]\n",
		".shadow.conn.log": ".log\n",
		"state.db":         "SQLite format 3\x00\x10\x00\x01\x01", "zeekctl-config.sh": "zeekbase=\"/opt/zeek\"\n",
		"loaded_scripts.log": own("loaded_scripts", "name", "/opt/zeek/share/zeek/base/init-bare.zeek"),
		"packet_filter.log":  own("packet_filter", "ts\tnode\tfilter\tinit\tsuccess", "1600000000.1\tzeek\tip or not ip\tT\tT"),
		"stats.log":          own("stats", "ts\tpeer\tmem\tpkts_proc", "1600000000.2\tzeek\t80\t100"),
		"capture_loss.log":   own("capture_loss", "ts\tts_delta\tpeer\tgaps\tacks\tpercent_lost", "1600000900.2\t900.0\tzeek\t0\t10\t0.0"),
		"reporter.log":       own("reporter", "ts\tlevel\tmessage\tlocation", "1600000000.2\tReporter::INFO\treceived termination signal\t(empty)"),
		"broker.log":         own("broker", "ts\tty\tev", "1600000000.2\tBroker::STATUS\tpeer-added"),
		"cluster.log":        own("cluster", "ts\tnode\tmessage", "1600000000.2\tworker-1\tgot hello"),
	} {
		write(t, filepath.Join(dir, name), text)
	}
}

// summaries puts beside archived logs what zeekctl makes of them.
func summaries(t *testing.T, dir, span string) {
	t.Helper()
	write(t, filepath.Join(dir, "conn-summary."+span+".log.gz"), gz(t, ">== Total === 2020-09-13-12-00-00 - 2020-09-13-12-59-59\n   - Connections 10.0 - Payload 1.0k -\n"))
	write(t, filepath.Join(dir, "stats."+span+".log.gz"), gz(t, own("stats", "ts\tpeer\tmem\tpkts_proc", "1600000000.2\tzeek\t80\t100")))
	write(t, filepath.Join(dir, "reporter."+span+".log.gz"), gz(t, own("reporter", "ts\tlevel\tmessage\tlocation", "1600000000.2\tReporter::INFO\tx\t(empty)")))
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(at)
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

// wantAll checks all sources, those without records left out, and that nothing
// was wrong with any.
func (r *run) wantAll(want map[string][]int) {
	r.t.Helper()
	got := make(map[string][]int)
	for name, g := range r.by {
		if len(g.records) > 0 {
			got[name] = g.records
		}
		if len(g.rejects) > 0 {
			r.t.Errorf("%s: rejected %v", name, g.rejects)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("sources (-want +got):\n%s\nlog:\n%s", diff, r.log)
	}
	for _, err := range slices.Concat(r.set.Problems, r.set.Failed()) {
		r.t.Errorf("problem: %v", err)
	}
	for _, level := range []string{"level=WARN", "level=ERROR"} {
		if strings.Contains(r.log.String(), level) {
			r.t.Errorf("the log complains:\n%s", r.log)
		}
	}
}

// zeekctl makes the folders of a standalone Zeek under zeekctl: two archived
// hours of the one day, one of the next, and what is being written, of each of
// conn and dns.
func zeekctl(t *testing.T, base string, conn func(from, to int) string) {
	t.Helper()
	spool := filepath.Join(base, "spool", "zeek")
	write(t, filepath.Join(spool, "conn.log"), conn(30, 40))
	write(t, filepath.Join(spool, "dns.log"), dnsLog(130, 140))
	clutter(t, spool)
	link(t, "../spool/zeek", filepath.Join(base, "logs", "current"))
	for i, at := range []string{"2020-09-13/%s.12:00:00-13:00:00", "2020-09-13/%s.13:00:00-00:00:00", "2020-09-14/%s.00:00:00-01:00:00"} {
		path := func(log string) string { return filepath.Join(base, "logs", fmt.Sprintf(at, log)+".log.gz") }
		write(t, path("conn"), gz(t, conn(10*i, 10*i+10)))
		write(t, path("dns"), gz(t, dnsLog(100+10*i, 110+10*i)))
		dir, span, _ := strings.Cut(fmt.Sprintf(at, "x"), "/")
		summaries(t, filepath.Join(base, "logs", dir), strings.TrimPrefix(span, "x."))
	}
	for dir := range map[string]bool{"2020-09-13": true, "2020-09-14": true} {
		files, err := filepath.Glob(filepath.Join(base, "logs", dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			settle(t, f)
		}
	}
}

func TestLayoutZeekctl(t *testing.T) {
	t.Parallel()
	for form, conn := range map[string]func(from, to int) string{"tsv": func(a, b int) string { return zeekLog(a, b) }, "json": jsonLog} {
		for _, tt := range []struct {
			name, path string
			want       map[string][]int
		}{
			{"current", "logs/current", map[string][]int{"current/conn": seq(30, 40), "current/dns": seq(130, 140)}},
			{"spool", "spool/zeek", map[string][]int{"zeek/conn": seq(30, 40), "zeek/dns": seq(130, 140)}},
			{"above the spool", "spool", map[string][]int{"spool/zeek/conn": seq(30, 40), "spool/zeek/dns": seq(130, 140)}},
			{"logs", "logs", map[string][]int{"logs/conn": seq(0, 40), "logs/dns": seq(100, 140)}},
			{"a day", "logs/2020-09-13", map[string][]int{"2020-09-13/conn": seq(0, 20), "2020-09-13/dns": seq(100, 120)}},
		} {
			for _, follow := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/follow=%t", form, tt.name, follow), func(t *testing.T) {
					t.Parallel()
					base := t.TempDir()
					zeekctl(t, base, conn)
					r := start(t, Options{Paths: []string{filepath.Join(base, tt.path)}, Follow: follow}, formats())
					if follow {
						n := 0
						for _, records := range tt.want {
							n += len(records)
						}
						r.records(n)
						r.drain()
					}
					r.finish()
					r.wantAll(tt.want)
				})
			}
		}
	}
}

// The names that rotated logs have elsewhere.
func TestLayoutNames(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][3]string{
		"zeekctl":          {"conn.12:00:00-13:00:00.log.gz", "conn.13:00:00-14:00:00.log.gz", "conn.14:00:00-15:00:00.log.gz"},
		"a name taken":     {"conn.12:00:00-13:00:00.log.gz", "conn.13:00:00-14:00:00.log.gz", "conn.13:00:00-14:00:00-1.log.gz"},
		"in the spool":     {"conn-20-09-13_12.00.00.log", "conn-20-09-13_13.00.00.log", "conn.log"},
		"dated":            {"conn.2020-09-13-12-00-00.log.gz", "conn.2020-09-13-13-00-00.log.gz", "conn.log"},
		"dated, 2 ends":    {"conn.2020-09-13-12-00-00-2020-09-13-13-00-00.log.gz", "conn.2020-09-13-13-00-00-2020-09-13-14-00-00.log.gz", "conn.log"},
		"zeek-archiver":    {"conn__2020-09-13-12-00-00__2020-09-13-13-00-00__.log", "conn__2020-09-13-13-00-00__2020-09-13-14-00-00__.log", "conn.log"},
		"with metadata":    {"conn__2020-09-13-12-00-00__2020-09-13-13-00-00__pid=4711__.log", "conn__2020-09-13-13-00-00__2020-09-13-14-00-00__pid=4711__.log", "conn.log"},
		"Corelight":        {"conn_20200913_12:00:00-13:00:00+0000.log.gz", "conn_20200913_13:00:00-14:00:00+0000.log.gz", "conn_20200913_14:00:00-15:00:00+0000.log.gz"},
		"logrotate":        {"conn.log.2.gz", "conn.log.1", "conn.log"},
		"logrotate, dated": {"conn.log-20200912.gz", "conn.log-20200913.gz", "conn.log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "logs")
			for i, f := range files {
				text := zeekLog(10*i, 10*i+10)
				if strings.HasSuffix(f, ".gz") {
					text = gz(t, text)
				}
				write(t, filepath.Join(dir, f), text)
				settle(t, filepath.Join(dir, f))
			}
			for _, follow := range []bool{false, true} {
				r := start(t, Options{Paths: []string{dir}, Follow: follow}, formats())
				if follow {
					r.records(30)
					r.drain()
				}
				r.finish()
				r.wantAll(map[string][]int{"logs/conn": seq(0, 30)})
			}
		})
	}
}

// Several loggers write at the same time, so each one's logs are a source of
// their own: read one behind the other, half of the records would be late.
func TestLayoutLoggers(t *testing.T) {
	t.Parallel()
	t.Run("spool", func(t *testing.T) {
		t.Parallel()
		spool := filepath.Join(t.TempDir(), "spool")
		for i, node := range []string{"logger-1", "logger-2"} {
			write(t, filepath.Join(spool, node, "conn.log"), jsonLog(100*i, 100*i+10))
			clutter(t, filepath.Join(spool, node))
		}
		for _, node := range []string{"manager", "proxy-1", "worker-1"} {
			write(t, filepath.Join(spool, node, "stdout.log"), "x\n")
			write(t, filepath.Join(spool, node, ".pid"), "12\n")
			write(t, filepath.Join(spool, node, "loaded_scripts.log"), own("loaded_scripts", "name", "a.zeek"))
		}
		write(t, filepath.Join(spool, "tmp", "post-terminate-standalone-2020-09-13-12-00-00-4711-crash", "conn.log"), jsonLog(0, 5))
		write(t, filepath.Join(spool, "installed-scripts-do-not-touch", "site", "local.zeek"), "@load base\n")
		r := start(t, Options{Paths: []string{spool}}, formats())
		r.finish()
		r.wantAll(map[string][]int{"spool/logger-1/conn": seq(0, 10), "spool/logger-2/conn": seq(100, 110)})
	})
	for name, at := range map[string]string{
		"zeekctl":    "2020-09-13/conn.%02d:00:00-%02d:00:00-%s.log",
		"supervisor": "conn__2020-09-13-%02d-00-00__2020-09-13-%02d-00-00__log_suffix=%s__.log",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			logs := filepath.Join(t.TempDir(), "logs")
			for i := range 3 {
				for n, node := range []string{"logger-1", "logger-2"} {
					write(t, filepath.Join(logs, fmt.Sprintf(at, i, i+1, node)), jsonLog(100*i+50*n, 100*i+50*n+10))
				}
			}
			r := start(t, Options{Paths: []string{logs}}, formats())
			r.finish()
			r.wantAll(map[string][]int{
				"logs/conn@logger-1": slices.Concat(seq(0, 10), seq(100, 110), seq(200, 210)),
				"logs/conn@logger-2": slices.Concat(seq(50, 60), seq(150, 160), seq(250, 260)),
			})
		})
	}
}

// A logger of the Supervisor framework rotates into log-queue in its own
// folder, where an archiver fetches the logs.
func TestLayoutLogQueue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, path, source string }{
		{"the logger", "spool/logger", "logger/conn"},
		{"above it", "spool", "spool/logger/conn"},
		{"the queue", "spool/logger/log-queue", "log-queue/conn"},
	} {
		for _, follow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/follow=%t", tt.name, follow), func(t *testing.T) {
				t.Parallel()
				base := t.TempDir()
				logger := filepath.Join(base, "spool", "logger")
				clutter(t, logger)
				queued := filepath.Join(logger, "log-queue", "conn__2020-09-13-12-00-00__2020-09-13-13-00-00__.log")
				write(t, queued, jsonLog(0, 10))
				settle(t, queued)
				write(t, filepath.Join(logger, "conn.log"), jsonLog(10, 20))
				r := start(t, Options{Paths: []string{filepath.Join(base, tt.path)}, Follow: follow}, formats())
				want := seq(0, 20)
				if tt.name == "the queue" {
					want = seq(0, 10)
				}
				if follow {
					r.records(len(want))
					next := filepath.Join(logger, "log-queue", "conn__2020-09-13-13-00-00__2020-09-13-14-00-00__.log")
					rename(t, filepath.Join(logger, "conn.log"), next)
					write(t, filepath.Join(logger, "conn.log"), jsonLog(20, 30))
					if tt.name == "the queue" {
						want = seq(0, 20)
					} else {
						want = seq(0, 30)
					}
					r.records(len(want))
					r.drain()
				}
				r.finish()
				r.wantAll(map[string][]int{tt.source: want})
			})
		}
	}
}

// rotate does what Zeek and zeekctl do at the end of an hour: the log gets
// another name in the spool, a new one begins, and the old one is compressed
// into the archive and removed.
func rotate(t *testing.T, base, day, span string, next string) {
	t.Helper()
	spool := filepath.Join(base, "spool", "zeek")
	old := filepath.Join(spool, "conn-20-09-14_01.00.00.log")
	rename(t, filepath.Join(spool, "conn.log"), old)
	write(t, filepath.Join(spool, "conn.log"), next)
	text, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(base, "logs", day, "conn."+span+".log.gz"), gz(t, string(text)))
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
}

// An hour ends while the logs are followed, wherever the path points.
func TestLayoutRotation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, source string }{{"logs/current", "current/conn"}, {"spool/zeek", "zeek/conn"}, {"logs", "logs/conn"}} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			write(t, filepath.Join(base, "spool", "zeek", "conn.log"), jsonLog(0, 10))
			clutter(t, filepath.Join(base, "spool", "zeek"))
			link(t, "../spool/zeek", filepath.Join(base, "logs", "current"))
			r := start(t, Options{Paths: []string{filepath.Join(base, tt.path)}, Follow: true}, formats())
			r.records(10)
			for hour := range 5 {
				appendTo(t, filepath.Join(base, "spool", "zeek", "conn.log"), jsonLog(10+100*hour, 50+100*hour)) // not read yet when it is renamed
				rotate(t, base, "2020-09-14", fmt.Sprintf("%02d:00:00-%02d:00:00", hour, hour+1), jsonLog(50+100*hour, 60+100*hour))
				appendTo(t, filepath.Join(base, "spool", "zeek", "conn.log"), jsonLog(60+100*hour, 70+100*hour))
				r.records(10 + 60*(hour+1))
			}
			r.drain()
			want := seq(0, 10)
			for hour := range 5 {
				want = append(want, seq(10+100*hour, 70+100*hour)...)
			}
			r.wantAll(map[string][]int{tt.source: want})
		})
	}
}

// A deploy replaces the link while it is followed, and the old folder goes
// away with what was not read yet.
func TestLayoutLinkReplaced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, source string }{{"logs/current", "current/conn"}, {"logs", "logs/conn"}} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			old, now := filepath.Join(base, "spool", "zeek"), filepath.Join(base, "spool", "logger")
			write(t, filepath.Join(old, "conn.log"), jsonLog(0, 10))
			link(t, "../spool/zeek", filepath.Join(base, "logs", "current"))
			r := start(t, Options{Paths: []string{filepath.Join(base, tt.path)}, Follow: true}, formats())
			r.records(10)
			appendTo(t, filepath.Join(old, "conn.log"), jsonLog(10, 15))
			rename(t, old, filepath.Join(base, "spool", "tmp"))
			write(t, filepath.Join(now, "conn.log"), jsonLog(20, 30))
			link(t, "../spool/logger", filepath.Join(base, "logs", "current"))
			r.records(25)
			appendTo(t, filepath.Join(now, "conn.log"), jsonLog(30, 35))
			write(t, filepath.Join(now, "dns.log"), dnsLog(0, 5))
			r.records(35)
			r.drain()
			r.wantAll(map[string][]int{
				tt.source: append(seq(0, 15), seq(20, 35)...),
				strings.Replace(tt.source, "conn", "dns", 1): seq(0, 5),
			})
		})
	}
}

// positionOf says where a run stood behind its last record of a source.
func positionOf(g *got) flow.Position {
	n := len(g.segs) - 1
	p := flow.Position{Segment: g.segs[n], Offset: g.ends[n]}
	p.Segment.Print = g.prints[len(g.prints)-1]
	p.Done = slices.Clone(g.prints[:len(g.prints)-1])
	return p
}

// Hours end while nothing follows. The archive beside current has what was
// written meanwhile: nothing is lost, and nothing comes twice. What is older
// than where reading stopped was not asked for.
func TestLayoutRotationWhileDown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, source string }{{"logs/current", "current/conn"}, {"logs", "logs/conn"}} {
		for _, hours := range []int{0, 1, 3} {
			t.Run(fmt.Sprintf("%s/%d hours", tt.path, hours), func(t *testing.T) {
				t.Parallel()
				base := t.TempDir()
				spool := filepath.Join(base, "spool", "zeek")
				write(t, filepath.Join(spool, "conn.log"), jsonLog(0, 10))
				link(t, "../spool/zeek", filepath.Join(base, "logs", "current"))
				path := filepath.Join(base, tt.path)
				r := start(t, Options{Paths: []string{path}, Follow: true}, formats())
				r.records(10)
				by := r.drain()
				resume := map[string]flow.Position{tt.source: positionOf(by[tt.source])}

				// An old hour that is put into the archive late is no news to
				// somebody who follows current.
				if tt.path == "logs/current" {
					write(t, filepath.Join(base, "logs", "2020-09-13", "conn.01:00:00-02:00:00.log.gz"), gz(t, jsonLog(-100, -90)))
				}
				write(t, filepath.Join(base, "logs", "2020-09-13", "dns.01:00:00-02:00:00.log.gz"), gz(t, dnsLog(-100, -100)))
				appendTo(t, filepath.Join(spool, "conn.log"), jsonLog(10, 20))
				for h := range hours {
					rotate(t, base, fmt.Sprintf("2020-09-%02d", 13+h), "23:00:00-00:00:00", jsonLog(20+10*h, 30+10*h))
				}
				r = start(t, Options{Paths: []string{path}, Follow: true, Resume: resume}, formats())
				want := seq(10, 20+10*hours)
				r.records(len(want))
				r.drain()
				r.wantAll(map[string][]int{tt.source: want})
			})
		}
	}
}

// The spool alone does not say where its logs were archived, so what was
// written meanwhile cannot be found; from when on records may be missing is
// said, and until when.
func TestLayoutRotationLost(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	spool := filepath.Join(base, "spool", "zeek")
	write(t, filepath.Join(spool, "conn.log"), jsonLog(0, 10))
	r := start(t, Options{Paths: []string{spool}, Follow: true}, formats())
	r.records(10)
	by := r.drain()
	appendTo(t, filepath.Join(spool, "conn.log"), jsonLog(10, 20))
	rotate(t, base, "2020-09-13", "12:00:00-13:00:00", jsonLog(3600, 3610))
	r = start(t, Options{Paths: []string{spool}, Follow: true, Resume: map[string]flow.Position{"zeek/conn": positionOf(by["zeek/conn"])}}, formats())
	r.records(10)
	r.drain()
	r.want("zeek/conn", seq(3600, 3610))
	text := r.log.String()
	for _, want := range []string{"level=WARN", "may be lost", "source=zeek/conn", "until=2020-09-13T13:26:40", "offset="} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %q:\n%s", want, text)
		}
	}
}
