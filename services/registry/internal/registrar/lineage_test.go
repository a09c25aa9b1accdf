package registrar

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// TestEpochsAreInOrder: an epoch is younger than all that were known when it
// began, whatever the clocks say.
func TestEpochsAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.UnixMilli(1_800_000_000_000)
		var known []assignment.Epoch
		for range rapid.IntRange(1, 20).Draw(t, "epochs") {
			now = now.Add(time.Duration(rapid.Int64Range(-3600, 3600).Draw(t, "seconds")) * time.Second)
			next := newEpoch(now, known...)
			if _, err := assignment.ParseInstanceID(string(next)); err != nil {
				t.Fatalf("%q: %v", next, err)
			}
			for _, e := range known {
				if !younger(next, e, now) || younger(e, next, now) {
					t.Fatalf("%s does not count as younger than %s", next, e)
				}
			}
			known = append(known, next)
		}
	})
}

// TestYouthMustBeCredible: neither an epoch of another form nor one from far in
// the future says that the store was set back.
func TestYouthMustBeCredible(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	mine := newEpoch(now)
	for name, other := range map[string]assignment.Epoch{
		"a random one": assignment.Epoch(uuid.NewString()),
		"no uuid":      "epoch-1",
		"empty":        "",
		"next week":    newEpoch(now.Add(7 * 24 * time.Hour)),
		"the end":      "ffffffff-ffff-7fff-bfff-ffffffffffff",
		"an hour ago":  newEpoch(now.Add(-time.Hour)),
		"itself":       mine,
	} {
		if younger(other, mine, now) {
			t.Errorf("%s, %q, counts as younger", name, other)
		}
		if next := newEpoch(now, other, mine); !younger(next, mine, now) || younger(next, newEpoch(now.Add(maxAhead)), now) {
			t.Errorf("after %s, %q, the next epoch is %s", name, other, next)
		}
	}
	if !younger(newEpoch(now.Add(time.Minute)), mine, now) {
		t.Error("a younger one does not count")
	}
}
