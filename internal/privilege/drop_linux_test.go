package privilege

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// order is what a child of a test does: Drop cannot be undone, so each case
// has a process of its own.
type order struct {
	First   *Options // dropped before, to make a process that is not root
	Options Options
	Raise   []Cap  // raised instead of dropping
	Secret  string // a file for root's eyes
	Program string // writes its /proc/self/status
	exe     string // another file than the test's for the child, which then starts as a user without rights
}

// finding is what the child found out about itself.
type finding struct {
	Unsupported string
	Err         string
	Result      Result
	Info        Info
	Before      []Cap    // missing of NetRaw and NetAdmin
	Missing     []Cap    // afterwards
	Secret      string   // why the file cannot be read
	MayRead     string   // what MayRead says about it
	Packet      string   // why no packet socket can be opened
	Netfilter   string   // why the kernel refuses a message to nftables
	Root        string   // why uid 0 cannot be had again
	Regain      string   // why CAP_SETUID cannot be had again
	Threads     []string // what distinguishes threads, each once
	Fresh       string   // the same of a thread that is made later
	Program     string   // the same of a program that is started later
	NoProgram   string   // why it cannot be started
}

func TestMain(m *testing.M) {
	if s := os.Getenv("SLIPS_TEST_PRIVILEGE"); s != "" {
		var o order
		if err := json.Unmarshal([]byte(s), &o); err != nil {
			panic(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(obey(o)); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// text is the text of an error, empty for none.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// obey drops while other threads run and wait in the kernel, and looks around.
func obey(o order) finding {
	var f finding
	if o.First != nil {
		if _, err := Drop(*o.First); err != nil {
			return finding{Unsupported: unsupported(err), Err: text(err)}
		}
	}
	end := make(chan struct{})
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return finding{Err: text(err)}
	}
	var wg, up sync.WaitGroup
	for i := range 8 {
		up.Add(1)
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			up.Done()
			if i < 4 { // in a system call, for as long as the test lasts
				var b [1]byte
				_, _ = unix.Read(p[0], b[:])
				return
			}
			for { // running
				select {
				case <-end:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	up.Wait()
	defer func() {
		close(end)
		unix.Close(p[1]) // the end of what is read
		wg.Wait()
	}()

	f.Before = Missing(NetRaw, NetAdmin)
	if o.Raise != nil {
		if err := Raise(o.Raise...); err != nil {
			return finding{Unsupported: unsupported(err), Err: text(err)}
		}
	} else {
		var err error
		if f.Result, err = Drop(o.Options); err != nil {
			return finding{Unsupported: unsupported(err), Err: text(err)}
		}
	}
	f.Missing = Missing(NetRaw, NetAdmin)
	var err error
	if f.Info, err = Describe(); err != nil {
		return finding{Err: text(err)}
	}
	f.Info.Bounding = nil // too long to be compared
	_, err = os.ReadFile(o.Secret)
	f.Secret, f.MayRead = text(err), text(MayRead(o.Secret))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if f.Packet = text(err); err == nil {
		unix.Close(fd)
	}
	f.Netfilter = text(netfilter())
	f.Root = text(syscall.Setresuid(0, 0, 0))
	f.Regain = text(capset(sets{permitted: setOf(unix.CAP_SETUID), effective: setOf(unix.CAP_SETUID)}))
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) < 8 {
		return finding{Err: fmt.Sprintf("%d threads, %v", len(files), err)}
	}
	seen := map[string]bool{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if s := rights(b); !seen[s] {
			seen[s] = true
			f.Threads = append(f.Threads, s)
		}
	}
	fresh := make(chan string)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		b, err := os.ReadFile("/proc/thread-self/status")
		fresh <- rights(b) + text(err)
	}()
	f.Fresh = <-fresh
	if o.Program != "" {
		b, err := exec.Command(o.Program, "/proc/self/status").Output()
		f.Program, f.NoProgram = rights(b), text(err)
	}
	return f
}

func unsupported(err error) string {
	if errors.Is(err, ErrUnsupported) {
		return err.Error()
	}
	return ""
}

// rights is what a status file says about rights: uid, gid, the capabilities
// and no_new_privs.
func rights(status []byte) string {
	var out []string
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch key {
		case "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs":
			v := strings.Join(strings.Fields(value), ",")
			if strings.HasPrefix(key, "Cap") {
				v = strings.TrimLeft(v, "0")
			}
			out = append(out, key+"="+v)
		}
	}
	return strings.Join(out, " ")
}

// netfilter asks nftables which generation its rules have. The kernel wants
// CAP_NET_ADMIN before it looks at any message of this kind, be it a question
// or a change.
func netfilter() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	msg := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	if n >= unix.SizeofNlMsghdr+4 && binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
		if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
			return syscall.Errno(-code)
		}
	}
	return nil
}

// run has a child of the test obey.
func run(t *testing.T, o order) finding {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, dropping privileges is not tested: there are none to drop, root is needed")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("for root"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Secret = secret
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	exe := o.exe
	if exe == "" {
		exe = self(t)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "SLIPS_TEST_PRIVILEGE="+string(b))
	if o.exe != "" {
		u := stranger()
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var f finding
	if err := json.Unmarshal(out, &f); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if f.Unsupported != "" {
		t.Skipf("SKIPPED, dropping privileges is not tested: %s", f.Unsupported)
	}
	if f.Err != "" {
		t.Fatal(f.Err)
	}
	return f
}

// self is the program of the test.
func self(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

const eperm = "operation not permitted"

// stranger is nobody whom the system knows.
func stranger() *User { return &User{UID: 60123, GID: 60124, Groups: []int{60124, 60125}} }

// needCaps skips where root itself lacks what a case is about.
func needCaps(t *testing.T, caps ...Cap) {
	t.Helper()
	if lack := Missing(caps...); len(lack) > 0 {
		t.Skipf("SKIPPED: root has no %s here", names(lack))
	}
}

func TestDropToUser(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin, setpcap)
	const dropped = "Uid=60123,60123,60123,60123 Gid=60124,60124,60124,60124 Groups=60124,60125"
	for _, c := range []struct {
		what     string
		keep     []Cap
		ambient  bool
		programs bool
		set, bnd string // of this process, in hexadecimal
		child    string
	}{
		{"nothing", nil, false, false, "", "", ""},
		{"capture", []Cap{NetRaw}, false, false, "2000", "2000", ""},
		{"capture with Zeek", []Cap{NetRaw}, true, false, "2000", "3000", "2000"},
		{"blocking", []Cap{NetAdmin, NetRaw}, false, false, "3000", "3000", ""},
		{"blocking with Zeek", []Cap{NetAdmin, NetRaw}, true, false, "3000", "3000", "2000"},
		{"nothing for nobody", nil, true, false, "", "3000", ""},
		{"reading", []Cap{DACReadSearch}, false, false, "4", "", ""},
		{"reading and blocking", []Cap{DACReadSearch, NetAdmin}, false, false, "1004", "1000", ""},
		{"reading with Zeek", []Cap{DACReadSearch}, false, true, "4", "3000", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := run(t, order{Options: Options{Keep: c.keep, User: stranger(), Ambient: c.ambient, Programs: c.programs}, Program: "/bin/cat"})
			kept := setOf(c.keep...)
			inh := ""
			if c.ambient {
				inh = c.child
			}
			here := fmt.Sprintf("%s CapInh=%s CapPrm=%s CapEff=%s CapBnd=%s CapAmb=%s NoNewPrivs=1", dropped, inh, c.set, c.set, c.bnd, inh)
			want := finding{
				Result: Result{UID: 60123, GID: 60124, Kept: kept.caps(), Bounded: true, NoNewPrivs: true},
				Info: Info{
					UID: 60123, EUID: 60123, GID: 60124, Groups: []int{60124, 60125}, Permitted: kept.caps(), Effective: kept.caps(), NoNewPrivs: true,
				},
				Missing: (setOf(NetRaw, NetAdmin) &^ kept).caps(),
				Secret:  "permission denied", MayRead: "permission denied", Root: eperm, Regain: "set the capabilities to CAP_SETUID: " + eperm,
				Threads: []string{here}, Fresh: here,
				Program: fmt.Sprintf("%s CapInh=%s CapPrm=%s CapEff=%s CapBnd=%s CapAmb=%s NoNewPrivs=1", dropped, inh, c.child, c.child, c.bnd, inh),
			}
			if c.ambient {
				want.Info.Ambient = (kept & setOf(NetRaw)).caps()
			}
			if !kept.has(NetRaw) {
				want.Packet = eperm
			}
			if !kept.has(NetAdmin) {
				want.Netfilter = eperm
			}
			if kept.has(DACReadSearch) {
				want.Secret = "" // and MayRead does not count it
			}
			f.Secret, f.MayRead = f.Secret[strings.LastIndex(f.Secret, ":")+1:], f.MayRead[strings.LastIndex(f.MayRead, ":")+1:]
			f.Secret, f.MayRead = strings.TrimSpace(f.Secret), strings.TrimSpace(f.MayRead)
			if d := cmp.Diff(want, f); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestDropAgain: what was kept is given up when it is not needed any more, and
// not had again.
func TestDropAgain(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin, DACReadSearch, setpcap)
	for _, u := range []*User{stranger(), nil} {
		f := run(t, order{
			First: &Options{Keep: []Cap{NetRaw, DACReadSearch}, User: u, Ambient: true}, Options: Options{User: u}, Program: "/bin/cat",
		})
		if !strings.Contains(f.Threads[0], "CapInh= CapPrm= CapEff= CapBnd=3000 CapAmb= NoNewPrivs=1") || len(f.Threads) != 1 ||
			!strings.Contains(f.Program, "CapPrm= CapEff=") || f.Packet != eperm || f.Regain == "" {
			t.Errorf("threads %q, a program %q, packet socket: %q, CAP_SETUID: %q", f.Threads, f.Program, f.Packet, f.Regain)
		}
	}
}

// TestDropStaysRoot: uid 0 alone gives no capability any more, neither to the
// process nor to what it starts.
func TestDropStaysRoot(t *testing.T) {
	needCaps(t, NetRaw, setpcap)
	f := run(t, order{Options: Options{Keep: []Cap{NetRaw}}, Program: "/bin/cat"})
	if d := cmp.Diff(Result{Kept: []Cap{NetRaw}, Bounded: true, NoNewPrivs: true}, f.Result); d != "" {
		t.Error(d)
	}
	if f.Packet != "" || f.Netfilter != eperm || f.Regain == "" {
		t.Errorf("packet socket: %q, nftables: %q, CAP_SETUID: %q", f.Packet, f.Netfilter, f.Regain)
	}
	if !strings.Contains(f.Program, "CapPrm= CapEff= CapBnd=2000") {
		t.Errorf("a program that is started has %s", f.Program)
	}
	if len(f.Threads) != 1 || f.Threads[0] != f.Fresh {
		t.Errorf("threads differ: %q, %q", f.Threads, f.Fresh)
	}
}

// TestDropWithoutRoot: a process with less than it wants says what is missing
// and keeps what there is.
func TestDropWithoutRoot(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin, setpcap)
	for _, c := range []struct {
		what     string
		first    []Cap
		o        Options
		want     Result
		noNewYet bool
	}{
		{"with what it needs", []Cap{NetRaw}, Options{Keep: []Cap{NetRaw}}, Result{Kept: []Cap{NetRaw}}, false},
		{"with more", []Cap{NetRaw, NetAdmin}, Options{Keep: []Cap{NetRaw}, User: stranger()}, Result{Kept: []Cap{NetRaw}}, false},
		{"with nothing", nil, Options{Keep: []Cap{NetRaw}}, Result{Missing: []Cap{NetRaw}}, false},
		{"for a Zeek", []Cap{NetRaw}, Options{Keep: []Cap{NetRaw}, Ambient: true}, Result{Kept: []Cap{NetRaw}}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := run(t, order{First: &Options{Keep: c.first, User: stranger()}, Options: c.o})
			c.want.UID, c.want.GID, c.want.NoNewPrivs = 60123, 60124, true
			if d := cmp.Diff(c.want, f.Result); d != "" {
				t.Error(d)
			}
			if len(f.Threads) != 1 || f.Threads[0] != f.Fresh {
				t.Errorf("threads differ: %q, %q", f.Threads, f.Fresh)
			}
		})
	}
}

// withCaps returns a copy of a program that everybody may run and whose file
// has capabilities. effective sets the bit that puts them in effect at once.
func withCaps(t *testing.T, program string, caps capSet, effective bool) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, no program with capabilities is tested: root is needed to make one")
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Skipf("SKIPPED, no program with capabilities is tested: %v", err)
	}
	dir := t.TempDir()
	for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	if caps == 0 {
		return path
	}
	// struct vfs_cap_data, revision 2: permitted and inheritable, twice 32 bits.
	magic := uint32(0x02000000)
	if effective {
		magic |= 1
	}
	var x [20]byte
	binary.LittleEndian.PutUint32(x[0:], magic)
	binary.LittleEndian.PutUint32(x[4:], uint32(caps))
	binary.LittleEndian.PutUint32(x[8:], uint32(caps))
	if err := unix.Setxattr(path, "security.capability", x[:], 0); err != nil {
		t.Skipf("SKIPPED, no program with capabilities is tested: %v", err)
	}
	return path
}

// TestDropWithZeekThatHasCapabilities: the program starts, and has what we
// have and no more.
func TestDropWithZeekThatHasCapabilities(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin, setpcap)
	zeek := withCaps(t, "/bin/cat", child, true)
	for _, c := range []struct {
		what  string
		first *Options
		o     Options
		want  string
	}{
		{"from root", nil, Options{Keep: []Cap{NetRaw}, User: stranger(), Ambient: true}, "CapPrm=2000 CapEff=2000 CapBnd=3000 CapAmb= NoNewPrivs=1"},
		{"without capabilities of ours", &Options{User: stranger(), Keep: []Cap{NetAdmin}, Ambient: true}, Options{Keep: []Cap{NetRaw}, Ambient: true}, "CapPrm= CapEff="},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := run(t, order{First: c.first, Options: c.o, Program: zeek})
			if f.NoProgram != "" {
				t.Fatalf("the program does not start: %s", f.NoProgram)
			}
			if !strings.Contains(f.Program, c.want) {
				t.Errorf("the program has %s, not %s", f.Program, c.want)
			}
		})
	}
	t.Run("without ambient", func(t *testing.T) {
		f := run(t, order{Options: Options{Keep: []Cap{NetRaw}, User: stranger()}, Program: zeek})
		if f.NoProgram == "" && !strings.Contains(f.Program, "CapEff= ") {
			t.Errorf("the program has %s", f.Program)
		}
	})
}

// TestDropLeavesZeekItsOwnCapabilities: who has no capability and starts a
// Zeek that has them must not stand in its way.
func TestDropLeavesZeekItsOwnCapabilities(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin)
	zeek := withCaps(t, "/bin/cat", child, true)
	f := run(t, order{Options: Options{Keep: []Cap{NetRaw}, Ambient: true}, Program: zeek, exe: withCaps(t, self(t), 0, false)})
	if d := cmp.Diff(Result{UID: 60123, GID: 60124, Missing: []Cap{NetRaw}}, f.Result); d != "" {
		t.Error(d)
	}
	if f.NoProgram != "" || !strings.Contains(f.Program, "CapPrm=3000 CapEff=3000") {
		t.Errorf("the program has %s: %s", f.Program, f.NoProgram)
	}
}

// TestRaise: what the file of the program permits is put into effect, and no more.
func TestRaise(t *testing.T) {
	needCaps(t, NetRaw, NetAdmin)
	for _, c := range []struct {
		what            string
		file            capSet
		before, missing []Cap
		packet          string
	}{
		{"permitted", setOf(NetRaw), []Cap{NetAdmin, NetRaw}, []Cap{NetAdmin}, ""},
		{"not permitted", 0, []Cap{NetAdmin, NetRaw}, []Cap{NetAdmin, NetRaw}, eperm},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := run(t, order{Raise: []Cap{NetRaw}, exe: withCaps(t, self(t), c.file, false)})
			if d := cmp.Diff(c.before, f.Before); d != "" {
				t.Errorf("missing before: %s", d)
			}
			if d := cmp.Diff(c.missing, f.Missing); d != "" {
				t.Errorf("missing afterwards: %s", d)
			}
			if f.Packet != c.packet || len(f.Threads) != 1 {
				t.Errorf("packet socket: %q, threads: %q", f.Packet, f.Threads)
			}
		})
	}
}
