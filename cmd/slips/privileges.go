package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/slips-go/slips/internal/privilege"
)

// dropPrivileges gives up what the run does not need, once what takes a
// privilege is open, and says what is left. A run that captures on nothing and
// blocks nobody stays as it is: it reads what whoever started it may read.
func (r *run) dropPrivileges() (string, error) {
	o := &r.o
	if len(o.Interfaces) == 0 && r.firewall == nil {
		return "", nil
	}
	if err := o.User.MkdirAll(o.Output, 0o755); err != nil {
		return "", &codeError{exitOutput, err}
	}
	opt := privilege.Options{User: o.User, Ambient: len(o.Interfaces) > 0 && r.packets.zeek.Path != ""}
	if opt.Ambient || r.firewall != nil && r.firewall.cfg.ARPIsolate {
		// Each Zeek and the isolator open their interfaces again; the meter's are open for good.
		opt.Keep = append(opt.Keep, privilege.NetRaw)
	}
	if r.firewall != nil && r.firewall.nft != nil {
		opt.Keep = append(opt.Keep, privilege.NetAdmin)
	}
	res, err := privilege.Drop(opt)
	if errors.Is(err, privilege.ErrUnsupported) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	if o.User != nil && o.User.Home != "" { // where the feeds are looked for
		if err := os.Setenv("HOME", o.User.Home); err != nil {
			return "", err
		}
	}
	info, err := privilege.Describe()
	if err != nil {
		return fmt.Sprintf("uid %d", res.UID), nil //nolint:nilerr // what is left is told for information
	}
	return info.String(), nil
}
