package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/evidence"
	"github.com/slips-go/slips/alerts/whitelist"
	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/suricata"
	"github.com/slips-go/slips/parsers/zeek"
)

func (p *program) whitelistCommand() *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "Print the whitelist in use, without comments",
		Args:  atMost(0),
		RunE: func(*cobra.Command, []string) error {
			l, err := p.whitelist()
			if err != nil {
				return err
			}
			return p.print(l.String())
		},
	}
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a whitelist",
		Args:  atMost(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				p.set = append(p.set, "whitelists.local_whitelist_path="+args[0])
			}
			l, err := p.whitelist()
			if err != nil {
				return err
			}
			for _, n := range l.Notices() {
				p.complain(errors.New(n))
			}
			for _, r := range l.Expired(time.Now().UnixNano()) {
				p.complain(fmt.Errorf("%s:%d: has expired: %s", l.Name(), r.Line, r.Text))
			}
			return p.print(fmt.Sprintf("%s: %s entries\n", l.Name(), thousands(int64(l.Len()))))
		},
	}
	var at string
	test := &cobra.Command{
		Use:   "test RECORD|IP|DOMAIN...",
		Short: "Tell what the whitelist would ignore, and why",
		Long: `Tell which entries of the whitelist speak about an address, a name, a MAC, an AS
number, a port, a type of evidence or a module; or what they do to a record: a line
of a Zeek log in JSON, of eve.json, or of evidence.jsonl. Entries that nearly match
are told too, with what is missing.

Exit code 0: something would be ignored. 5: nothing would.`,
		Example: `  slips whitelist test 192.0.2.7 www.example.org
  slips whitelist test "$(head -1 out/alerts/evidence.jsonl)"`,
		Args: atLeastOne("a record, an address or a name"),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := p.whitelist()
			if err != nil {
				return err
			}
			now := time.Now()
			if at != "" {
				if now, err = time.Parse(time.RFC3339, at); err != nil {
					return badFlags("--at %q: want a time such as 2026-01-31T00:00:00Z", at)
				}
			}
			applies := false
			for _, arg := range args {
				found, err := explain(l, arg, now.UnixNano())
				if err != nil {
					return &codeError{exitUsage, err}
				}
				text, yes := findingsText(l, arg, found)
				applies = applies || yes
				if err := p.print(text); err != nil {
					return err
				}
			}
			if !applies {
				p.code = exitInterrupted
			}
			return nil
		},
	}
	test.Flags().StringVar(&at, "at", "", "the `TIME` of values that have none (default: now), for entries that expire")
	return group(&cobra.Command{Use: "whitelist", Short: "Check the whitelist and what it does"}, test, check, show)
}

// whitelist returns the whitelist that is configured.
func (p *program) whitelist() (*whitelist.List, error) {
	c, err := p.load("")
	if err != nil {
		return nil, err
	}
	if !c.Whitelists.EnableLocalWhitelist {
		p.complain(errors.New("whitelists.enable_local_whitelist is false: a run would ignore nothing"))
	}
	types, names := p.known()
	l, err := readWhitelist(c, types, names)
	if err != nil {
		return nil, err
	}
	return l.WithHome(homes(c.Parameters.ClientIPs)), nil
}

// explain asks the whitelist about what a user gave.
func explain(l *whitelist.List, arg string, at int64) ([]whitelist.Finding, error) {
	if !strings.HasPrefix(strings.TrimSpace(arg), "{") {
		if _, err := os.Stat(arg); err == nil && !strings.Contains(arg, ".") {
			return nil, fmt.Errorf("%q is a file: give one of its lines", arg)
		}
		return l.ExplainValue(arg, at)
	}
	var line struct {
		Type  string `json:"type"`
		Event string `json:"event_type"`
	}
	if err := json.Unmarshal([]byte(arg), &line); err != nil {
		return nil, fmt.Errorf("the record is no JSON: %w", err)
	}
	if line.Type != "" && line.Event == "" {
		e, err := evidenceOf(arg)
		if err != nil {
			return nil, err
		}
		return l.ExplainEvidence(e), nil
	}
	var f flow.Flow
	var err error
	if line.Event != "" {
		err = suricata.New().Decode(&f, []byte(arg))
	} else {
		err = zeek.New(logOfRecord([]byte(arg))).Decode(&f, []byte(arg))
	}
	if err != nil {
		return nil, fmt.Errorf("the record cannot be read: %w", err)
	}
	return l.ExplainFlow(&f), nil
}

// logOfRecord names the log that a record without "_path" is of, by a field that
// no other has.
func logOfRecord(line []byte) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) == nil && fields["_path"] == nil {
		for _, x := range []struct{ field, log string }{
			{"query", "dns"},
			{"server_name", "ssl"},
			{"ja3", "ssl"},
			{"cipher", "ssl"},
			{"user_agent", "http"},
			{"method", "http"},
			{"uri", "http"},
			{"fuid", "files"},
		} {
			if fields[x.field] != nil {
				return x.log
			}
		}
	}
	return "conn"
}

// evidenceOf reads a line of evidence.jsonl.
func evidenceOf(line string) (*evidence.Evidence, error) {
	var x struct {
		Type     string    `json:"type"`
		Time     time.Time `json:"time"`
		Profile  netip.Addr
		Attacker map[string]any
		Victim   map[string]any
		Module   string
		Proto    string
		SrcPort  uint16 `json:"src_port"`
		DstPort  uint16 `json:"dst_port"`
	}
	if err := json.Unmarshal([]byte(line), &x); err != nil {
		return nil, fmt.Errorf("the evidence cannot be read: %w", err)
	}
	entity := func(m map[string]any) (n evidence.Entity) {
		for k := evidence.IP; k <= evidence.Hash; k++ {
			if v, ok := m[k.String()].(string); ok {
				n.Kind, n.Value = k, v
			}
		}
		if m["direction"] == evidence.Dst.String() {
			n.Direction = evidence.Dst
		}
		if p, ok := m["port"].(float64); ok {
			n.Port = uint16(p)
		}
		known := &evidence.Known{}
		if v, ok := m["asn"].(float64); ok {
			known.ASN = uint32(v)
		}
		if l, ok := m["feeds"].([]any); ok {
			for _, v := range l {
				if s, ok := v.(string); ok {
					known.Feeds = append(known.Feeds, s)
				}
			}
		}
		n.Known = known
		return n
	}
	return &evidence.Evidence{
		Type: evidence.Type(x.Type), Time: x.Time.UnixNano(), Profile: x.Profile, Attacker: entity(x.Attacker), Victim: entity(x.Victim),
		Module: x.Module, Proto: x.Proto, SrcPort: x.SrcPort, DstPort: x.DstPort,
	}, nil
}

// findingsText tells what the whitelist has to say, and whether it ignores anything.
func findingsText(l *whitelist.List, arg string, found []whitelist.Finding) (text string, applies bool) {
	var b strings.Builder
	if len(arg) > 100 {
		arg = arg[:100] + "…"
	}
	fmt.Fprintf(&b, "%s\n", printable(arg))
	for _, f := range found {
		word := "no "
		if f.Applies {
			word, applies = "YES", true
		}
		fmt.Fprintf(&b, "  %s %s:%d: %s: %s.\n", word, l.Name(), f.Rule.Line, f.Rule.Text, f.Why)
		if f.Rule.Reason != "" {
			fmt.Fprintf(&b, "      reason: %s\n", printable(f.Rule.Reason))
		}
	}
	if len(found) == 0 {
		b.WriteString("  no entry speaks about it\n")
	}
	return b.String(), applies
}
