// Package suffix finds the part of a name that somebody registered at a
// registry, by the Public Suffix List.
package suffix

import (
	"strings"

	"golang.org/x/net/publicsuffix"
)

// Registry returns the suffix that a registry runs and name is below, or is:
// "co.uk" of a.b.co.uk, and of me.blogspot.co.uk too, for blogspot.co.uk is a
// company's, which lends what is below it. The name is in lower case and has
// no dot at its end. When no registry is listed, as for printer.local, it is
// the last label, and listed is false.
func Registry(name string) (suffix string, listed bool) {
	for rest := name; ; {
		if suffix, listed = publicsuffix.PublicSuffix(rest); listed {
			return suffix, true
		}
		_, above, dotted := strings.Cut(suffix, ".")
		if !dotted {
			return suffix, false
		}
		rest = above
	}
}

// Below returns the last labels of name down to the one before its suffix:
// example.co.uk of a.example.co.uk and co.uk. It is empty for a name that is
// the suffix itself.
func Below(name, suffix string) string {
	if len(suffix) >= len(name) {
		return ""
	}
	return name[strings.LastIndexByte(name[:len(name)-len(suffix)-1], '.')+1:]
}
