package evidence

import (
	"net/netip"
	"regexp"
	"slices"
	"testing"
)

func TestLevels(t *testing.T) {
	for _, c := range []struct {
		v float64
		l Level
	}{{0, Info}, {0.1, Low}, {0.2, Low}, {0.21, Medium}, {0.5, Medium}, {0.8, High}, {0.9, Critical}, {5, Critical}} {
		if got := LevelOf(c.v); got != c.l {
			t.Errorf("%v is %s, want %s", c.v, got, c.l)
		}
	}
	for l := Info; l <= Critical; l++ {
		if LevelOf(l.Value()) != l {
			t.Errorf("%s does not come back from its value", l)
		}
	}
}

// The id depends on what the evidence is about and on nothing else, and is a
// UUID of version 5.
func TestDerive(t *testing.T) {
	base := Evidence{Type: "T", Profile: netip.MustParseAddr("10.0.0.1"), WindowStart: 5, Subject: "tcp/80", Step: 1}
	same := base
	same.Time, same.Confidence, same.Description, same.Key, same.Window = 9, 1, "other words", Key{Seq: 7}, 3
	ids := map[string]bool{}
	for i, e := range []Evidence{
		base,
		{Type: "U", Profile: base.Profile, WindowStart: 5, Subject: "tcp/80", Step: 1},
		{Type: "T", Profile: netip.MustParseAddr("10.0.0.2"), WindowStart: 5, Subject: "tcp/80", Step: 1},
		{Type: "T", Profile: base.Profile, WindowStart: 6, Subject: "tcp/80", Step: 1},
		{Type: "T", Profile: base.Profile, WindowStart: 5, Subject: "tcp/8", Step: 1},
		{Type: "T", Profile: base.Profile, WindowStart: 5, Subject: "tcp/80", Step: 2},
	} {
		e.Derive()
		if ids[e.ID] {
			t.Errorf("case %d has the id of another", i)
		}
		ids[e.ID] = true
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(e.ID) {
			t.Errorf("%s is no UUIDv5", e.ID)
		}
	}
	base.Derive()
	same.Derive()
	if base.ID != same.ID {
		t.Error("the id depends on more than the subject")
	}
	if UUID("a", "bc") == UUID("ab", "c") {
		t.Error("parts run together")
	}
}

func TestKeyOrder(t *testing.T) {
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	want := []Key{
		{At: 1, Class: 2, Seq: 9},
		{At: 2, Class: 0, Seq: 9},
		{At: 2, Class: 1, Seq: 1},
		{At: 2, Class: 2, Seq: 1, Owner: a},
		{At: 2, Class: 2, Seq: 1, Owner: a, Role: 1},
		{At: 2, Class: 2, Seq: 1, Owner: b},
		{At: 2, Class: 2, Seq: 1, Owner: b, Module: 1},
		{At: 2, Class: 2, Seq: 1, Owner: b, Module: 1, Ord: 1},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, Key.Compare)
	if !slices.Equal(got, want) {
		t.Errorf("order is %v", got)
	}
}
