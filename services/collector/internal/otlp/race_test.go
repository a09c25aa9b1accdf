package otlp

import (
	"fmt"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// TestAddingWhileSending is about what the engine does: one goroutine adds
// series while requests with those before are encoded, and two tables have some
// of the same series.
func TestAddingWhileSending(t *testing.T) {
	c := newClient(t)
	var wg sync.WaitGroup
	for range 2 {
		s, added := c.NewSeries(), make(chan uint32, 1000)
		wg.Go(func() {
			defer close(added)
			for i := range 1000 {
				s.Add(labels.FromStrings("__name__", "x_total", "instance", fmt.Sprint(i%7), "i", fmt.Sprint(i)), &metadata.Metadata{Type: counter})
				added <- uint32(i)
			}
		})
		for range 2 {
			wg.Go(func() {
				for n := range added {
					r := &deliver.Request{Series: s, Ends: []int{int(n%5) + 1}}
					for i := range n%5 + 1 {
						r.Items = append(r.Items, deliver.Item{Index: n - min(i, n), Point: sample.Point{Time: int64(n), Value: float64(n)}})
					}
					if m := c.encode(r); m.points != len(r.Items) || m.unsupported != 0 {
						t.Errorf("%d points of %d samples", m.points, len(r.Items))
					}
				}
			})
		}
	}
	wg.Wait()
}
