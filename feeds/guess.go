package feeds

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
)

// guess tells the format of a file by its name and its first bytes.
func guess(path string, f io.ReaderAt) (string, error) {
	head := make([]byte, 4<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	head = bytes.TrimLeft(bytes.TrimPrefix(head[:n], []byte("\xef\xbb\xbf")), " \t\r\n")
	has := func(text string) bool { return bytes.Contains(head, []byte(text)) }
	name := filepath.Base(path)
	for _, packed := range []string{".gz", ".zst", ".zip"} {
		name = strings.TrimSuffix(name, packed)
	}
	switch {
	case bytes.HasPrefix(head, []byte("{")) && has(`"objects"`), bytes.HasPrefix(head, []byte("{")) && has(`"bundle"`):
		return "stix", nil
	case bytes.HasPrefix(head, []byte("{")) && has(`"Event"`):
		return "misp", nil
	case bytes.HasPrefix(head, []byte("#fields")):
		return "zeek", nil
	}
	if how := localFormat(name); how != "" {
		return how, nil
	}
	return "lines", nil
}
