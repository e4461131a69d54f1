package coverage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/parsers/flow"
)

// moved returns the logs with the names of certificates where Zeek writes them
// from version 5 on: in x509.log, to which ssl.log has the fingerprint. ok is
// false when there is nothing to move.
func moved(t *testing.T, logs []log) (out []log, ok bool) {
	t.Helper()
	var certs bytes.Buffer
	for _, l := range logs {
		if l.kind == flow.X509 {
			return nil, false
		}
		if l.kind != flow.SSL {
			out = append(out, l)
			continue
		}
		var text bytes.Buffer
		for i, line := range l.lines {
			var keys map[string]any
			if json.Unmarshal(line, &keys) != nil { // a log in columns
				return nil, false
			}
			subject, has := keys["subject"]
			if !has || keys["cert_chain_fps"] != nil || keys["cert_chain_fuids"] != nil {
				fmt.Fprintf(&text, "%s\n", line)
				continue
			}
			fp := fmt.Sprintf("%040x", i+1)
			cert, err := json.Marshal(map[string]any{
				"ts": keys["ts"], "fingerprint": fp, "certificate.subject": subject, "certificate.issuer": keys["issuer"], "host_cert": true,
			})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&certs, "%s\n", cert)
			delete(keys, "subject")
			delete(keys, "issuer")
			keys["cert_chain_fps"] = []string{fp}
			thin, err := json.Marshal(keys)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, "%s\n", thin)
			ok = true
		}
		s, _ := split(l.name, text.Bytes())
		out = append(out, s)
	}
	x, _ := split("x509.log", certs.Bytes())
	return append(out, x), ok
}

// What the table says that the subject and issuer in ssl.log are needed for is
// found by x509.log and the fingerprints as well.
func TestInstead(t *testing.T) {
	list := trials(t)
	n := make(map[evidence.Type]int)
	for _, module := range []string{"certificate", "certname"} {
		for _, c := range list[module] {
			logs, ok := moved(t, c.logs)
			if !ok {
				continue
			}
			want := play(t, &c)
			c.logs = logs
			got := play(t, &c)
			for _, typ := range []evidence.Type{"SELF_SIGNED_CERTIFICATE", "INCOMPATIBLE_CN"} {
				n[typ] += len(want[typ])
				if len(got[typ]) < len(want[typ]) {
					t.Errorf("%s: %d pieces of %s by x509.log, %d by ssl.log", c.name, len(got[typ]), typ, len(want[typ]))
				}
			}
		}
	}
	if n["SELF_SIGNED_CERTIFICATE"] < 5 || n["INCOMPATIBLE_CN"] < 5 {
		t.Errorf("the cases show hardly anything: %v", n)
	}
}
