package deliver_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A ledger is a receiver that knows the sample by its labels and its value.
type ledger struct {
	fails bool // now and then

	mu     sync.Mutex
	taken  map[string]int
	last   map[string]float64 // by series
	wrong  []string
	sample int
}

func newLedger(fails bool) *ledger {
	return &ledger{fails: fails, taken: map[string]int{}, last: map[string]float64{}}
}

func (*ledger) NewSeries() deliver.Series { return &fakeSeries{} }
func (*ledger) Protocol() string          { return "ledger" }
func (*ledger) Close()                    {}

func (c *ledger) Send(ctx context.Context, r *deliver.Request) deliver.Outcome {
	if c.fails && rand.IntN(3) == 0 {
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		return deliver.Outcome{Result: deliver.Retry, Code: "500"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := r.Series.(*fakeSeries)
	for _, i := range r.Items {
		series := s.at(i.Index).String()
		if i.Value < c.last[series] {
			c.wrong = append(c.wrong, fmt.Sprintf("%s: %v after %v", series, i.Value, c.last[series]))
		}
		c.last[series] = i.Value
		c.taken[fmt.Sprintf("%s %v", series, i.Value)]++
		c.sample++
	}
	return deliver.Outcome{Code: "200"}
}

// A process is a queue in a directory and two sinks of it.
type process struct {
	queue *queue.Queue
	sinks []*deliver.Sink
	stop  func()
}

func startProcess(t *testing.T, dir string, ledgers []*ledger) *process {
	t.Helper()
	q, err := queue.Open(queue.Config{Dir: dir, SegmentBytes: 64 << 10, MaxBytes: 64 << 20, StallAfter: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{queue: q}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i, l := range ledgers {
		reader, err := q.Reader(fmt.Sprint("sink", i))
		if err != nil {
			t.Fatal(err)
		}
		s := deliver.New(deliver.Config{
			Name: fmt.Sprint("sink", i), Log: reader, Transport: l, MaxSamplesPerSend: 100,
			BatchDeadline: 5 * time.Millisecond, MaxBackoff: 10 * time.Millisecond, MinBackoff: time.Millisecond,
		})
		p.sinks = append(p.sinks, s)
		running.Go(func() {
			defer reader.Close()
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	p.stop = func() {
		cancel()
		running.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}
	return p
}

// write writes rounds of batches of producers.
func (p *process) write(t *testing.T, series [][]*sample.Series, from, to int) {
	t.Helper()
	for round := from; round < to; round++ {
		for i, all := range series {
			b := &sample.Batch{Source: fmt.Sprint("producer", i)}
			for _, s := range all {
				b.Samples = append(b.Samples, sample.Sample{Series: s, Time: int64(round), Value: float64(round)})
			}
			if err := p.queue.Write(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestARealQueueIsDeliveredToAll(t *testing.T) {
	const producers, width, rounds, lives = 20, 20, 25, 4
	var series [][]*sample.Series
	for i := range producers {
		var all []*sample.Series
		for k := range width {
			ls := labels.FromStrings("__name__", "m", "producer", fmt.Sprint(i), "k", fmt.Sprint(k))
			all = append(all, &sample.Series{Own: ls, Meta: &metadata.Metadata{Help: "some"}})
		}
		series = append(series, all)
	}
	dir := t.TempDir()
	ledgers := []*ledger{newLedger(false), newLedger(true)}
	for life := range lives {
		p := startProcess(t, dir, ledgers)
		p.write(t, series, 1+life*rounds, 1+(life+1)*rounds)
		if life == lives-1 {
			for _, s := range p.sinks {
				for s.Status().LagBytes > 0 {
					time.Sleep(5 * time.Millisecond)
				}
				if st := s.Status(); len(st.Dropped) > 0 {
					t.Errorf("%+v", st)
				}
			}
		}
		p.stop()
		for _, l := range ledgers {
			clear(l.last) // the next process may begin with what has been sent
		}
	}
	for i, l := range ledgers {
		const want = producers * width * rounds * lives
		if len(l.taken) != want || !l.fails && l.sample != want {
			t.Errorf("sink%d: %d of %d samples, %d in all", i, len(l.taken), want, l.sample)
		}
		if len(l.wrong) > 0 {
			t.Errorf("sink%d: %d samples out of order, the first: %s", i, len(l.wrong), l.wrong[0])
		}
		t.Logf("sink%d: %d samples, %d twice", i, want, l.sample-want)
	}
}
