package feeds

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Bounds of a fetch.
const (
	tries         = 4                // of one request
	firstPause    = time.Second      // before the second try, doubled before each further one
	maxPause      = 30 * time.Second // longest pause within one check
	maxAfter      = 24 * time.Hour   // longest that a server can put off the next check with Retry-After
	fileTimeout   = 5 * time.Minute  // a feed of one file with all tries: 200 MB at 6 Mbit/s
	partsTimeout  = 20 * time.Minute // a feed of many files: 2,000 events of MISP at 0.6 s each
	headerTimeout = 30 * time.Second // until the answer begins
	slowAfter     = 30 * time.Second // from then on a body has to have come at slowRate on average: a feed that does not would take hours
	slowRate      = 1 << 10          // bytes/s
	maxRedirects  = 5
	maxKey        = 4 << 10   // bytes of a key file
	maxWindow     = 128 << 20 // window of a zstd stream, bounds the memory it can claim
	maxDrain      = 64 << 10  // read of a body that nobody wants, to use its connection again
)

// tooLargeError says that a feed is larger than it may be.
type tooLargeError struct{ limit int64 }

func (e tooLargeError) Error() string {
	return fmt.Sprintf("larger than %d bytes (max_size)", e.limit)
}

// statusError is an answer that is no content.
type statusError struct {
	code  int
	after time.Duration // the server's Retry-After; 0: none
}

func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answered %d %s", e.code, http.StatusText(e.code)))
}

func (e *statusError) again() bool {
	return e.code >= 500 || e.code == http.StatusTooManyRequests || e.code == http.StatusRequestTimeout
}

// client fetches. It may be used by several goroutines.
type client struct {
	http   *http.Client
	agent  string
	now    func() time.Time
	jitter func() float64
}

// newClient returns a client that goes through rt; nil: straight or through
// the proxies that the environment names, with certificates verified.
func newClient(rt http.RoundTripper, version string, now func() time.Time, jitter func() float64) *client {
	if rt == nil {
		rt = &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: headerTimeout}).DialContext,
			ForceAttemptHTTP2:     true,
			TLSHandshakeTimeout:   headerTimeout,
			ResponseHeaderTimeout: headerTimeout,
			IdleConnTimeout:       headerTimeout,
			MaxIdleConnsPerHost:   2,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		}
	}
	return &client{
		http: &http.Client{Transport: rt, CheckRedirect: redirect}, agent: "slips/" + version, now: now, jitter: jitter,
	}
}

// close gives up idle connections.
func (c *client) close() { c.http.CloseIdleConnections() }

var errRedirect = errors.New("redirect refused")

// redirect decides on following one: never from https to http, and a key is
// shown to the configured host alone.
func redirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
	case first.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to %q", errRedirect, req.URL.Scheme)
	}
	req.Header.Del("Referer") // may hold a key
	if req.URL.Host != first.Host {
		for name := range req.Header {
			switch name {
			case "Accept", "User-Agent", "If-None-Match", "If-Modified-Since":
			default:
				req.Header.Del(name)
			}
		}
	}
	return nil
}

// key reads the key of a source; empty when it has none.
func (s *Source) key() (key string, err error) {
	if s.KeyFile == "" {
		return "", nil
	}
	text, err := readFile(s.KeyFile, maxKey)
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	key = strings.TrimSpace(string(text))
	if key == "" || strings.ContainsAny(key, "\r\n") {
		return "", fmt.Errorf("reading the key: %s: does not hold one line of text", s.KeyFile)
	}
	return key, nil
}

// readFile reads a regular file of up to limit bytes.
func readFile(path string, limit int64) (text []byte, err error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	text, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return text, err
}

// openRegular opens a file that is none of those that block or never end.
func openRegular(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: is not a regular file", path)
	}
	return os.Open(path)
}

// request says what to ask a server for.
type request struct {
	src     *Source
	url     string // of the feed, or of a part of it; {key} stands for the key
	key     string
	accept  string
	etag    string // of what we have; empty: ask for all
	changed string // its Last-Modified
	limit   int64  // bytes of the body, uncompressed
}

// answer is what came. Its body went to the function given to get.
type answer struct {
	unchanged bool // 304: there is no body
	etag      string
	changed   string
	header    http.Header
}

// get asks until there is an answer, the tries are used up or the error is
// one that asking again does not mend. body is called for each try that has
// one, and has to start anew.
func (c *client) get(ctx context.Context, r request, body func(io.Reader) error) (answer, error) {
	pause := firstPause
	for try := 1; ; try++ {
		a, err := c.once(ctx, r, body)
		if err == nil {
			return a, nil
		}
		var status *statusError
		var large tooLargeError
		var cert *tls.CertificateVerificationError
		var refused *contentError
		switch {
		case ctx.Err() != nil:
			return a, context.Cause(ctx)
		case try == tries, errors.As(err, &large), errors.As(err, &cert), errors.As(err, &refused), errors.Is(err, errRedirect), errors.Is(err, errSlow),
			errors.As(err, &status) && !status.again():
			return a, err
		}
		wait := pause + time.Duration(c.jitter()*float64(pause)/2)
		pause *= 2
		if status != nil && status.after > wait {
			if wait = status.after; wait > maxPause {
				return a, err // the next check keeps to it
			}
		}
		if err := sleep(ctx, wait); err != nil {
			return a, err
		}
	}
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// contentError is an error of what was received, not of receiving it.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

func (c *client) once(ctx context.Context, r request, body func(io.Reader) error) (a answer, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ReplaceAll(r.url, "{key}", url.QueryEscape(r.key)), http.NoBody)
	if err != nil {
		return a, errors.New("the URL cannot be used") // the error would show the key
	}
	req.Header.Set("User-Agent", c.agent)
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.etag != "" {
		req.Header.Set("If-None-Match", r.etag)
	}
	if r.changed != "" {
		req.Header.Set("If-Modified-Since", r.changed)
	}
	for name, value := range r.src.Headers {
		req.Header.Set(name, strings.ReplaceAll(value, "{key}", r.key))
	}
	if r.src.User != "" {
		req.SetBasicAuth(r.src.User, r.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which may hold the key
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return a, err
	}
	pace := &paced{r: resp.Body, begin: c.now(), now: c.now, t: time.AfterFunc(slowAfter, func() { cancel(errSlow) })}
	defer func() {
		_, _ = io.CopyN(io.Discard, pace, maxDrain) // whatever it holds, only the connection matters
		_ = resp.Body.Close()
		pace.t.Stop()
	}()
	a = answer{etag: resp.Header.Get("ETag"), changed: resp.Header.Get("Last-Modified"), header: resp.Header}
	switch {
	case resp.StatusCode == http.StatusNotModified && (r.etag != "" || r.changed != ""):
		a.unchanged = true
		return a, nil
	case resp.StatusCode != http.StatusOK:
		return a, &statusError{code: resp.StatusCode, after: c.after(resp.Header.Get("Retry-After"))}
	}
	if err := body(&limited{r: pace, left: r.limit, limit: r.limit}); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return a, err
	}
	return a, nil
}

// after reads a Retry-After header: seconds or a date.
func (c *client) after(text string) time.Duration {
	d := time.Duration(0)
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		d = t.Sub(c.now())
	}
	return min(max(d, 0), maxAfter)
}

var errSlow = fmt.Errorf("the server sends less than %d bytes/s", slowRate)

// paced reads a body whose timer ends the request when the body falls behind:
// each byte puts that off.
type paced struct {
	r     io.Reader
	n     int64
	begin time.Time
	now   func() time.Time
	t     *time.Timer
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	if due := time.Duration(float64(p.n) / slowRate * float64(time.Second)); err == nil && due > slowAfter {
		p.t.Reset(due - p.now().Sub(p.begin))
	} else if err != nil {
		p.t.Stop()
	}
	return n, err
}

// limited fails instead of ending when more than limit bytes come.
type limited struct {
	r     io.Reader
	left  int64
	limit int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, tooLargeError{l.limit}
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n + int(l.left), tooLargeError{l.limit}
	}
	return n, err
}

// unpack copies r to w. What is packed with gzip, zstd or as the only file of a
// zip archive is unpacked, once; limit bounds what comes out. spool makes a
// temporary file for an archive, which has its table at the end.
func unpack(w io.Writer, r io.Reader, limit int64, spool func() (*os.File, error)) error {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var plain io.Reader = b
	packed := func(err error) error { return &contentError{fmt.Errorf("unpacking: %w", err)} }
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return packed(err)
		}
		plain = z
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return packed(err)
		}
		defer z.Close()
		plain = z
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return unzip(w, b, limit, spool)
	}
	_, err = io.Copy(w, &limited{r: plain, left: limit, limit: limit})
	return err
}

func unzip(w io.Writer, r io.Reader, limit int64, spool func() (*os.File, error)) (err error) {
	f, err := spool()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	size, err := io.Copy(f, r)
	if err != nil {
		return err
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return &contentError{fmt.Errorf("unpacking: %w", err)}
	}
	var only *zip.File
	if slices.ContainsFunc(z.File, func(m *zip.File) bool { return m.Name == "[Content_Types].xml" }) { // of ECMA-376, part 2
		return &contentError{errors.New("a spreadsheet or document of an office program: save it as CSV")}
	}
	for _, m := range z.File {
		if m.FileInfo().IsDir() {
			continue
		}
		if only != nil {
			return &contentError{errors.New("unpacking: the zip archive has more than one file")}
		}
		only = m
	}
	if only == nil {
		return &contentError{errors.New("unpacking: the zip archive is empty")}
	}
	m, err := only.Open()
	if err != nil {
		return &contentError{fmt.Errorf("unpacking: %w", err)}
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	_, err = io.Copy(w, &limited{r: m, left: limit, limit: limit})
	return err
}
