package zeek

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/slips-go/slips/parsers/flow"
)

func TestParseTime(t *testing.T) {
	const base = 1634814480 * 1_000_000_000 // 2021-10-21T11:08:00Z
	for s, want := range map[string]int64{
		"0": 0, "0.0": 0, "0.000000001": 1, "22.335172": 22335172000, "1634814480": base, "1634814480.": -1,
		"1634814480.5": base + 5e8, "1634814480.123456789": base + 123456789, "1634814480.1234567899": base + 123456789,
		"1.63481448e9": base, "1.63481448E+09": base, "163481448000e-2": base, "1634814480.5e0": base + 5e8,
		"1634814480.999999999999": base + 999999999, "0.5e-9": 0,
		"2021-10-21T11:08:00Z": base, "2021-10-21T11:08:00.5Z": base + 5e8, "2021-10-21T11:08:00": base,
		"2021-10-21T11:08:00+0000": base, "2021-10-21T13:08:00+02:00": base, "2021-10-21T09:38:00.25-0130": base + 25e7,
		"2021-10-21T12:08:00+01": base, "2021-10-21 11:08:00": base, "2021-10-21 11:08:00.000001": base + 1000,
		"2021-10-21 11:08:00.5+00:00": base + 5e8, "2021/10/21 11:08:00.5": base + 5e8, "2021/10/21-11:08:00": base,
		"2021/10/21 11:08:00.5+0000": base + 5e8, "2021-10-21T11:08:00.123456789123Z": base + 123456789,
		"1970-01-01T00:00:00Z": 0, "2000-02-29T00:00:00Z": 951782400e9, "2024-12-31T23:59:60Z": 1735689600e9,
		"4102444800": flow.MaxTime, "2100-01-01T00:00:00Z": flow.MaxTime,

		"": -1, "-": -1, ".": -1, "-1": -1, "-0.5": -1, "1e": -1, "1e+": -1, "e5": -1, "1.5.5": -1, "1,5": -1, "0x10": -1,
		"1e99999": -1, "9223372036854775808": -1, "99999999999999999999999": -1, "1634814480000": -1, "inf": -1, "nan": -1,
		"4102444800.000000001": -1, "1969-12-31T23:59:59Z": -1, "2100-01-01T00:00:01Z": -1, "9999-12-31T23:59:59Z": -1,
		"2021-02-29T00:00:00Z": -1, "2021-13-01T00:00:00Z": -1, "2021-00-01T00:00:00Z": -1, "2021-10-21T24:00:00Z": -1,
		"2021-10-21T11:60:00Z": -1, "2021-10-21T11:08:61Z": -1, "2021-10-21T11:08:00.Z": -1, "2021-10-21T11:08:00+2": -1,
		"2021-10-21T11:08:00+25:00": -1, "2021-10-21T11:08:00 CET": -1, "2021-10/21T11:08:00": -1, "2021-10-21-11:08:00": -1,
		"2021-10-21": -1, "21-10-2021T11:08:00": -1,
	} {
		got, ok := parseTime(s)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("parseTime(%q) = %d, %v; want %d", s, got, ok, want)
		}
	}
}

func TestParseWhen(t *testing.T) {
	for s, want := range map[string]int64{
		"1500565628.0": 1500565628e9, "-3600": -3600e9, "253402300799.000000": math.MaxInt64, "-99999999999999": math.MinInt64,
		"9999-12-31T23:59:59Z": math.MaxInt64, "0001-01-01T00:00:00Z": math.MinInt64, "1950-01-01T00:00:00Z": -631152000e9,
	} {
		if got, ok := parseWhen(s); !ok || got != want {
			t.Errorf("parseWhen(%q) = %d, %v; want %d", s, got, ok, want)
		}
	}
	for _, s := range []string{"", "x", "1e", "9999-12-31T23:59:59X"} {
		if got, ok := parseWhen(s); ok {
			t.Errorf("parseWhen(%q) = %d", s, got)
		}
	}
}

func TestParseNumbers(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "7": 7, "007": 7, "999999999999999999": 999999999999999999, "9223372036854775807": math.MaxInt64, "12.0": 12,
		"1.2e+01": 12, "4.294967e+09": 4294967000, "+5": 5,
		"": -1, "-": -1, "-1": -1, "1.5": -1, "1e-1": -1, "9223372036854775808": -1, "1a": -1, "a1": -1, " 1": -1, "1e9999": -1,
	} {
		got, ok := parseCount(s)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("parseCount(%q) = %d, %v; want %d", s, got, ok, want)
		}
	}
	for s, want := range map[string]int{
		"0": 0, "65535": 65535, "80.0": 80, "00080": 80, "65536": -1, "93145": -1, "-1": -1, "": -1, "80/tcp": -1, "8e1": 80,
		"000000080": 80, "99999999": -1,
	} {
		got, ok := parsePort(s)
		if ok != (want >= 0) || ok && int(got) != want {
			t.Errorf("parsePort(%q) = %d, %v; want %d", s, got, ok, want)
		}
	}
}

func TestParseAddr(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "1.2.3.4", "10.0.0.1", "192.168.100.200", "255.255.255.255", "::", "::1", "fe80::1cf4:44d2:904a:14f7",
		"2001:718:2:1663:dc58:6d9:ef13:51a5", "::ffff:10.0.0.1",
	} {
		if got, ok := parseAddr(s); !ok || got != netip.MustParseAddr(s).Unmap() {
			t.Errorf("parseAddr(%q) = %v, %v", s, got, ok)
		}
	}
	if got, ok := parseAddr("fe80::1%eth0"); !ok || got != ip("fe80::1") {
		t.Errorf("parseAddr with a zone = %v, %v", got, ok)
	}
	for _, s := range []string{
		"", "-", ".", "1", "1.2.3", "1.2.3.", ".1.2.3", "1.2.3.4.", "1.2.3.4.5", "1..2.3", "256.1.1.1", "1.2.3.999", "01.2.3.4",
		"1.2.3.00", "1.2.3.4 ", " 1.2.3.4", "1.2.3.4:80", "1,2,3,4", "host", ":", "fe80:::1", "1.2.3.4/24",
		"::" + strings.Repeat("0", 80), "99999999999999999999.1.1.1",
	} {
		if got, ok := parseAddr(s); ok {
			t.Errorf("parseAddr(%q) = %v", s, got)
		}
	}
}

func TestInterpret(t *testing.T) {
	for s, want := range map[string]flow.State{
		"S0": flow.NotEstablished, "REJ": flow.NotEstablished, "RSTOS0": flow.NotEstablished, "RSTRH": flow.NotEstablished,
		"SH": flow.NotEstablished, "SHR": flow.NotEstablished, "S1": flow.Established, "SF": flow.Established,
		"S2": flow.Established, "S3": flow.Established, "RSTO": flow.Established, "RSTP": flow.Established,
		"OTH": flow.Established, "RSTR": flow.Established, "": flow.NotEstablished, "sf": flow.NotEstablished,
	} {
		if got := interpret(s); got != want {
			t.Errorf("interpret(%q) = %v", s, got)
		}
	}
}

func TestUnescape(t *testing.T) {
	for s, want := range map[string]string{
		``: ``, `a`: `a`, `\x41`: `A`, `\x0a\x0A`: "\n\n", `\\x41`: `\x41`, `\\\\`: `\\`, `\`: `\`, `\x`: `\x`, `\x4`: `\x4`,
		`\xZZ`: `\xZZ`, `a\,b`: `a\,b`, `\x41\`: `A\`, `\\`: `\`,
	} {
		if got := string(unescape(nil, s)); got != want {
			t.Errorf("unescape(%q) = %q, want %q", s, got, want)
		}
	}
}
