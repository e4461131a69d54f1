package modtest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/slips-go/slips/feeds/intel"
)

// built is when the snapshots of cases are made: two days behind the middle of
// November 2023, in which most cases play.
const built = 1_700_200_000

// View makes a snapshot out of lines of three sorts:
//
//	feed NAME LEVEL [provider=NAME] [tags=a,b] [age=DAYS]
//	ioc NAME KIND VALUE [level=LEVEL] [description…]
//	as PREFIX NUMBER [name…]
//
// NAME is that of a feed, KIND one of intel's. A line that begins with # is a
// comment. A feed is as old as age says when the snapshot is made.
func View(text string) (*intel.View, error) {
	b := intel.NewBuilder()
	feeds := map[string]int{}
	type net struct {
		prefix netip.Prefix
		asn    uint32
		name   string
	}
	var nets []net
	for i, line := range strings.Split(text, "\n") {
		w := strings.Fields(line)
		if len(w) == 0 || strings.HasPrefix(w[0], "#") {
			continue
		}
		bad := func(why string) error { return fmt.Errorf("line %d: %s: %q", i+1, why, line) }
		if len(w) < 3 {
			return nil, bad("too short")
		}
		switch w[0] {
		case "feed":
			level, err := intel.ParseLevel(w[2])
			if err != nil {
				return nil, bad(err.Error())
			}
			f := intel.Feed{Name: w[1], Provider: w[1], Level: level, Updated: built}
			for _, o := range w[3:] {
				key, v, _ := strings.Cut(o, "=")
				switch key {
				case "provider":
					f.Provider = v
				case "tags":
					f.Tags = strings.Split(v, ",")
				case "age":
					days, err := strconv.Atoi(v)
					if err != nil {
						return nil, bad("age is no number")
					}
					f.Updated = built - int64(days)*int64((24*time.Hour).Seconds())
				default:
					return nil, bad("no such setting")
				}
			}
			feeds[w[1]] = b.AddFeed(f)
		case "ioc":
			n, ok := feeds[w[1]]
			k := intel.ParseKind(w[2])
			if !ok || k == intel.NoKind || len(w) < 4 {
				return nil, bad("want ioc FEED KIND VALUE")
			}
			in := intel.Indicator{Kind: k, Level: intel.FeedLevel}
			rest := w[4:]
			if len(rest) > 0 && strings.HasPrefix(rest[0], "level=") {
				level, err := intel.ParseLevel(rest[0][len("level="):])
				if err != nil {
					return nil, bad(err.Error())
				}
				in.Level, rest = level, rest[1:]
			}
			in.Description = strings.Join(rest, " ")
			var err error
			switch k {
			case intel.Address:
				var a netip.Addr
				if a, err = netip.ParseAddr(w[3]); err == nil {
					in.Prefix = netip.PrefixFrom(a, a.BitLen())
				}
			case intel.Range:
				in.Prefix, err = netip.ParsePrefix(w[3])
			case intel.Popular:
				in.Value, in.Rank = w[3], 1
			default:
				in.Value = w[3]
			}
			if err == nil {
				err = b.Add(n, in)
			}
			if err != nil {
				return nil, bad(err.Error())
			}
		case "as":
			p, err := netip.ParsePrefix(w[1])
			if err != nil {
				return nil, bad(err.Error())
			}
			n, err := strconv.ParseUint(w[2], 10, 32)
			if err != nil {
				return nil, bad(err.Error())
			}
			nets = append(nets, net{p, uint32(n), strings.Join(w[3:], " ")})
		default:
			return nil, bad("want feed, ioc or as")
		}
	}
	v, err := intel.Open(b.Compile(built))
	if err != nil || len(nets) == 0 {
		return v, err
	}
	return v.WithAS(func(a netip.Addr) (uint32, string) {
		for _, n := range nets {
			if n.prefix.Contains(a) {
				return n.asn, n.name
			}
		}
		return 0, ""
	}), nil
}
