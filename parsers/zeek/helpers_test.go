package zeek

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slips-go/slips/parsers/flow"
)

// parts names the part of each kind that has one.
var parts = map[flow.Kind]string{
	flow.DNS: "DNS", flow.HTTP: "HTTP", flow.SSL: "SSL", flow.QUIC: "SSL", flow.X509: "X509", flow.Files: "Files",
	flow.SSH: "SSH", flow.SMTP: "SMTP", flow.FTP: "FTP", flow.DHCP: "DHCP", flow.ARP: "ARP", flow.Notice: "Notice",
	flow.Weird: "Weird", flow.Software: "Software", flow.Tunnel: "Tunnel", flow.Login: "Login", flow.Known: "Known",
	flow.RDP: "RDP", flow.SMB: "SMB", flow.Kerberos: "Kerberos", flow.NTLM: "NTLM", flow.DCERPC: "DCERPC",
	flow.NTP: "NTP", flow.SIP: "SIP", flow.MySQL: "MySQL", flow.SNMP: "SNMP", flow.Lookup: "Lookup",
}

// diff compares what of two records may be read: the part of another kind may not.
func diff(want, got *flow.Flow) string {
	w, g := own(want), own(got)
	return cmp.Diff(w, g, cmpopts.IgnoreUnexported(flow.Flow{}), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

func own(f *flow.Flow) flow.Flow {
	c := *f
	c.Parts = nil
	if name := parts[f.Kind]; name != "" && f.Parts != nil {
		c.Parts = new(flow.Parts)
		reflect.ValueOf(c.Parts).Elem().FieldByName(name).Set(reflect.ValueOf(f.Parts).Elem().FieldByName(name))
	}
	return c
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// decode feeds lines to d and returns what the last one gave.
func decode(d *Decoder, lines ...string) (*flow.Flow, error) {
	var f *flow.Flow
	var err error
	for _, l := range lines {
		f = new(flow.Flow)
		err = d.Decode(f, []byte(l))
	}
	return f, err
}

// toTSV turns a flat JSON record into the #fields line and the row that Zeek
// would have written for it.
func toTSV(t testing.TB, object string) (fields, row string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(object))
	dec.UseNumber()
	next := func() any {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("test record is not JSON: %v\n%s", err, object)
		}
		return tok
	}
	next()
	f, r := "#fields", []string{}
	for dec.More() {
		f += "\t" + next().(string)
		switch v := next().(type) {
		case json.Delim:
			var l []string
			for dec.More() {
				l = append(l, escapeTSV(fmt.Sprint(next()), ","))
			}
			next()
			if len(l) == 0 {
				l = []string{"(empty)"}
			}
			r = append(r, strings.Join(l, ","))
		case bool:
			r = append(r, map[bool]string{true: "T", false: "F"}[v])
		case nil:
			r = append(r, "-")
		default:
			r = append(r, escapeTSV(fmt.Sprint(v), ""))
		}
	}
	return f, strings.Join(r, "\t")
}

func escapeTSV(s, sets string) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	for _, c := range "\t\n" + sets {
		s = strings.ReplaceAll(s, string(c), fmt.Sprintf(`\x%02x`, c))
	}
	return s
}
