package scrape

import "testing"

// However many large bodies there are, small ones find room; all of it may be
// theirs.
func TestBudgetKeepsRoomForSmallBodies(t *testing.T) {
	const limit = 8 << 20
	for _, large := range []int64{largeTake + 1, 1 << 20, limit/2 + 1} {
		b := budget{limit: limit, gauge: NewMetrics().inFlightBytes}
		for b.take(large) {
			if b.used.Load() > limit-limit/8 {
				t.Fatalf("large ones of %d bytes have %d", large, b.used.Load())
			}
		}
		if !b.take(largeTake) {
			t.Errorf("no room for a small one beside large ones of %d bytes", large)
		}
		for b.take(largeTake) {
		}
		if used := b.used.Load(); used > limit || used <= limit-largeTake {
			t.Errorf("%d bytes used by small ones at the end, want nearly %d", used, limit)
		}
	}
}
