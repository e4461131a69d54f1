package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// User is who a process runs as.
type User struct {
	Name   string // empty when the system has no name for it
	UID    int
	GID    int
	Groups []int  // all groups, GID among them
	Home   string // empty when it is not known
}

// String returns the name, or the number when there is none.
func (u *User) String() string {
	if u.Name != "" {
		return u.Name
	}
	return strconv.Itoa(u.UID)
}

// Choose returns who the process shall become; nil means that it stays who it
// is. A process that is not root stays who it is. For root it is the user
// named: by name, as UID, or as UID:GID where the system does not know it;
// "root" stays. Without a name it is who called sudo, else the owner of
// outputDir when there is such a folder and it is not root's. env reads the
// environment of the process.
func Choose(name string, env func(string) string, outputDir string) (*User, error) {
	return choose(os.Geteuid(), name, env, outputDir)
}

func choose(euid int, name string, env func(string) string, outputDir string) (*User, error) {
	if name != "" {
		u, err := named(name)
		switch {
		case err != nil:
			return nil, err
		case u.UID == euid:
			return nil, nil
		case euid != 0:
			return nil, fmt.Errorf("become user %q: only root can, and this process runs as uid %d", name, euid)
		}
		return u, nil
	}
	if euid != 0 {
		return nil, nil
	}
	if s := env("SUDO_UID"); s != "" {
		uid, err := number("SUDO_UID", s)
		if err != nil {
			return nil, err
		}
		if uid != 0 {
			gid := -1
			if s := env("SUDO_GID"); s != "" {
				if gid, err = number("SUDO_GID", s); err != nil {
					return nil, err
				}
			}
			return numbered(uid, gid)
		}
	}
	if outputDir == "" {
		return nil, nil
	}
	st, err := os.Stat(outputDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // who makes it says what is wrong with it
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the owner of the output folder: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 {
		// The group of the folder may be any, root's even; the user's own counts, if
		// the system knows it.
		if u, err := numbered(int(sys.Uid), -1); err == nil {
			return u, nil
		}
		return numbered(int(sys.Uid), int(sys.Gid))
	}
	return nil, nil
}

// OwnIn returns what gives an open file that root has just made in a folder to
// the user, when the folder is his: the name that root was given may lead
// anywhere. For a nil User it is nil.
func (u *User) OwnIn(folder string) func(f *os.File) error {
	if u == nil {
		return nil
	}
	return func(f *os.File) error {
		st, err := os.Stat(folder)
		if err != nil || !Owns(u.UID, st) {
			return err
		}
		return f.Chown(u.UID, u.GID)
	}
}

// Owns reports whether a file belongs to a user.
func Owns(uid int, st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == uid
}

// Credential is who a program runs as that is started as this user; nil for a
// nil User, and for a process that is this user already: a program runs as it.
func (u *User) Credential() *syscall.Credential {
	if u == nil || u.UID == os.Geteuid() {
		return nil
	}
	c := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)} //nolint:gosec // both were read as 31 bits
	for _, g := range u.Groups {
		c.Groups = append(c.Groups, uint32(g)) //nolint:gosec // as above
	}
	return c
}

// number reads a UID or GID that a variable or an option has.
func number(what, s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s %q is no number of a user or group", what, s)
	}
	return int(n), nil
}

// named finds a user by name, UID or UID:GID.
func named(name string) (*User, error) {
	if uid, gid, ok := strings.Cut(name, ":"); ok {
		u, err := number("the user", uid)
		if err != nil {
			return nil, err
		}
		g, err := number("the group", gid)
		if err != nil {
			return nil, err
		}
		return numbered(u, g)
	}
	entry, err := user.Lookup(name)
	if err == nil {
		return known(entry, -1)
	}
	var unknown user.UnknownUserError
	if !errors.As(err, &unknown) {
		return nil, fmt.Errorf("look up user %q: %w", name, err)
	}
	uid, bad := number("user", name)
	if bad != nil {
		return nil, fmt.Errorf("there is no user %q", name)
	}
	return numbered(uid, -1)
}

// numbered finds a user by UID; a gid of -1 stands for the user's own group.
func numbered(uid, gid int) (*User, error) {
	entry, err := user.LookupId(strconv.Itoa(uid))
	if err == nil {
		return known(entry, gid)
	}
	var unknown user.UnknownUserIdError
	if !errors.As(err, &unknown) && !errors.Is(err, fs.ErrNotExist) { // an image from scratch may have no passwd
		return nil, fmt.Errorf("look up uid %d: %w", uid, err)
	}
	if gid < 0 {
		return nil, fmt.Errorf("there is no user with uid %d, so its group is not known: name both, as UID:GID", uid)
	}
	return &User{UID: uid, GID: gid, Groups: []int{gid}}, nil
}

// known completes what the system knows of a user.
func known(entry *user.User, gid int) (*User, error) {
	u := &User{Name: entry.Username, GID: gid, Home: entry.HomeDir}
	var err error
	if u.UID, err = number("the uid of user "+strconv.Quote(entry.Username), entry.Uid); err != nil {
		return nil, err
	}
	if gid < 0 {
		if u.GID, err = number("the gid of user "+strconv.Quote(entry.Username), entry.Gid); err != nil {
			return nil, err
		}
	}
	u.Groups = []int{u.GID}
	ids, err := entry.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up the groups of user %q: %w", entry.Username, err)
	}
	for _, s := range ids {
		g, err := number("a group of user "+strconv.Quote(entry.Username), s)
		if err != nil {
			return nil, err
		}
		if g != u.GID && g != 0 { // root's group would let the process read what is root's
			u.Groups = append(u.Groups, g)
		}
	}
	return u, nil
}
