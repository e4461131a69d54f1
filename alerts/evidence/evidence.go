// Package evidence defines what a module reports. It imports the standard
// library only.
package evidence

import (
	"cmp"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
)

// Type names a kind of evidence, in the reference's words (HORIZONTAL_PORT_SCAN).
type Type string

// Level is a threat level.
type Level uint8

// The levels, in ascending order.
const (
	Info Level = iota
	Low
	Medium
	High
	Critical
)

// String returns the name of the level in lower case.
func (l Level) String() string {
	return [...]string{"info", "low", "medium", "high", "critical", "critical", "critical", "critical"}[l&7]
}

// Value returns the weight of the level (reference 1.5).
func (l Level) Value() float64 { return [...]float64{0, 0.2, 0.5, 0.8, 1, 1, 1, 1}[l&7] }

// LevelOf returns the first level, in ascending order, whose value is at least v.
func LevelOf(v float64) Level {
	for l := range Critical {
		if l.Value() >= v {
			return l
		}
	}
	return Critical
}

// Tactic is the kind of behaviour that a type of evidence belongs to: an
// ATT&CK tactic by its short name, or Context. Evidence of several tactics
// corroborates, evidence of one repeats.
type Tactic string

// The tactics (attack.mitre.org/tactics/enterprise).
const (
	// Context is no tactic: what helps to read other evidence, and proves nothing.
	Context           Tactic = "context"
	InitialAccess     Tactic = "initial-access"      // TA0001
	Execution         Tactic = "execution"           // TA0002
	DefenseEvasion    Tactic = "defense-evasion"     // TA0005
	CredentialAccess  Tactic = "credential-access"   // TA0006
	Discovery         Tactic = "discovery"           // TA0007
	LateralMovement   Tactic = "lateral-movement"    // TA0008
	CommandAndControl Tactic = "command-and-control" // TA0011
	Exfiltration      Tactic = "exfiltration"        // TA0010
	Impact            Tactic = "impact"              // TA0040
)

// Tactics returns all of them, in the order in which an attack goes.
func Tactics() []Tactic {
	return []Tactic{
		Context, InitialAccess, Execution, DefenseEvasion, CredentialAccess, Discovery, LateralMovement, CommandAndControl,
		Exfiltration, Impact,
	}
}

// Spec describes a type of evidence: what is the same for each of its kind.
type Spec struct {
	Type    Type
	Level   Level // the default; Evidence.Level may differ where the module's README says so
	Tactic  Tactic
	MITRE   []string // ATT&CK technique ids, such as T1046
	Method  string   // IDMEFv2 analyser method; "" means Heuristic
	Subject string   // what is reported once: "victim", "port/protocol", "name"
	Over    string   // the time over which it is added up: "flow", "window", "2 s", "24 h"
	Doc     string   // one line, for docs/modules.md
}

// Direction says on which side of the flow an entity sits.
type Direction uint8

// The directions.
const (
	Src Direction = iota
	Dst
)

// String returns "src" or "dst".
func (d Direction) String() string { return [...]string{"src", "dst"}[d&1] }

// IOC says what sort of value an entity is.
type IOC uint8

// The sorts. None marks an entity that is not there.
const (
	None IOC = iota
	IP
	Domain
	URL
	Hash
)

// String returns the name used as a key in evidence.jsonl.
func (t IOC) String() string { return [...]string{"", "ip", "domain", "url", "hash", "", "", ""}[t&7] }

// Entity is the attacker or the victim.
type Entity struct {
	Kind      IOC
	Value     string
	Direction Direction
	Port      uint16 // 0 when it has none
	Known     *Known // what is known about it; nil until the evidence has left the engine, and when nothing is
}

// IPEntity returns an entity for an address.
func IPEntity(a netip.Addr, d Direction, port uint16) Entity {
	return Entity{Kind: IP, Value: a.String(), Direction: d, Port: port}
}

// MaxUIDs bounds the uids that one evidence carries. A scan of 100,000 hosts
// has more flows than a reader of the evidence can use; Count has them all.
const MaxUIDs = 100

// Evidence is one observation against a profile. A module fills the first
// block; the engine the second.
type Evidence struct {
	Type        Type
	Profile     netip.Addr // zero: the profile at hand
	Time        int64      // unix ns, start of the flow it is about; 0: that of the record at hand. It decides the window.
	Attacker    Entity
	Victim      Entity // Kind None: no victim
	Level       Level
	Confidence  float64 // 0 to 1; the engine clips it
	Description string  // a sentence without the threat level
	Proto       string  // "tcp"; "" when it does not apply
	SrcPort     uint16
	DstPort     uint16
	UIDs        []string // of the flows behind it, at most MaxUIDs; strings must be clones
	Count       int64    // how many flows or things are behind it; 0 is written as len(UIDs)

	// Subject is what the evidence is about within its type, profile and
	// window: the victim, the port, the name. Evidence of one Subject is
	// reported again only with a higher Step, on a log scale of growth.
	Subject string
	Step    int

	ID          string // derived from type, profile, window start, subject and step
	Module      string
	MITRE       []string // from the Spec when the module leaves it empty
	Tactic      Tactic   // likewise
	Method      string
	Window      int64 // number of the window
	WindowStart int64 // unix ns
	WindowEnd   int64
	Key         Key
}

// Key places evidence in one order that depends on the records alone: never
// on lanes, batches or scheduling.
type Key struct {
	At     int64  // stream time at which it was found
	Class  uint8  // timers, then window ends, then records
	Seq    uint64 // the record at hand, or the one that set the timer
	Owner  netip.Addr
	Role   uint8
	Module int
	Ord    int
}

// Compare orders keys.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.At, o.At), cmp.Compare(k.Class, o.Class), cmp.Compare(k.Seq, o.Seq),
		k.Owner.Compare(o.Owner), cmp.Compare(k.Role, o.Role), cmp.Compare(k.Module, o.Module), cmp.Compare(k.Ord, o.Ord))
}

// namespace is the UUID of this project's evidence, drawn once.
var namespace = [16]byte{0x5c, 0x1e, 0x0d, 0x6b, 0x7a, 0x43, 0x4f, 0x2e, 0x9b, 0x0a, 0x3d, 0x94, 0x51, 0xd7, 0xc8, 0x66}

// Derive sets the ID: a UUIDv5 (RFC 9562) over what the evidence is about, so
// that two runs over the same traffic give the same one.
func (e *Evidence) Derive() {
	e.ID = UUID("evidence", string(e.Type), e.Profile.String(), stamp(e.WindowStart), e.Subject, stamp(int64(e.Step)))
}

func stamp(v int64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(v))
	return string(b[:])
}

// UUID returns the UUIDv5 of the parts in this project's namespace. Parts are
// kept apart, so ("a", "bc") and ("ab", "c") differ.
func UUID(parts ...string) string {
	h := sha1.New()
	h.Write(namespace[:])
	for _, p := range parts {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	s := hex.EncodeToString(u)
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
