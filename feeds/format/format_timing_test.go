package format

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/slips-go/slips/feeds/intel"
)

// BenchmarkParse reads feeds of 100,000 entries, one per operation.
func BenchmarkParse(b *testing.B) {
	const n = 100_000
	for _, c := range []struct {
		format string
		line   func(i int) string
	}{
		{"netset", func(i int) string { return fmt.Sprintf("%d.%d.%d.%d\n", 11+i%80, i>>16, i>>8&255, i&255) }},
		{"lines", func(i int) string { return fmt.Sprintf("host%d.example%d.com\n", i, i%977) }},
		{"urlhaus", func(i int) string {
			return fmt.Sprintf("\"%d\",\"2026-09-01 00:00:00\",\"http://5.%d.%d.%d:5050/bin.sh\",\"online\",\"\",\"malware_download\",\"elf,mirai\",\"https://urlhaus.abuse.ch/url/%d/\",\"r\"\n", i, i>>16, i>>8&255, i&255, i)
		}},
		{"tranco", func(i int) string { return fmt.Sprintf("%d,site%d.com\n", i+1, i) }},
		{"rstcloud", func(i int) string {
			return fmt.Sprintf(`{"ip":{"v4":"5.%d.%d.%d"},"fseen":1679011200,"src":{"name":["x"]},"tags":{"str":["malware"]},"fp":{"alarm":"false"}}`+"\n", i>>16, i>>8&255, i&255)
		}},
	} {
		b.Run(c.format, func(b *testing.B) {
			var feed bytes.Buffer
			for i := range n {
				feed.WriteString(c.line(i))
			}
			b.SetBytes(int64(feed.Len()))
			b.ReportAllocs()
			for b.Loop() {
				rep, err := Parse(bytes.NewReader(feed.Bytes()), Options{Format: c.format}, func(intel.Indicator) error { return nil })
				if err != nil || rep.Indicators != n {
					b.Fatalf("%v %+v", err, rep)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
		})
	}
}
