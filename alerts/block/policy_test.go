package block

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUntil(t *testing.T) {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	cfg := Defaults()
	fixed := cfg
	fixed.Duration, fixed.MaxDuration = 10*time.Minute, time.Hour
	for _, c := range []struct {
		name string
		cfg  Config
		r    Request
		n    int
		want time.Duration
	}{
		{"a window", cfg, Request{Window: 5 * time.Minute}, 1, 5 * time.Minute},
		{"no window known", cfg, Request{}, 1, time.Hour},
		{"second time", cfg, Request{Window: time.Hour}, 2, 2 * time.Hour},
		{"fifth time", cfg, Request{Window: time.Hour}, 5, 16 * time.Hour},
		{"sixth time", cfg, Request{Window: time.Hour}, 6, 24 * time.Hour},
		{"for the millionth time", cfg, Request{Window: time.Hour}, 1_000_000, 24 * time.Hour},
		{"a window of days", cfg, Request{Window: 72 * time.Hour}, 1, 24 * time.Hour},
		{"a window of nanoseconds", cfg, Request{Window: 1}, 1, time.Second},
		{"configured", fixed, Request{Window: 5 * time.Hour}, 1, 10 * time.Minute},
		{"configured, third time", fixed, Request{Window: 5 * time.Hour}, 3, 40 * time.Minute},
		{"configured, fourth time", fixed, Request{Window: 5 * time.Hour}, 4, time.Hour},
		{"seen a while ago", cfg, Request{Window: time.Hour, At: now.Add(-20 * time.Minute)}, 1, 40 * time.Minute},
		{"seen a while ago, again", cfg, Request{Window: time.Hour, At: now.Add(-20 * time.Minute)}, 2, 100 * time.Minute},
		{"seen long ago", cfg, Request{Window: time.Hour, At: now.Add(-2 * time.Hour)}, 1, -time.Hour},
		{"clock of the sensor ahead", cfg, Request{Window: time.Hour, At: now.Add(2 * time.Hour)}, 1, time.Hour},
		{"by hand", cfg, Request{Window: time.Hour, For: time.Minute, At: now.Add(-time.Hour)}, 4, time.Minute},
		{"by hand, long", cfg, Request{For: 100 * time.Hour}, 1, 24 * time.Hour},
	} {
		p := policy{cfg: c.cfg}
		if got := p.until(c.r, c.n, now).Sub(now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestOffences(t *testing.T) {
	now := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	a := netip.MustParsePrefix("192.0.2.1/32")
	p := policy{cfg: Defaults(), offenders: make(map[netip.Prefix]offender)}
	if n := p.offence(a, now); n != 1 {
		t.Errorf("first: %d", n)
	}
	p.remember(a, 1, now)
	if n := p.offence(a, now.Add(7*24*time.Hour)); n != 2 {
		t.Errorf("within a week: %d", n)
	}
	if n := p.offence(a, now.Add(7*24*time.Hour+1)); n != 1 {
		t.Errorf("after a week: %d", n)
	}
	b := netip.MustParseAddr("10.0.0.0")
	for i := range maxOffenders + 10 {
		p.remember(Single(b), 1, now.Add(time.Duration(i)))
		b = b.Next()
	}
	p.forget(now)
	if len(p.offenders) != maxOffenders || p.forgotten != 11 {
		t.Errorf("%d offenders, %d forgotten", len(p.offenders), p.forgotten)
	}
	if _, ok := p.offenders[netip.MustParsePrefix("10.0.0.9/32")]; ok {
		t.Error("one of those idle longest is remembered")
	}
	p.forget(now.Add(30 * 24 * time.Hour))
	if len(p.offenders) != 0 {
		t.Errorf("%d remembered for a month", len(p.offenders))
	}
}

func TestValidate(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"duration is -1s":                    func(c *Config) { c.Duration = -time.Second },
		"duration is 1ms":                    func(c *Config) { c.Duration = time.Millisecond },
		"max_duration is 0s":                 func(c *Config) { c.MaxDuration = 0 },
		"max_duration is 24h0m0s":            func(c *Config) { c.Duration = 25 * time.Hour },
		"max_duration is 10000h0m0s":         func(c *Config) { c.MaxDuration = 10_000 * time.Hour },
		"forget_after is -1ns":               func(c *Config) { c.ForgetAfter = -1 },
		"max_blocked is 0":                   func(c *Config) { c.MaxBlocked = 0 },
		"max_blocked is 1000001":             func(c *Config) { c.MaxBlocked = 1_000_001 },
		"allow_list[1]: \"example.com\" is":  func(c *Config) { c.AllowList = []string{"10.0.0.0/8", "example.com"} },
		"allow_list[0]: \"10.0.0.0/33\" is ": func(c *Config) { c.AllowList = []string{"10.0.0.0/33"} },
	} {
		c := Defaults()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offences.json")
	if o, err := loadState(path); err != nil || len(o) != 0 {
		t.Errorf("no file: %v, %v", o, err)
	}
	until := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	want := map[netip.Prefix]offender{
		netip.MustParsePrefix("192.0.2.1/32"):    {3, until},
		netip.MustParsePrefix("2001:db8::/64"):   {1, until.Add(time.Nanosecond)},
		netip.MustParsePrefix("198.51.100.0/25"): {2, until},
	}
	for range 2 { // the second replaces the first
		if err := saveState(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := loadState(path)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b offender) bool { return a == b })); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("files: %v, %v", names, err)
	}
	if err := saveState(filepath.Join(path, "x"), want); err == nil {
		t.Error("saved below a file")
	}
}

func FuzzState(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"offenders":{"192.0.2.1/32":{"offences":3,"until":"2026-11-22T06:00:00Z"}}}`,
		`{"version":1,"offenders":{"::ffff:192.0.2.1/128":{"offences":3,"until":"2026-11-22T06:00:00Z"}}}`,
		`{"version":2}`, `{}`, ``, `[]`, `{"version":1,"offenders":{"x":{}}}`, `{"version":1,"offenders":{"10.0.0.0/8":{"offences":-1}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		offenders, err := decodeState(b)
		if err != nil {
			return
		}
		for p, o := range offenders {
			if q, err := Canonical(p); err != nil || q != p || o.Count < 1 || o.Until.IsZero() {
				t.Errorf("%v: %+v", p, o)
			}
		}
	})
}
