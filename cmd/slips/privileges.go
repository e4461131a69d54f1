package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/slips-go/slips/config"
	"github.com/slips-go/slips/internal/privilege"
)

// readsOnly reports whether a run takes nothing that needs a privilege: it
// reads files or follows logs, and blocks nobody.
func (o *runOptions) readsOnly() bool {
	return len(o.Interfaces) == 0 && !blockSection(o.Config).Enabled
}

// dropPrivileges gives up what the run does not need, once what takes a
// privilege is open, and says what is left. A run that only reads does so before
// it looks into anything. It may be called again when less is needed.
func (r *run) dropPrivileges() (string, error) {
	o := &r.o
	root := os.Geteuid() == 0
	if err := privilege.Supported(); err != nil {
		if root && o.User != nil && runtime.GOOS == "linux" { // as root it would follow that user's links
			return "", &codeError{exitPermission, fmt.Errorf("root cannot become %s: %w, or name --user root", o.User, err)}
		}
		o.User = nil
		if o.readsOnly() && !root {
			return "", nil
		}
		return err.Error(), nil
	}
	if root { // who may not be able to later
		if err := o.User.MkdirAll(o.Output, 0o755); err != nil {
			return "", &codeError{exitOutput, fmt.Errorf("output directory %s: %w", o.Output, err)}
		}
	}
	opt := privilege.Options{User: o.User, Programs: !o.Follow && o.Config.Parameters.Engine != config.Builtin}
	if len(o.Interfaces) > 0 {
		opt.Ambient = r.packets.zeek.Path != ""
	}
	if opt.Ambient || r.firewall != nil && r.firewall.cfg.ARPIsolate {
		// Each Zeek and the isolator open their interfaces again; the meter's are open for good.
		opt.Keep = append(opt.Keep, privilege.NetRaw)
	}
	if r.firewall != nil && r.firewall.nft != nil {
		opt.Keep = append(opt.Keep, privilege.NetAdmin)
	}
	if len(o.Paths) > 0 {
		opt.Keep = append(opt.Keep, privilege.DACReadSearch)
	}
	res, err := privilege.Drop(opt)
	if err != nil {
		return "", err
	}
	r.wasRoot = r.wasRoot || root
	if err := r.moveHome(); err != nil {
		return "", err
	}
	switch {
	case len(o.Paths) == 0:
	case slices.Contains(res.Missing, privilege.DACReadSearch):
		if beyond := o.beyond(); beyond != nil && root {
			r.ui.Note(fmt.Sprintf("warning: %v: root has no %s here, so it reads what %s may read (--user names another, "+
				"a container takes --cap-add DAC_READ_SEARCH)", beyond, privilege.DACReadSearch, r.whoIs()))
		}
	case res.UID != 0 && (o.Follow && o.ownedBy(res.UID) || !o.Follow && o.beyond() == nil):
		// What appears later in a folder may be anybody's, but in one of the user's own
		// it is what the user may read, or a link to what is not for him.
		opt.Keep = slices.DeleteFunc(opt.Keep, func(c privilege.Cap) bool { return c == privilege.DACReadSearch })
		if res, err = privilege.Drop(opt); err != nil {
			return "", err
		}
	}
	info, err := privilege.Describe()
	if err != nil {
		return fmt.Sprintf("uid %d", res.UID), nil //nolint:nilerr // what is left is told for information
	}
	return info.String(), nil
}

// moveHome takes the home of who the run has become, where the feeds are looked
// for.
func (r *run) moveHome() error {
	o := &r.o
	if o.User == nil {
		return nil
	}
	if o.User.Home != "" {
		return os.Setenv("HOME", o.User.Home)
	}
	if dir := feedsDirectory(o.Config); dir != "" && o.Config.Feeds.Directory == "" && privilege.MayRead(dir) != nil {
		r.ui.Note(fmt.Sprintf("warning: the feeds in %s are not used: %s has no home that the system knows, and may not read root's (feeds.directory names a place)",
			dir, r.whoIs()))
		return errors.Join(os.Unsetenv("HOME"), os.Unsetenv("XDG_CACHE_HOME"))
	}
	return nil
}

// ownedBy reports whether all that is read lies in folders of a user.
func (o *runOptions) ownedBy(uid int) bool {
	for _, path := range o.Paths {
		st, err := os.Stat(path)
		if err == nil && !st.IsDir() {
			st, err = os.Stat(filepath.Dir(path))
		}
		if err != nil || !privilege.Owns(uid, st) {
			return false
		}
	}
	return true
}

// belowPaths is how many levels of folders below a path are read at most: those
// of an archive of logs, and in them the queue of those not yet archived.
const belowPaths = 3

// beyond returns the first of what the run reads that who it runs as may not
// read without a capability; nil for nothing.
func (o *runOptions) beyond() error {
	c := o.Config
	for _, path := range []string{
		o.Output, c.Whitelists.LocalWhitelistPath, c.Feeds.File, c.Feeds.Local, c.Feeds.Geo, feedsDirectory(c),
	} {
		if path == "" {
			continue
		}
		if err := privilege.MayRead(path); err != nil {
			return err
		}
	}
	for _, path := range o.Paths {
		if path == stdinPath {
			continue
		}
		if err := mayReadAll(path, belowPaths); err != nil {
			return err
		}
	}
	return nil
}

// mayReadAll is privilege.MayRead for a path and some levels of what is below.
func mayReadAll(path string, levels int) error {
	if err := privilege.MayRead(path); err != nil || levels == 0 {
		return err
	}
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return nil //nolint:nilerr // said by who reads it
	}
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := mayReadAll(filepath.Join(path, f.Name()), levels-1); err != nil {
			return err
		}
	}
	return nil
}

// whoIs names who the run has become.
func (r *run) whoIs() string {
	if r.o.User == nil {
		return "uid 0 without its capabilities"
	}
	return "the user " + r.o.User.String()
}

// refused adds to an error of permission what became of root, who would not have
// had it.
func (r *run) refused(err error) error {
	if !r.wasRoot || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if r.o.User != nil {
		return fmt.Errorf("%w (root has become the user %s, to whom all has to be open that is read and written, results of an earlier run too; "+
			"--user root stays root)", err, r.o.User)
	}
	return fmt.Errorf("%w (root has given up its capabilities: what is written has to belong to root, results of an earlier run too, "+
		"or to who --user names)", err)
}
