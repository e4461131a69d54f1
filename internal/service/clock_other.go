//go:build unix && !linux

package service

// monotonic is for systemd, which is not on this system.
func monotonic() (int64, error) { return 0, nil }
