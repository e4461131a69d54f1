package block

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// peerUID returns the user who has begun to listen at the other end of c: root
// also when the process has given that up since.
func peerUID(c *net.UnixConn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask for the peer: %w", err)
	}
	var cred *syscall.Ucred
	var failed error
	err = rc.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("ask for the peer: %w", err)
	}
	return int(cred.Uid), nil
}
