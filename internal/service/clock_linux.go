package service

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// monotonic returns the microseconds of CLOCK_MONOTONIC, by which systemd
// tells a message of this reload from one of the last.
func monotonic() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return ts.Nano() / 1000, nil
}
