package scrape

import (
	"context"
	"iter"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// keepMisses is after how many collections without an exposition the cache of
// a producer is dropped.
const keepMisses = 10

// A Collection pulls one producer. Update, Collect and End are for the schedule,
// one call at a time; the other methods are safe for concurrent use.
type Collection struct {
	scraper  *Scraper
	target   atomic.Pointer[target] // written by Update
	families families

	// All below belongs to the schedule's calls.
	report   report
	cache    cache
	misses   int
	lastSize int

	// The format of the last Content-Type, so that it is not parsed again.
	lastType   string
	lastFormat assignment.Format
	lastKnown  bool
}

func newCollection(s *Scraper, t *target) *Collection {
	c := &Collection{scraper: s, families: families{texts: &s.texts}}
	c.target.Store(t)
	return c
}

// ProducerID is the id of the producer that is pulled.
func (c *Collection) ProducerID() assignment.ProducerID {
	return c.target.Load().assignment.ProducerID
}

// Labels are those put on every series of the producer, job and instance among
// them.
func (c *Collection) Labels() labels.Labels { return c.target.Load().set }

// Metadata ranges over the metric families that the producer has told of
// lately, in no order.
func (c *Collection) Metadata() iter.Seq2[string, metadata.Metadata] {
	return func(yield func(string, metadata.Metadata) bool) {
		for _, fam := range c.families.list() {
			if !yield(fam.name, *fam.meta) {
				return
			}
		}
	}
}

// Update takes a changed assignment. Where it changes the series, those of
// before get their stale markers at the next collection.
func (c *Collection) Update(a *assignment.Assignment) error {
	t, err := compile(a, c.scraper.setup.Load())
	if err != nil {
		return err
	}
	old := c.target.Load()
	if labels.Equal(t.set, old.set) {
		t.common = old.common
	}
	c.target.Store(t)
	if t.sameSeries(old) {
		return nil
	}
	known := c.cache.count()
	c.cache.forget()
	if c.report.made() && !labels.Equal(t.set, old.set) {
		c.report.retire(&c.cache)
		c.report = c.scraper.newReport(t)
		c.report.adopt(&c.cache)
	}
	c.scraper.metrics.series.Add(float64(c.cache.count() - known))
	return nil
}

// Collect pulls the producer once and stores what it got at that time. Ended by
// a cancelled ctx it stores nothing; at a deadline it stores the failure.
func (c *Collection) Collect(ctx context.Context, at time.Time) schedule.Result {
	return c.collect(ctx, at, func(*failure) bool { return true })
}

// Probe pulls the producer once and stores what it got at that time, if there is
// one: nothing of a failure, and then not that it failed either.
func (c *Collection) Probe(ctx context.Context, at time.Time) schedule.Result {
	if at.IsZero() {
		return c.collect(ctx, time.Now(), func(*failure) bool { return false })
	}
	return c.collect(ctx, at, func(f *failure) bool { return f == nil })
}

// collect pulls once; kept decides whether what came of it is stored.
func (c *Collection) collect(ctx context.Context, at time.Time, kept func(*failure) bool) schedule.Result {
	start := time.Now()
	s := c.scraper
	if !c.report.made() {
		c.report = s.newReport(c.target.Load())
	}
	sc := s.scratch()
	defer s.release(sc)
	sc.batch.Source = string(c.ProducerID())

	ans, f := c.fetch(ctx, at, sc)
	if f == nil && cancelled(ctx) {
		// Between the end of the pull and here.
		f = interrupted(ctx, ctx, ctx.Err())
	}
	known := c.cache.count()
	keep := kept(f)
	c.settle(sc, f, keep)
	s.rise(sc)
	took := time.Since(start)
	if keep && (f == nil || !f.cancelled) {
		if err := c.store(ctx, at.UnixMilli(), took, sc, f); err != nil {
			f = unstored(f, err)
		}
	}
	s.metrics.series.Add(float64(c.cache.count() - known))

	result := schedule.Result{
		Start: start, Duration: took, Samples: sc.samples, BodyBytes: ans.size, Identity: ans.identity,
	}
	if f != nil {
		result.Reason, result.Message = f.reason, f.message
	}
	return result
}

// fetch pulls and reads: from here on the samples are in the batch, or there is
// a failure.
func (c *Collection) fetch(ctx context.Context, at time.Time, sc *scratch) (answer, *failure) {
	t := c.target.Load()
	c.cache.begin()
	if endpoint.Native(t.url) {
		return c.fetchColumns(ctx, t, at, sc)
	}
	ans, f := c.scraper.pull(ctx, t, c.lastSize)
	if f != nil {
		return ans, f
	}
	ans.size = int64(len(ans.body.b))
	defer ans.body.release()
	// An empty body now and then says nothing about the next one.
	if n := len(ans.body.b); n > 0 {
		c.lastSize = n + n/16
	}
	return ans, c.read(c.reading(sc, t, at), ans)
}

// reading is a pass that begins.
func (c *Collection) reading(sc *scratch, t *target, at time.Time) *reading {
	c.scraper.sit(sc)
	return &reading{
		scratch: sc, target: t, cache: &c.cache, families: &c.families, reserved: c.report[:],
		budget: &c.scraper.budget, at: at.UnixMilli(), latest: time.Now().Add(maxAhead).UnixMilli(),
	}
}

// read reads an answer, and takes what it told of families or leaves it.
func (c *Collection) read(r *reading, ans answer) *failure {
	format, known := c.format(r.target, ans.contentType)
	if !known {
		c.scraper.metrics.fallbacks.Inc()
	}
	if f := checkEnd(ans, format); f != nil {
		return f
	}
	c.cache.speak(tongueOf(format))
	c.families.mu.Lock()
	defer c.families.mu.Unlock()
	if f := r.read(ans.body.b, format); f != nil {
		c.families.reject()
		if !known && f.reason == schedule.ReasonMalformed {
			f = fail(f.reason, "%.200s (Content-Type %.50q is not supported)", f.message, ans.contentType)
		}
		return f
	}
	c.families.accept(c.cache.pass, r.target.limits.Samples)
	return nil
}

// format is the one to read an answer in; known is false when that is only a
// guess.
func (c *Collection) format(t *target, contentType string) (format assignment.Format, known bool) {
	if contentType != c.lastType {
		c.lastType = strings.Clone(contentType)
		c.lastFormat, c.lastKnown = formatOf(contentType)
	}
	if c.lastKnown {
		return c.lastFormat, true
	}
	return t.assignment.FallbackFormat, false
}

// tongueOf is how a format spells series.
func tongueOf(format assignment.Format) tongue {
	if format == assignment.FormatProtobuf {
		return tongueProtobuf
	}
	return tongueText
}

// settle accepts or rejects what the pass put into the cache. What is not kept
// is rejected: it will not have been here.
func (c *Collection) settle(sc *scratch, f *failure, keep bool) {
	if f == nil && keep {
		c.misses = 0
		c.cache.accept(sc)
		return
	}
	if sc.tables != nil { // there was something to read
		c.cache.reject(sc)
	}
	clear(sc.batch.Samples)
	sc.batch.Samples = sc.batch.Samples[:0]
	if f != nil && !f.cancelled {
		c.misses++
	}
}

// store writes the batch: the samples of a success, the stale markers, and the
// report.
func (c *Collection) store(ctx context.Context, at int64, took time.Duration, sc *scratch, f *failure) error {
	samples, added := len(sc.batch.Samples), sc.added
	if f != nil {
		added = 0
	}
	stale := c.vanish(&sc.batch, at, f == nil)
	c.report.write(&sc.batch, at, f == nil, took, sc.samples, sc.dropped, added)
	err := c.scraper.write(ctx, &sc.batch)
	if err == nil {
		c.cache.stored(f == nil)
		for _, tr := range c.report {
			tr.live = true
		}
		c.scraper.metrics.staleMarkers.Add(float64(stale))
		if f == nil {
			c.scraper.metrics.stored(sc, samples)
		}
	}
	switch {
	case f == nil:
		c.cache.compact()
	case c.misses >= keepMisses:
		c.cache.forget()
	}
	return err
}

// vanish adds the stale markers that are owed: those of series that are not
// among the samples of this pass.
func (c *Collection) vanish(b *sample.Batch, at int64, seen bool) (stale int) {
	for tr := range c.cache.tracks {
		if c.cache.vanished(tr, seen, at) {
			b.Samples = append(b.Samples, sample.Sample{Series: tr.series, Time: at, Value: staleNaN()})
			stale++
		}
	}
	return stale
}

// End is the last call. With stale, every series the producer has gets its
// stale marker at that time, the synthetic ones too.
func (c *Collection) End(at time.Time, stale bool) {
	s := c.scraper
	s.ended(c)
	if stale {
		sc := s.scratch()
		defer s.release(sc)
		sc.batch.Source = string(c.ProducerID())
		n := c.vanish(&sc.batch, at.UnixMilli(), false)
		for _, tr := range c.report {
			if tr != nil && tr.live {
				sc.batch.Samples = append(sc.batch.Samples, sample.Sample{Series: tr.series, Time: at.UnixMilli(), Value: staleNaN()})
				n++
			}
		}
		c.bury(&sc.batch, n)
	}
	s.metrics.series.Sub(float64(c.cache.count()))
	c.cache = cache{}
	c.families.drop()
}

// bury writes the last stale markers. Nobody is left to be told of an error.
func (c *Collection) bury(b *sample.Batch, n int) {
	if n == 0 {
		return
	}
	s := c.scraper
	if err := s.write(context.Background(), b); err != nil {
		s.metrics.lostStaleMarkers.Add(float64(n))
		s.logger.Warn("stale markers of an ended producer were lost",
			slog.String("producer_id", string(c.ProducerID())), slog.Int("series", n), slog.Any("error", err))
		return
	}
	s.metrics.staleMarkers.Add(float64(n))
}
