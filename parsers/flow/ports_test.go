package flow

import "testing"

func TestPortName(t *testing.T) {
	for _, c := range []struct {
		p    Proto
		port uint16
		want string
	}{
		{TCP, 1, "tcpmux"},
		{UDP, 1, "tcpmux"},
		{TCP, 80, "http"},
		{UDP, 53, "domain"},
		{TCP, 443, "https"},
		{TCP, 512, "exec"},
		{UDP, 512, "comsat"},
		{TCP, 0, ""},
		{TCP, 61000, ""},
		{ICMP, 8, ""},
		{TCP, 3389, "ms-wbt-server"},
	} {
		if got := PortName(c.p, c.port); got != c.want {
			t.Errorf("%s %d: %q, want %q", c.p, c.port, got, c.want)
		}
	}
}

func TestAssignedPorts(t *testing.T) {
	for _, p := range []Proto{TCP, UDP} {
		s := AssignedPorts(p)
		n := 0
		for port := range 1 << 16 {
			if s.Has(uint16(port)) {
				n++
			}
			if port%97 != 0 {
				continue
			}
			if got := PortName(p, uint16(port)) != ""; got != s.Has(uint16(port)) {
				t.Errorf("%s %d: named is %v, assigned is %v", p, port, got, s.Has(uint16(port)))
			}
		}
		if n < 5000 {
			t.Errorf("%s: %d ports", p, n)
		}
	}
	if !AssignedPorts(UDP).Has(512) || AssignedPorts(TCP).Has(61000) {
		t.Error("the set is not the registry's")
	}
}
