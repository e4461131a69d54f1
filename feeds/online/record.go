package online

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/slips-go/slips/parsers/flow"
)

// said is what a service said, in the keys of lookup.log.
type said struct {
	Service    string      `json:"service"`
	Of         string      `json:"of"`
	Subject    string      `json:"subject"`
	Found      *bool       `json:"found,omitempty"`
	Error      string      `json:"error,omitempty"`
	Malicious  int         `json:"malicious,omitempty"`
	Total      int         `json:"total,omitempty"`
	Score      float64     `json:"score,omitempty"`
	Verdict    string      `json:"verdict,omitempty"`
	Lists      []string    `json:"lists,omitempty"`
	Tags       []string    `json:"tags,omitempty"`
	Link       string      `json:"link,omitempty"`
	Registered json.Number `json:"registered,omitempty"` // unix s
	Registrant string      `json:"registrant,omitempty"`
	Names      []string    `json:"names,omitempty"`
	ASN        uint32      `json:"asn,omitempty"`
	ASOrg      string      `json:"as_org,omitempty"`
	Country    string      `json:"country,omitempty"`
	JARM       string      `json:"jarm,omitempty"`
}

func saidOf(p *flow.LookupPart) said {
	s := said{
		Service: p.Service, Of: p.Of, Subject: p.Subject, Error: p.Error, Malicious: p.Malicious, Total: p.Total, Score: p.Score,
		Verdict: p.Verdict, Lists: p.Lists, Tags: p.Tags, Link: p.Link, Registrant: p.Registrant, Names: p.Names, ASN: p.ASN,
		ASOrg: p.ASOrg, Country: p.Country, JARM: p.JARM,
	}
	if p.Found != flow.Unset {
		found := p.Found == flow.True
		s.Found = &found
	}
	if p.Registered != 0 {
		s.Registered = seconds(p.Registered)
	}
	return s
}

// part is the way back.
func (s *said) part() flow.LookupPart {
	p := flow.LookupPart{
		Service: s.Service, Of: s.Of, Subject: s.Subject, Error: s.Error, Malicious: s.Malicious, Total: s.Total, Score: s.Score,
		Verdict: s.Verdict, Lists: s.Lists, Tags: s.Tags, Link: s.Link, Registrant: s.Registrant, Names: s.Names, ASN: s.ASN,
		ASOrg: s.ASOrg, Country: s.Country, JARM: s.JARM,
	}
	if s.Found != nil {
		p.Found = flow.False
		if *s.Found {
			p.Found = flow.True
		}
	}
	p.Registered = nanoseconds(s.Registered.String())
	return p
}

// seconds returns unix ns as seconds with all digits: through a float, some
// would be lost.
func seconds(ns int64) json.Number {
	sign := ""
	u := uint64(ns)
	if ns < 0 {
		sign, u = "-", -u
	}
	s := sign + strconv.FormatUint(u/1e9, 10)
	if frac := u % 1e9; frac != 0 {
		s += strings.TrimRight(fmt.Sprintf(".%09d", frac), "0")
	}
	return json.Number(s)
}

// nanoseconds is the way back; 0 for what seconds did not write.
func nanoseconds(s string) int64 {
	whole, frac, _ := strings.Cut(s, ".")
	if len(frac) > 9 {
		return 0
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 9-len(frac)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// line is one of lookup.log, with keys in the manner of Zeek.
type line struct {
	Path    string      `json:"_path"`
	Time    json.Number `json:"ts"`
	UID     string      `json:"uid,omitempty"`
	Src     string      `json:"id.orig_h,omitempty"`
	Dst     string      `json:"id.resp_h,omitempty"`
	DstPort uint16      `json:"id.resp_p,omitempty"`
	said
}

// appendJSON appends v and a newline to b.
func appendJSON(b []byte, v any) ([]byte, error) {
	w := bytes.NewBuffer(b)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return w.Bytes(), err
}

// Writer writes answers as lines of lookup.log, each with one call of Write, so
// that a reader that follows the log sees it at once. It may be used by
// several goroutines.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer onto w. It starts nothing.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Record writes one answer.
func (w *Writer) Record(a Answer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := line{Path: "lookup", Time: seconds(a.Time), UID: a.UID, Src: text(a.Src), Dst: text(a.Dst), DstPort: a.DstPort, said: saidOf(&a.LookupPart)}
	b, err := appendJSON(w.buf[:0], l)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	w.buf = b
	if _, err := w.w.Write(b); err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	return nil
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// OpenLog opens the lookup.log at path for appending. A line that was cut when
// the program was killed is ended, so that it spoils no other. The caller
// closes the file.
func OpenLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of answers: %w", err)
	}
	if err := endLine(f); err != nil {
		return nil, fmt.Errorf("opening the log of answers: %w", errors.Join(err, f.Close()))
	}
	return f, nil
}

func endLine(f *os.File) error {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], st.Size()-1); err != nil {
		return err
	}
	if last[0] != '\n' {
		_, err = f.Write([]byte{'\n'})
	}
	return err
}
