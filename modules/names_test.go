package modules

import "testing"

func TestNames(t *testing.T) {
	n := NewNames(map[string]int{"example.com": 1, "dns.example.com": 2, "a-tool.net": 3})
	for _, tt := range []struct {
		host, name string
		v          int
	}{
		{"example.com", "example.com", 1},
		{"www.example.com", "example.com", 1},
		{"dns.example.com", "dns.example.com", 2},
		{"A.DNS.Example.COM.", "DNS.Example.COM", 2},
		{"dns.example.com:443", "dns.example.com", 2},
		{"notexample.com", "", 0},
		{"example.com.org", "", 0},
		{"com", "", 0},
		{"", "", 0},
		{".", "", 0},
		{"a-tool.net", "a-tool.net", 3},
		{"b-tool.net", "", 0},
		{"1.2.3.4.5.6.7.a-tool.net", "a-tool.net", 3},
		{"2001:db8::1", "", 0},
	} {
		if name, v := n.Find(tt.host); name != tt.name || v != tt.v {
			t.Errorf("%q: %q %d, want %q %d", tt.host, name, v, tt.name, tt.v)
		}
	}
	if a := testing.AllocsPerRun(100, func() { n.Find("www.Example.com") }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}
