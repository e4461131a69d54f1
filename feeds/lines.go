package feeds

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// eachLine calls fn for each line that is not blank. The line is valid during
// the call. A line of more than limit bytes is an error.
func eachLine(r io.Reader, limit int, fn func([]byte) error) error {
	b := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for n := 1; ; n++ {
		long = long[:0]
		part, err := b.ReadSlice('\n')
		line := part
		for errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, part...); len(long) > limit {
				return fmt.Errorf("line %d: longer than %d bytes", n, limit)
			}
			part, err = b.ReadSlice('\n')
			line = nil
		}
		if line == nil {
			long = append(long, part...)
			line = long
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if ferr := fn(line); ferr != nil {
				return fmt.Errorf("line %d: %w", n, ferr)
			}
		}
		if err != nil {
			return nil
		}
	}
}
