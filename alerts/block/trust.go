package block

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// ErrStranger says that a socket is not asked, because neither root nor this
// user, nor a user whom root gave the place to, answers there.
var ErrStranger = errors.New("it is not asked")

// trust returns an error when another user may have put the socket at path
// there, or listens on it. Anybody can make folders in /tmp: what answers from
// there could say that a host is blocked which is not.
func trust(path string, c *net.UnixConn) error {
	peer, err := peerUID(c)
	if err != nil {
		return fmt.Errorf("%w: %s: who listens there is not known: %w", ErrStranger, path, err)
	}
	return trustPeer(path, peer)
}

// trustPeer is trust, with the user who listens.
func trustPeer(path string, peer int) error {
	const help = "remove it if it should not be there; block.socket names the socket of a run elsewhere"
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStranger, err)
	}
	folder, owner, err := look(dir)
	if err == nil && folder.Mode().Type() == fs.ModeSymlink && ours(owner) { // else it is judged by who made the link
		if dir, err = filepath.EvalSymlinks(dir); err == nil {
			folder, owner, err = look(dir)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrStranger, err)
	case !ours(owner) && !rootsAlone(filepath.Dir(dir)):
		return fmt.Errorf("%w: %s is in a folder of %s, who is neither root nor you: %s", ErrStranger, path, name(owner), help)
	case !folder.IsDir():
		return fmt.Errorf("%w: %s is in a folder that is a link of %s: %s", ErrStranger, path, name(owner), help)
	case folder.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%w: %s is in a folder of %s that others may write to (%s): \"chmod go-w %s\", and start slips again",
			ErrStranger, path, name(owner), folder.Mode(), dir)
	case !ours(peer) && peer != owner:
		return fmt.Errorf("%w: at %s listens %s, who is neither root nor you: ask as that user, or stop that program", ErrStranger, path, name(peer))
	}
	return nil
}

// look returns what a path names, links not followed, and whose it is.
func look(path string) (fs.FileInfo, int, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, 0, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, 0, fmt.Errorf("whose %q is, is not known", path)
	}
	return st, int(sys.Uid), nil
}

// ours reports whether a user is root or the one who runs this program.
func ours(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// rootsAlone reports whether root alone could have put anything into a folder,
// such as /run, where systemd makes folders for the users of its services.
func rootsAlone(dir string) bool {
	for {
		st, owner, err := look(dir)
		if err != nil || owner != 0 || !st.IsDir() || st.Mode().Perm()&0o022 != 0 {
			return false
		}
		up := filepath.Dir(dir)
		if up == dir {
			return true
		}
		dir = up
	}
}

// name returns how people call a user.
func name(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return fmt.Sprintf("%s (uid %s)", u.Username, id)
	}
	return "uid " + id
}
