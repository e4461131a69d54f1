//go:build unix

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// endToEnd is "bench e2e".
func endToEnd(ctx context.Context, args []string, stdout io.Writer) error {
	o := e2e{out: stdout}
	var sizes, logs string
	fs := flag.NewFlagSet("bench e2e", flag.ContinueOnError)
	fs.StringVar(&o.slips, "slips", "./slips", "the program to measure")
	fs.StringVar(&o.dir, "dir", "bench-out", "where the logs are, or are made")
	fs.IntVar(&o.rounds, "rounds", 3, "times that everything is run, in turn")
	fs.StringVar(&sizes, "sizes", "1000000", "numbers of records, ascending, separated by commas")
	fs.StringVar(&logs, "logs", "conn,all", "conn, all (conn, dns, http and ssl), or both separated by a comma")
	fs.Int64Var(&o.rate, "rate", 100, "records for each second of the traffic")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the traffic")
	fs.BoolVar(&o.calm, "calm", false, "no bursts: each connection is of another host, which is the worst for caches")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	if o.rounds < 1 || o.rounds > 100 {
		return fmt.Errorf("e2e: -rounds %d is not in 1..100", o.rounds)
	}
	for s := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("e2e: -sizes %q: want numbers of records", sizes)
		}
		o.sizes = append(o.sizes, n)
	}
	for l := range strings.SplitSeq(logs, ",") {
		if l != "conn" && l != "all" {
			return fmt.Errorf("e2e: -logs %q: want conn, all or both", logs)
		}
		o.logs = append(o.logs, l)
	}
	return o.run(ctx)
}

type e2e struct {
	out              io.Writer
	slips, dir, self string
	rounds           int
	sizes            []int64
	logs             []string
	rate             int64
	seed             uint64
	calm             bool
	failed           bool
	index            int64 // bytes of the index of the feeds
}

// measure is one run of one program.
type measure struct {
	wall, cpu time.Duration
	rss       int64 // bytes
	records   int64
	bytes     int64
}

// row is one program on one set of logs.
type row struct {
	logs, format, program string
	size                  int64
	args                  []string // of the program
	files                 []string
	runs                  []measure
	evidence, alerts      int64
	hash                  string // of evidence.jsonl
}

func (r *row) isSlips() bool { return strings.HasPrefix(r.program, "slips") }

// wall returns the median of the rows's times, and the best.
func (r *row) wall() (median, best time.Duration) {
	return middle(r.runs, func(m measure) time.Duration { return m.wall })
}

func middle[T cmp.Ordered](runs []measure, of func(measure) T) (median, least T) {
	var v []T
	for _, m := range runs {
		v = append(v, of(m))
	}
	slices.Sort(v)
	return v[len(v)/2], v[0]
}

func (o *e2e) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(o.out, format, args...) // a report; when nobody reads it there is nothing to do
}

func (o *e2e) run(ctx context.Context) error {
	var err error
	if o.self, err = os.Executable(); err != nil {
		return fmt.Errorf("e2e: %w", err)
	}
	if _, err := os.Stat(o.slips); err != nil {
		return fmt.Errorf("e2e: no program to measure: %w", err)
	}
	o.printf("%s, %d CPUs, %s, %s\n\n", machine(), runtime.NumCPU(), runtime.Version(), load())
	if err := o.feeds(ctx); err != nil {
		return err
	}
	var rows []*row
	for _, size := range o.sizes {
		for _, logs := range o.logs {
			set, err := o.set(ctx, logs, size, size == o.sizes[0])
			if err != nil {
				return err
			}
			if err := o.measure(ctx, set); err != nil {
				return err
			}
			rows = append(rows, set...)
		}
	}
	starts, err := o.starts(ctx)
	if err != nil {
		return err
	}
	o.table(rows)
	o.bars(rows, starts)
	if o.failed {
		return errors.New("e2e: a bar was missed")
	}
	return nil
}

// set makes the logs if need be and returns what is to be run on them.
func (o *e2e) set(ctx context.Context, logs string, size int64, lanes bool) ([]*row, error) {
	var rows []*row
	for _, format := range []string{"json", "tsv"} {
		dir := filepath.Join(o.dir, fmt.Sprintf("%s-%d-%s-%d-%d-%s", logs, size, format, o.rate, o.seed, map[bool]string{false: "bursts", true: "calm"}[o.calm]))
		if _, err := os.Stat(dir); err != nil {
			// In a process of its own: Linux counts the memory of the parent at
			// the time of the start as the child's, so this one stays small.
			cmd := exec.CommandContext(ctx, o.self, "gen", "-o", dir, "-n", strconv.FormatInt(size, 10), "-logs", logs, "-format", format,
				"-rate", strconv.FormatInt(o.rate, 10), "-seed", strconv.FormatUint(o.seed, 10), "-calm="+strconv.FormatBool(o.calm))
			cmd.Stdout, cmd.Stderr = o.out, os.Stderr
			o.printf("making %s\n", dir)
			if err := cmd.Run(); err != nil {
				return nil, fmt.Errorf("e2e: gen: %w", err)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("e2e: no logs in %s", dir)
		}
		add := func(program string, args ...string) {
			rows = append(rows, &row{logs: logs, format: format, size: size, program: program, args: args, files: files})
		}
		if format == "json" {
			add("(a) fastjson", append([]string{"base-json"}, files...)...)
		}
		add("(b) newlines", append([]string{"base-newline"}, files...)...)
		add("slips", "-q", "-f", dir, "--set", "feeds.directory="+filepath.Join(o.dir, "no-feeds"))
		if lanes {
			add(withFeeds, "-q", "-f", dir, "--set", "feeds.directory="+filepath.Join(o.dir, "feeds", "cache"),
				"--set", "feeds.local="+filepath.Join(o.dir, "feeds", "lists"), "--set", "whitelists.local_whitelist_path="+filepath.Join(o.dir, "feeds", "whitelist.conf"))
			add("slips 1 lane", "-q", "--lanes", "1", "-f", dir)
			add("slips 2 lanes", "-q", "--lanes", "2", "-f", dir)
		}
	}
	return rows, nil
}

// withFeeds is slips with 1.5 million indicators and a whitelist of 10,000 lines.
const withFeeds = "slips+feeds"

// feeds makes the lists and the index of them.
func (o *e2e) feeds(ctx context.Context) error {
	dir := filepath.Join(o.dir, "feeds")
	if _, err := os.Stat(dir); err != nil {
		o.printf("making %s\n", dir)
		if err := exec.CommandContext(ctx, o.self, "gen-feeds", "-o", dir).Run(); err != nil {
			return fmt.Errorf("e2e: gen-feeds: %w", err)
		}
	}
	m, err := timed(exec.CommandContext(ctx, o.slips, "feeds", "status", "--set", "feeds.directory="+filepath.Join(dir, "cache"), "--set", "feeds.local="+filepath.Join(dir, "lists")))
	if err != nil {
		return fmt.Errorf("e2e: index of the feeds: %w", err)
	}
	if o.index, err = indexSize(filepath.Join(dir, "cache")); err != nil {
		return fmt.Errorf("e2e: %w", err)
	}
	o.printf("index of the feeds: %.0f MB, opened or made in %.2f s\n\n", float64(o.index)/mega, m.wall.Seconds())
	return nil
}

// indexSize returns the size of the largest file below dir, which is the index.
func indexSize(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().IsRegular() {
			size = max(size, info.Size())
		}
		return err
	})
	return size, err
}

// measure runs the rows in turn, round after round, so that what else goes on
// in the machine hits all of them. A first look at the files brings them into
// memory.
func (o *e2e) measure(ctx context.Context, rows []*row) error {
	for _, r := range rows {
		if err := exec.CommandContext(ctx, o.self, append([]string{"base-newline"}, r.files...)...).Run(); err != nil {
			return fmt.Errorf("e2e: %w", err)
		}
	}
	for range o.rounds {
		for _, r := range rows {
			run := o.baseline
			if r.isSlips() {
				run = o.analyse
			}
			if err := run(ctx, r); err != nil {
				return fmt.Errorf("e2e: %s on %s, %d records, %s: %w", r.program, r.logs, r.size, r.format, err)
			}
		}
	}
	return nil
}

// timed runs a program and returns what it cost.
func timed(cmd *exec.Cmd) (measure, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	m := measure{wall: time.Since(start)}
	if err != nil {
		return m, fmt.Errorf("%w: %s", err, stderr.String())
	}
	m.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.rss = int64(u.Maxrss)
		if runtime.GOOS != "darwin" {
			m.rss *= 1024
		}
	}
	return m, nil
}

func (o *e2e) baseline(ctx context.Context, r *row) error {
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, o.self, r.args...)
	cmd.Stdout = &stdout
	m, err := timed(cmd)
	if err != nil {
		return err
	}
	var t tally
	if err := json.Unmarshal(stdout.Bytes(), &t); err != nil {
		return err
	}
	if t.Records != r.size {
		return fmt.Errorf("%d records read, want %d", t.Records, r.size)
	}
	m.records, m.bytes = t.Records, t.Bytes
	r.runs = append(r.runs, m)
	return nil
}

// analyse runs slips and checks that it has read everything and found the
// same as before.
func (o *e2e) analyse(ctx context.Context, r *row) (err error) {
	out, err := os.MkdirTemp(o.dir, "out-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	m, err := timed(exec.CommandContext(ctx, o.slips, append(slices.Clone(r.args), "-o", filepath.Join(out, "o"))...))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(out, "o", "summary.json"))
	if err != nil {
		return err
	}
	var s struct {
		Records, Late, Dropped, Alerts int64
		Rejected                       map[string]int64
		Evidence                       struct{ Total int64 }
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.Records != r.size || len(s.Rejected) > 0 || s.Dropped > 0 {
		return fmt.Errorf("%d records read, rejected %v, dropped %d; want %d records", s.Records, s.Rejected, s.Dropped, r.size)
	}
	hash, err := fileHash(filepath.Join(out, "o", "alerts", "evidence.jsonl"))
	if err != nil {
		return err
	}
	if r.hash != "" && r.hash != hash {
		return errors.New("two runs found different things")
	}
	for _, path := range r.files {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		m.bytes += info.Size()
	}
	r.hash, r.evidence, r.alerts, m.records = hash, s.Evidence.Total, s.Alerts, s.Records
	r.runs = append(r.runs, m)
	return nil
}

// fileHash returns a hash of a file, which it does not read into memory: see
// set on why this process stays small.
func fileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// starts returns the times from the start of slips to its first evidence on
// standard output, for a log of seven records that make some.
func (o *e2e) starts(ctx context.Context) ([]measure, error) {
	dir, err := os.MkdirTemp(o.dir, "start-*")
	if err != nil {
		return nil, fmt.Errorf("e2e: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what stays is small and in the way of nothing
	var log []byte
	for i := range 7 {
		log = fmt.Appendf(log, `{"ts":%d.5,"uid":"C%d","id.orig_h":"10.0.0.5","id.orig_p":%d,"id.resp_h":"10.0.0.9","id.resp_p":%d,"proto":"tcp","conn_state":"S0","history":"S","orig_pkts":1}`+"\n",
			1700000000+i, i, 40000+i, 21+i)
	}
	path := filepath.Join(dir, "conn.log")
	if err := os.WriteFile(path, log, 0o644); err != nil {
		return nil, fmt.Errorf("e2e: %w", err)
	}
	var runs []measure
	for i := range 15 {
		d, err := o.first(ctx, path, filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return nil, fmt.Errorf("e2e: first evidence: %w", err)
		}
		runs = append(runs, measure{wall: d})
	}
	return runs, nil
}

func (o *e2e) first(ctx context.Context, path, out string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.slips, "--json", "-f", path, "-o", out)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_, err = bufio.NewReader(stdout).ReadBytes('\n')
	d := time.Since(start)
	_, rest := io.Copy(io.Discard, stdout)
	return d, errors.Join(err, rest, cmd.Wait())
}

// find returns the row of a program; nil when it was not run.
func find(rows []*row, logs string, size int64, format, program string) *row {
	for _, r := range rows {
		if r.logs == logs && r.size == size && r.format == format && r.program == program {
			return r
		}
	}
	return nil
}

const mega = 1e6

// table prints what was measured. Rates and ratios are those of the median
// times; the best are beside them, because the machine may have been busy.
func (o *e2e) table(rows []*row) {
	o.printf("\nTimes are medians of %d runs in turn, in brackets the best. /(a) and /(b) are times of those of the baselines:\n"+
		"(a) parses each JSON line with fastjson and reads its fields, for TSV on the JSON of the same records;\n"+
		"(b) finds the newlines of the same files. Each is one goroutine in a process of its own.\n\n", o.rounds)
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) {
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")+"\t") // as printf
	}
	line("logs", "records", "format", "program", "wall s", "(best)", "records/s", "MB/s", "CPU s", "RSS MB", "/(a)", "(best)", "/(b)", "evidence", "alerts")
	for _, r := range rows {
		med, best := r.wall()
		cpu, _ := middle(r.runs, func(m measure) time.Duration { return m.cpu })
		a, b := find(rows, r.logs, r.size, "json", "(a) fastjson"), find(rows, r.logs, r.size, r.format, "(b) newlines")
		ra, raBest := ratio(r, a)
		rb, _ := ratio(r, b)
		found, alerts := "", ""
		if r.isSlips() {
			found, alerts = strconv.FormatInt(r.evidence, 10), strconv.FormatInt(r.alerts, 10)
		}
		line(r.logs, strconv.FormatInt(r.size, 10), r.format, r.program,
			fmt.Sprintf("%.2f", med.Seconds()), fmt.Sprintf("(%.2f)", best.Seconds()),
			fmt.Sprintf("%.0f", float64(r.size)/med.Seconds()), fmt.Sprintf("%.0f", float64(r.runs[0].bytes)/mega/med.Seconds()),
			fmt.Sprintf("%.2f", cpu.Seconds()), fmt.Sprintf("%.0f", float64(peak(r))/mega),
			fmt.Sprintf("%.2f", ra), fmt.Sprintf("(%.2f)", raBest), fmt.Sprintf("%.1f", rb), found, alerts)
	}
	_ = w.Flush() // as printf
}

// ratio returns how long r takes, in times of what it is compared with: by
// the medians, and by the best.
func ratio(r, to *row) (median, best float64) {
	rm, rb := r.wall()
	tm, tb := to.wall()
	return rm.Seconds() / tm.Seconds(), rb.Seconds() / tb.Seconds()
}

// peak returns the most memory of all runs.
func peak(r *row) int64 {
	var n int64
	for _, m := range r.runs {
		n = max(n, m.rss)
	}
	return n
}

// bars prints which of the bars were met.
func (o *e2e) bars(rows []*row, starts []measure) {
	o.printf("\n")
	bar := func(ok bool, format string, args ...any) {
		word := "PASS"
		if !ok {
			word, o.failed = "FAIL", true
		}
		o.printf("%s  %s\n", word, fmt.Sprintf(format, args...))
	}
	small, large := o.sizes[0], o.sizes[len(o.sizes)-1]
	for _, r := range rows {
		if r.program != "slips" || r.logs != "conn" {
			continue
		}
		limit := 1.0
		if r.format == "tsv" {
			limit = 0.5
		}
		med, best := ratio(r, find(rows, r.logs, r.size, "json", "(a) fastjson"))
		bar(med <= limit, "%s conn, %d records: %.2f of the time of (a), best %.2f; at most %.1f", r.format, r.size, med, best, limit)
	}
	for _, r := range rows {
		if r.program != "slips" || r.size != small {
			continue
		}
		bar(peak(r) < 200*mega, "%s %s, %d records: %.0f MB of memory; less than 200", r.format, r.logs, small, float64(peak(r))/mega)
		if l := find(rows, r.logs, large, r.format, "slips"); l != r {
			more := 100 * (float64(peak(l))/float64(peak(r)) - 1)
			bar(more <= 10, "%s %s, %d records: %.0f MB of memory, %+.0f %%; at most 10 %% more", r.format, r.logs, large, float64(peak(l))/mega, more)
		}
		one, two := find(rows, r.logs, small, r.format, "slips 1 lane"), find(rows, r.logs, small, r.format, "slips 2 lanes")
		bar(r.hash == one.hash && r.hash == two.hash, "%s %s: the same evidence on one lane and on two", r.format, r.logs)
		if l := find(rows, r.logs, small, r.format, withFeeds); l != nil {
			med, best := ratio(l, r)
			bar(med <= 1.15, "%s %s with feeds and whitelist: %.2f of the time without, best %.2f; at most 1.15", r.format, r.logs, med, best)
			bar(peak(l)-peak(r) <= o.index, "%s %s with feeds and whitelist: %.0f MB of memory more; the index has %.0f", r.format, r.logs,
				float64(peak(l)-peak(r))/mega, float64(o.index)/mega)
		}
		med, best := ratio(two, one)
		o.printf("----  %s %s: two lanes take %.2f of the time of one, best %.2f\n", r.format, r.logs, med, best)
	}
	for _, size := range o.sizes {
		for _, logs := range o.logs {
			j, t := find(rows, logs, size, "json", "slips"), find(rows, logs, size, "tsv", "slips")
			o.printf("----  %s, %d records: %d pieces of evidence from JSON, %d from TSV (their times differ below the µs)\n", logs, size, j.evidence, t.evidence)
		}
	}
	med, best := middle(starts, func(m measure) time.Duration { return m.wall })
	bar(med < 100*time.Millisecond, "start to first evidence on standard output: %.1f ms, best %.1f; less than 100", ms(med), ms(best))
	o.printf("%s\n", load())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// machine names the processor, where the system tells.
func machine() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOOS + "/" + runtime.GOARCH
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

// load says how busy the machine is, where the system tells.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load not known"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return "load " + one
}
