//go:build unix && !linux

package zeekscripts

import "syscall"

// attributes put the process into a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// alivePath is empty: there is no file that stands for a process.
func alivePath(int) string { return "" }

// missingCapability is for Linux.
func missingCapability() bool { return false }
