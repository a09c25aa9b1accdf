package deliver_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"go.uber.org/goleak"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// perSegment is how many records a fake log has in a segment, and a table.
const perSegment = 32

// A fakeLog is a log in memory that knows every breach of its contract by who
// reads it. Each sample's value is its own number in the log.
type fakeLog struct {
	perSegment int

	mu               sync.Mutex
	records          []sample.Record
	written          []time.Time
	table            *sample.Table
	numbers          map[string]uint32 // in table
	next             int               // record
	committed        int               // records
	committedSamples int               // of those
	bytes            int64             // that are not
	more             chan struct{}
	dropped          map[string]int64
	samples          int
	settled          map[int]bool // by the receiver, or left out: sample numbers
	breaches         []string
}

func newLog() *fakeLog {
	return &fakeLog{
		perSegment: perSegment, more: make(chan struct{}, 1), settled: map[int]bool{}, dropped: map[string]int64{},
	}
}

// write adds a record of n samples, each of another series of its source.
func (l *fakeLog) write(source, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records)%l.perSegment == 0 {
		l.table, l.numbers = &sample.Table{}, map[string]uint32{}
	}
	r := sample.Record{Source: uint64(source), Table: l.table, Bytes: 10 * n, End: l.position(len(l.records) + 1)}
	for i := range n {
		key := fmt.Sprintf("%d/%d", source, i)
		number, ok := l.numbers[key]
		if !ok {
			ls := labels.FromStrings("__name__", "m", "source", fmt.Sprint(source), "i", fmt.Sprint(i))
			number = l.table.Add(&sample.Series{Own: ls})
			l.numbers[key] = number
		}
		r.Numbers = append(r.Numbers, number)
		r.Points = append(r.Points, sample.Point{Time: int64(len(l.records)), Value: float64(l.samples)})
		l.samples++
	}
	l.records = append(l.records, r)
	l.bytes += int64(r.Bytes)
	l.written = append(l.written, time.Now())
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// position is behind the first n records.
func (l *fakeLog) position(n int) sample.Position {
	if n == 0 {
		return sample.Position{}
	}
	return sample.Position{Segment: uint64((n - 1) / l.perSegment), Offset: int64((n-1)%l.perSegment+1) * 100}
}

func (l *fakeLog) Next(ctx context.Context, r *sample.Record) error {
	for ctx.Err() == nil {
		l.mu.Lock()
		if l.next < len(l.records) {
			from := l.records[l.next]
			l.next++
			clear(r.Numbers) // who still has these would see it
			clear(r.Points)
			numbers, points := append(r.Numbers[:0], from.Numbers...), append(r.Points[:0], from.Points...)
			*r = from
			r.Numbers, r.Points = numbers, points
			l.mu.Unlock()
			return nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-l.more:
		}
	}
	return ctx.Err()
}

func (l *fakeLog) Commit(p sample.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int(p.Segment)*l.perSegment + int(p.Offset/100)
	if n <= l.committed || n > l.next {
		l.breaches = append(l.breaches, fmt.Sprintf("commit of %d records after %d, and %d were read", n, l.committed, l.next))
	}
	for ; l.committed < n; l.committed++ {
		l.bytes -= int64(l.records[l.committed].Bytes)
		l.committedSamples += len(l.records[l.committed].Points)
		for _, point := range l.records[l.committed].Points {
			if !l.settled[int(point.Value)] {
				l.breaches = append(l.breaches, fmt.Sprintf("record %d is committed without sample %v", l.committed, point.Value))
			}
		}
	}
}

func (l *fakeLog) Lag() sample.Lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	lag := sample.Lag{Dropped: l.dropped, Bytes: l.bytes}
	if l.committed < len(l.records) {
		lag.Oldest = l.written[l.committed]
	}
	return lag
}

// again is the log for the next process: it begins at what is committed.
func (l *fakeLog) again() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = l.committed
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// idle tells whether all is committed.
func (l *fakeLog) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed == len(l.records)
}

// A receiver is a fake Transport. What it has taken is known to the sample.
type receiver struct {
	log *fakeLog

	// answer decides about a request; nil takes all. take says that its first n
	// samples are stored. It may wait.
	answer atomic.Pointer[answerer]

	mu       sync.Mutex
	tries    []try
	taken    map[int]int    // times, by sample
	last     map[string]int // sample taken, by source
	inFlight map[string]bool
	now, max int            // requests
	refused  map[int]string // why, by sample
	breaches []string
	closed   bool
}

// An answerer answers a request.
type answerer func(ctx context.Context, r *deliver.Request) (o deliver.Outcome, take int)

// reply sets how requests are answered.
func (c *receiver) reply(a answerer) { c.answer.Store(&a) }

// A try is a request that has come.
type try struct {
	at      time.Time
	samples int
	first   int // sample
	sources int
}

// fakeSeries are labels.
type fakeSeries struct {
	mu     sync.Mutex
	labels []labels.Labels
	metas  []*metadata.Metadata
}

func (s *fakeSeries) Add(ls labels.Labels, meta *metadata.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels, s.metas = append(s.labels, ls), append(s.metas, meta)
}

func (s *fakeSeries) at(i uint32) labels.Labels {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.labels[i]
}

func newReceiver(l *fakeLog) *receiver {
	return &receiver{log: l, taken: map[int]int{}, last: map[string]int{}, inFlight: map[string]bool{}, refused: map[int]string{}}
}

func (c *receiver) NewSeries() deliver.Series { return &fakeSeries{} }
func (c *receiver) Protocol() string          { return "fake" }

func (c *receiver) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now > 0 || c.closed {
		c.breaches = append(c.breaches, "closed twice, or while a request is at work")
	}
	c.closed = true
}

// again is the receiver for the next process, which may begin anew with what the
// last one had sent.
func (c *receiver) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = false
	clear(c.last)
}

func sourceOf(r *deliver.Request, i int) string {
	s, _ := r.Series.(*fakeSeries)
	return s.at(r.Items[i].Index).Get("source")
}

func (c *receiver) Send(ctx context.Context, r *deliver.Request) deliver.Outcome {
	sources := c.begin(r)
	o, take := deliver.Outcome{Code: "200"}, len(r.Items)
	if a := c.answer.Load(); a != nil && *a != nil {
		o, take = (*a)(ctx, r)
	}
	c.end(r, sources, &o, take)
	return o
}

func (c *receiver) begin(r *deliver.Request) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sources []string
	for i := range r.Items {
		if s := sourceOf(r, i); !slices.Contains(sources, s) {
			sources = append(sources, s)
		}
	}
	c.tries = append(c.tries, try{at: time.Now(), samples: len(r.Items), first: int(r.Items[0].Value), sources: len(sources)})
	c.log.mu.Lock()
	for i := range r.Items {
		id := int(r.Items[i].Value)
		c.log.settled[id] = false
		if id < c.log.committedSamples {
			c.breaches = append(c.breaches, fmt.Sprintf("sample %d is sent after it was committed", id))
		}
	}
	c.log.mu.Unlock()
	for _, s := range sources {
		if c.inFlight[s] {
			c.breaches = append(c.breaches, "two requests at work have samples of source "+s)
		}
		c.inFlight[s] = true
	}
	c.now++
	c.max = max(c.max, c.now)
	if len(r.Ends) == 0 || !slices.IsSorted(r.Ends) || r.Ends[len(r.Ends)-1] != len(r.Items) {
		c.breaches = append(c.breaches, fmt.Sprintf("%d items with ends %v", len(r.Items), r.Ends))
	}
	return sources
}

func (c *receiver) end(r *deliver.Request, sources []string, o *deliver.Outcome, take int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now--
	for _, s := range sources {
		c.inFlight[s] = false
	}
	for i := range take {
		id, source := int(r.Items[i].Value), sourceOf(r, i)
		if last, ok := c.last[source]; ok && last > id && c.taken[id] == 0 {
			c.breaches = append(c.breaches, fmt.Sprintf("source %s: sample %d after %d", source, id, last))
		}
		c.taken[id]++
		c.last[source] = max(c.last[source], id)
	}
	reason := o.Reason
	if o.Result == deliver.TooLarge && len(r.Items) == 1 {
		reason = deliver.ReasonTooLarge
	} else if o.Result == deliver.TooLarge || o.Result == deliver.Retry {
		return
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	for i, item := range r.Items {
		id := int(item.Value)
		c.log.settled[id] = true
		if i >= take {
			c.refused[id] = reason
		}
	}
}

// dropped counts the samples that were refused and never taken.
func (c *receiver) dropped() map[string]int64 {
	all := map[string]int64{}
	for id, reason := range c.refused {
		if c.taken[id] == 0 {
			all[reason]++
		}
	}
	return all
}

func (c *receiver) tried() []try {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tries)
}

// A rig is a sink between a fake log and a fake receiver.
type rig struct {
	log      *fakeLog
	receiver *receiver
	sink     *deliver.Sink
	stop     func() error
}

// fullJitter waits as long as it may.
func fullJitter(d time.Duration) time.Duration { return d }

// start runs a sink; it is called in a bubble. What c does not say is small.
func start(ctx context.Context, l *fakeLog, c *receiver, config deliver.Config) *rig {
	config.Name, config.Log, config.Transport = "one", l, c
	g := &rig{log: l, receiver: c, sink: deliver.New(config)}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- g.sink.Run(ctx) }()
	g.stop = func() error {
		cancel()
		return <-ended
	}
	return g
}

// run is start with a test that ends when it does.
func run(t *testing.T, config deliver.Config) *rig {
	t.Helper()
	l := newLog()
	l.perSegment = 1 << 20
	g := start(t.Context(), l, newReceiver(l), deliver.WithJitter(config, fullJitter))
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		for _, b := range g.breaches() {
			t.Error(b)
		}
	})
	return g
}

func (g *rig) breaches() []string {
	g.log.mu.Lock()
	defer g.log.mu.Unlock()
	g.receiver.mu.Lock()
	defer g.receiver.mu.Unlock()
	return append(slices.Clone(g.log.breaches), g.receiver.breaches...)
}

// fill writes rounds of a record of n samples for each of some sources.
func (g *rig) fill(rounds, sources, n int) {
	for range rounds {
		for source := range sources {
			g.log.write(source, n)
		}
	}
}

// sleep lets fake time pass, and all that happens in it.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
