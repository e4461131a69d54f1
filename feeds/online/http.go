package online

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds an answer over HTTP, unpacked, in bytes. VirusTotal's reports
// on files are the longest, some 200 KB.
const maxBody = 2 << 20

// maxRedirects is for RDAP, where a registry may send us on to the registrar.
const maxRedirects = 3

// web talks to one service over HTTP.
type web struct {
	client *http.Client
	base   *url.URL
	header http.Header // of each request, the key among it
}

// newWeb makes the client of a service. TLS is verified, and the proxies of
// the environment are used. A service with a key is followed nowhere else: a
// redirect would take the key along.
func newWeb(base string, header http.Header) (*web, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/") + "/")
	if err != nil {
		return nil, fmt.Errorf("url: %w", plain(err))
	}
	keyed := len(header) > 0
	return &web{
		base: u, header: header,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
				TLSHandshakeTimeout:    10 * time.Second,
				MaxIdleConnsPerHost:    1, // there is one question at a time
				IdleConnTimeout:        30 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
				ForceAttemptHTTP2:      true,
			},
			CheckRedirect: func(r *http.Request, via []*http.Request) error {
				first := via[0].URL
				a, err := netip.ParseAddr(r.URL.Hostname())
				switch {
				case len(via) > maxRedirects:
					return errors.New("too many redirects")
				case r.URL.Scheme != first.Scheme && r.URL.Scheme != "https":
					return errors.New("redirected to what is not encrypted")
				case r.URL.Host == first.Host:
					return nil
				case keyed:
					return errors.New("redirected to another host")
				case err == nil && !public(a.Unmap()):
					return errors.New("redirected into a private network")
				}
				return nil
			},
		},
	}, nil
}

// close gives back the connections that are kept.
func (w *web) close() { w.client.CloseIdleConnections() }

// errNotFound says that the service answered 404.
var errNotFound = errors.New("not found")

// get fetches the JSON at a path below the base, of which each part is
// escaped, into v.
func (w *web) get(ctx context.Context, v any, query url.Values, path ...string) error {
	u := *w.base
	for i, p := range path {
		if i > 0 {
			u.RawPath += "/"
		}
		u.RawPath += url.PathEscape(p)
	}
	u.RawPath = w.base.EscapedPath() + u.RawPath
	var err error
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		return oddly("the path of the request is malformed")
	}
	u.RawQuery = query.Encode()
	return w.fetch(ctx, http.MethodGet, u.String(), nil, v)
}

// post sends a form to a path below the base and reads the JSON of the answer
// into v.
func (w *web) post(ctx context.Context, v any, path string, form url.Values) error {
	return w.fetch(ctx, http.MethodPost, w.base.JoinPath(path).String(), form, v)
}

func (w *web) fetch(ctx context.Context, method, to string, form url.Values, v any) error {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return fmt.Errorf("making a request: %w", plain(err))
	}
	maps.Copy(r.Header, w.header)
	r.Header.Set("Accept", "application/json, application/rdap+json")
	r.Header.Set("User-Agent", "slips-go") // some services refuse Go's own
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return plain(err)
	}
	defer func() { _ = resp.Body.Close() }() // what was wanted of it was read
	if err := status(resp); err != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 4096) // so that the connection can be used again
		return err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer: %w", plain(err))
	case len(b) > maxBody:
		return fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	if err := json.Unmarshal(b, v); err != nil {
		var syntax *json.SyntaxError
		var typ *json.UnmarshalTypeError
		switch {
		case errors.As(err, &typ):
			return fmt.Errorf("the answer has %s in field %q", typ.Value, clip(typ.Field))
		case errors.As(err, &syntax):
			return fmt.Errorf("the answer is no JSON, at byte %d of %d", syntax.Offset, len(b))
		}
		return fmt.Errorf("the answer is malformed: %w", err)
	}
	return nil
}

// status returns what the status of a response means; nil for 200. What the
// body says stays out of errors: it is foreign text.
func status(r *http.Response) error {
	text := fmt.Sprintf("it answered %d %s", r.StatusCode, http.StatusText(r.StatusCode))
	switch r.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNotFound:
		return errNotFound
	case http.StatusNoContent, http.StatusPaymentRequired, http.StatusTooManyRequests:
		return &quotaError{retryAfter(r)}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &refusedError{text + ": the key is wrong or has no right to this"}
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return oddly("%s", text)
	}
	return errors.New(text)
}

// retryAfter returns how long a service wants to be left alone; 0 when it does
// not say.
func retryAfter(r *http.Response) time.Duration {
	v := r.Header.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(s, 0), int(quotaLimit/time.Second))) * time.Second
	}
	at, err := http.ParseTime(v)
	sent, err2 := http.ParseTime(r.Header.Get("Date")) // by the service's clock, not by ours
	if err != nil || err2 != nil {
		return 0
	}
	return max(at.Sub(sent), 0)
}

// plain takes the URL out of an error: it says nothing new, and may be long.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// words is a JSON string, a list of them, or null.
type words []string

// UnmarshalJSON reads either.
func (w *words) UnmarshalJSON(b []byte) error {
	*w = nil
	if len(b) > 0 && b[0] == '[' {
		var l []any
		if err := json.Unmarshal(b, &l); err != nil {
			return err
		}
		for _, x := range l {
			if s, ok := x.(string); ok {
				*w = append(*w, s)
			}
		}
		return nil
	}
	var s any
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s, ok := s.(string); ok && s != "" {
		*w = words{s}
	}
	return nil
}

// number is a JSON number, or one in quotes; what is neither is 0.
type number float64

// UnmarshalJSON reads either.
func (n *number) UnmarshalJSON(b []byte) error {
	*n = 0
	if f, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64); err == nil {
		*n = number(f)
	}
	return nil
}

// asn returns n as the number of an autonomous system.
func (n number) asn() uint32 {
	if !(n >= 0 && n <= math.MaxUint32) {
		return 0
	}
	return uint32(n)
}

// count returns n as a number of things.
func (n number) count() int {
	if !(n >= 0 && n <= 1e9) {
		return 0
	}
	return int(n)
}
