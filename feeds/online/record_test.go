package online

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/zeek"
)

func fullAnswer() Answer {
	return Answer{
		Time: 1700000000123456789, UID: "C1", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("2001:db8::1"), DstPort: 443,
		LookupPart: flow.LookupPart{
			Service: "virustotal", Of: "url", Subject: `example.com/a?b="<&>"`, Found: flow.True, Malicious: 5, Total: 90, Score: 1.0 / 3,
			Verdict: "bad\n\x01\u2028ř", Lists: []string{"a, b", "c\td"}, Tags: []string{"x"}, Link: "https://x.example/?a&b", Registered: -1500000000,
			Registrant: `O "R" \`, Names: []string{"a.example", "b.example"}, ASN: 4294967295, ASOrg: "O", Country: "CZ", JARM: strings.Repeat("0", 62),
		},
	}
}

// What the writer writes, the program reads.
func TestLinesAreReadBack(t *testing.T) {
	bare := Answer{Time: 1700000000e9, Src: netip.MustParseAddr("10.0.0.1"), LookupPart: flow.LookupPart{Service: "rdns", Of: "ip", Subject: "8.8.8.8", Error: "no answer"}}
	unknown := bare
	unknown.Found, unknown.Error, unknown.Registered = flow.False, "", math.MinInt64+1
	for _, want := range []Answer{fullAnswer(), bare, unknown} {
		for _, log := range []string{"lookup", ""} { // named by the file or by the line
			var out bytes.Buffer
			if err := NewWriter(&out).Record(want); err != nil {
				t.Fatal(err)
			}
			line := strings.TrimSuffix(out.String(), "\n")
			var f flow.Flow
			if err := zeek.New(log).Decode(&f, []byte(line)); err != nil {
				t.Fatalf("%v\n%s", err, line)
			}
			if !zeek.Sniff(out.Bytes()) {
				t.Errorf("not known as a log: %s", line)
			}
			got := Answer{Time: f.Time, UID: f.UID, Src: f.Src, Dst: f.Dst, DstPort: f.DstPort, LookupPart: *f.Lookup}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); d != "" || f.Kind != flow.Lookup {
				t.Errorf("%v (-want +got)\n%s", f.Kind, d)
			}
		}
	}
}

func TestLine(t *testing.T) {
	var out bytes.Buffer
	a := fullAnswer()
	if err := NewWriter(&out).Record(a); err != nil {
		t.Fatal(err)
	}
	want := `{"_path":"lookup","ts":1700000000.123456789,"uid":"C1","id.orig_h":"10.0.0.1","id.resp_h":"2001:db8::1","id.resp_p":443,"service":"virustotal","of":"url","subject":"example.com/a?b=\"<&>\"","found":true,"malicious":5,"total":90,"score":0.3333333333333333,"verdict":"bad\n\u0001\u2028ř","lists":["a, b","c\td"],"tags":["x"],"link":"https://x.example/?a&b","registered":-1.5,"registrant":"O \"R\" \\","names":["a.example","b.example"],"asn":4294967295,"as_org":"O","country":"CZ","jarm":"00000000000000000000000000000000000000000000000000000000000000"}` + "\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestSeconds(t *testing.T) {
	for ns, want := range map[int64]string{0: "0", 1: "0.000000001", -1: "-0.000000001", 1500000000: "1.5", -1500000000: "-1.5", math.MaxInt64: "9223372036.854775807", math.MinInt64: "-9223372036.854775808"} {
		if got := seconds(ns); string(got) != want || nanoseconds(want) != ns {
			t.Errorf("%d: %s and back %d, want %s", ns, got, nanoseconds(want), want)
		}
	}
	for _, s := range []string{"", "x", "1.0000000001", "99999999999999999999", "1.x"} {
		if got := nanoseconds(s); got != 0 {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func TestOpenLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lookup.log")
	write := func(want string) {
		t.Helper()
		f, err := OpenLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("b\n"); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	write("b\n")
	write("b\nb\n")
	if err := os.WriteFile(path, []byte(`{"_path":"look`), 0o600); err != nil {
		t.Fatal(err)
	}
	write("{\"_path\":\"look\nb\n") // the cut line is one bad line, and no more
	if _, err := OpenLog(filepath.Join(path, "x")); err == nil {
		t.Error("a log in a file")
	}
}

// A restart does not ask again, until the answers are old.
func TestCacheOutlivesTheProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "answers.jsonl")
		n := 0
		session := func(bad bool, peers ...string) []Answer {
			c := newCollector()
			a := fakes(t, Options{Recorder: c, CacheFile: path}, limits(), func(_ context.Context, s subject) (flow.LookupPart, error) {
				if n++; bad {
					return flow.LookupPart{}, oddly("no")
				}
				p := fullAnswer().LookupPart
				p.Verdict = s.text
				return p, nil
			})
			stop := running(t, a)
			synctest.Wait() // the cache is read
			for _, p := range peers {
				a.Ask(asking(host(1), p, time.Now()))
			}
			synctest.Wait()
			stop()
			return c.all()
		}
		first := session(false, peer(1), peer(2))
		again := session(false, peer(2), peer(1))
		if n != 2 || len(again) != 2 {
			t.Fatalf("%d requests, %d answers", n, len(again))
		}
		first[0], first[1] = first[1], first[0]
		if d := cmp.Diff(first, again, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("(-first +again)\n%s", d)
		}
		session(true, peer(3))
		session(true, peer(3))
		if n != 4 {
			t.Errorf("%d requests: a failure outlived the program", n)
		}
		time.Sleep(time.Hour)
		session(false, peer(1))
		if n != 5 {
			t.Errorf("%d requests after the answers' time", n)
		}
		if files, _ := filepath.Glob(path + "*"); len(files) != 1 {
			t.Errorf("files left: %v", files)
		}
	})
}

func TestDamagedCache(t *testing.T) {
	good := fmt.Sprintf(`{"until":%d,"service":"fake","of":"ip","subject":"8.8.0.1","found":true,"names":["a.example"]}`+"\n", time.Now().Add(time.Hour).Unix())
	for name, c := range map[string]struct {
		content string
		want    int
	}{
		"good":          {good, 1},
		"empty":         {"", 0},
		"garbage":       {"\x00\xff{{{\n[]\n" + good + `{"until":`, 1},
		"long line":     {good + strings.Repeat("x", maxCacheLine+1) + "\n" + good, 1},
		"old":           {strings.Replace(good, `"until":`, `"until":-`, 1), 0},
		"no kind":       {strings.Replace(good, `"ip"`, `"x"`, 1), 0},
		"no address":    {strings.Replace(good, `8.8.0.1`, `x`, 1), 0},
		"other service": {strings.Replace(good, `fake`, `other`, 1), 0},
	} {
		path := filepath.Join(t.TempDir(), "answers.jsonl")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		a := fakes(t, Options{CacheFile: path}, limits(), nil)
		a.load()
		if got := len(a.workers[0].cache.m); got != c.want {
			t.Errorf("%s: %d answers, want %d", name, got, c.want)
		}
		if c.want == 1 {
			k, _ := a.workers[0].cache.get(about(intel.Address, "8.8.0.1"))
			if d := cmp.Diff(found("a.example"), k.part); d != "" {
				t.Errorf("%s: (-want +got)\n%s", name, d)
			}
		}
	}
	a := fakes(t, Options{CacheFile: filepath.Join(t.TempDir(), "no", "such", "folder")}, limits(), nil)
	a.load()
	if err := a.save(); err == nil || !strings.Contains(err.Error(), "writing the cache of online answers") {
		t.Errorf("%v", err)
	}
}

func TestLRU(t *testing.T) {
	l := newLRU[int, string](3)
	for i := range 3 {
		l.put(i, fmt.Sprint(i))
	}
	l.get(0)
	l.put(1, "one")
	l.put(3, "3") // 2 was not used for longest
	var got []string
	for k, v := range l.oldestFirst() {
		got = append(got, fmt.Sprint(k, " ", v))
	}
	if d := cmp.Diff([]string{"0 0", "1 one", "3 3"}, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func FuzzCache(f *testing.F) {
	f.Add([]byte(`{"until":99999999999,"service":"fake","of":"ip","subject":"8.8.0.1","found":true,"registered":1.5}` + "\n"))
	f.Add([]byte("{}\n[]\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a := fakes(t, Options{CacheFile: path}, limits(), nil)
		a.load()
		if err := a.save(); err != nil {
			t.Fatal(err)
		}
		saved, _ := os.ReadFile(path)
		again := fakes(t, Options{CacheFile: path}, limits(), nil)
		again.load()
		if err := again.save(); err != nil {
			t.Fatal(err)
		}
		if twice, _ := os.ReadFile(path); !bytes.Equal(saved, twice) {
			t.Errorf("%q\nthen\n%q", saved, twice)
		}
	})
}
