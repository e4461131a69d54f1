package modules

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPutLargest(t *testing.T) {
	self := func(v int64) int64 { return v }
	tests := []struct {
		name   string
		limit  int
		have   map[string]int64
		k      string
		v      int64
		want   map[string]int64
		forgot int
	}{
		{"makes the map", 4, nil, "a", 1, map[string]int64{"a": 1}, 0},
		{"room left", 3, map[string]int64{"a": 1, "b": 2}, "c", 0, map[string]int64{"a": 1, "b": 2, "c": 0}, 0},
		{"a known key needs no room", 2, map[string]int64{"a": 1, "b": 2}, "a", 9, map[string]int64{"a": 9, "b": 2}, 0},
		{"smaller half goes", 4, map[string]int64{"a": 4, "b": 1, "c": 3, "d": 2}, "e", 1, map[string]int64{"a": 4, "c": 3, "e": 1}, 2},
		{"odd limit", 3, map[string]int64{"a": 3, "b": 1, "c": 2}, "e", 1, map[string]int64{"a": 3, "e": 1}, 2},
		{"equals go together", 4, map[string]int64{"a": 1, "b": 1, "c": 1, "d": 2}, "e", 1, map[string]int64{"d": 2, "e": 1}, 3},
		{"all equal", 2, map[string]int64{"a": 5, "b": 5}, "c", 1, map[string]int64{"c": 1}, 2},
		{"largest weights", 2, map[string]int64{"a": 1<<63 - 1, "b": 1<<63 - 1}, "c", 1, map[string]int64{"c": 1}, 2},
		{"negative weights", 2, map[string]int64{"a": -7, "b": 0}, "c", 1, map[string]int64{"b": 0, "c": 1}, 1},
		{"no limit to speak of", 0, map[string]int64{"a": 1}, "b", 1, map[string]int64{"b": 1}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := maps.Clone(tt.have)
			forgot := PutLargest(&m, tt.k, tt.v, tt.limit, self)
			if diff := cmp.Diff(tt.want, m); diff != "" || forgot != tt.forgot {
				t.Errorf("forgot %d, want %d; -want +got:\n%s", forgot, tt.forgot, diff)
			}
		})
	}
}
