package cleartext_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/modules/cleartext"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
)

func TestCases(t *testing.T) { modtest.Run(t, cleartext.Spec, "testdata/*.txtar") }

// TestBound tries passwords at 100,000 servers over each protocol.
func TestBound(t *testing.T) {
	b := modtest.NewBench[cleartext.State](t, cleartext.Spec, cleartext.Spec.Defaults())
	for i := range 100_000 {
		for _, k := range []flow.Kind{flow.HTTP, flow.FTP, flow.Login} {
			f := modtest.Record(k, 0, fmt.Sprintf("C%d", i))
			f.Dst = netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
			user := strings.Repeat("u", 1000)
			switch k {
			case flow.HTTP:
				f.HTTP.Username = user
			case flow.FTP:
				f.FTP.User, f.FTP.HasPassword = user, true
			default:
				f.Login.User = user
			}
			if !b.Runner.Chooser().Wants(f) {
				t.Fatal("not wanted")
			}
			b.Handle(f)
		}
		f := modtest.Record(flow.FTP, 0, fmt.Sprintf("C%d", i))
		f.Sensor, f.FTP.User = flow.Suricata, strings.Repeat("u", 1000)
		b.Handle(f)
	}
	if s := b.Size(); len(b.Evidence) != 300 || s > 60_000 {
		t.Errorf("%d reported, %d bytes", len(b.Evidence), s)
	}
}

// TestRealTraffic finds a user's FTP login and a page with a password, and
// nothing in anonymous FTP.
func TestRealTraffic(t *testing.T) {
	for log, want := range map[string]int{
		"markofu_ftp/ftp.log": 1, "http_basic-auth-with-colon/http.log": 1, "ftp_retr/ftp.log": 0, "ftp_ipv6-multiline-reply/ftp.log": 0,
	} {
		if es := modtest.Evidence(t, cleartext.Spec, modtest.Datasets(t, "pcap/zeek-logs/"+log)...); len(es) != want {
			t.Errorf("%s: %+v", log, es)
		}
	}
}
