package feeds

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// TAXII 2.1, OASIS standard of 10 June 2021: sections 4 (discovery, API roots)
// and 5 (collections, objects). The media type is that of section 1.6.8.
const (
	taxiiType    = "application/taxii+json;version=2.1"
	taxiiAdded   = "X-TAXII-Date-Added-Last"
	maxPages     = 10_000   // of one pull: a server that always says there is more ends there
	maxDirectory = 1 << 20  // bytes of a discovery or a list of collections
	maxPage      = 64 << 20 // bytes of one page of objects
)

// stixObject is what has to be known of an object to keep it.
type stixObject struct {
	Type       string `json:"type"`
	ID         string `json:"id"`
	Modified   string `json:"modified"`
	ValidUntil string `json:"valid_until"`
	Revoked    bool   `json:"revoked"`

	raw json.RawMessage
}

// collection is the indicators of a TAXII collection as they add up from one
// pull to the next, by id.
type collection struct {
	objects map[string]stixObject
	size    int64 // bytes
	limit   int64
}

// add takes an object: a newer version replaces an older one, a revoked one
// goes. Other objects than indicators are not kept.
func (c *collection) add(raw json.RawMessage) error {
	var o stixObject
	if err := json.Unmarshal(raw, &o); err != nil {
		return fmt.Errorf("an object: %w", err)
	}
	if o.Type != "indicator" || o.ID == "" {
		return nil
	}
	old, ok := c.objects[o.ID]
	if ok && stixTime(o.Modified).Before(stixTime(old.Modified)) {
		return nil
	}
	c.size -= int64(len(old.raw))
	if o.Revoked {
		delete(c.objects, o.ID)
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return fmt.Errorf("object %q: %w", o.ID, err)
	}
	o.raw = b.Bytes()
	if c.size += int64(len(o.raw)); c.size > c.limit {
		return tooLargeError{c.limit}
	}
	c.objects[o.ID] = o
	return nil
}

// stixTime reads a timestamp of STIX, which is RFC 3339; the zero time for
// anything else.
func stixTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// expire drops objects past their end and, where lives is not 0, those that
// were last changed longer ago.
func (c *collection) expire(now time.Time, lives time.Duration) {
	maps.DeleteFunc(c.objects, func(_ string, o stixObject) bool {
		until, changed := stixTime(o.ValidUntil), stixTime(o.Modified)
		return !until.IsZero() && !until.After(now) || lives > 0 && !changed.IsZero() && !changed.Add(lives).After(now)
	})
}

// write writes the collection as one STIX bundle, the same for the same objects.
func (c *collection) write(w io.Writer) error {
	objects := slices.SortedFunc(maps.Values(c.objects), func(a, b stixObject) int { return cmp.Compare(a.ID, b.ID) })
	sep := `{"type":"bundle","id":"bundle--00000000-0000-4000-8000-000000000000","objects":[` + "\n"
	for _, o := range objects {
		if _, err := fmt.Fprintf(w, "%s%s", sep, o.raw); err != nil {
			return err
		}
		sep = ",\n"
	}
	if len(objects) > 0 {
		sep = ""
	}
	_, err := fmt.Fprintf(w, "%s\n]}\n", sep)
	return err
}

// read takes the objects of a bundle or of an envelope, one at a time, and
// returns what else an envelope says.
func (c *collection) read(r io.Reader) (more bool, next string, err error) {
	d := json.NewDecoder(r)
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return false, "", fmt.Errorf("not a JSON object: %w", cmp.Or(err, errors.New("it begins otherwise")))
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return false, "", err
		}
		switch key {
		case "more":
			err = d.Decode(&more)
		case "next":
			err = d.Decode(&next)
		case "objects":
			err = c.readObjects(d)
		default:
			var skip json.RawMessage
			err = d.Decode(&skip)
		}
		if err != nil {
			return false, "", fmt.Errorf("%v: %w", key, err)
		}
	}
	_, err = d.Token()
	return more, next, err
}

func (c *collection) readObjects(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil || t == nil { // null: no objects
		return err
	}
	if t != json.Delim('[') {
		return errors.New("not a list")
	}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if err := c.add(raw); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// pull writes to d what the collection holds now: the objects of the last good
// version, and those that were added since.
func (c *client) pull(ctx context.Context, s *Source, st store, m *Meta, d *draft) (unchanged bool, err error) {
	key, err := s.key()
	if err != nil {
		return false, err
	}
	all := collection{objects: make(map[string]stixObject), limit: s.MaxSize}
	after := m.AddedAfter
	if m.Content == "" || m.Place != s.URL+" "+s.Collection {
		after = "" // of another collection
	} else if err := all.load(st, *m); err != nil {
		after, all.objects, all.size = "", make(map[string]stixObject), 0 // pulled anew
	}
	fetch := func(u string, limit int64, h *http.Header, body func(io.Reader) error) error {
		a, err := c.get(ctx, request{src: s, url: u, key: key, accept: taxiiType, limit: limit}, body)
		if h != nil {
			*h = a.header
		}
		return err
	}
	root, err := taxiiObjects(s, fetch)
	if err != nil {
		return false, err
	}
	q := url.Values{"match[type]": {"indicator"}}
	if after != "" {
		q.Set("added_after", after)
	}
	for page := 0; ; page++ {
		if page == maxPages {
			return false, fmt.Errorf("more than %d pages", maxPages)
		}
		var more bool
		var next string
		var h http.Header
		err := fetch(root+"?"+q.Encode(), maxPage, &h, func(r io.Reader) error {
			var err error
			if more, next, err = all.read(r); err != nil {
				return fmt.Errorf("page %d: %w", page+1, err)
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		last := h.Get(taxiiAdded)
		if last != "" {
			after = last
		}
		switch {
		case !more:
			all.expire(c.now(), s.ExpiresAfter)
			m.AddedAfter, m.Place, m.Modified = after, s.URL+" "+s.Collection, ""
			return false, all.write(d)
		case next != "" && next != q.Get("next"):
			q.Set("next", next)
		case next == "" && last != "" && last != q.Get("added_after"):
			q.Set("added_after", last)
			q.Del("next")
		default:
			return false, fmt.Errorf("page %d: there is said to be more, but not where", page+1)
		}
	}
}

// load takes the objects of the last good version.
func (c *collection) load(st store, m Meta) (err error) {
	r, err := st.open(m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, _, err = c.read(r)
	return err
}

// taxiiObjects finds the URL of the objects of the collection. The source may
// name an API root, or the discovery of a server, of which the default root or
// else the first one that has the collection is taken.
func taxiiObjects(s *Source, fetch func(string, int64, *http.Header, func(io.Reader) error) error) (string, error) {
	var disc struct {
		Default string   `json:"default"`
		Roots   []string `json:"api_roots"`
	}
	decode := func(u string, v any) error {
		return fetch(u, maxDirectory, nil, func(r io.Reader) error {
			if err := json.NewDecoder(r).Decode(v); err != nil {
				return &contentError{fmt.Errorf("%s: %w", u, err)}
			}
			return nil
		})
	}
	if err := decode(s.URL, &disc); err != nil {
		return "", err
	}
	base, err := url.Parse(s.URL)
	if err != nil {
		return "", fmt.Errorf("discovery: %w", err)
	}
	roots := []string{s.URL}
	if disc.Default != "" || len(disc.Roots) > 0 {
		roots = disc.Roots
		if disc.Default != "" {
			roots = append([]string{disc.Default}, roots...)
		}
	}
	for _, root := range roots {
		u, err := base.Parse(root)
		if err != nil {
			return "", fmt.Errorf("discovery: an API root: %w", err)
		}
		if u.Host != base.Host || u.Scheme != base.Scheme {
			continue // would be shown the key
		}
		dir := strings.TrimSuffix(u.String(), "/") + "/collections/"
		var list struct {
			Collections []struct{ ID, Alias, Title string } `json:"collections"`
		}
		if err := decode(dir, &list); err != nil {
			return "", err
		}
		for _, c := range list.Collections {
			if c.ID == s.Collection || c.Alias == s.Collection || c.Title == s.Collection {
				return dir + url.PathEscape(c.ID) + "/objects/", nil
			}
		}
	}
	return "", fmt.Errorf("the server has no collection %q", s.Collection)
}
