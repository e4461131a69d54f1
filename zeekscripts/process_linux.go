package zeekscripts

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes put the process into a group of its own and have the kernel kill
// it when the thread that started it ends: startProcess says what follows.
// The kernel forgets the wish when the program has capabilities of its own
// (setcap), which is why managed Zeeks also look after us: see alivePath.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// alivePath is a path that is there as long as the process pid is.
func alivePath(pid int) string { return "/proc/" + strconv.Itoa(pid) }

// missingCapability reports whether this process lacks what capturing takes.
func missingCapability() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) != nil {
		return false // let Zeek say it
	}
	return data[0].Effective&(1<<unix.CAP_NET_RAW) == 0
}
