package modules

import (
	"net/netip"
	"slices"
	"testing"
)

func TestUIDs(t *testing.T) {
	if UID("") != nil || !slices.Equal(UID("C1"), []string{"C1"}) {
		t.Errorf("UID gives %q and %q", UID(""), UID("C1"))
	}
	var uids []string
	for _, uid := range []string{"C1", "", "C2", "C3", "C4", ""} {
		uids = KeepUID(uids, uid, 3)
	}
	if !slices.Equal(uids, []string{"C2", "C3", "C4"}) {
		t.Errorf("kept %q", uids)
	}
}

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		s     string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc…"}, {"abé", 3, "ab…"}, {"", 3, ""}} {
		if got := Clip(tt.s, tt.limit); got != tt.want {
			t.Errorf("%q to %d: %q, want %q", tt.s, tt.limit, got, tt.want)
		}
	}
}

func TestWhere(t *testing.T) {
	for want, port := range map[string]uint16{"192.0.2.1": 0, "192.0.2.1:443": 443} {
		if got := Where(netip.MustParseAddr("192.0.2.1"), port); got != want {
			t.Errorf("port %d: %q, want %q", port, got, want)
		}
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1",
		"example.com": "", "1.example.com": "", "1.2.3": "", "TXT 5 1:2": "", "": "", "1": "",
	} {
		a, ok := Address(text)
		if ok != (want != "") || ok && a.String() != want {
			t.Errorf("%q: %v, %v, want %q", text, a, ok, want)
		}
	}
}
