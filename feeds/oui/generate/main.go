// Command generate makes the table of package oui from files of the IEEE's
// registry. Of entries with one prefix that of the last file counts. Files
// ending in .csv are as the IEEE publishes them (oui.csv, mam.csv, oui36.csv,
// iab.csv); those in .json map prefixes to a name and an address on lines.
package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/slips-go/slips/feeds/oui"
)

func main() {
	out := flag.String("o", "table.bin", "the table to write")
	flag.Parse()
	if err := run(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out string, files []string) error {
	var all []oui.Entry
	for _, name := range files {
		entries, err := readFile(name)
		if err != nil {
			return fmt.Errorf("reading %q: %w", name, err)
		}
		fmt.Fprintln(os.Stderr, len(entries), "entries in", name)
		all = append(all, entries...)
	}
	if len(all) == 0 {
		return errors.New("no entries")
	}
	table, err := oui.Encode(all)
	if err != nil {
		return err
	}
	return os.WriteFile(out, table, 0o644)
}

func readFile(name string) ([]oui.Entry, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	switch filepath.Ext(name) {
	case ".csv":
		return readCSV(f)
	case ".json":
		return readJSON(f)
	}
	return nil, errors.New("neither .csv nor .json")
}

// readCSV reads the columns Registry, Assignment, Organization Name and
// Organization Address, in that order behind one line of titles.
func readCSV(r io.Reader) ([]oui.Entry, error) {
	c := csv.NewReader(r)
	c.FieldsPerRecord = 4
	rows, err := c.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || rows[0][1] != "Assignment" || rows[0][2] != "Organization Name" {
		return nil, errors.New("line 1 has not the titles of the registry")
	}
	var entries []oui.Entry
	for _, row := range rows[1:] {
		entries = append(entries, oui.Entry{Prefix: row[1], Vendor: row[2]})
	}
	return entries, nil
}

// readJSON reads an object. Its order does not matter: its prefixes differ.
func readJSON(r io.Reader) ([]oui.Entry, error) {
	var of map[string]string
	if err := json.NewDecoder(r).Decode(&of); err != nil {
		return nil, err
	}
	var entries []oui.Entry
	for prefix, text := range of {
		vendor, _, _ := strings.Cut(text, "\n")
		entries = append(entries, oui.Entry{Prefix: prefix, Vendor: vendor})
	}
	return entries, nil
}
