package parsers

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slips-go/slips/parsers/flow"
)

// A look at the beginnings of logs tells their fields and first records,
// and disturbs nothing.
func TestGlance(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "logs")
	write(t, filepath.Join(dir, "conn.log"), jsonLog(20, 25))
	write(t, filepath.Join(dir, "conn.12:00:00-13:00:00.log.gz"), gz(t, jsonLog(0, 20)))
	write(t, filepath.Join(dir, "dns.log.gz"), gz(t, dnsLog(0, 5000)))
	write(t, filepath.Join(dir, "stats.log"), own("stats", "ts\tpeer\tmem\tpkts_proc", "1600000000.2\tzeek\t80\t100"))
	r := start(t, Options{Paths: []string{dir}}, formats())
	r.finish()

	set, err := Open(Options{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	var logs []string
	records := make(map[flow.Kind]int)
	all := set.Glance(func(kinds flow.KindSet, fields []string) {
		logs = append(logs, fmt.Sprintf("%v %d %s", kinds.Names(), len(fields), strings.Join(fields, " ")))
	}, func(f *flow.Flow) { records[f.Kind]++ })
	want := []string{"[conn] 0 ", "[dns] 8 ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto query", "[] 4 ts peer mem pkts_proc"}
	if diff := cmp.Diff(want, logs); diff != "" || !all {
		t.Errorf("all is %t; logs (-want +got):\n%s", all, diff)
	}
	if records[flow.Conn] != 5 || records[flow.DNS] < 100 || records[flow.DNS] > 4000 {
		t.Errorf("records %v, want the 5 of the latest conn.log, and the first 64 KiB of dns", records)
	}
}
