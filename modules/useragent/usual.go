package useragent

import "strings"

// usual returns the system that an agent names which consists of nothing but
// the words that browsers of the day have in theirs. Nine in ten are of that
// kind, and then there is nothing that judge could find, and parse, which
// takes ten times as long, would name the same system. ok is false for all
// other agents.
func usual(agent string) (is System, ok bool) {
	rest, ok := strings.CutPrefix(agent, "Mozilla/5.0 (")
	if !ok || len(agent) > maxParse {
		return Unknown, false
	}
	for i := 0; i < len(rest); i++ {
		from := i
		for i < len(rest) && wordByte(rest[i]) {
			i++
		}
		if i < len(rest) && !separates(rest[i]) {
			return Unknown, false
		}
		w := rest[from:i]
		if w == "" || '0' <= w[0] && w[0] <= '9' { // versions and dates, Mobile/15E148
			continue
		}
		of := Unknown
		switch w {
		case "NT":
			if strings.HasSuffix(rest[:from], "Windows ") {
				of = Windows
			}
		case "Macintosh", "iPhone", "iPad":
			of = Apple
		case "Linux", "Android":
			of = Linux
		case "Windows", "Win64", "WOW64", "x64", "X11", "Ubuntu", "Fedora", "x86_64", "Intel", "Mac", "OS", "X", "CPU", "K", "rv",
			"AppleWebKit", "KHTML", "like", "Gecko", "Chrome", "Safari", "Version", "Mobile", "Firefox", "Edg", "OPR":
		default:
			return Unknown, false
		}
		if of != Unknown && is != Unknown && of != is {
			return Unknown, false
		}
		is = max(is, of)
	}
	return is, true
}

func wordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.'
}

func separates(c byte) bool {
	switch c {
	case ' ', ';', '/', '(', ')', ',', ':':
		return true
	}
	return false
}
