package geo

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func zip(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

// countries is a database of n networks, apart so that they are not made one.
func countries(t *testing.T, built int64, n int) []byte {
	t.Helper()
	var networks []network
	for i := range n {
		networks = append(networks, network{fmt.Sprintf("9.%d.0.0/24", i), m{"country_code": s("CZ")}})
	}
	return build(t, "DBIP-Country-Lite", built, networks...)
}

// left are the files in dir, none of which may be one of an unfinished download.
func left(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFetch(t *testing.T) {
	modified := time.Date(2026, 10, 2, 3, 4, 5, 0, time.UTC)
	body := countries(t, 1000, 20)
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if !strings.HasSuffix(r.URL.Path, "2026-10.mmdb.gz") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
		if r.Header.Get("If-Modified-Since") == modified.Format(http.TimeFormat) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(zip(t, body))
	}))
	defer srv.Close()
	dir := filepath.Join(t.TempDir(), "geo") // made when it is needed
	d := Database{Name: "dbip-country-lite", URL: srv.URL + "/dbip-{month}.mmdb.gz", What: "country"}
	now := time.Date(2026, 11, 1, 0, 30, 0, 0, time.UTC) // before that of November is out

	got, err := Fetch(t.Context(), srv.Client(), d, dir, now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "dbip-country-lite.mmdb")
	want := Fetched{Source: Source{Path: path, Type: "DBIP-Country-Lite", Built: 1000, What: "country", Networks: 20, Credit: dbipCredit}, Changed: true}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff([]string{"/dbip-2026-11.mmdb.gz", "/dbip-2026-10.mmdb.gz"}, asked); diff != "" {
		t.Error(diff)
	}
	db := must(t, dir)
	if p := db.Lookup(addr("9.3.0.1")); p.Country != "CZ" {
		t.Errorf("%+v", p)
	}
	want.Changed = false
	if got, err = Fetch(t.Context(), srv.Client(), d, dir, now); err != nil || got != want {
		t.Errorf("again: %+v %v", got, err)
	}

	modified = modified.Add(time.Hour)
	body = countries(t, 2000, 30)
	if got, err = Fetch(t.Context(), srv.Client(), d, dir, now); err != nil || !got.Changed || got.Networks != 30 {
		t.Errorf("a newer one: %+v %v", got, err)
	}
	if p := db.Lookup(addr("9.4.0.1")); p.Country != "CZ" || db.Sources()[0].Failed != 0 {
		t.Errorf("the DB in use is disturbed: %+v", p)
	}
	if p := must(t, dir).Lookup(addr("9.29.0.1")); p.Country != "CZ" {
		t.Errorf("opened anew: %+v", p)
	}
	if diff := gocmp.Diff([]string{"dbip-country-lite.mmdb"}, left(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestFetchRefuses has servers that misbehave; the old file stays in use.
func TestFetchRefuses(t *testing.T) {
	serve := func(b []byte) http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) } }
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"html", serve([]byte("<html>captive portal</html>")), "no database"},
		{"empty", serve(nil), "empty"},
		{"cut", serve(zip(t, countries(t, 3000, 30))[:200]), "unexpected EOF"},
		{"cut database", serve(countries(t, 3000, 30)[:200]), "no database"},
		{"shrunk", serve(countries(t, 3000, 1)), "1 networks, the file in use 20"},
		{"older", serve(countries(t, 10, 30)), "was built 16m30s before"},
		{"another", serve(build(t, "asn", 3000, network{"9.0.0.0/24", as(1, "one")})), "has no country"},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "500 Internal Server Error"},
		{"404", http.NotFound, "404 Not Found"},
		{"too large", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "9999999999") }, "more than"},
		{"redirects", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "10 redirects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(c.handler)
			defer srv.Close()
			dir := t.TempDir()
			old := countries(t, 1000, 20)
			path := write(t, filepath.Join(dir, "a.mmdb"), old)
			_, err := Fetch(t.Context(), srv.Client(), Database{Name: "a", URL: srv.URL, What: "country"}, dir, time.Unix(0, 0))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, old) {
				t.Errorf("the old file is not as it was: %v", err)
			}
			if diff := gocmp.Diff([]string{"a.mmdb"}, left(t, dir)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFetchReplacesCorrupt(t *testing.T) {
	body := countries(t, 1000, 20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Modified-Since") != "" {
			t.Error("a corrupt file is taken for current")
		}
		w.Write(body)
	}))
	defer srv.Close()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.mmdb"), body[:100])
	if got, err := Fetch(t.Context(), srv.Client(), Database{Name: "a", URL: srv.URL}, dir, time.Unix(0, 0)); err != nil || !got.Changed {
		t.Errorf("%+v %v", got, err)
	}
}

func TestFetchKeepsTLS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(countries(t, 1, 20)) }))
	defer plain.Close()
	srv := httptest.NewUnstartedServer(http.RedirectHandler(plain.URL, http.StatusFound))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	_, err := Fetch(t.Context(), srv.Client(), Database{Name: "a", URL: srv.URL}, dir, time.Unix(0, 0))
	if err == nil || !strings.Contains(err.Error(), "not encrypted") {
		t.Errorf("err = %v", err)
	}
	if _, err := Fetch(t.Context(), http.DefaultClient, Database{Name: "a", URL: srv.URL}, dir, time.Unix(0, 0)); err == nil {
		t.Error("an unknown certificate is taken")
	}
	if names := left(t, dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func TestFetchStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, 1000))
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	defer srv.Close()
	dir := t.TempDir()
	if _, err := Fetch(ctx, srv.Client(), Database{Name: "a", URL: srv.URL}, dir, time.Unix(0, 0)); err == nil {
		t.Error("no error")
	}
	if names := left(t, dir); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

func TestFetchName(t *testing.T) {
	for _, name := range []string{"", "../a", "a/b", ".", "..", ".a"} {
		if _, err := Fetch(t.Context(), http.DefaultClient, Database{Name: name, URL: "http://127.0.0.1:1"}, t.TempDir(), time.Unix(0, 0)); err == nil ||
			!strings.Contains(err.Error(), "none for a file") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestSaveBounds(t *testing.T) {
	if _, err := io.Copy(io.Discard, &atMost{r: strings.NewReader("12345"), left: 5, what: "it"}); err != nil {
		t.Error(err)
	}
	if n, err := io.Copy(io.Discard, &atMost{r: strings.NewReader("123456"), left: 5, what: "it"}); err == nil || n > 5 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestCatalogue(t *testing.T) {
	names := make(map[string]bool)
	for _, d := range Catalogue() {
		if names[d.Name] || !strings.HasPrefix(d.URL, "https://") || d.What == "" || d.License == "" {
			t.Errorf("%+v", d)
		}
		if d.License == "CC BY 4.0" && d.Credit == "" {
			t.Errorf("%s: its licence asks for a credit", d.Name)
		}
		names[d.Name] = true
	}
}
