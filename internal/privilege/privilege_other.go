//go:build unix && !linux

package privilege

import (
	"fmt"
	"os"
	"runtime"
)

// Supported says that this is for Linux.
func Supported() error {
	return fmt.Errorf("%w: it is done for Linux; this is %s", ErrUnsupported, runtime.GOOS)
}

// Drop changes nothing.
func Drop(Options) (Result, error) { return Result{}, Supported() }

// Raise does nothing where there are no capabilities.
func Raise(...Cap) error { return nil }

// Missing returns none where there are no capabilities.
func Missing(...Cap) []Cap { return nil }

// Describe says who the process is.
func Describe() (Info, error) {
	groups, err := os.Getgroups()
	return Info{UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getegid(), Groups: groups}, err
}
