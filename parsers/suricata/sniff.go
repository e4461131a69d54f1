package suricata

import "bytes"

// sniffLines is how many lines are looked at: a file cut off by a rotation
// may start with half a line, but not with many.
const sniffLines = 8

// Sniff reports whether head, the start of an input of up to 64 KiB, perhaps
// cut in the middle of a line, looks like eve.json: one of its first lines is
// a JSON object with the members event_type and timestamp, both strings. It
// keeps nothing and may be called by anyone.
func Sniff(head []byte) bool {
	for range sniffLines {
		line, rest, more := bytes.Cut(head, []byte("\n"))
		if isEvent(bytes.TrimSpace(line)) {
			return true
		}
		if !more {
			return false
		}
		head = rest
	}
	return false
}

// isEvent reports whether line is, or starts like, an object with the members
// of an event at its top level.
func isEvent(line []byte) bool {
	if len(line) == 0 || line[0] != '{' {
		return false
	}
	var event, stamp bool
	depth := 0
	for i := 0; i < len(line); i++ {
		switch line[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := stringEnd(line, i)
			if depth == 1 && end < len(line) && stringFollows(line[end+1:]) {
				switch string(line[i+1 : end]) {
				case "event_type":
					event = true
				case "timestamp":
					stamp = true
				}
			}
			i = end
		}
		if event && stamp {
			return true
		}
	}
	return false
}

// stringFollows reports whether b goes on with a colon and a string, which
// makes what was before it a key.
func stringFollows(b []byte) bool {
	b, ok := bytes.CutPrefix(bytes.TrimLeft(b, " \t"), []byte(":"))
	if !ok {
		return false
	}
	b = bytes.TrimLeft(b, " \t")
	return len(b) > 0 && b[0] == '"'
}
