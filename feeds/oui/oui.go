// Package oui names the makers of network interfaces by their MAC addresses,
// from the IEEE's public registry. It imports the standard library only.
package oui

import (
	"bytes"
	"cmp"
	_ "embed" // the table
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Made from the IEEE's registry as Debian packages it (ieee-data 20220827.1:
// MA-L, MA-M, MA-S and IAB, of 27 August 2022) and the npm package oui-data
// 2.1.9 (MA-L, MA-M and MA-S, of 26 August 2026), which is right where they
// differ. Registry entries are facts; the IEEE asserts no copyright in them.
//
//go:generate go run ./generate -o table.bin /usr/share/ieee-data/iab.csv /usr/share/ieee-data/oui36.csv /usr/share/ieee-data/mam.csv /usr/share/ieee-data/oui.csv node_modules/oui-data/index.json

//go:embed table.bin
var registry string

// Vendor returns who makes the interface with the address mac, "" if that is
// not known. The address is written in hexadecimal, in any case, with ":", "-"
// or "." anywhere between the digits or with none. Addresses that no maker gave,
// because they are locally administered or of a group, have no vendor.
func Vendor(mac string) string { return Table(registry).Vendor(mac) }

// IsRandom reports whether mac is one that software made up, as phones do to
// be hard to follow: locally administered, and not of a group.
func IsRandom(mac string) bool {
	a, ok := parse(mac)
	return ok && a>>40&3 == 2
}

// parse reads an address of 48 bits. What can't be one is not ok.
func parse(mac string) (a uint64, ok bool) {
	digits := 0
	for i := range len(mac) {
		var d byte
		switch c := mac[i]; {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			d = c - 'A' + 10
		case (c == ':' || c == '-' || c == '.') && digits > 0:
			continue
		default:
			return 0, false
		}
		if digits++; digits > 12 {
			return 0, false
		}
		a = a<<4 | uint64(d)
	}
	return a, digits == 12
}

// Table is a registry in the form in which it is looked up: bytes that are
// used as they lie. It starts with the number of entries of each size of
// prefix, 32 bits each, big endian. Then come those entries, smallest prefix
// first and sorted: the prefix in whole bytes, its last digit zero where its
// number is odd, and three bytes that say where the name begins. Names follow
// each other at the end, each behind a byte with its length.
type Table string

// Sizes of prefixes in bits: MA-L, MA-M, and MA-S with the older IAB.
var sizes = [...]int{24, 28, 36}

const (
	header  = 4 * len(sizes)
	address = 3 // bytes of the address of a name
	// maxNames is what fits into address.
	maxNames = 1 << (8 * address)
)

// Vendor is as the function of that name. No bytes make it panic.
func (t Table) Vendor(mac string) string {
	a, ok := parse(mac)
	if !ok || a>>40&3 != 0 || len(t) < header {
		return ""
	}
	// Find where each part begins, and ask the longest prefixes first: the
	// blocks of the shorter ones are divided among many.
	var starts [len(sizes) + 1]int
	starts[0] = header
	for i, bits := range sizes {
		n := int(uint32(t[4*i])<<24 | uint32(t[4*i+1])<<16 | uint32(t[4*i+2])<<8 | uint32(t[4*i+3]))
		if n > len(t) {
			return ""
		}
		starts[i+1] = starts[i] + n*width(bits)
	}
	names := starts[len(sizes)]
	if names > len(t) {
		return ""
	}
	for i := len(sizes) - 1; i >= 0; i-- {
		if at, ok := find(string(t[starts[i]:starts[i+1]]), sizes[i], a); ok {
			return name(string(t[names:]), at)
		}
	}
	return ""
}

// width is the number of bytes of an entry with a prefix of that many bits.
func width(bits int) int { return (bits+7)/8 + address }

// find searches sorted entries for the prefix of a.
func find(entries string, bits int, a uint64) (at int, ok bool) {
	n := (bits + 7) / 8
	a = a >> (48 - bits) << (8*n - bits)
	w := width(bits)
	lo, hi := 0, len(entries)/w
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		e := entries[mid*w:][:w]
		var p uint64
		for i := range n {
			p = p<<8 | uint64(e[i])
		}
		switch {
		case p == a:
			return int(e[n])<<16 | int(e[n+1])<<8 | int(e[n+2]), true
		case p < a:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false
}

func name(names string, at int) string {
	if at >= len(names) || at+1+int(names[at]) > len(names) {
		return ""
	}
	return names[at+1:][:names[at]]
}

// Entry is one assignment of the registry.
type Entry struct {
	Prefix string // 6, 7 or 9 hexadecimal digits
	Vendor string
}

// Encode makes a Table. Of entries with one prefix the last counts. Names are
// cleaned and lose the forms of companies at their end, so that "Apple, Inc."
// is "Apple". Left out are entries that name nobody, as the registry's own
// and private ones do, and those of addresses that Vendor does not look up.
func Encode(entries []Entry) ([]byte, error) {
	of := make(map[string]string, len(entries))
	for _, e := range entries {
		prefix := strings.ToUpper(e.Prefix)
		if !slices.ContainsFunc(sizes[:], func(bits int) bool { return 4*len(prefix) == bits }) ||
			strings.Trim(prefix, "0123456789ABCDEF") != "" {
			return nil, fmt.Errorf("the prefix %q has not 6, 7 or 9 hexadecimal digits", e.Prefix)
		}
		of[prefix] = e.Vendor
	}
	parts := make([][]byte, len(sizes))
	counts := make([]uint32, len(sizes))
	var names []byte
	where := make(map[string]int)
	// Short before long, as sizes are.
	prefixes := slices.SortedFunc(maps.Keys(of), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	for _, prefix := range prefixes {
		vendor := short(of[prefix])
		a, _ := parse(prefix + strings.Repeat("0", 12-len(prefix)))
		if nobody(vendor) || a>>40&3 != 0 {
			// A block that is divided has its owner in the longer prefixes. One
			// of somebody unknown within another's must hide that other.
			if len(prefix) == 6 || a>>40&3 != 0 {
				continue
			}
			vendor = ""
		}
		at, ok := where[vendor]
		if !ok {
			at = len(names)
			where[vendor] = at
			names = append(append(names, byte(len(vendor))), vendor...)
		}
		if at >= maxNames {
			return nil, errors.New("the names are too many for the table")
		}
		i := slices.Index(sizes[:], 4*len(prefix))
		b := binary.BigEndian.AppendUint64(nil, a<<16)
		parts[i] = append(append(parts[i], b[:(sizes[i]+7)/8]...), byte(at>>16), byte(at>>8), byte(at))
		counts[i]++
	}
	var head []byte
	for _, n := range counts {
		head = binary.BigEndian.AppendUint32(head, n)
	}
	return slices.Concat(head, bytes.Join(parts, nil), names), nil
}

// nobody reports whether the registry's name is none of a maker.
func nobody(vendor string) bool {
	return vendor == "" || strings.EqualFold(vendor, "private") || strings.EqualFold(vendor, "IEEE Registration Authority")
}

// short returns a name as a reader wants it: on one line, without the form of
// the company.
func short(vendor string) string {
	words := strings.FieldsFunc(vendor, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ',' })
	for len(words) > 1 && companyForm(words[len(words)-1]) {
		words = words[:len(words)-1]
	}
	s := strings.ToValidUTF8(strings.Join(words, " "), "")
	const longest = 255 // one byte has the length
	for len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

// companyForm reports whether a word at the end of a name says only what sort
// of company it is.
func companyForm(word string) bool {
	switch strings.ToLower(strings.ReplaceAll(strings.Trim(word, "()"), ".", "")) {
	case "", "inc", "incorporated", "ltd", "limited", "coltd", "co", "company", "corp", "corporation", "corporate", "llc", "gmbh", "ag", "kg",
		"sa", "sas", "srl", "spa", "sl", "bv", "nv", "ab", "as", "oy", "kk", "plc", "pty", "pvt", "pte", "ltda", "sro", "&":
		return true
	}
	return false
}
