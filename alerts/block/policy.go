package block

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Config holds the settings of the section "blocking".
type Config struct {
	// DryRun decides and writes down everything, and blocks nobody.
	DryRun bool `yaml:"dry_run"`
	// Duration is how long a first block lasts after the last alert; 0 is the
	// width of the alert's window.
	Duration time.Duration `yaml:"duration"`
	// MaxDuration is the longest that a block can last.
	MaxDuration time.Duration `yaml:"max_duration"`
	// ForgetAfter is how long after its last block a host counts as a repeat
	// offender.
	ForgetAfter time.Duration `yaml:"forget_after"`
	// MaxBlocked is how many addresses and networks can be blocked at a time.
	// What comes beyond is refused and counted.
	MaxBlocked int `yaml:"max_blocked"`
	// AllowList names addresses and networks that are never blocked.
	AllowList []string `yaml:"allow_list"`
}

// Defaults returns the settings that slips.yaml ships with.
func Defaults() Config {
	return Config{MaxDuration: 24 * time.Hour, ForgetAfter: 7 * 24 * time.Hour, MaxBlocked: 10_000}
}

// The bounds. A window without a width stands for the default of an hour; a
// block shorter than a second would be over before it is told. A million
// elements take some 200 MB of the kernel's memory, which is not swapped.
const (
	defaultWindow = time.Hour
	minDuration   = time.Second
	maxMaxBlocked = 1_000_000
	maxOffenders  = 100_000 // offenders remembered, some 10 MB; the one idle longest goes first
	maxDoublings  = 30      // 2^30 s are 34 years
)

// Validate reports the first setting that makes no sense, by its key and value.
func (c Config) Validate() error {
	if c.Duration < 0 || c.Duration > 0 && c.Duration < minDuration {
		return fmt.Errorf("duration is %v, want 0 (one window) or at least 1s", c.Duration)
	}
	if c.MaxDuration < minDuration || c.MaxDuration < c.Duration || c.MaxDuration > 366*24*time.Hour {
		return fmt.Errorf("max_duration is %v, want at least 1s, at least duration (%v), and at most a year", c.MaxDuration, c.Duration)
	}
	if c.ForgetAfter < 0 {
		return fmt.Errorf("forget_after is %v, want 0 or more", c.ForgetAfter)
	}
	if c.MaxBlocked < 1 || c.MaxBlocked > maxMaxBlocked {
		return fmt.Errorf("max_blocked is %d, want 1 to %d", c.MaxBlocked, maxMaxBlocked)
	}
	_, err := c.Allowed()
	return err
}

// Allowed returns the allow-list, parsed.
func (c Config) Allowed() ([]Allowed, error) {
	var list []Allowed
	for i, s := range c.AllowList {
		p, err := ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("allow_list[%d]: %w", i, err)
		}
		list = append(list, Allowed{Prefix: p})
	}
	return list, nil
}

// offender is what is remembered of a host that was blocked.
type offender struct {
	Count int       `json:"offences"`
	Until time.Time `json:"until"` // the end of the last block
}

// policy says how long a block lasts. It remembers who was blocked.
type policy struct {
	cfg       Config
	offenders map[netip.Prefix]offender
	forgotten int64 // early, because there were too many
}

// offence returns the number that a new block of p would have.
func (p *policy) offence(prefix netip.Prefix, now time.Time) int {
	o, ok := p.offenders[prefix]
	if !ok || now.Sub(o.Until) > p.cfg.ForgetAfter {
		return 1
	}
	return o.Count + 1
}

// until returns when the nth block that r asks for ends. It is not after now
// when what r is about lies too far back.
//
// It is counted from now, and the delay of r.At taken off, so that it keeps the
// monotonic part of now: the kernel's timeouts do not follow steps of the
// clock either.
func (p *policy) until(r Request, n int, now time.Time) time.Time {
	d := cmp.Or(r.For, p.cfg.Duration, r.Window, defaultWindow)
	if r.For == 0 {
		d = min(d, p.cfg.MaxDuration)
		for range min(n-1, maxDoublings) {
			if d >= p.cfg.MaxDuration {
				break
			}
			d *= 2
		}
	}
	d = min(max(d, minDuration), p.cfg.MaxDuration)
	if r.For == 0 && !r.At.IsZero() && r.At.Before(now) {
		d -= now.Sub(r.At)
	}
	return now.Add(d)
}

// remember notes that p is blocked for the nth time, until then.
func (p *policy) remember(prefix netip.Prefix, n int, until time.Time) {
	if n < 1 {
		return
	}
	p.offenders[prefix] = offender{Count: n, Until: until}
}

// forget drops who has been good for long enough, and those idle longest when
// there are too many.
func (p *policy) forget(now time.Time) {
	maps.DeleteFunc(p.offenders, func(_ netip.Prefix, o offender) bool { return now.Sub(o.Until) > p.cfg.ForgetAfter })
	over := len(p.offenders) - maxOffenders
	if over <= 0 {
		return
	}
	byAge := slices.SortedFunc(maps.Keys(p.offenders), func(a, b netip.Prefix) int {
		return cmp.Or(p.offenders[a].Until.Compare(p.offenders[b].Until), a.Compare(b))
	})
	for _, prefix := range byAge[:over] {
		delete(p.offenders, prefix)
	}
	p.forgotten += int64(over)
}
