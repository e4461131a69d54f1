//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/valyala/fastjson"
)

// tally is what a baseline prints: what it has read.
type tally struct {
	Lines   int64   `json:"lines"`
	Records int64   `json:"records"`
	Bytes   int64   `json:"bytes"`
	Sum     float64 `json:"sum"` // of all it has looked at, so that no compiler leaves the looking out
}

// baseNewline is baseline (b).
func baseNewline(paths []string, stdout io.Writer) error {
	var t tally
	for _, path := range paths {
		err := lines(path, &t, func(line []byte) error {
			if len(line) > 0 && line[0] != '#' {
				t.Records++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return json.NewEncoder(stdout).Encode(t)
}

// The fields that baseline (a) reads from each log: those that slips reads.
var fields = map[string]struct{ texts, numbers, truths, lists []string }{ // read only
	"conn": {
		texts: []string{"uid", "id.orig_h", "id.resp_h", "proto", "service", "conn_state", "history"},
		numbers: []string{
			"ts", "id.orig_p", "id.resp_p", "duration", "orig_bytes", "resp_bytes", "missed_bytes",
			"orig_pkts", "orig_ip_bytes", "resp_pkts", "resp_ip_bytes",
		},
	},
	"dns": {
		texts:   []string{"uid", "id.orig_h", "id.resp_h", "proto", "query", "qclass_name", "qtype_name", "rcode_name"},
		numbers: []string{"ts", "id.orig_p", "id.resp_p", "trans_id", "rtt"},
		truths:  []string{"AA", "TC", "RD", "RA", "rejected"},
		lists:   []string{"answers", "TTLs"},
	},
	"http": {
		texts:   []string{"uid", "id.orig_h", "id.resp_h", "method", "host", "uri", "version", "user_agent", "status_msg"},
		numbers: []string{"ts", "id.orig_p", "id.resp_p", "trans_depth", "request_body_len", "response_body_len", "status_code"},
		lists:   []string{"resp_fuids", "resp_mime_types"},
	},
	"ssl": {
		texts:   []string{"uid", "id.orig_h", "id.resp_h", "version", "cipher", "curve", "server_name", "next_protocol"},
		numbers: []string{"ts", "id.orig_p", "id.resp_p"},
		truths:  []string{"resumed", "established", "sni_matches_cert"},
		lists:   []string{"cert_chain_fps", "client_cert_chain_fps"},
	},
}

// baseJSON is baseline (a).
func baseJSON(paths []string, stdout io.Writer) error {
	var t tally
	var p fastjson.Parser
	for _, path := range paths {
		log, ok := fields[strings.TrimSuffix(filepath.Base(path), ".log")]
		if !ok {
			return fmt.Errorf("base-json: %s is none of conn.log, dns.log, http.log, ssl.log", path)
		}
		err := lines(path, &t, func(line []byte) error {
			v, err := p.ParseBytes(line)
			if err != nil {
				return fmt.Errorf("%s:%d: %w", path, t.Lines, err)
			}
			n := 0
			for _, f := range log.texts {
				n += len(v.GetStringBytes(f))
			}
			for _, f := range log.numbers {
				t.Sum += v.GetFloat64(f)
			}
			for _, f := range log.truths {
				if v.GetBool(f) {
					n++
				}
			}
			for _, f := range log.lists {
				for _, x := range v.GetArray(f) {
					n += int(x.Type())
				}
			}
			t.Sum += float64(n)
			t.Records++
			return nil
		})
		if err != nil {
			return err
		}
	}
	return json.NewEncoder(stdout).Encode(t)
}

// lines calls each for the lines of a file, without their newlines.
func lines(path string, t *tally, each func([]byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	buf := make([]byte, 1<<20)
	held := 0 // bytes of a line whose end was not read yet
	for {
		n, err := f.Read(buf[held:])
		t.Bytes += int64(n)
		data := buf[:held+n]
		for {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				break
			}
			t.Lines++
			if err := each(data[:i]); err != nil {
				return err
			}
			data = data[i+1:]
		}
		held = copy(buf, data)
		switch {
		case errors.Is(err, io.EOF):
			if held > 0 {
				return fmt.Errorf("%s: the last line has no end", path)
			}
			return nil
		case err != nil:
			return err
		case held == len(buf):
			return fmt.Errorf("%s:%d: line longer than %d bytes", path, t.Lines+1, len(buf))
		}
	}
}
