package alerts

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
)

const (
	// perType is how many pieces of evidence of one type count: the next one
	// would weigh a thousandth of the first.
	perType = 10
	// tacticShare is the part of the threshold that the evidence of a tactic has
	// to be worth to corroborate that of others: 3 of 15, one sure finding of
	// level low.
	tacticShare = 5
)

// Contribution is one piece of evidence behind an alert and what it adds.
type Contribution struct {
	ID          string
	Type        evidence.Type
	Tactic      evidence.Tactic
	Level       evidence.Level
	Confidence  float64
	Description string
	Peer        evidence.Entity // the other side; Kind None: there is none
	Time        int64           // unix ns
	Weight      float64         // FirstEvidenceWeight, halved for each greater one of its type in the window
	Value       float64         // Weight × level × confidence: what it adds to the base
}

// worth is what c is worth by itself, whatever else there is of its type.
func (c *Contribution) worth() float64 { return float64(c.Level.Value() * c.Confidence) }

// greaterFirst orders contributions of one type. Of equals the latest tells most.
func greaterFirst(a, b Contribution) int {
	return cmp.Or(cmp.Compare(b.worth(), a.worth()), cmp.Compare(b.Time, a.Time), cmp.Compare(a.ID, b.ID))
}

// Sum says how a score comes about.
type Sum struct {
	Base    float64           // the values of the contributions
	Tactics []evidence.Tactic // those that corroborate each other, in the order of evidence.Tactics
	Factor  float64           // 1 for one of them or none, and CorroborationWeight more for each further one
	Score   float64           // Base × Factor
}

// Text says it to people: "20.63 = 16.5 × 1.25 (discovery + command-and-control)".
func (s Sum) Text() string {
	if len(s.Tactics) < 2 {
		return number(s.Score)
	}
	names := make([]string, len(s.Tactics))
	for i, t := range s.Tactics {
		names[i] = string(t)
	}
	return number(s.Score) + " = " + number(s.Base) + " × " + number(s.Factor) + " (" + strings.Join(names, " + ") + ")"
}

// number shows v with two decimals at most.
func number(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }

// Counts reports whether e adds to the score of its profile: the attacker is the
// profile itself, and e is more than information.
func Counts(e *evidence.Evidence) bool {
	if e.Attacker.Kind != evidence.IP || e.Tactic == evidence.Context || e.Level.Value() == 0 || !(e.Confidence > 0) {
		return false
	}
	a, err := netip.ParseAddr(e.Attacker.Value)
	return err == nil && a.Unmap() == e.Profile.Unmap()
}

// Tally holds what counts against one profile in one window. The zero value
// is empty. It can be encoded with gob.
type Tally struct {
	Types   []kind // in the order of their types
	Omitted int    // pieces of evidence that are not among the greatest of their type
}

// kind is the evidence of one type.
type kind struct {
	Type evidence.Type
	Top  []Contribution // at most perType, greatest first; weights and values are of the last weighing
}

// Add puts e, of which Counts is true and which was not added before, in its place
// among the evidence of its type.
func (t *Tally) Add(e *evidence.Evidence) {
	c := Contribution{
		ID: e.ID, Type: e.Type, Tactic: e.Tactic, Level: e.Level, Confidence: min(e.Confidence, 1), Description: e.Description,
		Peer: e.Peer(), Time: e.Time,
	}
	i, found := slices.BinarySearchFunc(t.Types, e.Type, func(k kind, typ evidence.Type) int { return cmp.Compare(k.Type, typ) })
	if !found {
		t.Types = slices.Insert(t.Types, i, kind{Type: e.Type})
	}
	k := &t.Types[i]
	place, _ := slices.BinarySearchFunc(k.Top, c, greaterFirst)
	if len(k.Top) == perType {
		t.Omitted++
		if place == perType {
			return
		}
		k.Top = k.Top[:perType-1]
	}
	k.Top = slices.Insert(k.Top, place, c)
}

// len returns how many contributions are held.
func (t *Tally) len() (n int) {
	for i := range t.Types {
		n += len(t.Types[i].Top)
	}
	return n
}

// Weigh adds up what t holds, against a threshold, and gives each contribution
// its weight and value. The result does not depend on the order of Add.
func (t *Tally) Weigh(cfg Config, threshold float64) Sum {
	s := Sum{Factor: 1}
	tactics := evidence.Tactics()
	byTactic := make([]float64, len(tactics))
	for i := range t.Types {
		weight := cfg.FirstEvidenceWeight
		for j := range t.Types[i].Top {
			c := &t.Types[i].Top[j]
			// The conversions keep compilers from fusing a product with the
			// sum behind it, which would make the last bit depend on the machine.
			c.Weight, c.Value = weight, float64(weight*c.worth())
			s.Base += c.Value
			if n := slices.Index(tactics, c.Tactic); n >= 0 {
				byTactic[n] += c.Value
			}
			weight /= 2
		}
	}
	for i, tactic := range tactics {
		if byTactic[i] >= threshold/tacticShare {
			s.Tactics = append(s.Tactics, tactic)
		}
	}
	if n := len(s.Tactics); n > 1 {
		s.Factor += float64(cfg.CorroborationWeight * float64(n-1))
	}
	s.Score = float64(s.Base * s.Factor)
	return s
}

// Contributions returns a copy of what t holds as it was last weighed, the
// greatest value first.
func (t *Tally) Contributions() []Contribution {
	var list []Contribution
	for i := range t.Types {
		list = append(list, t.Types[i].Top...)
	}
	slices.SortFunc(list, func(x, y Contribution) int {
		return cmp.Or(cmp.Compare(y.Value, x.Value), cmp.Compare(x.Type, y.Type), cmp.Compare(x.ID, y.ID))
	})
	return list
}
