package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/slips-go/slips/alerts/export"
)

// hangUps returns a channel on which SIGHUP comes, for a run that goes on until
// it is stopped, and what ends that. With a terminal the signal means that the
// terminal is gone, and stop is called; a service is told to reload by it.
func (p *program) hangUps(o *runOptions, stop func()) (c chan os.Signal, end func()) {
	if !o.Follow {
		return nil, func() {}
	}
	c = make(chan os.Signal, 1)
	_, out := isTerminal(p.stdout)
	_, err := isTerminal(p.stderr)
	if !out && !err {
		signal.Notify(c, syscall.SIGHUP)
		return c, func() { signal.Stop(c) }
	}
	gone := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(gone, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-gone:
			stop()
		case <-done:
		}
	})
	return nil, func() {
		signal.Stop(gone)
		close(done)
		wg.Wait()
	}
}

// reload opens slips.log anew and reads the whitelist and the lists of feeds
// again, each time that the run is told to, until ctx is done.
func (r *run) reload(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.o.Reload:
		}
		end := r.service.reloading(r.status())
		if err := r.file.reopen(); err != nil {
			r.log.Error("slips.log cannot be opened anew; the old file is written on", "err", err)
		}
		r.know.reload(ctx)
		r.log.Info("reloaded: slips.log, the whitelist and local lists; other settings hold until the next start")
		end()
	}
}

// logFile is a file that is appended to, and opened anew when it was rotated.
// Any goroutine may use it.
type logFile struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

// openLog opens a log, empty or to go on.
func openLog(path string, fresh bool) (*logFile, error) {
	mode := os.O_APPEND | os.O_CREATE | os.O_WRONLY
	if fresh {
		mode |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, mode, 0o644)
	if err != nil {
		return nil, &export.WriteError{Path: path, Err: err}
	}
	return &logFile{path: path, f: f}, nil
}

// Write implements io.Writer.
func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

// Close implements io.Closer.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// reopen goes on in the file that is at the path now.
func (l *logFile) reopen() error {
	next, err := openLog(l.path, false)
	if err != nil {
		return err
	}
	l.mu.Lock()
	old := l.f
	l.f = next.f
	l.mu.Unlock()
	return old.Close()
}
