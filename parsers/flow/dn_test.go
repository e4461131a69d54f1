package flow

import "testing"

func TestAttribute(t *testing.T) {
	for _, c := range []struct{ dn, key, want string }{
		{"CN=a.example,O=B,C=US", "CN", "a.example"},
		{"C=US, O=B, CN=a.example", "CN", "a.example"},
		{"cn=a", "CN", "a"},
		{"CN=a,CN=b", "CN", "a"},
		{`O=A\, Inc.,CN=b`, "O", `A\, Inc.`},
		{`O=CN=x\,CN=y,CN=b`, "CN", "b"},
		{`OU=a\`, "CN", ""},
		{"XCN=a", "CN", ""},
		{"CN", "CN", ""},
		{"CN=", "CN", ""},
		{"", "CN", ""},
		{",,CN=a", "CN", "a"},
	} {
		if got := Attribute(c.dn, c.key); got != c.want {
			t.Errorf("Attribute(%q, %q) = %q, want %q", c.dn, c.key, got, c.want)
		}
	}
}

func TestCommonName(t *testing.T) {
	for dn, want := range map[string]string{"O=A,CN=b": "b", "O=A,C=US": "O=A,C=US", "CN=,O=A": "CN=,O=A", "": ""} {
		if got := CommonName(dn); got != want {
			t.Errorf("CommonName(%q) = %q, want %q", dn, got, want)
		}
	}
}

func TestSelfIssued(t *testing.T) {
	for _, c := range []struct {
		subject, issuer string
		want            bool
	}{
		{"CN=a,O=b", "CN=a,O=b", true},
		{"CN=a,O=b", "CN=a,O=c", true},
		{"O=b", "O=b", true},
		{"CN=a,O=b", "CN=c,O=b", false},
		{"CN=,O=a", "CN=,O=b", false},
		{"", "", false},
		{"CN=a", "", false},
	} {
		if got := SelfIssued(c.subject, c.issuer); got != c.want {
			t.Errorf("SelfIssued(%q, %q) = %v", c.subject, c.issuer, got)
		}
	}
}
