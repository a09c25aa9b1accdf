package sink

import (
	"errors"
	"testing"

	"github.com/prometheus/prometheus/storage"
	"pgregory.net/rapid"
)

// The tally answers as a plain map does, whatever the order of references.
func TestTallyIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tally := &tally{takesOlder: rapid.Bool().Draw(t, "takes older")}
		for range rapid.IntRange(1, 3).Draw(t, "batches") {
			type newest struct {
				time  int64
				value float64
			}
			model := map[storage.SeriesRef]newest{}
			for range rapid.IntRange(0, 20).Draw(t, "samples") {
				ref := storage.SeriesRef(rapid.Uint64Range(0, 5).Draw(t, "ref"))
				time := rapid.Int64Range(-2, 2).Draw(t, "time")
				value := float64(rapid.IntRange(0, 1).Draw(t, "value"))

				var want error
				if old, ok := model[ref]; ok {
					switch {
					case old.time == time && old.value != value:
						want = storage.ErrDuplicateSampleForTimestamp
					case old.time > time && !tally.takesOlder:
						want = storage.ErrOutOfOrderSample
					}
				}
				one := tallied{ref: ref, time: time, value: value}
				if got := tally.check(one); !errors.Is(got, want) {
					t.Fatalf("check(%+v) = %v, want %v", one, got, want)
				}
				if want != nil || ref == 0 {
					continue
				}
				tally.add(one)
				if old, ok := model[ref]; !ok || old.time <= time {
					model[ref] = newest{time, value}
				}
			}
			tally.reset()
		}
	})
}
