package flow

import (
	_ "embed"
	"strconv"
	"strings"
)

// portsText is IANA's Service Name and Transport Protocol Port Number Registry
// (https://www.iana.org/assignments/service-names-port-numbers, state of July
// 2023): a line for each assigned port, "80 http", or "512/tcp exec" where TCP
// and UDP differ. Of several names of a port it has the first.
//
//go:embed ports.txt
var portsText string

// PortName returns the service name that IANA's registry has for a port of TCP
// or UDP, and "" when there is none.
func PortName(p Proto, port uint16) string {
	if p != TCP && p != UDP || port == 0 {
		return ""
	}
	// The lines are in the order of ports: from is the first line that may be
	// of this one, and to the first that is not.
	from, to := 0, len(portsText)
	for from < to {
		middle := strings.LastIndexByte(portsText[:(from+to)/2], '\n') + 1
		if number(portsText[middle:]) < int(port) {
			from = middle + strings.IndexByte(portsText[middle:], '\n') + 1
		} else {
			to = middle
		}
	}
	for line := range strings.Lines(portsText[from:]) {
		if number(line) != int(port) {
			break
		}
		key, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, only, ok := strings.Cut(key, "/"); !ok || only == p.String() {
			return name
		}
	}
	return ""
}

// number returns the number that a line begins with.
func number(line string) int {
	n := 0
	for i := 0; i < len(line) && '0' <= line[i] && line[i] <= '9'; i++ {
		n = 10*n + int(line[i]-'0')
	}
	return n
}

// PortSet is a set of ports, 8 KiB.
type PortSet [1 << 16 / 64]uint64

// Has reports whether port is in s.
func (s *PortSet) Has(port uint16) bool { return s[port>>6]&(1<<(port&63)) != 0 }

// Add puts port into s.
func (s *PortSet) Add(port uint16) { s[port>>6] |= 1 << (port & 63) }

// AssignedPorts returns the ports that IANA's registry has a service for, of
// TCP or UDP. It takes about a millisecond, so a module asks in New.
func AssignedPorts(p Proto) *PortSet {
	s := new(PortSet)
	for line := range strings.Lines(portsText) {
		key, _, _ := strings.Cut(line, " ")
		num, proto, only := strings.Cut(key, "/")
		if only && proto != p.String() {
			continue
		}
		if n, err := strconv.ParseUint(num, 10, 16); err == nil {
			s.Add(uint16(n))
		}
	}
	return s
}

// IsMail reports whether a port is one of SMTP, POP3 or IMAP, in the clear or
// over TLS, by IANA's registry.
func IsMail(port uint16) bool {
	switch port {
	case 25, 110, 143, 465, 587, 993, 995:
		return true
	}
	return false
}
