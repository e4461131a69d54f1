package useragent

import (
	"strings"

	"github.com/slips-go/slips/alerts/evidence"
)

// sort is what an agent belongs to.
type sort uint8

const (
	malware  sort = iota
	scanner       // a tool for attacks
	attack        // an exploit in the request itself
	download      // a program of the system that is abused to fetch files
	script        // a program that any script uses
)

// sorts say what each is worth. Scripts are on every server, and help only to
// read what else was found.
var sorts = [...]struct {
	level      evidence.Level
	confidence float64
	tactic     evidence.Tactic
	mitre      []string
}{
	malware:  {evidence.High, 1, evidence.CommandAndControl, []string{"T1071.001"}},
	scanner:  {evidence.High, 0.8, evidence.Discovery, []string{"T1046", "T1595.002"}},
	attack:   {evidence.High, 1, evidence.InitialAccess, []string{"T1190"}},
	download: {evidence.Low, 0.8, evidence.CommandAndControl, []string{"T1105"}},
	script:   {evidence.Info, 0.3, evidence.Context, []string{"T1071.001"}},
}

// mark is what gives an agent away. The zero value is nothing.
type mark struct {
	name       string // reported once in a window
	what       string
	of         sort
	confidence float64 // 0: that of the sort
}

// words are agents by a whole word of theirs: those of the original Slips
// (httpsend, chm_msdn, pb, tesseract), and what is common knowledge of 2025,
// written down by hand and not checked against the tools themselves.
var words = makeWords()

func makeWords() map[string]mark {
	m := make(map[string]mark)
	add := func(of sort, what string, confidence float64, list string) {
		for w := range strings.FieldsSeq(list) {
			m[w] = mark{w, what, of, confidence}
		}
	}
	add(malware, "malware", 0, "httpsend chm_msdn teslabrowser")
	add(malware, "malware, by a name so short that it may be another's", 0.5, "pb tesseract")
	add(scanner, "a tool for attacks", 0, `sqlmap nikto masscan zgrab hydra gobuster dirbuster dirb wfuzz ffuf nuclei wpscan acunetix
		openvas feroxbuster whatweb arachni havij zmeu w3af skipfish commix xsser joomscan fimap metasploit
		muieblackcat jorgee morfeus zgrab2 crackmapexec nessus netsparker`)
	add(download, "a program of Windows that is abused to fetch files", 0, "certutil")
	add(script, "a script", 0, "windowspowershell powershell curl wget python-requests python-urllib winhttp go-http-client libwww-perl")
	return m
}

// parts are agents by words that go together.
var parts = [...]struct {
	text string // in lower case
	mark mark
}{
	{"nmap scripting engine", mark{"nmap", "a tool for attacks", scanner, 0}},
	{"fuzz faster u fool", mark{"ffuf", "a tool for attacks", scanner, 0}},
	{"charon; inferno", mark{"charon", "the malware Loki", malware, 0}},
	{"msie 6.1; windows nt)", mark{"msie 6.1", "Metasploit, by the name it takes when it is not told another", malware, 0.8}},
	{"winhttp.winhttprequest", mark{"winhttp", "a script", script, 0}},
}

// exact are agents that are nothing else.
var exact = map[string]mark{
	"hello, world":  {"hello, world", "bots that look for routers", malware, 0.7},
	"hello, world!": {"hello, world", "bots that look for routers", malware, 0.7},
	"mozzzzzzzzzzz": {"mozzzzzzzzzzz", "the malware Raccoon", malware, 0},
	"rc2.0/client":  {"rc2.0/client", "the malware Raccoon", malware, 0},
}

// judge returns what is wrong with an agent, the worst first.
func judge(agent string) mark {
	if e := exploit(agent); e != "" {
		return mark{e, "an exploit", attack, 0}
	}
	if len(agent) > maxParse {
		agent = agent[:maxParse]
	}
	var buf [maxParse]byte // so that nothing is allocated
	text := buf[:len(agent)]
	for i := range len(agent) {
		c := agent[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		text[i] = c
	}
	if m, ok := exact[string(text)]; ok {
		return m
	}
	found := mark{}
	for i := 0; i < len(text); {
		for i < len(text) && !letter(text[i]) {
			i++
		}
		from := i
		for i < len(text) && (letter(text[i]) || from < i && (text[i] == '-' || text[i] == '.') && i+1 < len(text) && letter(text[i+1])) {
			i++
		}
		if m, ok := words[string(text[from:i])]; ok && (found.name == "" || m.of < found.of) {
			found = m
		}
	}
	if found.name == "" || found.of >= download {
		for _, p := range parts {
			if contains(text, p.text) && (found.name == "" || p.mark.of < found.of) {
				found = p.mark
			}
		}
	}
	return found
}

func letter(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '_' }

func contains(text []byte, part string) bool {
	for i := 0; i+len(part) <= len(text); i++ {
		if text[i] == part[0] && string(text[i:i+len(part)]) == part {
			return true
		}
	}
	return false
}

// exploit returns the name of the exploit that a header or URI carries:
// look-ups of Log4j, also in pieces, functions for Shellshock, and PHP. It is
// asked for each request, and most have none of the characters it takes.
func exploit(s string) string {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '$':
			if lookup(s[i+1:]) {
				return "jndi"
			}
		case '%':
			if len(s) > i+5 && s[i+1] == '2' && s[i+2] == '4' && lookup(s[i+3:]) {
				return "jndi"
			}
		case '(':
			if strings.HasPrefix(s[i:], "() {") {
				return "shellshock"
			}
		case '<':
			if rest := s[i:]; prefix(rest, "<?php") || prefix(rest, "<?eval") || prefix(rest, "<?=") {
				return "php"
			}
		}
	}
	return ""
}

// lookup reports whether what follows a dollar sign is a look-up of Log4j: by
// JNDI, or one of those that serve to hide the word from filters.
func lookup(s string) bool {
	switch {
	case strings.HasPrefix(s, "{"):
		s = s[1:]
	case prefix(s, "%7b"):
		s = s[3:]
	default:
		return false
	}
	for _, l := range [...]string{"jndi:", "jndi%3a", "lower:", "upper:", "::-", "env:", "${lower", "${upper", "${::-", "${env"} {
		if prefix(s, l) {
			return true
		}
	}
	return false
}
