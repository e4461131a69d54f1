// Package privilege keeps the program from being able to do more than its job
// takes. Capturing packets takes CAP_NET_RAW, blocking CAP_NET_ADMIN, and
// reading what is root's alone CAP_DAC_READ_SEARCH; all else that root may do
// is given up as soon as the sockets are open, for good and on every thread of
// the process.
package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUnsupported says that privileges cannot be dropped on this system or by
// this build of the program. Nothing was changed then.
var ErrUnsupported = errors.New("privileges cannot be dropped")

// Cap is a capability of Linux, by its number in the kernel's interface.
type Cap uint8

// The capabilities that a job of this program can take.
const (
	DACReadSearch Cap = 2  // to read files and folders of others
	NetAdmin      Cap = 12 // to change the firewall: blocking
	NetRaw        Cap = 13 // to open packet sockets: live capture, ARP isolation
)

// capNames are the names of capabilities(7), by number.
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// String returns the name, such as CAP_NET_RAW.
func (c Cap) String() string {
	if int(c) < len(capNames) {
		return "CAP_" + capNames[c]
	}
	return fmt.Sprintf("CAP_%d", uint8(c))
}

// capSet is a set of capabilities: bit n is the capability n.
type capSet uint64

func setOf(caps ...Cap) capSet {
	var s capSet
	for _, c := range caps {
		s |= 1 << c
	}
	return s
}

func (s capSet) has(c Cap) bool { return s&(1<<c) != 0 }

// caps returns the members by number; nil for none.
func (s capSet) caps() []Cap {
	var out []Cap
	for c := range Cap(64) {
		if s.has(c) {
			out = append(out, c)
		}
	}
	return out
}

// Options say what Drop leaves.
type Options struct {
	// Keep are the capabilities that the process goes on using: DACReadSearch,
	// NetRaw, NetAdmin or none.
	Keep []Cap
	// User is who the process becomes. With nil it stays who it is.
	User *User
	// Ambient hands NetRaw, when it is kept, to programs that are started
	// later: a Zeek that captures needs it, and no program needs more.
	Ambient bool
	// Programs says that a Zeek may be started later that needs no capability,
	// though its file may have some. Without it the kernel may refuse to.
	Programs bool
}

// Result is what Drop left.
type Result struct {
	UID, GID   int
	Kept       []Cap // permitted and effective
	Missing    []Cap // of Options.Keep, those that the process did not have
	Bounded    bool  // the bounding set was emptied of the rest
	NoNewPrivs bool  // no program that is started later can have more, whatever its file says
}

// LogValue implements slog.LogValuer.
func (r Result) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("uid", r.UID), slog.Int("gid", r.GID), slog.String("kept", names(r.Kept)), slog.String("missing", names(r.Missing)),
		slog.Bool("bounded", r.Bounded), slog.Bool("no_new_privs", r.NoNewPrivs),
	)
}

// Info says what a process may do.
type Info struct {
	UID, EUID, GID int
	Groups         []int
	Permitted      []Cap
	Effective      []Cap
	Ambient        []Cap
	Bounding       []Cap
	NoNewPrivs     bool
}

// LogValue implements slog.LogValuer.
func (i Info) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("uid", i.EUID), slog.Int("gid", i.GID), slog.String("permitted", names(i.Permitted)),
		slog.String("effective", names(i.Effective)), slog.Bool("no_new_privs", i.NoNewPrivs),
	)
}

// String is one line for people.
func (i Info) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "uid %d, gid %d, capabilities: %s", i.EUID, i.GID, names(i.Permitted))
	if idle := setOf(i.Permitted...) &^ setOf(i.Effective...); idle != 0 {
		fmt.Fprintf(&b, " (not in use: %s)", names(idle.caps()))
	}
	if len(i.Ambient) > 0 {
		fmt.Fprintf(&b, ", handed to programs it starts: %s", names(i.Ambient))
	}
	if i.NoNewPrivs {
		b.WriteString(", no new privileges")
	}
	return b.String()
}

// names lists capabilities for people. Most of those that root has are cut:
// that there are so many is what matters.
func names(caps []Cap) string {
	const most = 8
	switch {
	case len(caps) == 0:
		return "none"
	case len(caps) >= len(capNames):
		return "all"
	}
	var out []string
	for _, c := range caps[:min(len(caps), most)] {
		out = append(out, c.String())
	}
	if more := len(caps) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, " ")
}

// MissingError says that a job takes capabilities that the process lacks.
type MissingError struct {
	Job  string // "capturing on eth0"
	Caps []Cap
	Info Info // of the process
}

// Error says what is missing and what can be done. Root that lacks a
// capability is in a container or a service; there sudo is of no use, and
// where no_new_privs is set, those of the file are not either.
func (e *MissingError) Error() string {
	var file, docker []string
	for _, c := range e.Caps {
		file = append(file, strings.ToLower(c.String()))
		docker = append(docker, "--cap-add "+strings.TrimPrefix(c.String(), "CAP_"))
	}
	var ways []string
	if e.Info.EUID != 0 {
		ways = append(ways, "run it by sudo")
		if !e.Info.NoNewPrivs {
			ways = append(ways, `give the program the right ("sudo setcap `+strings.Join(file, ",")+`+ep $(command -v slips)")`)
		}
	}
	ways = append(ways, `in a systemd unit set "AmbientCapabilities=`+names(e.Caps)+`"`, `in a container use "`+strings.Join(docker, " ")+`"`)
	return fmt.Sprintf("%s needs %s, which this process (uid %d) does not have: %s, or %s", e.Job, names(e.Caps), e.Info.EUID,
		strings.Join(ways[:len(ways)-1], ", "), ways[len(ways)-1])
}

// Is makes a MissingError a fs.ErrPermission.
func (*MissingError) Is(target error) bool { return target == fs.ErrPermission }

// Need returns a *MissingError when the process lacks one of caps, in whose
// text job stands for what they are needed for. On systems without
// capabilities nothing is missing.
func Need(job string, caps ...Cap) error {
	if lack := Missing(caps...); len(lack) > 0 {
		info, err := Describe()
		if err != nil {
			info = Info{UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getegid()}
		}
		return &MissingError{Job: job, Caps: lack, Info: info}
	}
	return nil
}

// MayRead returns the error of a file or folder that the real user of the
// process may not read, or not reach, by its permissions: the capabilities of a
// user other than root do not count. Other errors are left to who reads it.
func MayRead(path string) error {
	mode := uint32(unix.R_OK)
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		mode |= unix.X_OK
	}
	if err := unix.Access(path, mode); errors.Is(err, fs.ErrPermission) {
		return &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return nil
}

// MkdirAll makes dir and the folders above it that are missing, and gives
// those that it made to the user. It is for root on its way to becoming u; a
// nil u makes folders of our own. Folders that are there are left as they are:
// the name that root was given may be anybody's.
func (u *User) MkdirAll(dir string, perm fs.FileMode) error {
	if u == nil {
		return os.MkdirAll(dir, perm)
	}
	var missing []string
	for p := filepath.Clean(dir); ; p = filepath.Dir(p) {
		_, err := os.Stat(p)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || p == filepath.Dir(p) {
			return fmt.Errorf("make folder %q for user %s: %w", dir, u, err)
		}
		missing = append(missing, p)
	}
	for _, p := range slices.Backward(missing) {
		if err := u.mkdir(p, perm); err != nil {
			return fmt.Errorf("make folder %q for user %s: %w", dir, u, err)
		}
	}
	return nil
}

// mkdir makes one folder. The owner is changed through a descriptor that does
// not follow a link which somebody put there meanwhile.
func (u *User) mkdir(path string, perm fs.FileMode) error {
	if err := os.Mkdir(path, perm); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chown(u.UID, u.GID), f.Close())
}
