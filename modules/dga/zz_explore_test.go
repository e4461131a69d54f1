package dga_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"strings"

	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/modules/connnodns"
	"github.com/slips-go/slips/modules/dga"
	"github.com/slips-go/slips/modules/dnsnoconn"
	"github.com/slips-go/slips/modules/modtest"
	"github.com/slips-go/slips/modules/notice"
	"github.com/slips-go/slips/modules/signature"
	"github.com/slips-go/slips/modules/sshguess"
	"github.com/slips-go/slips/modules/sshlogin"
)

func TestExplore(t *testing.T) {
	base := os.Getenv("BASE")
	for _, d := range strings.Fields(os.Getenv("EXPLORE")) {
		for _, s := range []modules.Spec{dga.Spec, sshguess.Spec, sshlogin.Spec, notice.Spec, signature.Spec, connnodns.Spec, dnsnoconn.Spec} {
			t.Run(d+"/"+s.Name, func(t *testing.T) {
				var ps []string
				for k := range 40 {
					_ = k
				}
				for _, k := range s.Kinds.Names() {
					m, _ := filepath.Glob(base + d + "/" + k + ".log*")
					ps = append(ps, m...)
				}
				if strings.HasSuffix(d, ".json") {
					ps = []string{base + d}
				}
				if len(ps) == 0 {
					return
				}
				es := modtest.Evidence(t, s, ps...)
				w := map[string]float64{}
				for _, e := range es {
					w[fmt.Sprint(e.Profile, " w", e.Window)] += e.Level.Value() * e.Confidence
				}
				fmt.Println("##", d, s.Name, len(es))
				for i, e := range es {
					if i < 25 {
						fmt.Println("   ", e.Profile, e.Window, e.Level, e.Confidence, e.Description)
					}
				}
				for k, v := range w {
					if v > 1 {
						fmt.Println("  weight", k, v)
					}
				}
			})
		}
	}
}
