package privilege

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// environment is one of a test's own.
func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for _, p := range pairs {
			if v, ok := strings.CutPrefix(p, name+"="); ok {
				return v
			}
		}
		return ""
	}
}

func TestChoose(t *testing.T) {
	dir := t.TempDir()
	owned := filepath.Join(dir, "owned")
	if err := os.Mkdir(owned, 0o700); err != nil {
		t.Fatal(err)
	}
	const free = 60123 // a number that the system knows no user for
	if os.Geteuid() == 0 {
		if err := os.Chown(owned, free, free+1); err != nil {
			t.Fatal(err)
		}
	} else {
		owned = ""
	}
	stranger := &User{UID: free, GID: free + 1, Groups: []int{free + 1}}
	sudo := environment("SUDO_UID=60123", "SUDO_GID=60124")
	for _, c := range []struct {
		what string
		euid int
		name string
		env  func(string) string
		dir  string
		want *User
		err  string
	}{
		{"not root", 1000, "", sudo, owned, nil, ""},
		{"root alone", 0, "", environment(), "", nil, ""},
		{"sudo", 0, "", sudo, owned, stranger, ""},
		{"sudo by root", 0, "", environment("SUDO_UID=0", "SUDO_GID=0"), "", nil, ""},
		{"root by name", 0, "root", sudo, owned, nil, ""},
		{"both numbers", 0, "60123:60124", environment(), "", stranger, ""},
		{"no such folder", 0, "", environment(), filepath.Join(dir, "none"), nil, ""},
		{"no folder can be there", 0, "", environment(), "privilege_test.go/none", nil, ""},
		{"sudo with nonsense", 0, "", environment("SUDO_UID=-1"), "", nil, `SUDO_UID "-1"`},
		{"sudo with a nonsense group", 0, "", environment("SUDO_UID=60123", "SUDO_GID=x"), "", nil, `SUDO_GID "x"`},
		{"sudo without group, unknown", 0, "", environment("SUDO_UID=60123"), "", nil, "UID:GID"},
		{"unknown name", 0, "nobody-by-that-name", environment(), "", nil, `no user "nobody-by-that-name"`},
		{"unknown number", 0, "60123", environment(), "", nil, "UID:GID"},
		{"too big", 0, "4294967295:0", environment(), "", nil, "no number"},
		{"other user, not root", 1000, "60123:60124", environment(), "", nil, "only root can"},
		{"already that user", free, "60123:60124", environment(), "", nil, ""},
	} {
		u, err := choose(c.euid, c.name, c.env, c.dir)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want one with %q", c.what, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if d := cmp.Diff(c.want, u); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
	if owned == "" {
		t.Skip("SKIPPED in part, the owner of the output folder is not tested: it takes root to make one")
	}
	u, err := choose(0, "", environment(), owned)
	if d := cmp.Diff(stranger, u); d != "" || err != nil {
		t.Errorf("owner of the output folder: %v %s", err, d)
	}
}

func TestChooseNamed(t *testing.T) {
	byName, err := choose(0, "nobody", environment(), "")
	if err != nil {
		t.Skipf("SKIPPED, no user of the system is looked up: %v", err)
	}
	if byName.Name != "nobody" || byName.UID == 0 || byName.Home == "" || len(byName.Groups) == 0 || byName.Groups[0] != byName.GID {
		t.Errorf("got %+v", byName)
	}
	byNumber, err := choose(0, strconv.Itoa(byName.UID), environment(), "")
	if d := cmp.Diff(byName, byNumber); d != "" || err != nil {
		t.Errorf("by number: %v %s", err, d)
	}
	bySudo, err := choose(0, "", environment("SUDO_UID="+strconv.Itoa(byName.UID), "SUDO_GID="+strconv.Itoa(byName.GID)), "")
	if d := cmp.Diff(byName, bySudo); d != "" || err != nil {
		t.Errorf("by sudo: %v %s", err, d)
	}
}

func TestMayRead(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none"), "privilege_test.go/none"} {
		if err := MayRead(path); err != nil { // what is not there is nobody's secret
			t.Errorf("%s: %v", path, err)
		}
	}
	if os.Geteuid() == 0 {
		t.Skip("SKIPPED in part: to root everything is open; TestDropToUser tests the rest")
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := MayRead(closed); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a folder that cannot be entered: %v", err)
	}
}

func TestCredential(t *testing.T) {
	var nobody *User
	if c := nobody.Credential(); c != nil {
		t.Errorf("of nobody: %v", c)
	}
	if c := (&User{UID: os.Geteuid()}).Credential(); c != nil {
		t.Errorf("of who we are: %v", c)
	}
	want := &syscall.Credential{Uid: 60123, Gid: 60124, Groups: []uint32{60124}}
	if d := cmp.Diff(want, (&User{UID: 60123, GID: 60124, Groups: []int{60124}}).Credential()); d != "" {
		t.Error(d)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	var nobody *User
	if err := nobody.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, folders for another user are not tested: it takes root")
	}
	u := &User{UID: 60123, GID: 60124}
	deep := filepath.Join(dir, "a", "c", "d")
	for range 2 { // the second time all is there
		if err := u.MkdirAll(deep, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for path, uid := range map[string]uint32{deep: 60123, filepath.Dir(deep): 60123, filepath.Join(dir, "a"): 0} {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if sys := st.Sys().(*syscall.Stat_t); sys.Uid != uid {
			t.Errorf("%s belongs to %d, not to %d", path, sys.Uid, uid)
		}
	}
	if err := os.Symlink("/nowhere/at/all", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := u.MkdirAll(filepath.Join(dir, "link"), 0o750); err == nil {
		t.Error("a link to nowhere became a folder")
	}
}

func TestMissingErrorSaysWhatToDo(t *testing.T) {
	err := error(&MissingError{Job: "capturing on eth0", Caps: []Cap{NetRaw}, Info: Info{EUID: 1000}})
	want := `capturing on eth0 needs CAP_NET_RAW, which this process (uid 1000) does not have: run it by sudo, ` +
		`give the program the right ("sudo setcap cap_net_raw+ep $(command -v slips)"), ` +
		`in a systemd unit set "AmbientCapabilities=CAP_NET_RAW", or in a container use "--cap-add NET_RAW"`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("it is no fs.ErrPermission")
	}
	err = &MissingError{Job: "blocking", Caps: []Cap{NetAdmin, NetRaw}}
	want = `blocking needs CAP_NET_ADMIN CAP_NET_RAW, which this process (uid 0) does not have: ` +
		`in a systemd unit set "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW", or in a container use "--cap-add NET_ADMIN --cap-add NET_RAW"`
	if d := cmp.Diff(want, err.Error()); d != "" {
		t.Error(d)
	}
}

func TestInfo(t *testing.T) {
	i := Info{EUID: 1000, GID: 100, Permitted: []Cap{NetAdmin, NetRaw}, Effective: []Cap{NetRaw}, Ambient: []Cap{NetRaw}, NoNewPrivs: true}
	want := "uid 1000, gid 100, capabilities: CAP_NET_ADMIN CAP_NET_RAW (not in use: CAP_NET_ADMIN), handed to programs it starts: CAP_NET_RAW, no new privileges"
	if d := cmp.Diff(want, i.String()); d != "" {
		t.Error(d)
	}
	if got := names(capSet(1<<41 - 1).caps()); got != "all" {
		t.Errorf("all capabilities are %q", got)
	}
	if got := names(capSet(1<<10 - 1).caps()); !strings.HasSuffix(got, "and 2 more") {
		t.Errorf("ten capabilities are %q", got)
	}
	if got := Cap(63).String(); got != "CAP_63" {
		t.Errorf("an unknown capability is %q", got)
	}
}

// A file goes to the user only where the folder is his.
func TestOwnIn(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	me := os.Getuid()
	if (*User)(nil).OwnIn(dir) != nil {
		t.Error("nobody owns something")
	}
	for _, u := range []User{{UID: me, GID: os.Getgid()}, {UID: me + 1, GID: me + 1}} {
		if err := u.OwnIn(dir)(f); err != nil {
			t.Errorf("%d: %v", u.UID, err)
		}
		st, err := f.Stat()
		if err != nil || !Owns(me, st) || Owns(me+1, st) {
			t.Errorf("%d in a folder of %d: %v, the file is of another", u.UID, me, err)
		}
	}
}
