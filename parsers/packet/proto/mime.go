package proto

import (
	"bytes"
	"compress/flate"
	"io"
	"unicode/utf8"
)

// inflater unpacks the beginnings of bodies, with one window for all.
type inflater struct {
	src bytes.Reader
	r   io.ReadCloser
	out [maxSniff]byte
}

// head returns the beginning of what packed unpacks to, valid until the next call.
func (i *inflater) head(encoding string, packed []byte) []byte {
	b := packed
	switch {
	case encoding == "gzip" || len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b:
		if b = gzipData(b); b == nil {
			return nil
		}
	case len(b) > 2 && b[0]&15 == 8 && (int(b[0])<<8|int(b[1]))%31 == 0: // zlib
		b = b[2:]
	}
	i.src.Reset(b)
	if i.r == nil {
		i.r = flate.NewReader(&i.src)
	} else if err := i.r.(flate.Resetter).Reset(&i.src, nil); err != nil { //nolint:errcheck // flate.NewReader documents it
		return nil
	}
	n, _ := io.ReadFull(i.r, i.out[:]) // what came before the end or the first error is enough
	return i.out[:n]
}

// gzipData returns what is behind the header of a gzip member; nil if it is none.
func gzipData(b []byte) []byte {
	if len(b) < 10 || b[0] != 0x1f || b[1] != 0x8b || b[2] != 8 {
		return nil
	}
	flags := b[3]
	b = b[10:]
	if flags&4 != 0 { // extra field
		if len(b) < 2 {
			return nil
		}
		n := 2 + int(b[0]) + int(b[1])<<8
		if n > len(b) {
			return nil
		}
		b = b[n:]
	}
	for _, bit := range [2]byte{8, 16} { // name, comment
		if flags&bit != 0 {
			n := bytes.IndexByte(b, 0)
			if n < 0 {
				return nil
			}
			b = b[n+1:]
		}
	}
	if flags&2 != 0 { // checksum of the header
		b = b[min(2, len(b)):]
	}
	return b
}

// magics tell types of content by their first bytes; the first that fits wins.
var magics = []struct {
	at    int
	magic string
	typ   string
}{
	{0, "MZ", "application/x-dosexec"},
	{0, "\x7fELF", "application/x-executable"},
	{0, "\xcf\xfa\xed\xfe", "application/x-mach-o-executable"},
	{0, "\xce\xfa\xed\xfe", "application/x-mach-o-executable"},
	{0, "\xca\xfe\xba\xbe", "application/x-java-applet"},
	{0, "\x89PNG\r\n\x1a\n", "image/png"},
	{0, "\xff\xd8\xff", "image/jpeg"},
	{0, "GIF87a", "image/gif"},
	{0, "GIF89a", "image/gif"},
	{8, "WEBP", "image/webp"},
	{0, "\x00\x00\x01\x00", "image/x-icon"},
	{0, "BM", "image/x-ms-bmp"},
	{0, "II*\x00", "image/tiff"},
	{0, "MM\x00*", "image/tiff"},
	{0, "%PDF-", "application/pdf"},
	{0, "%!PS", "application/postscript"},
	{0, "PK\x03\x04", "application/zip"},
	{0, "Rar!\x1a\x07", "application/x-rar"},
	{0, "7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
	{0, "\x1f\x8b", "application/x-gzip"},
	{0, "BZh", "application/x-bzip2"},
	{0, "\xfd7zXZ\x00", "application/x-xz"},
	{0, "\x28\xb5\x2f\xfd", "application/x-zstd"},
	{257, "ustar", "application/x-tar"},
	{0, "MSCF", "application/vnd.ms-cab-compressed"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/msword"},
	{0, "{\\rtf", "text/rtf"},
	{0, "FWS", "application/x-shockwave-flash"},
	{0, "CWS", "application/x-shockwave-flash"},
	{0, "ZWS", "application/x-shockwave-flash"},
	{0, "FLV\x01", "video/x-flv"},
	{4, "ftyp", "video/mp4"},
	{0, "OggS", "application/ogg"},
	{0, "ID3", "audio/mpeg"},
	{0, "RIFF", "audio/x-wav"},
	{0, "wOFF", "application/font-woff"},
	{0, "wOF2", "application/font-woff2"},
	{0, "\x00asm", "application/wasm"},
	{0, "dex\n035\x00", "application/x-dex"},
	{0, "L\x00\x00\x00\x01\x14\x02\x00", "application/x-ms-shortcut"},
	{0, "!<arch>\ndebian", "application/x-debian-package"},
	{0, "\xed\xab\xee\xdb", "application/x-rpm"},
	{0, "-----BEGIN CERTIFICATE", "application/x-pem"},
	{0, "#!/bin/sh", "text/x-shellscript"},
	{0, "#!/bin/bash", "text/x-shellscript"},
	{0, "#! /bin/sh", "text/x-shellscript"},
	{0, "#!/usr/bin/env python", "text/x-python"},
	{0, "#!/usr/bin/python", "text/x-python"},
	{0, "#!/usr/bin/perl", "text/x-perl"},
	{0, "<?php", "text/x-php"},
}

// mimeType tells the type of content from its beginning, by the names that
// Zeek uses; empty when it cannot be told.
func mimeType(b []byte) string {
	for _, m := range magics {
		if len(b) >= m.at+len(m.magic) && string(b[m.at:m.at+len(m.magic)]) == m.magic {
			if m.typ == "application/zip" {
				return zipType(b)
			}
			return m.typ
		}
	}
	text := bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	text = bytes.TrimLeft(text, " \t\r\n\v\f\x00")
	switch {
	case len(text) == 0:
		return "text/plain"
	case text[0] == '<':
		if t := markup(text); t != "" {
			return t
		}
	case text[0] == '{' || text[0] == '[':
		if isJSON(text) {
			return "text/json"
		}
	}
	if plain(b) {
		if isJavaScript(text) {
			return "application/javascript"
		}
		return "text/plain"
	}
	return ""
}

// zipType tells documents apart that are zip archives.
func zipType(b []byte) string {
	switch {
	case bytes.Contains(b, []byte("word/")):
		return "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	case bytes.Contains(b, []byte("xl/")):
		return "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
	case bytes.Contains(b, []byte("ppt/")):
		return "application/vnd.openxmlformats-officedocument.presentationml.presentation"
	case bytes.Contains(b, []byte("META-INF/")):
		return "application/java-archive"
	}
	return "application/zip"
}

// markup tells HTML and the sorts of XML apart.
func markup(b []byte) string {
	b = b[:min(len(b), 512)]
	if len(b) > 5 && is(b[:5], "<?xml") {
		switch {
		case containsFold(b, "<html"), containsFold(b, "<!doctype html"):
			return "text/html"
		case containsFold(b, "<svg"):
			return "image/svg+xml"
		case containsFold(b, "<rss"):
			return "text/rss"
		case containsFold(b, "<feed"):
			return "text/atom"
		case containsFold(b, "soap"):
			return "application/soap+xml"
		}
		return "application/xml"
	}
	for _, tag := range [...]string{
		"<!doctype html", "<html", "<head", "<title", "<body", "<script", "<iframe", "<table", "<a href", "<h1", "<style",
		"<meta", "<br", "<p>", "<div", "<font", "<link", "<center", "<img",
	} {
		if len(b) >= len(tag) && is(b[:len(tag)], tag) {
			return "text/html"
		}
	}
	switch {
	case len(b) >= 4 && string(b[:4]) == "<!--":
		return "text/html"
	case len(b) >= 4 && is(b[:4], "<svg"):
		return "image/svg+xml"
	}
	return ""
}

// isJSON reports whether b begins like a JSON object or array. Names without
// quotes, as in JavaScript, count too.
func isJSON(b []byte) bool {
	rest := bytes.TrimLeft(b[1:], " \t\r\n")
	if len(rest) == 0 {
		return false
	}
	if c := rest[0]; b[0] == '[' {
		return c == '{' || c == '"' || c == ']' || c == '[' || c == '-' || '0' <= c && c <= '9' ||
			bytes.HasPrefix(rest, []byte("true")) || bytes.HasPrefix(rest, []byte("false")) || bytes.HasPrefix(rest, []byte("null"))
	}
	if rest[0] == '"' || rest[0] == '}' {
		return true
	}
	n := methodLen(rest[:min(len(rest), 32)])
	return n > 0 && bytes.HasPrefix(bytes.TrimLeft(rest[n:], " \t\r\n"), []byte(":"))
}

// isJavaScript reports whether b begins like a script.
func isJavaScript(b []byte) bool {
	for _, p := range [...]string{
		"var ", "function ", "function(", "(function", "!function", "document.write", "document.get", "window.", "const ", "let ",
		"\"use strict\"", "'use strict'",
	} {
		if bytes.HasPrefix(b, []byte(p)) {
			return true
		}
	}
	return false
}

// plain reports whether b is text: without control characters other than
// those of layout, in UTF-8 or Latin-1.
func plain(b []byte) bool {
	high := false
	for _, c := range b {
		switch {
		case c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1b && c != '\b', c == 0x7f:
			return false
		case c >= utf8.RuneSelf:
			high = true
		}
	}
	if !high {
		return true
	}
	for i := 0; i < len(b); { // the last character may be cut
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 && i+utf8.UTFMax <= len(b) {
			return false
		}
		i += n
	}
	return true
}
