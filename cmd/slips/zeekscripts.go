package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/slips-go/slips/alerts/export"
	"github.com/slips-go/slips/zeekscripts"
)

func (p *program) zeekScriptsCommand() *cobra.Command {
	install := &cobra.Command{
		Use:   "install DIR",
		Short: "Unpack the scripts into a directory",
		Long: `Unpack Slips' Zeek scripts into DIR, for a Zeek of your own (6 to 9): JA3, JA3S and
JA4, arp.log, ICMP scans, DNS over HTTPS, logins, hashes of files, the gateway, MAC
addresses, VLANs and community ids. Load them with "@load DIR" in local.zeek; what
another package already brings is left to it.`,
		Args: exactly(1, "one directory"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := zeekscripts.Install(args[0]); err != nil {
				return &export.WriteError{Path: args[0], Err: err}
			}
			return p.print(fmt.Sprintf("%d scripts in %s; add \"@load %s\" to Zeek's local.zeek\n", len(zeekscripts.Names()), args[0], args[0]))
		},
	}
	return group(&cobra.Command{Use: "zeek-scripts", Short: "Scripts that make a Zeek of your own log more"}, install)
}
