//go:build !unix

package feeds

import (
	"errors"
	"os"
)

// lockFile does nothing where there is no flock.
func lockFile(*os.File) error { return nil }

// letGo does nothing where there are no maps.
func letGo([]byte) {}

// mapFile is for systems that have maps of files; the caller reads the file.
func mapFile(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }
