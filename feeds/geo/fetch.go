package geo

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// maxDownload is for the body as sent; DB-IP's cities have 60 MB.
	maxDownload = 256 << 20
	dbipCredit  = "IP Geolocation by DB-IP, https://db-ip.com" // wanted by its terms, db-ip.com/db/lite.php
)

// Database is one that may be used freely.
type Database struct {
	Name    string // of the file, without .mmdb
	URL     string // {month} stands for the year and month, 2026-01
	What    string // as in Source; a download that gives less is refused
	License string
	Credit  string // what the licence asks to be shown with results; "" when nothing
}

// Catalogue returns the databases that Fetch knows. DB-IP's are better at
// countries, IPtoASN's are newer, and free of any condition.
func Catalogue() []Database {
	const (
		dbip  = "https://download.db-ip.com/free/"
		ipdb  = "https://github.com/sapics/ip-location-db/releases/download/latest/"
		ccBy  = "CC BY 4.0"
		pddl  = "PDDL 1.0"
		month = "-{month}.mmdb.gz"
	)
	return []Database{
		{Name: "dbip-country-lite", URL: dbip + "dbip-country-lite" + month, What: "country", License: ccBy, Credit: dbipCredit},
		{Name: "dbip-city-lite", URL: dbip + "dbip-city-lite" + month, What: "country, city", License: ccBy, Credit: dbipCredit},
		{Name: "dbip-asn-lite", URL: dbip + "dbip-asn-lite" + month, What: "AS", License: ccBy, Credit: dbipCredit},
		{Name: "iptoasn-country", URL: ipdb + "iptoasn-country.mmdb", What: "country", License: pddl},
		{Name: "iptoasn-asn", URL: ipdb + "iptoasn-asn.mmdb", What: "AS", License: pddl},
	}
}

// file is where d is kept.
func (d Database) file(dir string) string { return filepath.Join(dir, d.Name+".mmdb") }

// Fetched is what Fetch did.
type Fetched struct {
	Source
	Changed bool // false: what is there is what the server has
}

// Fetch downloads d to NAME.mmdb in dir, unless the server says that what is
// there is current. The download is read through before it takes the place of
// the old file, in one step: a DB opened before goes on with the old one. It
// is refused if it gives less than d.What, has under a tenth of the networks of
// the old one, or was built earlier. On an error the old file stays.
//
// The caller sets the proxy and time-outs of c, bounds the whole by ctx, and
// runs one Fetch of a database at a time. now picks the month.
func Fetch(ctx context.Context, c *http.Client, d Database, dir string, now time.Time) (Fetched, error) {
	out, err := fetch(ctx, c, d, dir, now)
	if err != nil {
		return Fetched{}, fmt.Errorf("fetching geo database %q: %w", d.Name, err)
	}
	return out, nil
}

func fetch(ctx context.Context, c *http.Client, d Database, dir string, now time.Time) (Fetched, error) {
	if d.Name == "" || d.Name != filepath.Base(d.Name) || strings.HasPrefix(d.Name, ".") {
		return Fetched{}, errors.New("its name is none for a file")
	}
	old, err := open(ctx, d.file(dir))
	if err != nil && ctx.Err() != nil {
		return Fetched{}, err
	} // a missing or corrupt file is what the download is for

	resp, err := request(ctx, c, d, old, now)
	if err != nil {
		return Fetched{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	if resp.StatusCode == http.StatusNotModified {
		return Fetched{Source: old.describe()}, nil
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Fetched{}, err
	}
	tmp, err := os.CreateTemp(dir, "."+d.Name+"-*.tmp")
	if err != nil {
		return Fetched{}, err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone when all went well
	err = save(tmp, resp.Body)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return Fetched{}, fmt.Errorf("reading %q: %w", resp.Request.URL.Redacted(), err)
	}
	s, err := open(ctx, tmp.Name())
	if err != nil {
		return Fetched{}, err
	}
	if err := s.replaces(old, d.What); err != nil {
		return Fetched{}, err
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		if err := os.Chtimes(tmp.Name(), time.Time{}, t); err != nil {
			return Fetched{}, err
		}
	}
	if err := os.Chmod(tmp.Name(), 0o644); err != nil {
		return Fetched{}, err
	}
	if err := os.Rename(tmp.Name(), d.file(dir)); err != nil {
		return Fetched{}, err
	}
	s.path = d.file(dir)
	return Fetched{Source: s.describe(), Changed: true}, nil
}

// request asks for the file of this month, or, in the first days of one, that
// of the month before.
func request(ctx context.Context, c *http.Client, d Database, old *source, now time.Time) (*http.Response, error) {
	now = now.UTC()
	months := []time.Time{now, now.AddDate(0, 0, -now.Day())} // the last day of the month before
	if !strings.Contains(d.URL, "{month}") {
		months = months[:1]
	}
	for i, m := range months {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(d.URL, "{month}", m.Format("2006-01")), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("User-Agent", "slips-go")
		if old != nil {
			if info, err := os.Stat(old.path); err == nil {
				req.Header.Set("If-Modified-Since", info.ModTime().UTC().Format(http.TimeFormat))
			}
		}
		resp, err := c.Do(req)
		if err != nil {
			return nil, err
		}
		if err = answer(req.URL, resp, old != nil); err == nil {
			return resp, nil
		}
		resp.Body.Close() //nolint:errcheck,gosec // only read from
		if resp.StatusCode != http.StatusNotFound || i == len(months)-1 {
			return nil, err
		}
	}
	return nil, errors.New("no month to ask for")
}

// answer checks what came back.
func answer(asked *url.URL, resp *http.Response, conditional bool) error {
	from := resp.Request.URL
	switch {
	case asked.Scheme == "https" && from.Scheme != "https":
		return fmt.Errorf("%q leads to %q, which is not encrypted", asked.Redacted(), from.Redacted())
	case resp.StatusCode == http.StatusNotModified && conditional:
		return nil
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%q answers %q", from.Redacted(), resp.Status)
	case resp.ContentLength > maxDownload:
		return fmt.Errorf("%q has %d bytes, more than %d", from.Redacted(), resp.ContentLength, maxDownload)
	}
	return nil
}

// save writes body, unpacked if it is gzip.
func save(w io.Writer, body io.Reader) error {
	limited := bufio.NewReader(&atMost{r: body, left: maxDownload, what: "the download"})
	var r io.Reader = limited
	if magic, err := limited.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(limited)
		if err != nil {
			return err
		}
		r = &atMost{r: z, left: maxSize, what: "the unpacked download"}
	}
	_, err := io.Copy(w, r)
	return err
}

// atMost is io.LimitReader with an error in place of a silent end.
type atMost struct {
	r    io.Reader
	left int64
	what string
}

func (a *atMost) Read(b []byte) (int, error) {
	n, err := a.r.Read(b[:min(int64(len(b)), a.left+1)])
	if a.left -= int64(n); a.left < 0 {
		return 0, fmt.Errorf("%s is too large", a.what)
	}
	return n, err
}

// replaces says whether s may take the place of old, which may be nil.
func (s *source) replaces(old *source, what string) error {
	for w := range strings.SplitSeq(what, ", ") {
		if w != "" && !strings.Contains(s.gives.String(), w) {
			return fmt.Errorf("the download has no %s", w)
		}
	}
	switch {
	case old == nil:
	case s.networks < old.networks/10:
		return fmt.Errorf("the download has %d networks, the file in use %d", s.networks, old.networks)
	case s.describe().Built < old.describe().Built:
		return fmt.Errorf("the download was built %s before the file in use",
			time.Duration(old.describe().Built-s.describe().Built)*time.Second)
	}
	return nil
}
