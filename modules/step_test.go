package modules

import "testing"

func TestSteps(t *testing.T) {
	for _, tt := range []struct {
		n, first    int64
		whole, fine int
	}{
		{5, 6, 0, 0},
		{6, 6, 1, 1},
		{8, 6, 1, 1},
		{9, 6, 1, 2},
		{12, 6, 2, 3},
		{17, 6, 2, 3},
		{18, 6, 2, 4},
		{24, 6, 3, 5},
		{1, 1, 1, 1},
		{2, 1, 2, 3},
		{3, 1, 2, 4},
		{7, 5, 1, 1},
		{8, 5, 1, 2},
		{10, 5, 2, 3},
		{10, 0, 0, 0},
	} {
		if got := Step(tt.n, tt.first); got != tt.whole {
			t.Errorf("Step(%d, %d) is %d, want %d", tt.n, tt.first, got, tt.whole)
		}
		if got := FineStep(tt.n, tt.first); got != tt.fine {
			t.Errorf("FineStep(%d, %d) is %d, want %d", tt.n, tt.first, got, tt.fine)
		}
	}
}
