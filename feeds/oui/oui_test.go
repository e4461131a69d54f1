package oui

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestVendor asks the embedded registry for assignments that are public
// knowledge, old ones and some newer than 2022.
func TestVendor(t *testing.T) {
	for mac, want := range map[string]string{
		"00:00:0c:12:34:56":    "Cisco Systems",
		"00-00-0C-12-34-56":    "Cisco Systems",
		"0000.0c12.3456":       "Cisco Systems",
		"00000C123456":         "Cisco Systems",
		"00:03:93:00:00:01":    "Apple",
		"00:50:56:c0:00:08":    "VMware",
		"B8:27:EB:00:00:00":    "Raspberry Pi Foundation",
		"08:00:27:00:00:01":    "PCS Systemtechnik",
		"00:1b:c5:00:00:01":    "Converging Systems", // MA-S in a block of the registry
		"70:b3:d5:f2:f0:01":    "TELEPLATFORMS",      // MA-S
		"20:85:93:b0:00:01":    "IOG Products",       // MA-M
		"00:50:c2:7d:50:00":    "DEUTA-WERKE",        // IAB
		"70:b3:d5:ff:ff:ff":    "",                   // nobody's part of the registry's block
		"02:00:00:00:00:01":    "",                   // locally administered
		"02:60:8c:00:00:01":    "",                   // likewise, whatever 3Com did with it
		"01:00:5e:00:00:01":    "",                   // multicast
		"ff:ff:ff:ff:ff:ff":    "",
		"00:00:0c:12:34":       "",
		"00:00:0c:12:34:5g":    "",
		":00:00:0c:12:34:56":   "",
		"00:00:0c:12:34:56:78": "",
		"":                     "",
	} {
		if got := Vendor(mac); got != want {
			t.Errorf("Vendor(%q) = %q, want %q", mac, got, want)
		}
	}
}

func TestIsRandom(t *testing.T) {
	for mac, want := range map[string]bool{
		"02:00:00:00:00:01": true,
		"da:a1:19:00:00:01": true,
		"DA-A1-19-00-00-01": true,
		"00:00:0c:12:34:56": false, // a maker's
		"03:00:00:00:00:01": false, // a group's
		"ff:ff:ff:ff:ff:ff": false,
		"02:00:00:00:00":    false,
		"":                  false,
	} {
		if got := IsRandom(mac); got != want {
			t.Errorf("IsRandom(%q) = %v", mac, got)
		}
	}
}

// TestRegistry holds for all of the embedded table.
func TestRegistry(t *testing.T) {
	entries := decode(t, Table(registry))
	if len(entries) < 50_000 {
		t.Fatalf("%d entries", len(entries))
	}
	again, err := Encode(entries)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != registry {
		t.Error("the table is not what Encode makes of its entries")
	}
	vendors := make(map[string]bool)
	for _, e := range entries {
		mac := e.Prefix + strings.Repeat("0", 12-len(e.Prefix))
		// A longer prefix may begin with the same digits.
		longer := slices.ContainsFunc([]int{7, 9}, func(n int) bool {
			return n > len(e.Prefix) && has(entries, mac[:n])
		})
		if got := Vendor(mac); got != e.Vendor && !longer {
			t.Errorf("Vendor(%s) = %q, want %q", mac, got, e.Vendor)
		}
		vendors[e.Vendor] = true
	}
	if len(vendors) < 25_000 {
		t.Errorf("%d vendors", len(vendors))
	}
}

func has(entries []Entry, prefix string) bool {
	_, ok := slices.BinarySearchFunc(entries, prefix, func(e Entry, p string) int {
		if len(e.Prefix) != len(p) {
			return len(e.Prefix) - len(p)
		}
		return strings.Compare(e.Prefix, p)
	})
	return ok
}

// decode lists a table as its description says it is laid out, without the
// code that looks up in it.
func decode(t testing.TB, table Table) []Entry {
	t.Helper()
	const digits = "0123456789ABCDEF"
	var counts [3]int
	for i := range counts {
		for j := range 4 {
			counts[i] = counts[i]<<8 | int(table[4*i+j])
		}
	}
	names := string(table[12+counts[0]*6+counts[1]*7+counts[2]*8:])
	at := 12
	var entries []Entry
	for i, n := range counts {
		bytes, prefixDigits := 3+i, []int{6, 7, 9}[i]
		for range n {
			var prefix []byte
			for _, c := range []byte(table[at : at+bytes]) {
				prefix = append(prefix, digits[c>>4], digits[c&15])
			}
			if i > 0 && prefix[prefixDigits] != '0' {
				t.Fatalf("the prefix %s has digits behind its end", prefix)
			}
			at += bytes
			name := names[int(table[at])<<16|int(table[at+1])<<8|int(table[at+2]):]
			at += 3
			entries = append(entries, Entry{string(prefix[:prefixDigits]), name[1 : 1+int(name[0])]})
		}
	}
	return entries
}

func TestEncode(t *testing.T) {
	b, err := Encode([]Entry{
		{"AABBCC0", "Old name of a block"}, // of a group's bit? no: aa is locally administered, left out
		{"001122", "  Several \t words,\n Co., Ltd. "},
		{"001123", "IEEE Registration Authority"},
		{"0011230", "Medium Corp."},
		{"0011231", "Private"},
		{"001123231", "Small GmbH & Co. KG"},
		{"001124", "Ltd."}, // nothing else
		{"001125", "First"},
		{"001125", "Second, Inc."},
		{"001126", strings.Repeat("é", 200)},
		{"001127", "bad \xff UTF-8"},
		{"001128", "Private"},
		{"0011280", "Private"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{"001122", "Several words"},
		{"001124", "Ltd."},
		{"001125", "Second"},
		{"001126", strings.Repeat("é", 127)},
		{"001127", "bad  UTF-8"},
		{"0011230", "Medium"},
		{"0011231", ""},
		{"0011280", ""},
		{"001123231", "Small"},
	}
	if diff := cmp.Diff(want, decode(t, Table(b))); diff != "" {
		t.Error(diff)
	}
	for mac, want := range map[string]string{
		"001122ffffff": "Several words", "001123012345": "Medium", "001123123456": "", "001123231abc": "Small", "0011232fffff": "", "001129000000": "",
	} {
		if got := Table(b).Vendor(mac); got != want {
			t.Errorf("Vendor(%s) = %q, want %q", mac, got, want)
		}
	}
	for _, prefix := range []string{"", "00112", "00112G", "00112233", "0011223344", "00:11:22"} {
		if _, err := Encode([]Entry{{prefix, "x"}}); err == nil {
			t.Errorf("%q is taken", prefix)
		}
	}
}

func FuzzVendor(f *testing.F) {
	b, err := Encode([]Entry{{"001122", "a"}, {"0011230", "b"}, {"001123231", "c"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b), "00:11:22:33:44:55")
	f.Add(string(b), "00-11-23-00-00-00")
	f.Add(string(b[:20]), "001123231000")
	f.Add("\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00", "001123231000")
	f.Fuzz(func(t *testing.T, table, mac string) {
		if v := Table(table).Vendor(mac); len(v) > 255 {
			t.Errorf("%d bytes", len(v))
		}
		if v := Vendor(mac); v != Vendor(strings.ToUpper(mac)) || v != "" && IsRandom(mac) {
			t.Errorf("%q: %q", mac, v)
		}
	})
}

func BenchmarkVendor(b *testing.B) {
	for name, mac := range map[string]string{"hit": "b8:27:eb:12:34:56", "small": "70:b3:d5:f2:f0:01", "random": "da:a1:19:12:34:56"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Vendor(mac)
			}
		})
	}
}
