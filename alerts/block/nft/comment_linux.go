package nft

import (
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/block"
)

// maxComment is how long a comment may be: the kernel takes 255 bytes, but nft
// cannot read back what it has listed when there are more than these.
const maxComment = 128

// comment returns what is kept with the element of e: "offence 2 ID" for an
// alert, "offence 1 by NAME: REASON" for an operator.
func comment(e block.Entry) string {
	id := e.Alert[:min(len(e.Alert), block.MaxAlert)]
	if e.By != "" {
		id = "by " + strings.ReplaceAll(e.By[:min(len(e.By), block.MaxBy)], ":", "")
		if e.Reason != "" {
			id += ": " + e.Reason
		}
	}
	// Nft prints comments in quotes and knows no escapes.
	odd := func(r rune) bool { return r < ' ' || r > '~' || r == '"' }
	if strings.ContainsFunc(id, odd) {
		id = strings.Map(func(r rune) rune {
			if odd(r) {
				return -1
			}
			return r
		}, id)
	}
	text := "offence " + strconv.Itoa(e.Offences) + " " + id
	return strings.TrimSpace(text[:min(len(text), maxComment)])
}

// parseComment enters into e what comment wrote. Anything else says nothing.
func parseComment(s string, e *block.Entry) {
	s, ok := strings.CutPrefix(s, "offence ")
	if !ok {
		return
	}
	n, id, _ := strings.Cut(s, " ")
	offences, err := strconv.Atoi(n)
	if err != nil || offences < 0 {
		return
	}
	e.Offences = offences
	if by, ok := strings.CutPrefix(id, "by "); ok {
		e.By, e.Reason, _ = strings.Cut(by, ": ")
		e.By = e.By[:min(len(e.By), block.MaxBy)]
		return
	}
	e.Alert = id[:min(len(id), block.MaxAlert)]
}
