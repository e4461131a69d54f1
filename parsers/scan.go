package parsers

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/slips-go/slips/parsers/flow"
	"github.com/slips-go/slips/parsers/tail"
)

// root is one path of Options.Paths and what was found behind it. Set.mu
// guards it once Run runs.
type root struct {
	path, label string
	stream      bool // standard input, or a pipe
	dir         bool

	dirs    map[string]dirState // directories that were listed
	entries map[string]*entry   // files in them by path
	pending map[string]*entry   // those that may become logs when they grow
	aliases map[string]*entry   // by the path that a symbolic link leads to
	told    map[string]bool     // files of which it was said that they are not read
	prints  map[string]bool     // fingerprints of all that was queued
	ring    []string            // the same in order, to forget the oldest
	oldest  int

	own   bool  // the directory itself has logs, so those below are not looked at
	begun bool  // looked at before
	twice bool  // a file that is read as part of another root
	since int64 // a followed file's rotations that begin before this are not wanted
	dirty bool  // to be looked at again
}

type dirState struct {
	info   os.FileInfo
	looked time.Time
}

// entry is a file that was looked at.
type entry struct {
	path, group string
	info        os.FileInfo
	err         error // why it is not read
	opening     opening
	format      *format
	packed      bool
	src         *source // nil: not read
	seg         *segment

	root   *root
	real   string // where links lead to; empty with a single root
	bare   bool   // begins with columns that no header explains
	header []byte // of another file, when it has none of its own
	copied bool   // all of it is in another file
	twin   string // that file, when it is known
}

// dirKey finds copies of a log in the same directory.
type dirKey struct {
	dir string
	key copyKey
}

func newRoot(path string) *root {
	return &root{
		path: path, dirs: make(map[string]dirState), entries: make(map[string]*entry),
		pending: make(map[string]*entry), aliases: make(map[string]*entry),
		told: make(map[string]bool), prints: make(map[string]bool),
	}
}

// remember keeps a fingerprint, forgetting the oldest when there are too many.
// Directories that are no archive of one another have their own.
func (r *root) remember(group, print string) {
	if print == "" || r.prints[group+print] {
		return
	}
	print = group + print
	r.prints[print] = true
	if len(r.ring) < maxPrints {
		r.ring = append(r.ring, print)
		return
	}
	delete(r.prints, r.ring[r.oldest])
	r.ring[r.oldest] = print
	r.oldest = (r.oldest + 1) % maxPrints
}

// first looks at a root for the first time.
func (s *Set) first(r *root) {
	if r.stream {
		s.addStream(r)
		return
	}
	st, err := os.Stat(r.path)
	switch {
	case err != nil && s.opts.Follow && errors.Is(err, fs.ErrNotExist):
		if parent, perr := os.Stat(filepath.Dir(r.path)); perr != nil || !parent.IsDir() {
			s.problem(r.path, err)
			return
		}
		s.log.Warn("nothing is there yet; waiting for it to appear", "path", r.path)
	case err != nil:
		s.problem(r.path, err)
		return
	case st.IsDir():
		r.dir = true
	case st.Mode()&(fs.ModeNamedPipe|fs.ModeCharDevice) != 0:
		s.addStream(r)
		return
	case !st.Mode().IsRegular():
		s.problem(r.path, ErrSpecial)
		return
	}
	s.look(r)
	if r.dir {
		s.judge(r)
		return
	}
	if e := r.entries[r.path]; e != nil && errors.Is(e.err, errTwice) {
		// With a link that may lead elsewhere later the root stays.
		r.twice = !s.opts.Follow || e.real == r.path
		return
	}
	if e := r.entries[r.path]; e != nil && e.err != nil && r.pending[r.path] == nil {
		s.problem(r.path, e.err)
		return
	}
	if e := r.entries[r.path]; e != nil && errors.Is(e.err, ErrUnrecognised) {
		s.log.Warn("not recognised as a log yet; waiting for more of it", "path", r.path)
	}
	s.sourceFor(r, r.label, logOf("zeek", filepath.Base(r.path)))
}

// owns reports whether a program of the caller's writes the root.
func (s *Set) owns(r *root) bool { return slices.Contains(s.opts.Own, r.path) }

// judge says so when a directory gave nothing to read.
func (s *Set) judge(r *root) {
	var packets, binary bool
	for _, e := range r.entries {
		if e.src != nil || errors.Is(e.err, errTwice) {
			return
		}
		packets = packets || errors.Is(e.err, ErrPackets)
		binary = binary || errors.Is(e.err, ErrBinaryNfdump)
	}
	switch {
	case packets:
		s.problem(r.path, ErrPackets)
	case binary:
		s.problem(r.path, ErrBinaryNfdump)
	case s.opts.Follow && s.owns(r):
	case s.opts.Follow:
		s.log.Warn("no logs in the directory yet; waiting for them", "path", r.path)
	default:
		s.problem(r.path, ErrNoLogs)
	}
}

func (s *Set) addStream(r *root) {
	src := s.newSource(r, r.label, "")
	if src == nil {
		s.problem(r.path, ErrTooMany)
		return
	}
	src.final, src.missing = true, false
	src.queue = []*segment{{path: r.path, stream: true, format: s.forced, end: unknownEnd}}
}

// found is a file that a listing gave.
type found struct {
	path, group string
	info        os.FileInfo
	link        bool
	real        string
}

// look lists the root's directories and takes what is new. The caller holds
// Set.mu, or is Open.
func (s *Set) look(r *root) {
	r.dirty = false
	clear(r.dirs)
	var files []found
	if r.dir {
		own, subs := s.listLogs(r, r.path, "")
		files = own
		s.take(r, own)
		if !r.own {
			for _, sub := range subs {
				group := filepath.Base(sub)
				if isArchive(group) {
					group = ""
				}
				below, _ := s.listLogs(r, sub, group)
				files = append(files, below...)
			}
			s.take(r, files)
		}
	} else {
		files = s.listFile(r)
		s.take(r, files)
	}
	r.begun = true
	s.drop(r, files)
}

// logQueue is the directory below that of a logger into which it rotates under
// the Supervisor framework, for an archiver to fetch the logs there.
const logQueue = "log-queue"

// isArchive reports whether a directory's name is one that Zeek archives rotated
// logs under, a date, or the one beside them that it writes to: together they
// are one log directory.
func isArchive(name string) bool {
	if name == "current" || name == logQueue {
		return true
	}
	digits := strings.ReplaceAll(name, "-", "")
	return len(digits) >= 8 && isNumber(digits[:8]) && (digits[:2] == "19" || digits[:2] == "20")
}

// listLogs is list for a directory that may have its rotated logs in a queue
// below: they belong to it.
func (s *Set) listLogs(r *root, dir, group string) (files []found, subs []string) {
	files, subs = s.list(r, dir, group)
	queue := filepath.Join(dir, logQueue)
	if i := slices.Index(subs, queue); i >= 0 {
		queued, _ := s.list(r, queue, group)
		files, subs = append(files, queued...), slices.Delete(subs, i, i+1)
	}
	return files, subs
}

// list returns the files and directories of a directory, in order of their names.
func (s *Set) list(r *root, dir, group string) (files []found, subs []string) {
	now := time.Now()
	st, err := os.Stat(dir)
	if err == nil {
		r.dirs[dir] = dirState{st, now}
		var names []os.DirEntry
		names, err = os.ReadDir(dir)
		for _, de := range names {
			f := found{path: filepath.Join(dir, de.Name()), group: group, link: de.Type()&fs.ModeSymlink != 0}
			if strings.HasPrefix(de.Name(), ".") {
				continue
			}
			if f.info, err = os.Stat(f.path); err != nil { // gone since, or a link to nowhere
				err = nil
				continue
			}
			switch {
			case f.info.IsDir():
				subs = append(subs, f.path)
			case f.info.Mode().IsRegular():
				files = append(files, f)
			}
		}
	}
	if err != nil && !r.begun {
		s.problem(dir, err)
	}
	return files, subs
}

// listFile returns a single file and, when it is followed, its rotations.
func (s *Set) listFile(r *root) []found {
	dir, base := filepath.Split(r.path)
	dir = filepath.Clean(dir)
	var files []found
	if st, err := os.Stat(r.path); err == nil && st.Mode().IsRegular() {
		lst, err := os.Lstat(r.path)
		files = append(files, found{path: r.path, info: st, link: err == nil && lst.Mode()&fs.ModeSymlink != 0})
	}
	if !s.opts.Follow {
		return files
	}
	beside, _ := s.list(r, dir, "")
	for _, f := range beside {
		if isRotation(base, filepath.Base(f.path)) {
			files = append(files, f)
		}
	}
	return files
}

// isRotation reports whether name is what the file called base may be rotated to.
func isRotation(base, name string) bool {
	if name == base {
		return false
	}
	if strings.HasPrefix(name, base+".") || strings.HasPrefix(name, base+"-") {
		return true
	}
	log := logOf("zeek", base)
	return hints("zeek", base) && hints("zeek", name) && logOf("zeek", name) == log && !strings.HasPrefix(name, "label")
}

// drop forgets the files that are gone from the listing.
func (s *Set) drop(r *root, files []found) {
	if len(r.entries) == len(files) {
		return
	}
	there := make(map[string]bool, len(files))
	for _, f := range files {
		there[f.path] = true
	}
	for path, e := range r.entries {
		if !there[path] {
			s.forget(r, e)
			delete(r.told, path)
		}
	}
}

func (s *Set) forget(r *root, e *entry) {
	delete(r.entries, e.path)
	delete(r.pending, e.path)
	if s.owners[e.real] == e {
		delete(s.owners, e.real)
	}
	for real, of := range r.aliases {
		if of == e {
			delete(r.aliases, real)
		}
	}
}

// take looks into the files that are new or changed and queues those that are logs.
func (s *Set) take(r *root, files []found) {
	s.resolveLinks(files)
	if r.begun { // before their old names are given to others
		for _, f := range files {
			if e := r.entries[f.path]; e == nil || !os.SameFile(e.info, f.info) {
				s.renamed(r, f)
			}
		}
	}
	var fresh []*entry
	for _, f := range files {
		e := r.entries[f.path]
		switch {
		case e == nil:
		case grownLate(e, f.info) && begins(e.seg, e.path):
			s.reopen(r, e, f.info)
			continue
		case !s.changed(r, e, f.info):
			continue
		default:
			s.forget(r, e)
		}
		e = &entry{root: r, path: f.path, real: f.real, group: f.group, info: f.info}
		r.entries[f.path] = e
		if f.link {
			if real, err := filepath.EvalSymlinks(f.path); err == nil {
				r.aliases[real] = e
			}
		}
		s.examine(r, e)
		fresh = append(fresh, e)
	}
	s.admit(r, fresh)
}

// resolveLinks notes where files are when their links are followed, by which they
// are known in other roots.
func (s *Set) resolveLinks(files []found) {
	if len(s.roots) < 2 {
		return
	}
	dirs := make(map[string]string)
	for i := range files {
		f := &files[i]
		dir, base := filepath.Split(f.path)
		real, ok := dirs[dir]
		if !ok {
			real = filepath.Clean(dir)
			if to, err := filepath.EvalSymlinks(dir); err == nil {
				real = to
			}
			dirs[dir] = real
		}
		f.real = filepath.Join(real, base)
		if f.link {
			if to, err := filepath.EvalSymlinks(f.path); err == nil {
				f.real = to
			}
		}
	}
}

// grownLate reports whether a file grew that was read to its end and left
// for the next one.
func grownLate(e *entry, now os.FileInfo) bool {
	return e.seg != nil && e.seg.done && !e.seg.lent && os.SameFile(e.info, now) && now.Size() > e.seg.size
}

// reopen goes on with such a file as a source of its own, beside the one that
// has left it: both are written now.
func (s *Set) reopen(r *root, e *entry, now os.FileInfo) {
	src := s.sourceFor(r, asideName(e.src.name, e.path), e.src.log)
	if src == nil {
		e.seg = nil
		return
	}
	s.log.Warn("a rotated log is written again; reading on", "path", e.path, "source", src.name)
	seg := *e.seg
	seg.path, seg.info, seg.done, seg.again = e.path, now, false, 0
	src.missing = false
	e.src, e.seg, e.info = src, &seg, now
	s.add(src, &seg)
}

// asideName names the source of a file that cannot be put in line with the
// others of its log.
func asideName(name, path string) string { return name + "@" + filepath.Base(path) }

// inPlace reports whether the log that a source follows is still written
// under its name, so that no other file can be what it was rotated to.
func (s *Set) inPlace(src *source) bool {
	seg := src.cur
	if n := len(src.queue); n > 0 {
		seg = src.queue[n-1]
	}
	return seg != nil && !seg.done && src.isLive(seg.path)
}

// changed reports whether a file has to be looked at again. A log that is
// being read is its reader's business.
func (s *Set) changed(r *root, e *entry, now os.FileInfo) bool {
	same := os.SameFile(e.info, now)
	if same && (e.seg != nil && (e.seg == e.src.cur || slices.Contains(e.src.queue, e.seg))) {
		return false
	}
	if !same {
		return true
	}
	grown := now.Size() != e.info.Size() || !now.ModTime().Equal(e.info.ModTime())
	if r.pending[e.path] != nil {
		return grown || errors.Is(e.err, errUnsettled)
	}
	return grown && now.Size() < e.info.Size()
}

// renamed finds the file under the name it had before and moves its entry.
// The system gives the number of a deleted file to the next one, so only a
// file that is held open is known by it; others have to begin alike too.
func (s *Set) renamed(r *root, f found) {
	for path, e := range r.entries {
		if e.seg == nil || e.seg.done || !os.SameFile(e.info, f.info) {
			continue
		}
		if e.seg != e.src.cur && !begins(e.seg, f.path) {
			continue
		}
		if st, err := os.Stat(path); err == nil && os.SameFile(st, f.info) {
			continue // another link to the same file
		}
		if old := r.entries[f.path]; old != nil {
			s.forget(r, old)
		}
		delete(r.entries, path)
		if s.owners[e.real] == e {
			delete(s.owners, e.real)
			s.owners[f.real] = e
		}
		e.path, e.seg.path, e.real = f.path, f.path, f.real
		r.entries[f.path] = e
		if e.seg != e.src.cur && e.seg.print == "" {
			// It had no record when it was queued. Now it may, and takes its
			// place among the others by it.
			if o, err := openingOf(f.path, e.seg.format, false); err == nil {
				e.seg.info, e.seg.print, e.seg.end = f.info, o.print, o.end
				r.remember(e.group, o.print)
			}
		}
		s.log.Debug("log renamed", "from", path, "to", f.path)
		return
	}
}

var (
	// errUnsettled keeps a compressed file waiting that may still be written.
	errUnsettled = errors.New("still being compressed")
	// errTwice is for files that are read as part of another root.
	errTwice = errors.New("read as part of another path")
)

// unsettled reports whether a compressed file may still be written. Those that
// are there from the start belong before what is read next, so a whole one is
// taken whatever its age, and another one is waited for a little.
func (s *Set) unsettled(r *root, e *entry) bool {
	for time.Since(e.info.ModTime()).Abs() < 2*s.opts.Poll {
		if r.begun {
			return true
		}
		if whole, err := tail.Complete(e.path); err != nil || whole {
			return false
		}
		if !time.Now().Before(s.patience) {
			return true
		}
		time.Sleep(min(s.opts.Poll/4, lookGap))
		st, err := os.Stat(e.path)
		if err != nil {
			return false // gone; that is said by who opens it
		}
		e.info = st
	}
	return false
}

// awaitPacked waits for the first bytes of a compressed file, which tell that it is one.
func (s *Set) awaitPacked(r *root, e *entry) {
	name := strings.ToLower(e.path)
	if r.begun || !s.opts.Follow || !strings.HasSuffix(name, ".gz") && !strings.HasSuffix(name, ".zst") {
		return
	}
	for e.info.Size() < 4 && time.Since(e.info.ModTime()).Abs() < 2*s.opts.Poll && time.Now().Before(s.patience) {
		time.Sleep(min(s.opts.Poll/4, lookGap))
		st, err := os.Stat(e.path)
		if err != nil {
			return
		}
		e.info = st
	}
}

// examine recognises a file and reads its first record.
func (s *Set) examine(r *root, e *entry) {
	e.err, e.format, e.opening = nil, nil, opening{end: unknownEnd}
	growing := false
	s.awaitPacked(r, e)
	for _, n := range []int{firstLook, headSize} {
		head, packing, err := tail.Head(e.path, n)
		if err != nil {
			e.err = err
			return
		}
		plain := packing == tail.Plain
		e.packed = !plain
		if !plain && s.opts.Follow && n == firstLook {
			if s.unsettled(r, e) {
				e.err = errUnsettled
				r.pending[e.path] = e
				return
			}
			if head, _, err = tail.Head(e.path, n); err != nil { // it may have been finished only now
				e.err = err
				return
			}
		}
		growing = s.opts.Follow && plain && len(head) < headSize
		whole := len(head) < n && !growing
		e.format, e.err = s.recognise(r, e, head)
		if errors.Is(e.err, ErrUnrecognised) {
			if f := s.byName(e, head, whole); f != nil {
				e.format, e.err = f, nil
			}
		}
		e.bare = isBare(head, whole) && (e.err != nil || e.format == s.zeekFormat())
		if e.format != nil {
			e.opening = opening{end: unknownEnd}
			log := hint(logOf(e.format.name, filepath.Base(e.path)))
			e.opening.read(e.format.fresh(log), head, whole)
			e.opening.kinds = e.format.kinds(head, log)
		}
		if len(head) < n || e.format != nil && e.opening.known {
			break
		}
	}
	if e.format != nil && e.opening.foreign && r.dir && s.forced == nil {
		e.format, e.err = nil, ErrUnrecognised
	}
	if growing && e.format == nil && !errors.Is(e.err, ErrPackets) && !errors.Is(e.err, ErrBinaryNfdump) {
		r.pending[e.path] = e
	}
}

// errEmpty is for files without a byte; one that was asked for by name is an
// input without records all the same.
var errEmpty = errors.New("empty file")

// recognise is the free function, with the format that the user chose. That
// he chose one does not make logs of the other files of a directory.
func (s *Set) recognise(r *root, e *entry, head []byte) (*format, error) {
	name := filepath.Base(e.path)
	if len(head) == 0 {
		return nil, errEmpty
	}
	if s.forced == nil {
		return recognise(s.formats, head, name)
	}
	if r.dir && !s.forced.sniff(head) && !hints(s.forced.name, name) {
		return nil, ErrUnrecognised
	}
	return s.forced, nil
}

// admit queues the logs among the files that were examined. Of several copies
// the labelled one is taken, else one that is not compressed, the largest, the
// one with the shortest name: a cut copy is not preferred to a whole one.
func (s *Set) admit(r *root, fresh []*entry) {
	slices.SortFunc(fresh, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(rank(b.opening.labelled), rank(a.opening.labelled)),
			cmp.Compare(rank(a.packed), rank(b.packed)), cmp.Compare(b.info.Size(), a.info.Size()),
			cmp.Compare(len(a.path), len(b.path)), cmp.Compare(a.path, b.path))
	})
	if !r.dir {
		fresh = s.wanted(r, fresh)
	}
	s.inherit(r, fresh)
	s.findCopies(r, fresh)
	queued := make(map[*source][]*segment)
	var order []*source
	for _, e := range fresh {
		if e.format != nil && s.elsewhere(r, e) {
			continue
		}
		if e.format == nil {
			s.pass(r, e)
			continue
		}
		src, seg := s.place(r, e)
		if seg == nil {
			continue
		}
		if queued[src] == nil {
			order = append(order, src)
		}
		queued[src] = append(queued[src], seg)
	}
	for _, src := range order {
		s.add(src, queued[src]...)
	}
}

// elsewhere notes a log that is read as part of another root already.
func (s *Set) elsewhere(r *root, e *entry) bool {
	if e.real == "" {
		return false
	}
	if o := s.owners[e.real]; o == nil || o.root == r {
		s.owners[e.real] = e
		return false
	}
	e.format, e.err = nil, errTwice
	delete(r.pending, e.path)
	r.own = r.own || filepath.Dir(e.path) == r.path
	s.skipped++
	if !r.told[e.path] {
		r.told[e.path] = true
		s.log.Warn("given twice; read once", "path", e.path)
	}
	return true
}

// pass notes a file that is not read.
func (s *Set) pass(r *root, e *entry) {
	if r.dir && e.bare && !r.told[e.path] && namedLog(filepath.Base(e.path)) {
		r.told[e.path] = true
		s.log.Warn("not read: named like a log, but nothing says what its columns are", "path", e.path)
		s.problem(e.path, flow.ErrNoHeader)
	}
	if !r.dir {
		if errors.Is(e.err, errEmpty) {
			e.err = nil
		}
		return // first says what is wrong
	}
	if r.pending[e.path] != nil {
		return
	}
	s.skipped++
	var pathErr *os.PathError
	switch {
	case errors.As(e.err, &pathErr):
		if !errors.Is(e.err, fs.ErrNotExist) {
			s.problem(e.path, e.err)
		}
	case errors.Is(e.err, ErrPackets), errors.Is(e.err, ErrBinaryNfdump):
		if !r.told[e.path] {
			r.told[e.path] = true
			s.log.Warn("not read: "+e.err.Error(), "path", e.path)
		}
	case e.bare && r.told[e.path]:
	case errors.Is(e.err, ErrUnrecognised) && hints("zeek", filepath.Base(e.path)):
		s.log.Info("not read: named like a log, but the content is none", "path", e.path)
	default:
		s.log.Debug("not read", "path", e.path, "reason", e.err)
	}
}

// place finds the source of a log and makes its segment, or nothing when the
// log was read before or is a copy.
func (s *Set) place(r *root, e *entry) (*source, *segment) {
	log := logOf(e.format.name, filepath.Base(e.path))
	name := r.label
	if r.dir {
		name = strings.Join(slices.DeleteFunc([]string{r.label, e.group, log}, func(p string) bool { return p == "" }), "/")
		if w := writerOf(e.format.name, filepath.Base(e.path)); w != "" { // several write at the same time
			name += "@" + w
		}
	}
	p, resumed := s.placeOf(r, e.opening.print)
	if resumed {
		name = p.source
	}
	r.own = r.own || filepath.Dir(e.path) == r.path
	if resumed && p.done {
		s.log.Debug("read before the restart", "path", e.path, "source", name)
		e.src = s.sourceFor(r, name, log)
		r.remember(e.group, e.opening.print)
		return nil, nil
	}
	if e.copied {
		s.copyOf(r, e)
		return nil, nil
	}
	src := s.sourceFor(r, name, log)
	if src != nil && r.begun && !resumed && !src.isLive(e.path) && s.inPlace(src) {
		src = s.sourceFor(r, asideName(name, e.path), log)
	}
	if src == nil {
		return nil, nil
	}
	seg := &segment{
		kinds: e.opening.kinds,
		bare:  e.bare, header: e.header,
		path: e.path, group: e.group, info: e.info, print: e.opening.print, end: e.opening.end, format: e.format,
	}
	if resumed && src.missing {
		seg.offset, seg.again, src.missing = src.pos.Offset, src.pos.Segment.N+1, false
	}
	e.src, e.seg = src, seg
	r.remember(e.group, seg.print)
	return src, seg
}

// copyOf notes that a file holds what was queued already. What a rotation
// leaves behind is no news; two logs beside each other from the start are.
func (s *Set) copyOf(r *root, e *entry) {
	s.skipped++
	if r.begun {
		for _, src := range s.sources { // the file being read, whose directory went away and came back
			if src.root == r && src.cur != nil && src.cur.print == e.opening.print && os.SameFile(src.cur.info, e.info) {
				e.src, e.seg, src.cur.path = src, src.cur, e.path
			}
		}
		s.log.Debug("not read: its records were read from another file", "path", e.path)
		return
	}
	level := slog.LevelWarn
	if e.opening.kinds == flow.NoKind { // what Zeek says about itself is often the same again, and not used
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "not read: all its records are in another file, so it is taken for a copy", "path", e.path, "read", e.twin)
}

// wanted leaves of the rotations of a single followed file those that were
// not there when it was given, and those it was being read from.
func (s *Set) wanted(r *root, fresh []*entry) []*entry {
	if !r.begun {
		r.since = unknownEnd
		for _, e := range fresh {
			if p, ok := s.placeOf(r, e.opening.print); ok && !p.done {
				r.since = e.opening.end
			}
		}
	}
	kept := slices.DeleteFunc(fresh, func(e *entry) bool {
		if e.path == r.path {
			return false
		}
		_, ok := s.placeOf(r, e.opening.print)
		known := e.opening.known
		return !ok && (known && e.opening.end < r.since || !known && !r.begun)
	})
	if !r.begun {
		r.since = 0
		for _, e := range kept {
			if e.opening.known {
				r.since = max(r.since, e.opening.end)
			}
		}
	}
	return kept
}

// sourceFor returns the source of the name, making it when there is none.
func (s *Set) sourceFor(r *root, name, log string) *source {
	if src := s.sources[name]; src != nil {
		return src
	}
	src := s.newSource(r, name, log)
	if src == nil {
		s.problem(r.path, ErrTooMany)
	}
	return src
}

// find looks for a segment that is not where it was, by its fingerprint or,
// when it had no record yet, by its number in the file system.
func (s *Set) find(r *root, seg *segment, name string) (string, bool) {
	s.mu.Lock()
	dirs, print, info := sortedKeys(r.dirs), seg.print, seg.info
	s.mu.Unlock()
	stem := name[:len(name)-len(strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"))]
	for _, dir := range dirs {
		names, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, de := range names {
			path := filepath.Join(dir, de.Name())
			if !strings.HasPrefix(de.Name(), stem) || de.IsDir() {
				continue
			}
			if print == "" {
				if st, err := os.Stat(path); err == nil && os.SameFile(st, info) {
					return path, true
				}
				continue
			}
			if p, err := printOf(path, seg.format); err == nil && p == print {
				return path, true
			}
		}
	}
	return "", false
}

// begins reports whether the file at path begins as the segment does, as far
// as that is known.
func begins(seg *segment, path string) bool {
	if seg.print == "" {
		return true
	}
	print, err := printOf(path, seg.format)
	return err == nil && print == seg.print
}

// printOf returns the fingerprint of the file at path.
func printOf(path string, f *format) (string, error) {
	o, err := openingOf(path, f, true)
	return o.print, err
}

// openingOf reads what the beginning of the file at path tells. ended means
// that its last line counts even without a newline.
func openingOf(path string, f *format, ended bool) (o opening, err error) {
	st, err := os.Stat(path)
	if err != nil {
		return o, err
	}
	if !st.Mode().IsRegular() {
		return o, ErrSpecial
	}
	for _, n := range []int{firstLook, headSize} {
		head, _, err := tail.Head(path, n)
		if err != nil {
			return o, err
		}
		o = opening{end: unknownEnd}
		o.read(f.fresh(hint(logOf(f.name, filepath.Base(path)))), head, ended && len(head) < n)
		if o.print != "" || len(head) < n {
			break
		}
	}
	return o, nil
}
