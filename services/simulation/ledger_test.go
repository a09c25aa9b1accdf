package simulation

import (
	"context"
	"slices"
	"sync"

	"github.com/rollcall-metrics/rollcall/services/collector"
)

// A ledger is the store of one collector: what was written of one metric, by
// producer and time stamp.
type ledger struct {
	metric string

	mu      sync.Mutex // guards samples
	samples map[string]map[int64][]float64
}

func newLedger(metric string) *ledger {
	return &ledger{metric: metric, samples: map[string]map[int64][]float64{}}
}

// Write takes a batch.
func (l *ledger) Write(_ context.Context, b *collector.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Samples {
		s := &b.Samples[i]
		if s.Series.Labels().Get("__name__") != l.metric {
			continue
		}
		id := s.Series.Labels().Get("id")
		if l.samples[id] == nil {
			l.samples[id] = map[int64][]float64{}
		}
		l.samples[id][s.Time] = append(l.samples[id][s.Time], s.Value)
	}
	return nil
}

// at are the values that were written of a producer at a time stamp.
func (l *ledger) at(id string, ms int64) []float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.samples[id][ms]
}

// stamps are the time stamps at which anything was written of a producer.
func (l *ledger) stamps(id string) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []int64
	for ms := range l.samples[id] {
		all = append(all, ms)
	}
	slices.Sort(all)
	return all
}

// both are two sinks.
type both struct{ a, b collector.Sink }

// Write takes a batch.
func (s both) Write(ctx context.Context, b *collector.Batch) error {
	if err := s.a.Write(ctx, b); err != nil {
		return err
	}
	return s.b.Write(ctx, b)
}
