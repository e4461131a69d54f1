package format

import (
	"strconv"
	"strings"
	"time"
)

// maxTime is 2100-01-01 in unix s: what lies outside is no time of a feed.
const maxTime = 4102444800

// parseTime reads the times that feeds write, in UTC unless they say otherwise:
// 2006-01-02 15:04:05 with or without fraction and zone, T in place of the
// blank, the date alone, 1/2/2006 15:04 (month first, as spreadsheets export
// them), and unix seconds or milliseconds.
func parseTime(s string) (int64, bool) {
	if len(s) > 40 || s == "" {
		return 0, false
	}
	if strings.Trim(s, "0123456789.") == "" {
		f, err := strconv.ParseFloat(s, 64)
		if f > maxTime {
			f /= 1000
		}
		return inTime(int64(f), err == nil && len(s) > 8)
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, " UTC"), " GMT")
	layouts := []string{"1/2/2006 15:04", "1/2/2006 15:04:05", "1/2/2006"}
	if len(s) >= 10 && s[4] == '-' {
		layouts = []string{"2006-01-02 15:04:05", time.RFC3339, "2006-01-02T15:04:05", "2006-01-02", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04"}
	}
	for _, l := range layouts {
		if t, err := time.Parse(l, s); err == nil {
			return inTime(t.Unix(), true)
		}
	}
	return 0, false
}

func inTime(t int64, ok bool) (int64, bool) {
	if !ok || t <= 0 || t > maxTime {
		return 0, false
	}
	return t, true
}
