package packet

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

// captures returns the folder with captures and Zeek's logs of them.
func captures(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("SLIPS_DATASETS")
	if dir == "" {
		dir = "../../../shared/datasets"
	}
	dir = filepath.Join(dir, "pcap")
	if _, err := os.Stat(filepath.Join(dir, "zeek-logs")); err != nil {
		t.Skip("no data sets: ", err)
	}
	return dir
}

// zeekConn is a line of Zeek's conn.log, or what is compared of other logs.
type zeekConn struct {
	TS        float64    `json:"ts"`
	OrigH     netip.Addr `json:"id.orig_h"`
	OrigP     uint16     `json:"id.orig_p"`
	RespH     netip.Addr `json:"id.resp_h"`
	RespP     uint16     `json:"id.resp_p"`
	Proto     string     `json:"proto"`
	IPProto   int        `json:"ip_proto"`
	Service   string     `json:"service"`
	Duration  float64    `json:"duration"`
	OrigBytes int64      `json:"orig_bytes"`
	RespBytes int64      `json:"resp_bytes"`
	State     string     `json:"conn_state"`
	LocalOrig bool       `json:"local_orig"`
	LocalResp bool       `json:"local_resp"`
	Missed    int64      `json:"missed_bytes"`
	History   string     `json:"history"`
	OrigPkts  int64      `json:"orig_pkts"`
	OrigIP    int64      `json:"orig_ip_bytes"`
	RespPkts  int64      `json:"resp_pkts"`
	RespIP    int64      `json:"resp_ip_bytes"`
	OrigL2    string     `json:"orig_l2_addr"`
	RespL2    string     `json:"resp_l2_addr"`
	Community string     `json:"community_id"`

	Query      string `json:"query"` // dns.log
	TransID    uint16 `json:"trans_id"`
	ServerName string `json:"server_name"` // ssl.log

	used bool
}

func readZeek(t testing.TB, path string) []*zeekConn {
	t.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*zeekConn
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		z := new(zeekConn)
		if err := json.Unmarshal(s.Bytes(), z); err != nil {
			t.Fatal(path, err)
		}
		all = append(all, z)
	}
	return all
}

// ours is a conn record as the comparison sees it.
func ours(f *flow.Flow) *zeekConn {
	p := "unknown_transport"
	switch f.Proto {
	case flow.TCP, flow.UDP, flow.ICMP:
		p = f.Proto.String()
	}
	return &zeekConn{
		TS: float64(f.Time) / 1e9, OrigH: f.Src, OrigP: f.SrcPort, RespH: f.Dst, RespP: f.DstPort, Proto: p,
		Service: strings.Clone(f.Service), Duration: float64(f.Duration) / 1e9, OrigBytes: f.OrigBytes, RespBytes: f.RespBytes,
		State: f.RawState, LocalOrig: f.LocalOrig == flow.True, LocalResp: f.LocalResp == flow.True, Missed: f.MissedBytes,
		History: strings.Clone(f.History), OrigPkts: f.OrigPkts, OrigIP: f.OrigIPBytes, RespPkts: f.RespPkts, RespIP: f.RespIPBytes,
		OrigL2: strings.Clone(f.SrcMAC), RespL2: strings.Clone(f.DstMAC), Community: strings.Clone(f.CommunityID),
	}
}

// fileNames returns the captures of a folder.
func fileNames(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, p := range []string{"*.pcap", "protocols/*.pcap", "protocols/*.pcapng", "protocols/*.cap"} {
		m, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m...)
	}
	return all
}

// base is the name of a capture without folder and ending.
func base(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// score counts how often a field agrees.
type score struct{ good, all int }

func (s *score) add(ok bool) {
	s.all++
	if ok {
		s.good++
	}
}

func (s score) share() float64 { return float64(s.good) / float64(max(1, s.all)) }

// TestZeek compares the connections of captures with Zeek's logs of them.
// With SLIPS_DIFF=1 in the environment it prints each difference.
func TestZeek(t *testing.T) {
	dir := captures(t)
	verbose := os.Getenv("SLIPS_DIFF") != ""
	fields := []string{"found", "start", "state", "bytes", "pkts", "ip_bytes", "history", "duration", "missed", "service", "local", "macs", "community"}
	scores := make(map[string]*score)
	for _, f := range fields {
		scores[f] = new(score)
	}
	extra, zeeks := 0, 0
	queries, names := new(score), new(score)
	for _, path := range fileNames(t, dir) {
		logs := readZeek(t, filepath.Join(dir, "zeek-logs", base(path), "conn.log"))
		if _, err := os.Stat(filepath.Join(dir, "zeek-logs", base(path))); err != nil {
			continue // Zeek had nothing to say
		}
		zeeks += len(logs)
		var mine []*zeekConn
		seen := make(map[string]int) // what else was found, and how often
		readFile(t, path, Options{Emit: func(f *flow.Flow) {
			switch f.Kind {
			case flow.Conn:
				mine = append(mine, ours(f))
			case flow.DNS:
				seen[fmt.Sprint("dns ", f.Src, f.Dst, f.DNS.TransID, f.DNS.Query)]++
			case flow.SSL:
				seen[fmt.Sprint("ssl ", f.Src, f.SrcPort, f.Dst, f.DstPort, f.SSL.ServerName)]++
			default: // not compared
			}
		}})
		for _, z := range readZeek(t, filepath.Join(dir, "zeek-logs", base(path), "dns.log")) {
			if z.Query == "" {
				continue // of some answers Zeek leaves out what was asked
			}
			k := fmt.Sprint("dns ", z.OrigH, z.RespH, z.TransID, z.Query)
			queries.add(seen[k] > 0)
			if seen[k]--; seen[k] < 0 && verbose {
				t.Logf("%s: no %s", base(path), k)
			}
		}
		for _, z := range readZeek(t, filepath.Join(dir, "zeek-logs", base(path), "ssl.log")) {
			k := fmt.Sprint("ssl ", z.OrigH, z.OrigP, z.RespH, z.RespP, z.ServerName)
			names.add(seen[k] > 0)
			if seen[k]--; seen[k] < 0 && verbose {
				t.Logf("%s: no %s", base(path), k)
			}
		}
		diff := func(format string, args ...any) {
			if verbose {
				t.Logf("%s: "+format, append([]any{base(path)}, args...)...)
			}
		}
		slices.SortStableFunc(mine, func(a, b *zeekConn) int { return cmp.Compare(a.TS, b.TS) })
		for _, z := range logs {
			var best *zeekConn
			for _, o := range mine {
				same := o.OrigH == z.OrigH && o.OrigP == z.OrigP && o.RespH == z.RespH && o.RespP == z.RespP && o.Proto == z.Proto
				if same && !o.used && (best == nil || abs(o.TS-z.TS) < abs(best.TS-z.TS)) {
					best = o
				}
			}
			if best == nil {
				scores["found"].add(false)
				for _, f := range fields[1:4] {
					scores[f].add(false)
				}
				diff("missing %s", z)
				continue
			}
			best.used = true
			o := best
			scores["found"].add(true)
			for _, f := range []struct {
				name string
				ok   bool
			}{
				{"start", abs(o.TS-z.TS) < 0.001},
				{"state", o.State == z.State},
				{"bytes", o.OrigBytes == z.OrigBytes && o.RespBytes == z.RespBytes},
				{"pkts", o.OrigPkts == z.OrigPkts && o.RespPkts == z.RespPkts},
				{"ip_bytes", o.OrigIP == z.OrigIP && o.RespIP == z.RespIP},
				{"history", o.History == z.History},
				{"duration", abs(o.Duration-z.Duration) < 0.001},
				{"missed", o.Missed == z.Missed},
				{"service", sorted(o.Service) == sorted(z.Service)},
				{"local", o.LocalOrig == z.LocalOrig && o.LocalResp == z.LocalResp},
				{"macs", o.OrigL2 == z.OrigL2 && o.RespL2 == z.RespL2},
				{"community", o.Community == z.Community},
			} {
				scores[f.name].add(f.ok)
				if !f.ok {
					diff("%s\n\tzeek %s\n\tours %s", f.name, z, o)
				}
			}
		}
		for _, o := range mine {
			if !o.used {
				extra++
				diff("extra %s", o)
			}
		}
	}
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%-10s %6d of %6d  %6.2f %%\n", f, scores[f].good, scores[f].all, 100*scores[f].share())
	}
	scores["queries"], scores["SNI"] = queries, names
	for _, f := range []string{"queries", "SNI"} {
		fmt.Fprintf(&b, "%-10s %6d of %6d  %6.2f %%\n", f, scores[f].good, scores[f].all, 100*scores[f].share())
	}
	t.Logf("connections of Zeek: %d, of ours that Zeek has not: %d\n%s", zeeks, extra, b.String())
	for f, bar := range map[string]float64{"found": 0.99, "start": 0.99, "state": 0.97, "bytes": 0.97, "history": 0.97, "community": 0.99, "queries": 0.99, "SNI": 0.99} {
		if s := scores[f].share(); s < bar {
			t.Errorf("%s agrees in %.2f %%, want %.0f %%", f, 100*s, 100*bar)
		}
	}
	if extra > zeeks/50 {
		t.Errorf("%d connections that Zeek does not have", extra)
	}
}

func abs(x float64) float64 { return max(x, -x) }

// sorted returns a list of services in a fixed order.
func sorted(s string) string {
	l := strings.Split(s, ",")
	slices.Sort(l)
	return strings.Join(l, ",")
}

func (z *zeekConn) String() string {
	return fmt.Sprintf("%.6f %s %s:%d > %s:%d %s dur %.6f bytes %d/%d pkts %d/%d ip %d/%d missed %d %q %q %s>%s", z.TS, z.Proto, z.OrigH, z.OrigP,
		z.RespH, z.RespP, z.State, z.Duration, z.OrigBytes, z.RespBytes, z.OrigPkts, z.RespPkts, z.OrigIP, z.RespIP, z.Missed, z.History, z.Service, z.OrigL2, z.RespL2)
}

// readFile feeds a capture to a Meter.
func readFile(t testing.TB, path string, o Options) Stats {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := Read(t.Context(), f, o)
	if err != nil {
		t.Logf("%s: %v", base(path), err)
	}
	return s
}
