//go:build unix

package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// generate is "bench gen".
func generate(args []string, stdout io.Writer) error {
	var o genOptions
	fs := flag.NewFlagSet("bench gen", flag.ContinueOnError)
	fs.StringVar(&o.dir, "o", "", "write the logs into `DIR`, which must not exist")
	fs.Int64Var(&o.records, "n", 1_000_000, "records in all logs together")
	fs.Int64Var(&o.rate, "rate", 100, "records for each second of the traffic")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the traffic")
	fs.BoolVar(&o.calm, "calm", false, "no bursts: each connection is of another host, which is the worst for caches")
	fs.StringVar(&o.logs, "logs", "conn", "conn, or all: conn, dns, http and ssl")
	fs.StringVar(&o.format, "format", "json", "json or tsv; the records are the same")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	return o.write(stdout)
}

type genOptions struct {
	dir, logs, format string
	records, rate     int64
	seed              uint64
	calm              bool
}

func (o *genOptions) check() error {
	switch {
	case o.dir == "":
		return errors.New("gen: -o is missing")
	case o.records < 1 || o.records > 1_000_000_000:
		return fmt.Errorf("gen: -n %d is not in 1..1000000000", o.records)
	case o.rate < 1 || o.rate > 1_000_000:
		return fmt.Errorf("gen: -rate %d is not in 1..1000000", o.rate)
	case o.logs != "conn" && o.logs != "all":
		return fmt.Errorf("gen: -logs %q: want conn or all", o.logs)
	case o.format != "json" && o.format != "tsv":
		return fmt.Errorf("gen: -format %q: want json or tsv", o.format)
	}
	return nil
}

// write makes the logs beside dir and renames them when they are complete, so
// that a directory that is there is a whole one.
func (o *genOptions) write(stdout io.Writer) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	if _, err := os.Lstat(o.dir); err == nil {
		return fmt.Errorf("gen: %s is there already", o.dir)
	}
	if err := os.MkdirAll(filepath.Dir(o.dir), 0o755); err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(o.dir), ".gen-*")
	if err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := o.fill(tmp, stdout); err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("gen: %w", err)
	}
	return os.Rename(tmp, o.dir)
}

// fill writes the logs into dir.
func (o *genOptions) fill(dir string, stdout io.Writer) (err error) {
	var logs [numLogs]*bufio.Writer
	for k := range numLogs {
		if k != connLog && o.logs != "all" {
			continue
		}
		f, err := os.Create(filepath.Join(dir, k.String()+".log"))
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 1<<20)
		logs[k] = w
		defer func() { err = errors.Join(err, f.Close()) }()
	}
	enc := &encoder{json: o.format == "json"}
	for k, w := range logs {
		if w != nil {
			_, _ = w.WriteString(enc.header(kind(k))) // a bufio.Writer remembers, and Flush tells
		}
	}
	var counts, sizes [numLogs]int64
	var buf []byte
	q := &queue{write: func(r *record) {
		buf = enc.line(buf[:0], r)
		counts[r.kind]++
		sizes[r.kind] += int64(len(buf))
		_, _ = logs[r.kind].Write(buf) // as above
	}}
	w := newWorld(o.seed, o.records, o.rate, o.logs == "all", q.put, q.advance)
	w.calm = o.calm
	enc.servers = w.servers
	w.run()
	q.drain()
	for k, w := range logs {
		if w == nil {
			continue
		}
		if err := w.Flush(); err != nil {
			return err
		}
		_, _ = fmt.Fprintf(stdout, "%s.log: %d records, %.1f bytes each\n", kind(k), counts[k], float64(sizes[k])/float64(max(1, counts[k]))) // a report, nothing depends on it
	}
	return nil
}

// queue holds records until Zeek would write them.
type queue struct {
	write   func(*record)
	waiting []item   // a heap: what is due first is in front
	records []record // by item.index
	free    []int32
	n       uint64
}

type item struct {
	at    int64
	n     uint64 // decides between records of one time
	index int32
}

func (i item) before(o item) bool { return i.at < o.at || i.at == o.at && i.n < o.n }

// put keeps a copy of r until time at.
func (q *queue) put(at int64, r *record) {
	var x item
	if n := len(q.free); n > 0 {
		x.index, q.free = q.free[n-1], q.free[:n-1]
		q.records[x.index] = *r
	} else {
		x.index = int32(len(q.records))
		q.records = append(q.records, *r)
	}
	q.n++
	x.at, x.n = at, q.n
	i := len(q.waiting)
	q.waiting = append(q.waiting, x)
	for i > 0 {
		up := (i - 1) / 2
		if !x.before(q.waiting[up]) {
			break
		}
		q.waiting[i] = q.waiting[up]
		i = up
	}
	q.waiting[i] = x
}

// advance writes what is due before time now.
func (q *queue) advance(now int64) {
	for len(q.waiting) > 0 && q.waiting[0].at < now {
		q.next()
	}
}

// drain writes all.
func (q *queue) drain() {
	for len(q.waiting) > 0 {
		q.next()
	}
}

// next writes what is due first. It is container/heap without the memory that
// its interfaces cost for each record.
func (q *queue) next() {
	first, n := q.waiting[0].index, len(q.waiting)-1
	x := q.waiting[n]
	q.waiting = q.waiting[:n]
	for i := 0; n > 0; {
		down := 2*i + 1
		if down+1 < n && q.waiting[down+1].before(q.waiting[down]) {
			down++
		}
		if down >= n || x.before(q.waiting[down]) {
			q.waiting[i] = x
			break
		}
		q.waiting[i] = q.waiting[down]
		i = down
	}
	q.write(&q.records[first])
	q.free = append(q.free, first)
}
