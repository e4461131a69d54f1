package zeek

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// bounded fails when a decoded record breaks a promise of the package.
func bounded(t *testing.T, f *flow.Flow) {
	t.Helper()
	if f.Time < flow.MinTime || f.Time > flow.MaxTime || f.Duration < 0 || f.OrigBytes < 0 || f.RespBytes < 0 ||
		f.OrigPkts < 0 || f.RespPkts < 0 || f.OrigIPBytes < 0 || f.RespIPBytes < 0 || f.MissedBytes < 0 {
		t.Errorf("number out of range: %+v", f)
	}
	if f.Src.Is4In6() || f.Dst.Is4In6() || f.Src.Zone() != "" || f.Dst.Zone() != "" {
		t.Errorf("address not normalised: %v %v", f.Src, f.Dst)
	}
	if f.Kind >= flow.NumKinds || f.Kind == flow.Alert || f.Sensor != flow.Zeek {
		t.Errorf("kind %v of %v", f.Kind, f.Sensor)
	}
	if f.Kind == flow.Conn && (!f.Src.IsValid() || !f.Dst.IsValid() || f.State == flow.StateUnknown) {
		t.Errorf("incomplete conn: %+v", f)
	}
	if f.Kind == flow.Lookup {
		if p := f.Lookup; p.Service == "" || p.Subject == "" || p.Malicious < 0 || p.Total < 0 || !(p.Score >= 0 && p.Score <= 1) || len(p.Names) > maxList {
			t.Errorf("lookup out of bounds: %+v", p)
		}
	}
	if f.Kind == flow.DNS && (len(f.DNS.Answers) > maxList || len(f.DNS.TTLs) > maxList) {
		t.Errorf("%d answers, %d TTLs", len(f.DNS.Answers), len(f.DNS.TTLs))
	}
}

// proper fails when err is none of those that Decode promises.
func proper(t *testing.T, err error) {
	t.Helper()
	var se *flow.SyntaxError
	switch {
	case err == flow.ErrHeader, err == flow.ErrIgnored:
	case errors.As(err, &se):
		if flow.Reason(err) == "other" || len(se.Value) > 64 {
			t.Errorf("error without reason: %v", err)
		}
	default:
		t.Errorf("unexpected error %v", err)
	}
}

// FuzzDecodeTSV feeds a whole log. The quick way and the careful way must
// agree on every row.
func FuzzDecodeTSV(f *testing.F) {
	for _, c := range kindCases {
		fields, row := toTSV(f, c.line)
		f.Add(c.log, []byte("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t"+c.log+"\n"+fields+"\n"+row+"\n#close"))
		f.Add("", []byte(fields+"\n"+row+`\x41\\`))
	}
	f.Add("conn", []byte(fields+"\ttunnel_parents   label   detailed-label\n"+row+"\t-   Malicious   X\n"+row+"   a\n"+row))
	f.Add("conn", []byte("#separator |\n#fields|ts|id.orig_h|id.resp_h\n1|10.0.0.1|10.0.0.2\n1||\n#unset_field|\n|||"))
	f.Add("dns", []byte("#fields\tts\tid.orig_h\tid.resp_h\tanswers\tTTLs\n1\t::1\t::2\ta,,-,\\x2c\t1,-,2.5\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		a, b := New(name), New(name)
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			was := bytes.Clone(line)
			var x, y flow.Flow
			errA := a.Decode(&x, line)
			if !bytes.Equal(was, line) {
				t.Fatal("Decode changed the line")
			}
			if errA != nil {
				proper(t, errA)
			} else {
				bounded(t, &x)
			}
			s := strings.TrimSuffix(string(line), "\r")
			h := &b.head
			head := indented(s) == "" || indented(s)[0] == '#'
			if head || strings.HasPrefix(indented(s), "{") || len(line) > maxLine || !h.planned || h.log == nil || !h.log.used {
				if errB := b.Decode(&y, line); (errA == nil) != (errB == nil) {
					t.Fatalf("%q: %v, then %v", line, errA, errB)
				}
				if head != (errA == flow.ErrHeader) && !errors.Is(errA, flow.ErrBadHeader) && !errors.Is(errA, flow.ErrUnknownKind) {
					t.Fatalf("%q: header %v, got %v", line, head, errA)
				}
				continue
			}
			same(t, string(line), &x, errA, &y, b.carefulRow(&y, s))
		}
	})
}

// same fails unless two ways of decoding a line gave the same record, or the
// same error.
func same(t *testing.T, line string, x *flow.Flow, errX error, y *flow.Flow, errY error) {
	t.Helper()
	if errX != nil || errY != nil {
		var a, b *flow.SyntaxError
		if errors.As(errX, &a) && errors.As(errY, &b) && a.Error() == b.Error() || errX == errY {
			return
		}
		t.Fatalf("%q: quick %v, careful %v", line, errX, errY)
	}
	if s := diff(y, x); s != "" {
		t.Fatalf("%q: (-careful +quick)\n%s", line, s)
	}
}

// FuzzDecodeJSON looks for panics and broken promises on any line.
func FuzzDecodeJSON(f *testing.F) {
	for _, c := range kindCases {
		f.Add(c.log, []byte(c.line))
		f.Add("", []byte(`{"_path":"`+c.log+`",`+c.line[1:]))
	}
	f.Add("conn", []byte(`{"id":{"orig_h":"10.0.0.1"},"a":[[{}]],"ts":"2020-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, name string, line []byte) {
		d := New(name)
		was := bytes.Clone(line)
		var x flow.Flow
		for range 2 {
			if err := d.Decode(&x, line); err != nil {
				proper(t, err)
			} else {
				bounded(t, &x)
			}
		}
		if !bytes.Equal(was, line) {
			t.Fatal("Decode changed the line")
		}
		Sniff(line)
		LogName(string(line))
		d.IsHeader(line)
	})
}

// FuzzJSONAgree holds the scanner against fastjson: whatever a decoder has
// seen before, a line gives the same either way.
func FuzzJSONAgree(f *testing.F) {
	for i, c := range kindCases {
		other := kindCases[(i+7)%len(kindCases)]
		f.Add(c.log, []byte(other.line), []byte(c.line))
		f.Add("", []byte(other.line), []byte(c.line))
		f.Add("", []byte(c.line), []byte(`{"_path":"`+other.log+`",`+c.line[1:]))
	}
	for _, l := range []string{
		`{"ts":1,"ts":2}`, `{"ts":1,"answers":["a"],"answers":["b","-"],"answers":null}`, `{ "ts" : 1 , "uid" : "C" } `,
		`{"ts":1,"duration":-0,"x":[1,"a",-2e+5],"y":[],"z":{}}`, `{"ts":1,"orig_h":"1.2.3.4","conn_state":"S0","uid":7}`,
		`{"ts":1,"@path":"conn","_path":"dns","@stream":"x"}`, `{"ts":1,"a":tru,"b":nulll}`, `{"ts":1,}`, `{"ts":1]`,
		`{"ts":01,"a":1.2.3,"b":-}`, `{"":1,"-":"-","(empty)":"(empty)"}`, `{"cert_chain_fuids":["a"],"cert_chain_fps":["b"]}`,
		`{"ts":1,"uid":"\\\"\/\b\f\n\r\t","query":"\u0041","answers":["\\","\""],"x":"\q","y":"\`, `{"ts":1,"uid":"a\qb"}`,
		"{\"ts\":1,\"uid\":\"\x00\x1f\xff\"}", `{"id":"F","id":{"orig_h":"::1"},"id.orig_h":"::2","certificate.serial":"1","ts":1}`,
		`{"_path":["conn"],"ts":1}`, `{"_path":"open_conn","ts":1}`, `{"ts":NaN}`, `{"ts":1,"password":[],"rcode":[]}`,
	} {
		f.Add("", []byte(object), []byte(l))
		f.Add("dns", []byte(l), []byte(l))
	}
	f.Fuzz(func(t *testing.T, name string, before, line []byte) {
		if len(line) > maxLine {
			return
		}
		s := strings.TrimSuffix(string(line), "\r")
		if !strings.HasPrefix(s, "{") {
			return
		}
		a, b := New(name), New(name)
		var x, y flow.Flow
		if !strings.HasPrefix(indented(string(before)), "#") {
			a.Decode(&x, before)
		}
		errX := a.Decode(&x, line)
		same(t, string(line), &x, errX, &y, b.careful(&y, s))
	})
}

// What names and headers tell is part of them, whatever they are: the log is
// one that is known, the node stands in the name, and the columns are those by
// which a decoder reads.
func FuzzNames(f *testing.F) {
	for _, s := range [][2]string{
		{"conn.15:48:23-16:00:00-logger-1.log.gz", fields + "\n"},
		{"conn__2020-07-16-09-43-10__2020-07-16-10-43-10__log_suffix=logger-1,pid=1__.log", "#separator ,\r\n#fields,ts,uid\r\n"},
		{"open_conn.17_32_32-18_00_00.log", "\ufeff#separator \\x7c\n#path|dns\n#fields|ts\n"},
		{"", ""},
		{"__.log", "#fields"},
		{"a/b__c.log", "#fields\n"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, head string) {
		if log, ok := LogName(name); ok {
			if l, _ := find(log); l == nil || !strings.Contains(name, l.name) {
				t.Errorf("LogName(%q) = %q", name, log)
			}
		}
		if w := Writer(name); !strings.Contains(name, w) || strings.Contains(w, "/") {
			t.Errorf("Writer(%q) = %q", name, w)
		}
		columns := Columns([]byte(head))
		for _, c := range columns {
			if !strings.Contains(head, c) || strings.ContainsRune(c, '\n') {
				t.Errorf("Columns(%q) = %q", head, columns)
			}
		}
	})
}
