package block

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// stateVersion is that of the state file. Another version is not read.
const stateVersion = 1

// maxState is the size of a state file that is read, bytes: maxOffenders take
// a tenth.
const maxState = 128 << 20

// stateFile is what is in the state file: who was blocked how often. Nothing
// in it blocks anybody; it makes the next block longer.
type stateFile struct {
	Version   int                       `json:"version"`
	Offenders map[netip.Prefix]offender `json:"offenders"`
}

// loadState reads the offenders from the file at path; none when there is no
// such file.
func loadState(path string) (map[netip.Prefix]offender, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return make(map[netip.Prefix]offender), nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the offences: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("read the offences: %w", err)
	}
	offenders, err := decodeState(b)
	if err != nil {
		return nil, fmt.Errorf("read the offences of %s: %w", path, err)
	}
	return offenders, nil
}

// decodeState returns the offenders in b.
func decodeState(b []byte) (map[netip.Prefix]offender, error) {
	var s stateFile
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("version is %d, want %d", s.Version, stateVersion)
	}
	offenders := make(map[netip.Prefix]offender, len(s.Offenders))
	for p, o := range s.Offenders {
		q, err := Canonical(p)
		if err != nil || o.Count < 1 || o.Until.IsZero() {
			return nil, fmt.Errorf("offender %q has %d offences until %v", p, o.Count, o.Until)
		}
		offenders[q] = o
	}
	return offenders, nil
}

// saveState replaces the file at path, so that a crash leaves the old one or
// the new one.
func saveState(path string, offenders map[netip.Prefix]offender) error {
	b, err := json.Marshal(stateFile{Version: stateVersion, Offenders: offenders})
	if err != nil {
		return fmt.Errorf("encode the offences: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("save the offences: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save the offences: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}
