// Package ransom reports hosts that encrypt the files of others over SMB.
package ransom

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// Ransomware is the evidence this module emits.
const Ransomware evidence.Type = "RANSOMWARE"

// Config holds the thresholds.
type Config struct {
	// MinFiles is the number of files of one server that are given the same new
	// ending in a window, or half of those given any, that is reported first.
	MinFiles int `yaml:"min_files"`
	// MinFolders is the number of folders of one server in which the same
	// demand is left in a window that is reported first.
	MinFolders int `yaml:"min_folders"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "ransom",
	Doc:   "files of a server encrypted over SMB: new endings by the hundred, the same demand in many folders",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.SMB),
	Emits: []evidence.Spec{{
		Type: Ransomware, Level: evidence.High, Tactic: evidence.Impact, MITRE: []string{"T1486"},
		Subject: "victim, what was seen", Over: "window", Method: "Threshold",
		Doc: "a host gave many files of another a new ending, or left a demand in many of its folders",
	}},
}, Config{MinFiles: 100, MinFolders: 20}, New)

const (
	// maxVictims bounds the servers told apart in a window.
	maxVictims = 32
	// maxEndings, maxKinds and maxFolders bound what is told apart of one server,
	// maxDemands the names of demands there.
	maxEndings, maxKinds, maxFolders, maxDemands = 16, 8, 256, 4
	// minKinds is the number of sorts of files, and minFolders that of folders,
	// that a program which marks what it has processed does not have.
	minKinds, minFolders = 3, 10
	// maxCopies bounds the encrypted copies that wait for their originals to be
	// deleted: that is done file by file.
	maxCopies = 256
	// maxEnding and maxName bound what is quoted of names.
	maxEnding, maxName = 40, 100
	// maxExamples bounds the records named.
	maxExamples = 20
)

// State is what the module remembers of one host in one window.
type State struct {
	Victims modules.Recent[netip.Addr, *Victim]
}

// Victim is a server whose files are changed.
type Victim struct {
	Files   int64    // those that got a new ending
	Endings []Ending // the newest last
	Kinds   []uint32 // hashes of the endings they had
	Folders []uint32 // hashes of where they are
	Step    int
	UIDs    []string
	Copies  modules.RecentTable[uint32] // of the original's name, the hash of the copy's ending
	Demands []Demand                    // the newest last
}

// Ending is a new ending.
type Ending struct {
	Hash uint32
	N    int64
	Text string
}

// Demand is a name that demands have.
type Demand struct {
	Hash    uint32
	Folders []uint32
	Step    int
	UIDs    []string
}

type rule struct{ files, folders int64 }

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, _ modules.Env) (modules.Rule[State], error) {
	if c.MinFiles < 2 || c.MinFiles > 1_000_000 {
		return nil, fmt.Errorf("min_files: %d is not between 2 and 1000000", c.MinFiles)
	}
	if c.MinFolders < 2 || c.MinFolders > maxFolders/2 {
		return nil, fmt.Errorf("min_folders: %d is not between 2 and %d", c.MinFolders, maxFolders/2)
	}
	return rule{int64(c.MinFiles), int64(c.MinFolders)}, nil
}

// deed is what a record says.
type deed uint8

const (
	nothing  deed = iota
	renamed       // a file, so that it has a new ending
	copied        // to a file with one more ending
	deleted       // a file of an ordinary kind
	demanded      // a text was left that has the name of a demand
)

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool { return judge(f.SMB) != nothing }

// judge says what was done to a file.
func judge(p *flow.SMBPart) deed {
	if p.Name == "" || refused(p.Status) {
		return nothing
	}
	switch {
	case p.PrevName != "":
		if reEnded(p.PrevName, p.Name) {
			return renamed
		}
	case strings.HasSuffix(p.Action, "FILE_DELETE"):
		if ordinary(ending(base(p.Name))) {
			return deleted
		}
	case strings.HasSuffix(p.Action, "RENAME"):
		if appended(p.Name) {
			return renamed
		}
	case !created(p):
	case demand(p.Name):
		return demanded
	case appended(p.Name):
		return copied
	}
	return nothing
}

// created reports whether a file is new or written to. Zeek logs no writes
// unless it is told to, but opening a new file shows by its size.
func created(p *flow.SMBPart) bool {
	switch p.Action {
	case "SMB::FILE_OPEN":
		return p.Size <= 0
	case "SMB::FILE_WRITE", "FILE_CREATE", "FILE_SUPERSEDE", "FILE_OVERWRITE", "FILE_OVERWRITE_IF":
		return true
	}
	return false
}

func refused(s string) bool {
	s = strings.TrimPrefix(s, "STATUS_")
	return s != "" && s != "SUCCESS" && s != "0x0" && s != "0x00000000"
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client || !f.Dst.IsValid() || f.Dst == f.Src {
		return
	}
	what := judge(f.SMB)
	if what == nothing {
		return
	}
	v, known := st.Victims.Get(f.Dst)
	if !known {
		if what == deleted {
			return
		}
		v = new(Victim)
		st.Victims.Put(f.Dst, v, maxVictims)
	}
	p := f.SMB
	switch what {
	case renamed:
		old := p.PrevName
		if old == "" {
			old = stem(p.Name)
		}
		r.file(cx, v, f, old, v.ending(ending(base(p.Name))))
	case copied:
		*v.Copies.Put(modules.HashLower(stem(p.Name)), maxCopies) = v.ending(ending(base(p.Name))).Hash
	case deleted:
		h := v.Copies.Get(modules.HashLower(p.Name))
		if h == nil || *h == 0 {
			return
		}
		for i := range v.Endings {
			if e := &v.Endings[i]; e.Hash == *h {
				r.file(cx, v, f, p.Name, e)
			}
		}
		*h = 0
	case demanded:
		r.demand(cx, v, f)
	case nothing:
	}
}

// file counts a file that has got a new ending.
func (r rule) file(cx *modules.Context, v *Victim, f *flow.Flow, old string, e *Ending) {
	v.Files++
	e.N++
	v.Kinds = note(v.Kinds, modules.HashLower(ending(base(old))), maxKinds)
	v.Folders = note(v.Folders, modules.HashLower(folder(old)), maxFolders)
	n := max(e.N, v.Files/2)
	if 2*n >= r.files {
		v.UIDs = named(v.UIDs, f.UID)
	}
	step := modules.Step(n, r.files)
	// One folder and one sort of file are a program that marks what it has done.
	if step <= v.Step || len(v.Kinds) < minKinds && len(v.Folders) < minFolders {
		return
	}
	v.Step = step
	count, like := v.Files, "new endings"
	if e.N == n {
		count, like = e.N, fmt.Sprintf("the new ending %q", e.Text)
	}
	cx.Emit(evidence.Evidence{
		Type: Ransomware, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.High, Confidence: 1,
		Description: fmt.Sprintf("%s gave %d files of %s, of %s kinds in %s folders, %s, as ransomware does.",
			f.Src, count, f.Dst, atMost(len(v.Kinds), maxKinds), atMost(len(v.Folders), maxFolders), like),
		Proto: "tcp", DstPort: f.DstPort, UIDs: slices.Clone(v.UIDs), Count: count, Subject: f.Dst.String() + " files", Step: step,
	})
}

// atMost writes a number that was counted up to a limit.
func atMost(n, limit int) string {
	if n >= limit {
		return fmt.Sprintf("%d or more", n)
	}
	return fmt.Sprint(n)
}

// ending returns the count of a new ending. The rarest goes when there are too
// many, the oldest of them first.
func (v *Victim) ending(text string) *Ending {
	h := modules.HashLower(text)
	least := 0
	for i := range v.Endings {
		if v.Endings[i].Hash == h {
			return &v.Endings[i]
		}
		if v.Endings[i].N < v.Endings[least].N {
			least = i
		}
	}
	if len(v.Endings) >= maxEndings {
		v.Endings = slices.Delete(v.Endings, least, least+1)
	}
	v.Endings = append(v.Endings, Ending{Hash: h, Text: strings.Clone(text[:min(len(text), maxEnding)])})
	return &v.Endings[len(v.Endings)-1]
}

// demand counts the folders in which a demand was left.
func (r rule) demand(cx *modules.Context, v *Victim, f *flow.Flow) {
	name := base(f.SMB.Name)
	d := v.demand(modules.HashLower(name))
	where := modules.HashLower(f.SMB.Path) ^ modules.HashLower(folder(f.SMB.Name))
	if slices.Contains(d.Folders, where) || len(d.Folders) >= maxFolders {
		return
	}
	d.Folders = append(d.Folders, where)
	d.UIDs = named(d.UIDs, f.UID)
	n := int64(len(d.Folders))
	step := modules.Step(n, r.folders)
	if step <= d.Step {
		return
	}
	d.Step = step
	name = name[:min(len(name), maxName)]
	cx.Emit(evidence.Evidence{
		Type: Ransomware, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0), Victim: evidence.IPEntity(f.Dst, evidence.Dst, f.DstPort),
		Level: evidence.High, Confidence: 1,
		Description: fmt.Sprintf("%s left a file named %q in %d folders of %s, as ransomware leaves its demand.", f.Src, name, n, f.Dst),
		Proto:       "tcp", DstPort: f.DstPort, UIDs: slices.Clone(d.UIDs), Count: n, Subject: f.Dst.String() + " demand " + name, Step: step,
	})
}

func (v *Victim) demand(h uint32) *Demand {
	for i := range v.Demands {
		if v.Demands[i].Hash == h {
			return &v.Demands[i]
		}
	}
	if len(v.Demands) >= maxDemands {
		v.Demands = slices.Delete(v.Demands, 0, 1)
	}
	v.Demands = append(v.Demands, Demand{Hash: h})
	return &v.Demands[len(v.Demands)-1]
}

// note adds h to a set of limited size.
func note(set []uint32, h uint32, limit int) []uint32 {
	if len(set) >= limit || slices.Contains(set, h) {
		return set
	}
	return append(set, h)
}

func named(uids []string, uid string) []string {
	if uid == "" || len(uids) >= maxExamples || len(uids) > 0 && uids[len(uids)-1] == uid {
		return uids
	}
	return append(slices.Clone(uids), strings.Clone(uid))
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
