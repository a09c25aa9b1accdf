package scrape_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A hanging sink takes nothing until it is let go.
type hanging struct {
	asked atomic.Int64
	free  chan struct{}
}

func (h *hanging) Write(context.Context, *sample.Batch) error {
	h.asked.Add(1)
	<-h.free
	return nil
}

// However many answers may be read at one time, those that wait for the sink are
// not among them.
func TestASinkThatHangsKeepsNobodyFromReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &hanging{free: make(chan struct{})}
		r := newRig(t, func(cfg *scrape.Config) { cfg.Sink = out })
		r.text("a 1\nb 2\n")
		count := 4*runtime.GOMAXPROCS(0) + 3
		var running sync.WaitGroup
		for i := range count {
			a := producer()
			a.ProducerID = assignment.ProducerID(fmt.Sprint("p", i))
			c := r.open(a)
			running.Go(func() {
				if result := c.Collect(t.Context(), time.Now()); result.Reason != schedule.ReasonNone || result.Samples != 2 {
					t.Errorf("%s: %+v", a.ProducerID, result)
				}
			})
		}
		synctest.Wait()
		if n := out.asked.Load(); n != int64(count) {
			t.Errorf("%d of %d collections have come to the sink", n, count)
		}
		close(out.free)
		running.Wait()
	})
}
