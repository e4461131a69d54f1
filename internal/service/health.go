package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// missedBeats is how many times in a row a health file may fail to be touched
// before the program counts as stuck: the machine may be busy.
const missedBeats = 3

// Health is a file that says by its age whether the program works. It is for
// where no service manager listens: the health check of a container.
type Health struct {
	Path  string
	Every time.Duration // between two looks at whether the work goes on
}

// Run makes the file and touches it for as long as alive says that the work
// goes on. alive is called by Run alone, every h.Every. When ctx ends the file
// is removed.
func (h Health) Run(ctx context.Context, alive func() bool) error {
	if err := os.MkdirAll(filepath.Dir(h.Path), 0o755); err != nil {
		return fmt.Errorf("make the folder of the health file: %w", err)
	}
	if err := os.WriteFile(h.Path, nil, 0o644); err != nil {
		return fmt.Errorf("make the health file: %w", err)
	}
	t := time.NewTicker(h.Every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			if err := os.Remove(h.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the health file: %w", err)
			}
			return nil
		case <-t.C:
		}
		if alive() {
			now := time.Now()
			if err := os.Chtimes(h.Path, now, now); err != nil {
				return fmt.Errorf("touch the health file: %w", err)
			}
		}
	}
}

// Check returns an error when the program that touches the file does not run
// or is stuck.
func (h Health) Check(now time.Time) error {
	st, err := os.Stat(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("not healthy: the program is not running: %w", err)
	}
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	if age := now.Sub(st.ModTime()); age > missedBeats*h.Every {
		return fmt.Errorf("not healthy: nothing has moved for %s", age.Round(time.Second))
	}
	return nil
}
