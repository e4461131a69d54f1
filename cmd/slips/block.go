package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/block"
	"github.com/slips-go/slips/alerts/block/nft"
)

// errNotRunning says that there is no run to ask.
var errNotRunning = errors.New("no slips with --block is running")

func (p *program) blockCommand() *cobra.Command {
	var reason string
	var lasts time.Duration
	cmd := &cobra.Command{
		Use:   "block ADDRESS...",
		Short: "Have the running slips block addresses or small networks",
		Long: `Have the running slips block addresses, or networks of a /24 or a /64 at most.
Like all blocks they end by themselves. What must never be blocked is refused:
own addresses, gateways, DNS and DHCP servers in use, the allow-list.`,
		Example: "  slips block 203.0.113.9 --for 2h --reason \"ticket 4711\"",
		Args:    atLeastOne("an address or a network"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && lasts <= 0 {
				return badFlags("--for %s: want more than 0", lasts)
			}
			if _, err := prefixes(cmd, args); err != nil {
				return err
			}
			return p.ask(cmd.Context(), block.Command{Do: block.DoBlock, Prefixes: args, For: lasts, Reason: reason}, false)
		},
	}
	cmd.Flags().DurationVar(&lasts, "for", 0, "how long, at most block.max_duration (default: as for an alert)")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the audit log")
	return cmd
}

func (p *program) unblockCommand() *cobra.Command {
	var reason string
	var all bool
	cmd := &cobra.Command{
		Use:   "unblock {ADDRESS... | --all}",
		Short: "End blocks",
		Long: `End blocks, by the running slips. What led to a block does not block the host again
for the rest of the time window. Evidence of a type that it had not shown by then
does, and so does a further alert: in the same window at twice the threshold (then
at four times, and so on), in a later one as usual. What must stay reachable
belongs on block.allow_list.

It fails when another block still holds what was named, such as a network that an
address is in. Without a running slips what an earlier one has left in nftables is
removed; --all removes the table "inet slips" then.`,
		Example: "  slips unblock 203.0.113.9\n  sudo slips unblock --all",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) > 0) == all {
				return badFlags("slips unblock: want addresses, or --all")
			}
			list, err := prefixes(cmd, args)
			if err != nil {
				return err
			}
			err = p.ask(cmd.Context(), block.Command{Do: block.DoUnblock, Prefixes: args, All: all, Reason: reason}, false)
			if errors.Is(err, errNotRunning) {
				return p.unblockAlone(cmd.Context(), list, all)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for the audit log")
	return cmd
}

func (p *program) blocksCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "blocks",
		Short: "List what is blocked",
		Long: `List what the running slips blocks: until when, how many times the host has been
blocked, and the alert behind it, or the person with the reason given. Without a
running slips what an earlier one has left in nftables is listed.`,
		Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := p.ask(cmd.Context(), block.Command{Do: block.DoList}, asJSON)
			if errors.Is(err, errNotRunning) {
				return p.blocksAlone(cmd.Context(), asJSON)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// ask sends a command to the running slips and prints its answer.
func (p *program) ask(ctx context.Context, cmd block.Command, asJSON bool) error {
	c, err := p.load("")
	if err != nil {
		return err
	}
	cmd.By = p.operator()
	sockets := controlSockets(c, p.getenv)
	r, err := askAny(ctx, sockets, cmd)
	switch {
	case errors.Is(err, block.ErrStranger):
		return &codeError{exitBlock, err}
	case nobodyAnswers(err):
		return &codeError{exitBlock, fmt.Errorf("%w: nobody listens at %s (block.socket names another place)", errNotRunning, strings.Join(sockets, ", "))}
	case errors.Is(err, fs.ErrPermission):
		return &codeError{exitPermission, fmt.Errorf("%w: only who runs slips may; try sudo", err)}
	case err != nil:
		return &codeError{exitBlock, err}
	}
	if err := p.printReply(cmd.Do, r, asJSON); err != nil {
		return err
	}
	p.failed(r)
	return nil
}

// failed tells what an answer says went wrong.
func (p *program) failed(r block.Reply) {
	for _, e := range r.Errors {
		p.complain(errors.New(e))
		p.code = exitBlock
	}
}

// askAny sends a command to the first socket that somebody answers at. Somebody
// else's socket does not keep it from the next; when that is all there is, the
// error says so.
func askAny(ctx context.Context, sockets []string, cmd block.Command) (r block.Reply, err error) {
	var strange error
	for _, socket := range sockets {
		r, err = block.Ask(ctx, socket, cmd)
		if errors.Is(err, block.ErrStranger) {
			strange = errors.Join(strange, err)
		} else if err == nil {
			return r, nil
		} else if !nobodyAnswers(err) {
			return r, errors.Join(strange, err)
		}
	}
	return r, cmp.Or(strange, err)
}

// nobodyAnswers reports whether err says that no slips listens at a socket.
func nobodyAnswers(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// operator names who asks, for the audit log.
func (p *program) operator() string {
	uid := strconv.Itoa(os.Getuid())
	if sudo := p.getenv("SUDO_UID"); sudo != "" {
		uid = sudo
	}
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// printReply prints an answer. It comes from another process, so nothing in it
// may reach the terminal as it is.
func (p *program) printReply(do string, r block.Reply, asJSON bool) error {
	if asJSON {
		b, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("BUG: answer: %w", err)
		}
		return p.print(string(harmless(b)) + "\n")
	}
	var b strings.Builder
	note := ""
	if r.DryRun {
		note = " (dry run: nothing is in the firewall)"
	}
	switch do {
	case block.DoList:
		if len(r.Blocks) == 0 {
			return p.print("nothing is blocked" + note + "\n")
		}
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "BLOCKED\tUNTIL\tOFFENCES\tBECAUSE OF"+note) // a strings.Builder takes everything
		for _, x := range r.Blocks {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", printable(x.Prefix), until(x.Until), x.Offences, dash(because(x)))
		}
		_ = w.Flush() // as above
	case block.DoUnblock:
		for _, x := range r.Blocks {
			fmt.Fprintf(&b, "%s is not blocked any more%s\n", printable(x.Prefix), note)
		}
		if len(r.Blocks) == 0 && len(r.Errors) == 0 {
			b.WriteString("nothing of it was blocked\n")
		}
	default:
		for _, x := range r.Blocks {
			fmt.Fprintf(&b, "%s is blocked until %s%s\n", printable(x.Prefix), until(x.Until), note)
		}
	}
	return p.print(b.String())
}

// because says in a few words what led to a block.
func because(x block.Listed) string {
	text := x.Alert
	if x.By != "" {
		text = x.By
		if x.Reason != "" {
			text += ": " + x.Reason
		}
	}
	return printable(text)
}

func until(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// alone opens the firewall for who acts without a running slips.
func (p *program) alone() (*nft.Firewall, error) {
	f, err := nft.Open(nft.Config{Now: time.Now})
	if err != nil {
		return nil, blockError(fmt.Errorf("%w, and nftables cannot be asked either: %w", errNotRunning, err))
	}
	return f, nil
}

// prefixes reads the addresses and networks that a command is given.
func prefixes(cmd *cobra.Command, args []string) (list []netip.Prefix, err error) {
	for _, a := range args {
		x, err := block.ParsePrefix(a)
		if err != nil {
			return nil, badFlags("%s: %w", cmd.CommandPath(), err)
		}
		list = append(list, x)
	}
	return list, nil
}

func (p *program) unblockAlone(ctx context.Context, list []netip.Prefix, all bool) (err error) {
	f, err := p.alone()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if all {
		if err := f.Remove(ctx); err != nil {
			return blockError(err)
		}
		return p.print("no slips is running; its table is removed from nftables\n")
	}
	r, err := freeLeft(ctx, f, list)
	if err != nil {
		return blockError(err)
	}
	p.complain(errors.New("no slips is running; this is about what an earlier one has left"))
	p.failed(r)
	return p.printReply(block.DoUnblock, r, false)
}

// freeLeft ends the blocks of list that an earlier slips has left, and says
// which there were.
func freeLeft(ctx context.Context, b block.Blocker, list []netip.Prefix) (r block.Reply, err error) {
	blocked, err := b.List(ctx)
	if err != nil && !errors.Is(err, block.ErrDamaged) { // which is no reason to leave the rest
		return r, err
	}
	// What is not listed, such as an element without an end, goes too.
	if err := b.Unblock(ctx, list); err != nil {
		return r, err
	}
	var left []netip.Prefix
	for _, e := range blocked {
		if slices.Contains(list, e.Prefix) {
			r.Blocks = append(r.Blocks, block.Listed{Prefix: block.Text(e.Prefix)})
		} else {
			left = append(left, e.Prefix)
		}
	}
	slices.SortFunc(left, netip.Prefix.Compare)
	for _, p := range list {
		if err := block.StillBlocked(p, left); err != nil {
			r.Errors = append(r.Errors, err.Error())
		}
	}
	return r, nil
}

func (p *program) blocksAlone(ctx context.Context, asJSON bool) (err error) {
	f, err := p.alone()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	list, err := f.List(ctx)
	if err != nil {
		return blockError(err)
	}
	r := block.Reply{Blocks: []block.Listed{}}
	for _, e := range list {
		r.Blocks = append(r.Blocks, e.Listed())
	}
	if !asJSON && len(list) > 0 {
		p.complain(errors.New("no slips is running; this is what an earlier one has left, and it ends by itself"))
	}
	return p.printReply(block.DoList, r, asJSON)
}
