// Package dga reports hosts that look up many domains that do not exist, as
// malware does that tries a list of generated ones.
package dga

import (
	"fmt"
	"log/slog"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/profiler/profile"
)

// NXDomains is the evidence this module emits.
const NXDomains evidence.Type = "DGA_NXDOMAINS"

// Config holds the threshold.
type Config struct {
	// MinNames is the number of different domains in a window that is reported first, at least 2.
	MinNames int `yaml:"min_names"`
}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "dga",
	Doc:   "many different domains that do not exist",
	Scope: modules.PerWindow,
	Kinds: flow.Of(flow.DNS),
	Needs: flow.Of(flow.DNS),
	Emits: []evidence.Spec{{
		Type: NXDomains, Level: evidence.High, Tactic: evidence.CommandAndControl, MITRE: []string{"T1568.002"}, Subject: "host", Over: "window",
		Doc: "a host looked up many different domains that do not exist",
	}},
}, Config{MinNames: 10}, New)

const (
	// maxServers is how many DNS servers a client asks; a resolver asks more.
	maxServers = 8
	// mailServer is the number of questions to block lists that show one.
	mailServer = 10
	// maxNames bounds the domains remembered for one profile and window. The
	// confidence is full long before; the count then stands for "at least".
	maxNames = 8192
	// examples is how many names the description quotes.
	examples = 3

	// full is what the domains have to count for full confidence. One that was
	// asked for by its own name counts bare, so that fifty are enough; one asked
	// for by a name below it counts below, because that is how programs name
	// their servers and what a filter of advertisements hides. One that looks
	// generated counts generated more, so that twenty are enough.
	full      = 100
	bare      = 2
	below     = 0.25
	generated = 5
	// shareFull is the share of look-ups that fail from which on failures are
	// the host's own. A resolver for others, whose users mistype, has less.
	shareFull = 0.05
	// blindest is what the number of names alone may come to for a host that
	// resolved nothing at all: rather its resolver is broken.
	blindest = 30
)

// State is what the module remembers of one profile in one window.
type State struct {
	// Servers marks the DNS servers asked, one of 64 places each. A host that
	// asks many walks the tree of names for others.
	Servers uint64
	// Lists counts names that begin with a reversed address: questions to the
	// block lists of mail servers, which ask for many dead domains too.
	Lists    int64
	Seen     modules.Table[bool] // hashes of the labels that counted
	Names    int64               // domains that count
	Deep     int64               // of them, asked for with a name below the domain
	Random   int64               // of them, with a label that looks random
	Len      int64               // sum of the labels' lengths
	Len2     int64               // and of their squares
	Found    int64               // look-ups that gave an answer
	Missing  int64               // look-ups that gave NXDOMAIN
	Step     int
	UIDs     []string // of the look-ups that counted, at most evidence.MaxUIDs
	Examples []string
	Dropped  int64 // look-ups not looked at because Seen was full
}

type rule struct {
	min int64
	log *slog.Logger
}

var (
	_ modules.Rule[State] = rule{}
	_ modules.Chooser     = rule{}
)

// New checks the config and returns the rule.
func New(c Config, env modules.Env) (modules.Rule[State], error) {
	if c.MinNames < 2 || c.MinNames > maxNames {
		return nil, fmt.Errorf("min_names: %d is not between 2 and %d", c.MinNames, maxNames)
	}
	return rule{min: int64(c.MinNames), log: env.Log}, nil
}

// Wants implements modules.Chooser. Generated names are asked for to connect
// to them; mail servers that check senders ask for MX and TXT.
func (r rule) Wants(f *flow.Flow) bool {
	d := f.DNS
	switch d.QType {
	case "A", "AAAA", "":
		return d.RCode == "NXDOMAIN" || d.RCode == "NOERROR" && len(d.Answers) > 0
	}
	return false
}

// Handle implements modules.Rule.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	if cx.Role() != profile.Client {
		return
	}
	if f.DNS.RCode != "NXDOMAIN" {
		st.Found++
		return
	}
	name := strings.ToLower(strings.TrimSuffix(f.DNS.Query, "."))
	st.Servers |= 1 << (modules.Hash(f.Dst, 0) % 64)
	if bits.OnesCount64(st.Servers) > maxServers {
		return
	}
	if reversed(name) {
		st.Lists++
		return
	}
	label, deep := registered(name)
	if label == "" {
		return
	}
	st.Missing++
	h := modules.HashText(label)
	if st.Seen.Get(h) != nil {
		return
	}
	if st.Seen.Len() >= maxNames {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Warn("too many different domains of one host in a window", "profile", cx.Profile(), "not_counted", st.Dropped)
		}
		return
	}
	*st.Seen.Put(h) = true
	st.Names++
	n := int64(len(label))
	st.Len, st.Len2 = st.Len+n, st.Len2+n*n
	if deep {
		st.Deep++
	}
	if random(label) {
		st.Random++
	}
	if len(st.UIDs) < evidence.MaxUIDs && f.UID != "" {
		st.UIDs = append(st.UIDs, strings.Clone(f.UID))
	}
	if len(st.Examples) < examples {
		st.Examples = append(st.Examples, strings.Clone(name))
	}
	step := modules.FineStep(st.Names, r.min)
	if step <= st.Step {
		return
	}
	st.Step = step
	cx.Emit(evidence.Evidence{
		Type: NXDomains, Attacker: evidence.IPEntity(f.Src, evidence.Src, 0),
		Level: evidence.High, Confidence: st.confidence(),
		Description: fmt.Sprintf("%s looked up %d different domains that do not exist (NXDOMAIN), %d with a name that looks random, such as %s.",
			f.Src, st.Names, st.Random, strings.Join(quoted(st.Examples), ", ")),
		Proto: f.Proto.String(), DstPort: f.DstPort,
		UIDs: append([]string(nil), st.UIDs...), Count: st.Names, Subject: "nxdomain", Step: step,
	})
}

// confidence grows with the number of domains: slowly for any, fast for those
// that look generated, which is more of them random than among real names, or
// all of one length.
func (st *State) confidence() float64 {
	n := float64(st.Names)
	plain := bare*(n-float64(st.Deep)) + below*float64(st.Deep)
	if st.Found == 0 {
		plain = min(plain, blindest)
	}
	plain *= min(1, float64(st.Missing)/float64(st.Missing+st.Found)/shareFull)
	// A quarter of the real names may look random: abbreviations, other languages.
	odd := max(0, 4*float64(st.Random)-n) / 3
	mean := float64(st.Len) / n
	deviation := math.Sqrt(max(0, float64(st.Len2)/n-mean*mean))
	// Lengths of real names deviate by 3 to 4 letters.
	even := n / 2 * min(1, max(0, 1.5-deviation))
	c := (plain + generated*min(n, odd+even)) / full
	if st.Lists >= mailServer {
		c /= 4
	}
	return math.Round(100*min(1, c)) / 100
}

// reversed reports whether a name begins with the four numbers of an IPv4 address.
func reversed(name string) bool {
	for range 4 {
		label, rest, ok := strings.Cut(name, ".")
		if n, err := strconv.ParseUint(label, 10, 8); !ok || err != nil || n > 255 {
			return false
		}
		name = rest
	}
	return true
}

func quoted(names []string) []string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = fmt.Sprintf("%q", n)
	}
	return q
}

// roots are top-level domains outside the public root that malware uses with
// resolvers of its own: Namecoin's and Emercoin's, and those of OpenNIC
// (servers.opennicproject.org, 2025).
const roots = " bit bazar coin emc lib bbs chan cyb dyn epic free fur geek gopher indy libre neo null o oss oz parody pirate "

// registered returns the label under which the name's domain is registered,
// which stands for the domain: a label that is tried under many suffixes is
// one. It is empty for names that say nothing when they do not exist: those
// outside the public DNS (printer.lan, a name of Tor, a single label), and
// service names such as _ldap._tcp.example.com. deep says that the name lies below the
// domain; www does not count.
func registered(name string) (label string, deep bool) {
	if strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") ||
		strings.HasSuffix(name, ".arpa") || strings.HasSuffix(name, ".onion") {
		return "", false
	}
	suffix, icann := publicsuffix.PublicSuffix(name)
	if !icann && !strings.Contains(suffix, ".") && !strings.Contains(roots, " "+suffix+" ") {
		return "", false // no suffix of the list: a private name
	}
	if len(name) < len(suffix)+2 {
		return "", false
	}
	rest := name[:len(name)-len(suffix)-1]
	i := strings.LastIndexByte(rest, '.')
	return rest[i+1:], i >= 0 && rest[:i] != "www"
}

// common[a*26+b] says how common the letter b is behind a in names: 5 is as
// often as chance, each step more is twice as often, each less half. It was
// counted for this module over the 105,000 words of three letters and more
// that are part of at least two names of packages of PyPI and npm (2025).
const common = "" +
	"46764563735778372878654454" + "63336222621632630553511130" + "72437327516642841656521241" + "75447443733443640553523241" +
	"75776553534768563987455643" + "52325411601631620544401140" + "53337245601534540643512130" + "72337211612332632435512040" +
	"66766662324768763677452525" + "40114000300010410051301000" + "52236232612432530353412030" + "73458332813642740365532251" +
	"75447332612553762353522140" + "74677573635445642367553342" + "55663563535778672866656532" + "72447335613633651655522270" +
	"21210000200410110222501000" + "84668452725555752566642251" + "63647337725554664368534251" + "74548436823543751765524352" +
	"55455341513666250666121322" + "51327120601222520232210010" + "51225213501323520342100110" + "32324211400331240225200130" +
	"54544343322445452455323212" + "41105002301220310111200022"

const (
	// minRandom is the shortest label that can be told from an abbreviation.
	minRandom = 6
	// A digit next to a letter is as rare in names as a pair at a quarter of
	// chance, a digit next to a digit as one at half.
	mixedPair, digitPair = 2, 3
)

// random reports whether the pairs of letters in a label are much rarer in
// names, on average, than those of words are: below 4.75 lie 1 in 50 words,
// 1 in 12 names of domains and 9 in 10 labels of random letters.
func random(label string) bool {
	if len(label) < minRandom || strings.HasPrefix(label, "xn--") {
		return false
	}
	sum, n := 0, 0
	for i := 1; i < len(label); i++ {
		a, b := label[i-1], label[i]
		la, lb := 'a' <= a && a <= 'z', 'a' <= b && b <= 'z'
		da, db := '0' <= a && a <= '9', '0' <= b && b <= '9'
		switch {
		case la && lb:
			sum += int(common[int(a-'a')*26+int(b-'a')] - '0')
		case da && db:
			sum += digitPair
		case la && db, da && lb:
			sum += mixedPair
		default:
			continue
		}
		n++
	}
	return 4*sum < 19*n
}
