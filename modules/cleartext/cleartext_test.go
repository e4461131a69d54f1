package cleartext_test

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/cleartext"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

func TestCases(t *testing.T) { modtest.Run(t, cleartext.Spec, "testdata/*.txtar") }

func record(k flow.Kind, sec float64, uid string) *flow.Flow {
	f := new(flow.Flow)
	f.Reset(k)
	f.Time = 1_700_000_000*1e9 + int64(sec*1e9)
	f.Src, f.Dst = netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("203.0.114.9")
	f.SrcPort, f.DstPort, f.HasPorts, f.Proto, f.UID = 50000, 80, true, flow.TCP, uid
	return f
}

// run makes a rule with its defaults, a state and a context that counts what
// is emitted.
func run(t *testing.T) (modules.Runner, *cleartext.State, *modules.Context, *modules.Host, *int) {
	t.Helper()
	r, err := cleartext.Spec.New(cleartext.Spec.Defaults(), modules.Env{})
	if err != nil {
		t.Fatal(err)
	}
	n := new(int)
	h := &modules.Host{
		Net: &profile.Network{}, Profile: netip.MustParseAddr("10.0.0.7"), At: func(int64) profile.Window { return profile.Window{N: 1} },
		Emit: func(evidence.Evidence) { *n++ }, After: func(time.Duration, uint64) {},
	}
	return r, r.NewState().(*cleartext.State), modules.NewContext(h), h, n
}

// size returns how many bytes a state takes when it is saved.
func size(t *testing.T, r modules.Runner, st any) int {
	t.Helper()
	var b bytes.Buffer
	if err := r.Save(gob.NewEncoder(&b), st); err != nil {
		t.Fatal(err)
	}
	return b.Len()
}

// TestBound tries passwords at 100,000 servers over each protocol.
func TestBound(t *testing.T) {
	r, st, cx, _, n := run(t)
	for i := range 100_000 {
		for _, k := range []flow.Kind{flow.HTTP, flow.FTP, flow.Login} {
			f := record(k, 0, fmt.Sprintf("C%d", i))
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
			if !r.Chooser().Wants(f) {
				t.Fatal("not wanted")
			}
			r.Handle(cx, st, f)
		}
		f := record(flow.FTP, 0, fmt.Sprintf("C%d", i))
		f.Sensor, f.FTP.User = flow.Suricata, strings.Repeat("u", 1000)
		r.Handle(cx, st, f)
	}
	if s := size(t, r, st); *n != 300 || s > 60_000 {
		t.Errorf("%d reported, %d bytes", *n, s)
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
