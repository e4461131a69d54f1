//go:build unix

package feeds

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock on f for as long as f is open. The kernel gives it
// up when the process dies, however it dies.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrBusy
	}
	if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.ENOLCK) {
		return nil // a file system without locks: go without
	}
	return err
}

// mapFile maps the file for reading. The map stays until the process ends.
func mapFile(f *os.File, size int) ([]byte, error) {
	return syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
}

// letGo tells the system that the pages of a map are not needed now. They stay
// in its cache and come back when they are read. It is a hint, so an error says
// nothing.
func letGo(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }
