package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/feeds/intel"
	"github.com/slips-go/slips/feeds/online"
)

// questionLine is a line of questions.jsonl: what a replay would have asked.
type questionLine struct {
	Time    int64      `json:"time"` // stream time, unix ns
	Why     online.Why `json:"why"`
	Of      string     `json:"of"`
	Subject string     `json:"subject"`
	Src     netip.Addr `json:"src"`
	Dst     netip.Addr `json:"dst"`
	DstPort uint16     `json:"dst_port"`
	UID     string     `json:"uid"`
}

// maxQuestions bounds the file: at a question a second they take a day.
const maxQuestions = 100_000

// questionFile writes questions down, each once.
type questionFile struct {
	path    string
	f       *os.File
	w       *bufio.Writer
	enc     *json.Encoder
	seen    map[questionLine]bool // without time and uid
	dropped int64
	err     error // the first
}

func newQuestionFile(path string) (*questionFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, &export.WriteError{Path: path, Err: err}
	}
	w := bufio.NewWriter(f)
	return &questionFile{path: path, f: f, w: w, enc: json.NewEncoder(w), seen: make(map[questionLine]bool)}, nil
}

func (q *questionFile) add(x online.Question) {
	l := questionLine{Why: x.Why, Of: x.Of.String(), Subject: x.Subject, Src: x.Src, Dst: x.Dst, DstPort: x.DstPort}
	if q.seen[l] || q.err != nil {
		return
	}
	if len(q.seen) == maxQuestions {
		q.dropped++
		return
	}
	q.seen[l] = true
	l.Time, l.UID = x.Time, x.UID
	q.err = q.enc.Encode(l)
}

func (q *questionFile) close() error {
	if err := errors.Join(q.err, q.w.Flush(), q.f.Close()); err != nil {
		return &export.WriteError{Path: q.path, Err: err}
	}
	return nil
}

// readQuestions reads what a replay has written down.
func readQuestions(path string) (list []online.Question, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	dec := json.NewDecoder(bufio.NewReader(f))
	for {
		var l questionLine
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return list, fmt.Errorf("%s: question %d: %w", path, len(list)+1, err)
		}
		of := intel.ParseKind(l.Of)
		if of == intel.NoKind {
			return list, fmt.Errorf("%s: question %d: of is %q", path, len(list)+1, l.Of)
		}
		list = append(list, online.Question{
			Time: l.Time, Why: l.Why, Of: of, Subject: l.Subject, Src: l.Src, Dst: l.Dst, DstPort: l.DstPort, UID: l.UID,
		})
	}
}
