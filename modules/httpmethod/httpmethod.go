// Package httpmethod reports HTTP requests with a method that nobody has
// registered or uses.
package httpmethod

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/modules"
	"github.com/slips-go/slips/parsers/flow"
)

// Weird is the evidence this module emits.
const Weird evidence.Type = "WEIRD_HTTP_METHOD"

// Config is empty.
type Config struct{}

// Spec describes the module.
var Spec = modules.Define(modules.Meta{
	Name:  "httpmethod",
	Doc:   "HTTP requests with an unknown method",
	Scope: modules.PerProfile,
	Kinds: flow.Of(flow.HTTP, flow.Weird),
	Emits: []evidence.Spec{{
		Type: Weird, Level: evidence.Medium, Tactic: evidence.CommandAndControl, MITRE: []string{"T1071.001"}, Subject: "server, port, method", Over: "window",
		Doc: "an HTTP request had a method that is neither registered nor known",
	}},
}, Config{}, New)

const (
	// wait is how long the other record of a request may take: the sensor
	// writes the method into one log and that it is odd into another.
	wait = 15 * time.Second
	// maxWaiting bounds the requests of one host that are about to be
	// reported. A fuzzer sends thousands, and the first of them tell enough.
	maxWaiting = 256
	// maxSeen bounds the requests and the targets remembered as reported.
	maxSeen = 1024
	// maxUIDs bounds the uids kept for each target, so that all of them
	// together stay small.
	maxUIDs = 10
	// maxMethod bounds the method in a description, in bytes.
	maxMethod = 60
)

// State is what the module remembers of one profile.
type State struct {
	Waiting map[uint64]Request // by running number
	Next    uint64
	Done    modules.Recent[Once, bool] // requests reported from one of their logs
	Targets modules.Recent[Target, Hits]
	Dropped int64 // requests not looked at because Waiting was full
}

// Request is a request with an unknown method.
type Request struct {
	Target
	SrcPort uint16
	Time    int64 // unix ns
	UID     string
}

// Once is a request, whichever log it is in.
type Once struct{ UID, Method string }

// Target is what is reported once in a window; the window's start is 0 while
// a request waits.
type Target struct {
	Dst    netip.Addr
	Port   uint16
	Method string
	Window int64
}

// Hits counts the requests at a Target.
type Hits struct {
	N    int64
	Step int
	UIDs []string // at most maxUIDs
}

type rule struct{ log *slog.Logger }

var (
	_ modules.Rule[State]       = rule{}
	_ modules.TimerFirer[State] = rule{}
	_ modules.Chooser           = rule{}
)

// New returns the rule.
func New(_ Config, env modules.Env) (modules.Rule[State], error) {
	return rule{env.Log}, nil
}

// Wants implements modules.Chooser.
func (rule) Wants(f *flow.Flow) bool { return method(f) != "" }

// method returns the unknown method that a record tells of; empty when it
// tells of none.
func method(f *flow.Flow) string {
	var m string
	switch f.Kind {
	case flow.HTTP:
		m = f.HTTP.Method
		if m == "GET" || m == "POST" || isRTSP(f.HTTP) {
			return ""
		}
	case flow.Weird:
		if f.Weird.Name != "unknown_HTTP_method" {
			return ""
		}
		m = f.Weird.Addl
	default:
		return ""
	}
	// Two hyphens begin the line between the parts of a multipart body (RFC 2046,
	// 5.1.1), where a sensor took up the stream in the middle: WinRM's bodies do that.
	if known[m] || strings.HasPrefix(m, "--") {
		return ""
	}
	return m
}

// isRTSP reports whether a request is one of RTSP, which looks like HTTP and
// has methods of its own. Sensors log it with HTTP when it is on such a port.
func isRTSP(h *flow.HTTPPart) bool {
	return strings.HasPrefix(h.Version, "RTSP") || len(h.URI) > 7 && strings.EqualFold(h.URI[:7], "rtsp://")
}

// Handle implements modules.Rule. Everything is reported from Fire, at a time
// that the record sets and not the order in which the logs come.
func (r rule) Handle(cx *modules.Context, st *State, f *flow.Flow) {
	m := method(f)
	if m == "" || !f.Dst.IsValid() {
		return
	}
	if len(st.Waiting) >= maxWaiting {
		if st.Dropped++; st.Dropped&(st.Dropped-1) == 0 {
			r.log.Debug("too many unknown HTTP methods of one host at a time", "profile", cx.Profile(), "not_counted", st.Dropped)
		}
		return
	}
	if st.Waiting == nil {
		st.Waiting = make(map[uint64]Request)
	}
	if len(m) > maxMethod {
		m = strings.ToValidUTF8(m[:maxMethod], "") + "…"
	}
	key := st.Next
	st.Next++
	st.Waiting[key] = Request{
		Target:  Target{Dst: f.Dst, Port: f.DstPort, Method: strings.Clone(m)},
		SrcPort: f.SrcPort, Time: f.Time, UID: strings.Clone(f.UID),
	}
	cx.After(wait, key)
}

// Fire implements modules.TimerFirer.
func (rule) Fire(cx *modules.Context, st *State, key uint64) {
	q, ok := st.Waiting[key]
	if !ok {
		return
	}
	delete(st.Waiting, key)
	if once := (Once{q.UID, q.Method}); q.UID != "" {
		if _, done := st.Done.Get(once); done {
			return // one connection counts once for each method
		}
		st.Done.Put(once, true, maxSeen)
	}
	t := q.Target
	t.Window = cx.WindowAt(q.Time).Start
	h, _ := st.Targets.Get(t)
	h.N++
	if len(h.UIDs) < maxUIDs && q.UID != "" {
		h.UIDs = append(h.UIDs, q.UID)
	}
	step := modules.Step(h.N, 1)
	report := step > h.Step
	h.Step = step
	st.Targets.Put(t, h, maxSeen)
	if !report {
		return
	}
	times := ""
	if h.N > 1 {
		times = fmt.Sprintf(", in %d connections of this window", h.N)
	}
	cx.Emit(evidence.Evidence{
		Type: Weird, Time: q.Time, Level: evidence.Medium, Confidence: 0.6,
		Attacker: evidence.IPEntity(cx.Profile(), evidence.Src, q.SrcPort), Victim: evidence.IPEntity(q.Dst, evidence.Dst, q.Port),
		Description: fmt.Sprintf("%s sent HTTP requests with the unknown method %q to %s%s.",
			cx.Profile(), q.Method, netip.AddrPortFrom(q.Dst, q.Port), times),
		Proto: "tcp", SrcPort: q.SrcPort, DstPort: q.Port,
		UIDs: append([]string(nil), h.UIDs...), Count: h.N,
		Subject: fmt.Sprintf("%s %d %s", q.Dst, q.Port, q.Method), Step: step,
	})
}

// known are the methods in the registry of the IANA (WebDAV's included), and
// those of common software that are not registered.
var known = makeKnown()

func makeKnown() map[string]bool {
	m := make(map[string]bool)
	for _, list := range [...]string{
		// Those of www.iana.org/assignments/http-methods, written down by hand, and QUERY.
		`ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR
		MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY REBIND REPORT
		SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL`,
		// Microsoft: Exchange, RPC over HTTP, BITS, Configuration Manager, SSTP, IIS.
		`BCOPY BDELETE BMOVE BPROPFIND BPROPPATCH NOTIFY POLL SUBSCRIBE UNSUBSCRIBE X-MS-ENUMATTS RPC_IN_DATA RPC_OUT_DATA
		BITS_POST CCM_POST SMS_POST SSTP_DUPLEX_POST RPC_CONNECT DEBUG TRACK RDG_IN_DATA RDG_OUT_DATA`,
		// UPnP, caches, radio streams.
		`M-SEARCH M-POST PURGE BAN REFRESH SOURCE`,
	} {
		for f := range strings.FieldsSeq(list) {
			m[f] = true
		}
	}
	m[""] = true // not logged
	return m
}
