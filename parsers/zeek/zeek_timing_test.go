package zeek

import (
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

const connJSON = `{"ts":1614370842.844541,"uid":"CeXwwk4XHhkKHn7kag","id.orig_h":"192.168.1.115","id.orig_p":49158,"id.resp_h":"195.113.232.73","id.resp_p":80,"proto":"tcp","service":"http","duration":0.001872,"orig_bytes":97,"resp_bytes":179,"conn_state":"SF","missed_bytes":0,"history":"ShADadfF","orig_pkts":5,"orig_ip_bytes":309,"resp_pkts":5,"resp_ip_bytes":383}`
const connHead = "#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\tlocal_orig\tlocal_resp\tmissed_bytes\thistory\torig_pkts\torig_ip_bytes\tresp_pkts\tresp_ip_bytes\ttunnel_parents"
const connTSV = "1614370842.844541\tCeXwwk4XHhkKHn7kag\t192.168.1.115\t49158\t195.113.232.73\t80\ttcp\thttp\t0.001872\t97\t179\tSF\t-\t-\t0\tShADadfF\t5\t309\t5\t383\t-"

func BenchmarkQuick(b *testing.B) {
	for _, c := range []struct{ name, head, line string }{{"json", "", connJSON}, {"tsv", connHead, connTSV}} {
		b.Run(c.name, func(b *testing.B) {
			d := New("conn")
			var f flow.Flow
			if c.head != "" {
				d.Decode(&f, []byte(c.head))
			}
			line := []byte(c.line)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(&f, line); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
