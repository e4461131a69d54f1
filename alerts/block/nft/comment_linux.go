package nft

import (
	"strconv"
	"strings"

	"github.com/slips-go/slips/alerts/block"
)

// comment returns what is kept with the element of e.
func comment(e block.Entry) string {
	id := e.Alert[:min(len(e.Alert), block.MaxAlert)]
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
	return strings.TrimSpace("offence " + strconv.Itoa(e.Offences) + " " + id)
}

// parseComment reads what comment wrote. Anything else says nothing.
func parseComment(s string) (offences int, alert string) {
	s, ok := strings.CutPrefix(s, "offence ")
	if !ok {
		return 0, ""
	}
	n, id, _ := strings.Cut(s, " ")
	offences, err := strconv.Atoi(n)
	if err != nil || offences < 0 {
		return 0, ""
	}
	return offences, id[:min(len(id), block.MaxAlert)]
}
