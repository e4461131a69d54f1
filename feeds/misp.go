package feeds

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A MISP feed is a folder on a web server: manifest.json names the events by
// their UUID, and UUID.json is each of them (MISP core format,
// draft-dulaunoy-misp-core-format, section 3). Only events that changed are
// fetched.
const (
	maxEvents   = 20_000 // of a feed, the newest ones; CIRCL's has about 2,000
	maxManifest = 32 << 20
)

// manifest is what manifest.json says of an event.
type manifest map[string]struct {
	Timestamp mispTime `json:"timestamp"`
}

// mispTime is unix seconds, which MISP writes as text and others as a number.
type mispTime int64

// UnmarshalJSON implements json.Unmarshaler.
func (t *mispTime) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(text), `"`), 10, 64)
	if err != nil {
		return fmt.Errorf("timestamp %q: %w", text, err)
	}
	*t = mispTime(n)
	return nil
}

// isUUID reports whether text can be part of a URL without changing it.
func isUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range []byte(text) {
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash && c != '-' || !dash && !hex {
			return false
		}
	}
	return true
}

// events writes to d the events that the feed has now, one in each line.
func (c *client) events(ctx context.Context, s *Source, st store, m *Meta, d *draft) (unchanged bool, err error) {
	key, err := s.key()
	if err != nil {
		return false, err
	}
	base := strings.TrimSuffix(s.URL, "manifest.json")
	r := request{src: s, url: base + "manifest.json", key: key, accept: "application/json", limit: maxManifest}
	old := make(map[string][]byte)
	if m.Content != "" && m.Place == s.URL {
		if old, err = loadEvents(st, *m); err != nil {
			old = make(map[string][]byte) // fetched anew
		} else {
			r.etag, r.changed = m.ETag, m.Modified
		}
	}
	var list manifest
	a, err := c.get(ctx, r, func(body io.Reader) error {
		list = nil
		if err := json.NewDecoder(body).Decode(&list); err != nil {
			return &contentError{fmt.Errorf("manifest.json: %w", err)}
		}
		return nil
	})
	if err != nil || a.unchanged {
		return a.unchanged, err
	}
	want := make([]string, 0, len(list))
	for id, e := range list {
		old := s.ExpiresAfter > 0 && c.now().Sub(time.Unix(int64(e.Timestamp), 0)) >= s.ExpiresAfter
		if isUUID(id) && !old {
			want = append(want, id)
		}
	}
	slices.SortFunc(want, func(a, b string) int {
		if d := list[b].Timestamp - list[a].Timestamp; d != 0 {
			return int(max(-1, min(1, d)))
		}
		return strings.Compare(a, b)
	})
	want = want[:min(len(want), maxEvents)]
	slices.Sort(want)
	have := make(map[string]int64, len(want))
	for _, id := range want {
		stamp := int64(list[id].Timestamp)
		event := old[id]
		if event == nil || m.Events[id] != stamp {
			event, err = c.event(ctx, request{src: s, url: base + id + ".json", key: key, accept: "application/json", limit: maxEvent})
			if status := (*statusError)(nil); errors.As(err, &status) && status.code == http.StatusNotFound {
				continue // withdrawn since the manifest was written
			}
			if err != nil {
				return false, fmt.Errorf("event %s: %w", id, err)
			}
		}
		have[id] = stamp
		if d.size+int64(len(event)) > s.MaxSize {
			return false, tooLargeError{s.MaxSize}
		}
		if _, err := d.Write(append(event, '\n')); err != nil {
			return false, err
		}
	}
	m.Events, m.Place, m.ETag, m.Modified = have, s.URL, a.etag, a.changed
	return false, nil
}

// event fetches one event and makes one line of it.
func (c *client) event(ctx context.Context, r request) ([]byte, error) {
	var line bytes.Buffer
	_, err := c.get(ctx, r, func(body io.Reader) error {
		text, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		line.Reset()
		if err := json.Compact(&line, text); err != nil {
			return &contentError{err}
		}
		return nil
	})
	return line.Bytes(), err
}

// loadEvents reads the lines of the last good version by event. They come in
// the order of the ids, as they were written.
func loadEvents(st store, m Meta) (events map[string][]byte, err error) {
	r, err := st.open(m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	ids := slices.Sorted(maps.Keys(m.Events))
	events = make(map[string][]byte, len(ids))
	err = eachLine(r, maxEvent, func(line []byte) error {
		if len(events) == len(ids) {
			return errors.New("more events than there should be")
		}
		events[ids[len(events)]] = bytes.Clone(line)
		return nil
	})
	return events, err
}
