package parsers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxDays bounds the folders of an archive that are looked through for what was
// rotated while nobody followed, the latest first: one for each day, so a
// follower may be away for a month.
const maxDays = 31

// catchUp looks for what a follower of <zeek>/logs/current missed while it was
// not running. At the end of an hour the log that it was reading went into the
// archive beside current, and those of the hours since are there too: they are
// read before the current ones. What the archive has from before was not asked
// for.
func (s *Set) catchUp(r *root) {
	f := s.zeekFormat()
	if f == nil || !s.opts.Follow || !r.dir || filepath.Base(r.path) != "current" {
		return
	}
	missing := make(map[string]bool) // fingerprints of what was being read
	logs := make(map[string]bool)
	for _, name := range sortedKeys(s.opts.Resume) {
		if under(r.label, name) && s.gone(name) {
			missing[s.opts.Resume[name].Segment.Print] = true
			log, _, _ := strings.Cut(filepath.Base(name), "@")
			logs[log] = true
		}
	}
	type rotation struct {
		found
		opening
		log string
	}
	var all []rotation
	since := make(map[string]int64) // by log, when what was being read began
	days := archives(filepath.Dir(r.path))
	for _, dir := range days[:min(len(days), maxDays)] {
		if len(since) == len(logs) {
			break
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			s.log.Warn("cannot look for rotated logs", "dir", dir, "err", err)
			continue
		}
		for _, de := range names {
			log := logOf(f.name, de.Name())
			path := filepath.Join(dir, de.Name())
			if !logs[log] || !hints(f.name, de.Name()) {
				continue
			}
			st, err := os.Stat(path)
			if err != nil || !st.Mode().IsRegular() {
				continue
			}
			o, err := openingOf(path, f, true)
			if err != nil || !o.known {
				continue
			}
			if missing[o.print] {
				since[log] = o.end
			}
			all = append(all, rotation{found{path: path, info: st}, o, log})
		}
	}
	var files []found
	for _, x := range all {
		if begun, ok := since[x.log]; ok && (missing[x.print] || x.end > begun) {
			files = append(files, x.found)
		}
	}
	if len(files) == 0 {
		return
	}
	s.log.Info("logs that were rotated while they were not followed are read from the archive", "path", r.path, "files", len(files))
	r.begun = false // they belong before what is being written, as if they had been found with it
	s.take(r, files)
	r.begun = true
}

// archives returns the folders of days below dir, the latest first.
func archives(dir string) []string {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil // then there is no archive beside current
	}
	var days []string
	for _, de := range names {
		if name := de.Name(); de.IsDir() && isArchive(name) && name != "current" && name != logQueue {
			days = append(days, filepath.Join(dir, name))
		}
	}
	slices.Sort(days)
	slices.Reverse(days)
	return days
}
