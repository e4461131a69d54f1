package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capabilities that dropping itself takes.
const setpcap Cap = unix.CAP_SETPCAP

// child are the capabilities that the file of a Zeek may have, by its
// documentation. With Options.Ambient and Options.Programs they stay in the
// bounding set, because the kernel refuses to run a file whose capabilities are not all in it. The
// program gets no more than we hold all the same: no_new_privs sees to that.
const child = capSet(1<<NetRaw | 1<<NetAdmin)

// Securebits: uid 0 has no capabilities for being uid 0, for good. From
// include/uapi/linux/securebits.h.
const noRoot = 1<<0 | 1<<1

// Supported returns the error that Drop would return without having changed
// anything, an ErrUnsupported, or nil.
func Supported() error {
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_GET_KEEPCAPS, 0, 0); errno == syscall.ENOTSUP {
		return fmt.Errorf("%w: the program was built with cgo; build it with CGO_ENABLED=0", ErrUnsupported)
	}
	return nil
}

// Drop leaves the process with exactly the capabilities of o.Keep that it
// has, as the given user, on all its threads. There is no way back, not by
// starting another program either: the bounding set is emptied of the rest
// where the process is allowed to do that (as root it is), and no_new_privs
// is set. It may be called again to give up more. It may be called by any goroutine while others run; sockets and
// files that are open stay usable. A process that has no more than it needs,
// or less, is no error.
//
// no_new_privs lets ambient capabilities through to a Zeek, and those of the
// file of a Zeek as far as we hold them ourselves. It is left off in one case:
// with o.Ambient when one of o.Keep is missing, because then the Zeek's own
// file may have it.
//
// Who stays root gives up less than it seems, because much belongs to root
// that the system trusts.
//
// In a program built with cgo the threads cannot all be reached; the error is
// ErrUnsupported and nothing was changed. After another error the process is
// somewhere in between and should end.
func Drop(o Options) (Result, error) {
	if err := Supported(); err != nil {
		return Result{}, err
	}
	has, err := capget()
	if err != nil {
		return Result{}, err
	}
	keep := setOf(o.Keep...) & has.permitted
	missing := setOf(o.Keep...) &^ keep
	r := Result{Kept: keep.caps(), Missing: missing.caps()}
	if o.User != nil && o.User.UID != os.Geteuid() && os.Geteuid() != 0 {
		return Result{}, fmt.Errorf("become user %s: only root can, and this process runs as uid %d", o.User, os.Geteuid())
	}

	if has.effective.has(setpcap) {
		// No program that is started reads what its user may not.
		bound := keep &^ setOf(DACReadSearch)
		if o.Ambient || o.Programs {
			bound |= child
		}
		if err := limit(bound); err != nil {
			return Result{}, err
		}
		bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
		if err != nil {
			return Result{}, fmt.Errorf("read the securebits: %w", err)
		}
		if err := prctl("take its capabilities from uid 0", unix.PR_SET_SECUREBITS, uintptr(bits|noRoot), 0); err != nil {
			return Result{}, err
		}
		r.Bounded = true
	}
	if o.User != nil {
		if err := become(o.User); err != nil {
			return Result{}, err
		}
	}
	var inherit capSet
	if o.Ambient {
		inherit = keep & setOf(NetRaw)
	}
	if err := capset(sets{permitted: keep, effective: keep, inheritable: inherit}); err != nil {
		return Result{}, err
	}
	if err := prctl("clear the ambient capabilities", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return Result{}, err
	}
	for _, c := range inherit.caps() {
		if err := prctl("make "+c.String()+" ambient", unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c)); err != nil {
			return Result{}, err
		}
	}
	if !o.Ambient || missing == 0 {
		if err := prctl("set no_new_privs", unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
			return Result{}, err
		}
	}
	info, err := Describe()
	if err != nil {
		return Result{}, err
	}
	r.UID, r.GID, r.NoNewPrivs = info.EUID, info.GID, info.NoNewPrivs
	return r, verify(o.User, keep, info.NoNewPrivs)
}

// limit drops all but keep from the bounding set.
func limit(keep capSet) error {
	for c := range Cap(64) {
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no more
		}
		if err != nil {
			return fmt.Errorf("read the bounding set: %w", err)
		}
		if has == 1 && !keep.has(c) {
			if err := prctl("drop "+c.String()+" from the bounding set", unix.PR_CAPBSET_DROP, uintptr(c), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// become makes all threads those of u. The capabilities that are permitted
// stay so.
func become(u *User) error {
	if err := prctl("keep capabilities while becoming user "+u.String(), unix.PR_SET_KEEPCAPS, 1, 0); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := syscall.Setgroups(u.Groups); err != nil {
			return fmt.Errorf("become user %s: set its groups (which takes CAP_SETGID): %w", u, err)
		}
	}
	if err := syscall.Setresgid(u.GID, u.GID, u.GID); err != nil {
		return fmt.Errorf("become user %s: set its group (which takes CAP_SETGID): %w", u, err)
	}
	if err := syscall.Setresuid(u.UID, u.UID, u.UID); err != nil {
		return fmt.Errorf("become user %s (which takes CAP_SETUID): %w", u, err)
	}
	return prctl("forget to keep capabilities", unix.PR_SET_KEEPCAPS, 0, 0)
}

// verify reads what each thread is allowed, as the kernel tells it. Where
// there is no /proc the word of the system calls is all there is.
func verify(u *User, keep capSet, noNewPrivs bool) error {
	want := map[string]string{"CapPrm": fmt.Sprintf("%016x", keep), "CapEff": fmt.Sprintf("%016x", keep), "NoNewPrivs": "0"}
	if noNewPrivs {
		want["NoNewPrivs"] = "1"
	}
	if u != nil { // real, effective, saved, of the file system
		want["Uid"] = strings.Repeat(strconv.Itoa(u.UID)+"\t", 3) + strconv.Itoa(u.UID)
		want["Gid"] = strings.Repeat(strconv.Itoa(u.GID)+"\t", 3) + strconv.Itoa(u.GID)
	}
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return fmt.Errorf("look at the threads: %w", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return fmt.Errorf("look at a thread: %w", err)
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			if w, ok := want[key]; ok && strings.TrimSpace(value) != w {
				return fmt.Errorf("dropping privileges failed: %s says %s %q, not %q", name, key, strings.TrimSpace(value), w)
			}
		}
	}
	return nil
}

// Raise makes those of caps effective that are permitted, on all threads. A
// program whose file has capabilities without the effective bit ("setcap
// cap_net_raw+p") starts with none in effect. That bit is best left out where
// not everybody may use them: with it the kernel refuses to run the file at
// all in a container that lacks one of them.
func Raise(caps ...Cap) error {
	has, err := capget()
	if err != nil {
		return err
	}
	want := has
	want.effective |= setOf(caps...) & has.permitted
	if want == has {
		return nil
	}
	return capset(want)
}

// Missing returns those of caps that the process cannot use.
func Missing(caps ...Cap) []Cap {
	has, err := capget()
	if err != nil {
		return nil // the attempt itself will tell
	}
	return (setOf(caps...) &^ has.effective).caps()
}

// Describe says who the process is and what it may do, for a log.
func Describe() (Info, error) {
	has, err := capget()
	if err != nil {
		return Info{}, err
	}
	i := Info{
		UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getegid(), Permitted: has.permitted.caps(), Effective: has.effective.caps(),
	}
	if i.Groups, err = os.Getgroups(); err != nil {
		return Info{}, fmt.Errorf("read the groups: %w", err)
	}
	for c := range Cap(64) {
		if on, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(c), 0, 0, 0); err != nil {
			break // the kernel knows no more
		} else if on == 1 {
			i.Bounding = append(i.Bounding, c)
		}
		if on, err := unix.PrctlRetInt(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(c), 0, 0); err == nil && on == 1 {
			i.Ambient = append(i.Ambient, c)
		}
	}
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return Info{}, fmt.Errorf("read no_new_privs: %w", err)
	}
	i.NoNewPrivs = on == 1
	return i, nil
}

// sets are the three sets that capset(2) sets.
type sets struct{ permitted, effective, inheritable capSet }

// capget returns the sets of the calling thread, which are those of all.
func capget() (sets, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&header, &d[0]); err != nil {
		return sets{}, fmt.Errorf("read the capabilities: %w", err)
	}
	join := func(low, high uint32) capSet { return capSet(high)<<32 | capSet(low) }
	return sets{
		permitted: join(d[0].Permitted, d[1].Permitted), effective: join(d[0].Effective, d[1].Effective),
		inheritable: join(d[0].Inheritable, d[1].Inheritable),
	}, nil
}

// capset sets the sets of all threads.
func capset(s sets) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	d := [2]unix.CapUserData{
		{Permitted: uint32(s.permitted), Effective: uint32(s.effective), Inheritable: uint32(s.inheritable)},
		{Permitted: uint32(s.permitted >> 32), Effective: uint32(s.effective >> 32), Inheritable: uint32(s.inheritable >> 32)},
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&d[0])), 0)
	switch {
	case errno == syscall.ENOTSUP:
		return fmt.Errorf("%w: the program was built with cgo; build it with CGO_ENABLED=0", ErrUnsupported)
	case errno != 0:
		return fmt.Errorf("set the capabilities to %s: %w", names(s.permitted.caps()), errno)
	}
	return nil
}

// prctl does prctl(2) on all threads.
func prctl(what string, option int, arg2, arg3 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, uintptr(option), arg2, arg3, 0, 0, 0); errno != 0 {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return nil
}
