package export

import (
	"cmp"
	"slices"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
)

// Summary is the content of summary.json. Maps are written in the order of
// their keys.
type Summary struct {
	Version  string           `json:"version"`
	Records  int64            `json:"records"`
	Kinds    map[string]int64 `json:"records_by_kind"`
	Sources  []SourceSummary  `json:"sources"`
	Ignored  int64            `json:"ignored"` // whole records of sorts that no detector uses
	Rejected map[string]int64 `json:"rejected"`
	Late     int64            `json:"late"`    // analysed, but their window had closed
	Dropped  int64            `json:"dropped"` // records that were lost: 0 unless something is wrong
	Profiles ProfileSummary   `json:"profiles"`
	Evidence EvidenceSummary  `json:"evidence"`
	Alerts   int64            `json:"alerts"`
	Modules  []ModuleSummary  `json:"modules"`
	Flows    *FlowStats       `json:"labeled_flows"` // null unless asked for
	Letters  *LetterStats     `json:"letters"`       // null unless asked for
	Stream   StreamSummary    `json:"stream"`
	Output   OutputSummary    `json:"output"`
	// Whitelist says what was not reported, and by which rule.
	Whitelist WhitelistSummary `json:"whitelist"`
	// Enrichment says how the online services did that are configured.
	Enrichment []ServiceSummary `json:"enrichment"`
	// Interfaces says what was captured on, and lost, of a live run.
	Interfaces []InterfaceSummary `json:"interfaces,omitempty"`
	// Blocks says what blocking did; nil when it was off.
	Blocks  *BlockSummary  `json:"blocks,omitempty"`
	Wall    float64        `json:"wall_seconds"`
	Rate    float64        `json:"records_per_second"`
	PeakRSS int64          `json:"peak_rss_bytes"`
	Extra   map[string]any `json:"extra,omitempty"` // whatever later parts have to say
}

// InterfaceSummary counts the packets of an interface.
type InterfaceSummary struct {
	Name    string  `json:"name"`
	Packets int64   `json:"packets"`      // that the engine took
	Dropped int64   `json:"dropped"`      // by the kernel or Zeek, because they came too fast
	Cut     int64   `json:"cut"`          // packets that were not captured whole, and analysed as far as they go
	Gaps    int     `json:"gaps"`         // times in which the interface was not watched
	Blind   float64 `json:"gaps_seconds"` // in all
}

// BlockSummary counts what blocking did.
type BlockSummary struct {
	DryRun    bool             `json:"dry_run"`
	Blocked   int              `json:"blocked"` // at the end
	Blocks    int64            `json:"blocks"`
	Extended  int64            `json:"extended"`
	Refused   map[string]int64 `json:"refused"` // by reason
	Expired   int64            `json:"expired"`
	Unblocked int64            `json:"unblocked"`
	Restored  int64            `json:"restored"`  // somebody else had removed them
	Failures  int64            `json:"failures"`  // calls of the firewall
	Released  int64            `json:"released"`  // by us, because they must not be blocked any more
	Damaged   int64            `json:"damaged"`   // times that parts of the firewall were missing
	Unaudited int64            `json:"unaudited"` // lines that the audit log did not take
	Dropped   int64            `json:"dropped"`   // decisions, because too many waited

	Isolation *IsolationSummary `json:"isolation,omitempty"` // nil without --arp-isolate
}

// IsolationSummary counts what ARP isolation did.
type IsolationSummary struct {
	Isolations int64            `json:"isolations"` // hosts
	Rejoined   int64            `json:"rejoined"`
	Refused    map[string]int64 `json:"refused"`  // hosts, by reason
	Crowded    int64            `json:"crowded"`  // pairs that were not told, because there were too many
	Failures   int64            `json:"failures"` // frames that could not be sent
}

// SourceSummary counts the lines of one source.
type SourceSummary struct {
	Name     string           `json:"name"`
	Records  int64            `json:"records"`
	Ignored  int64            `json:"ignored"`
	Rejected map[string]int64 `json:"rejected"`
	Late     int64            `json:"late"`
	Remarks  map[string]int64 `json:"remarks,omitempty"` // what was analysed and is odd, by what it is
	Error    string           `json:"error,omitempty"`   // why it could not be read to its end
}

// ProfileSummary counts profiles.
type ProfileSummary struct {
	Seen    int64 `json:"seen"`
	Evicted int64 `json:"evicted"` // before their time, because there were too many
}

// EvidenceSummary counts evidence.
type EvidenceSummary struct {
	Total      int64                   `json:"total"`
	Types      map[evidence.Type]int64 `json:"by_type"`
	Duplicates int64                   `json:"duplicates"`
	Disabled   int64                   `json:"disabled"`
}

// ModuleSummary counts what one module did.
type ModuleSummary struct {
	Name      string   `json:"name"`
	Missing   []string `json:"missing_logs,omitempty"` // it was off: it needs records that no input has
	Calls     int64    `json:"calls"`
	SampledNS int64    `json:"sampled_ns"` // time spent in the calls that were timed
	Samples   int64    `json:"samples"`    // how many were
	Evidence  int64    `json:"evidence"`
	Panics    int64    `json:"panics"`
}

// StreamSummary says which time the traffic spans.
type StreamSummary struct {
	First *time.Time `json:"first"` // null without records
	Last  *time.Time `json:"last"`
}

// Span returns the StreamSummary for times in unix ns.
func Span(first, last int64) StreamSummary {
	f, l := time.Unix(0, first).UTC(), time.Unix(0, last).UTC()
	return StreamSummary{&f, &l}
}

// WhitelistSummary counts what whitelists kept from being looked at or reported.
type WhitelistSummary struct {
	Flows    int64         `json:"flows"`    // records that nothing has seen
	Evidence int64         `json:"evidence"` // pieces that were dropped
	Rules    []RuleSummary `json:"rules"`    // by line
}

// RuleSummary counts what one line of a whitelist did.
type RuleSummary struct {
	Line     int    `json:"line"`
	Rule     string `json:"rule"`
	Flows    int64  `json:"flows"`
	Evidence int64  `json:"evidence"`
}

// ServiceSummary says how an online service did.
type ServiceSummary struct {
	Service   string           `json:"service"`
	State     string           `json:"state"`
	Reason    string           `json:"reason,omitempty"`
	Questions int64            `json:"questions"`
	Asked     int64            `json:"asked"`
	Found     int64            `json:"found"`
	Failed    int64            `json:"failed"`
	Cached    int64            `json:"cached"`
	Dropped   map[string]int64 `json:"dropped,omitempty"` // by reason
}

// OutputSummary says what could not be written.
type OutputSummary struct {
	LostLines int64 `json:"lost_lines"`
}

// normalise puts the lists in order and empty maps in the place of nil ones,
// so that readers find {} and not null.
func (s *Summary) normalise() {
	slices.SortStableFunc(s.Sources, func(a, b SourceSummary) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortStableFunc(s.Modules, func(a, b ModuleSummary) int { return cmp.Compare(a.Name, b.Name) })
	for i := range s.Sources {
		fill(&s.Sources[i].Rejected)
	}
	fill(&s.Kinds)
	fill(&s.Rejected)
	fill(&s.Evidence.Types)
	if s.Sources == nil {
		s.Sources = []SourceSummary{}
	}
	if s.Modules == nil {
		s.Modules = []ModuleSummary{}
	}
	if s.Whitelist.Rules == nil {
		s.Whitelist.Rules = []RuleSummary{}
	}
	if s.Enrichment == nil {
		s.Enrichment = []ServiceSummary{}
	}
}

func fill[K comparable, V any](m *map[K]V) {
	if *m == nil {
		*m = map[K]V{}
	}
}
