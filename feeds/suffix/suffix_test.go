package suffix

import "testing"

func TestRegistry(t *testing.T) {
	for _, c := range []struct {
		name, suffix string
		listed       bool
		below        string
	}{
		{"a.b.example.co.uk", "co.uk", true, "example.co.uk"},
		{"example.com", "com", true, "example.com"},
		{"com", "com", true, ""},
		{"me.blogspot.com", "com", true, "blogspot.com"},
		{"x.y.github.io", "io", true, "github.io"},
		{"printer.local", "local", false, "printer.local"},
		{"a.printer.local", "local", false, "printer.local"},
		{"localhost", "localhost", false, ""},
	} {
		suffix, listed := Registry(c.name)
		if below := Below(c.name, suffix); suffix != c.suffix || listed != c.listed || below != c.below {
			t.Errorf("%s: %q, %v, %q; want %q, %v, %q", c.name, suffix, listed, below, c.suffix, c.listed, c.below)
		}
	}
}
