package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A Series.Ref is the store's reference in the lower bits and the store's mark
// in the upper ones. The store itself keeps its references within 40 bits.
const (
	refBits     = 40
	refMarkBits = 64 - refBits
)

// maxAhead is how far in the future a sample may be, as in Prometheus. One
// sample beyond would make the store refuse all others as too old.
const maxAhead = 10 * time.Minute

// Write stores a batch: all of it or, with an error, none of it. Samples that
// the store refuses are skipped and counted by reason, as Prometheus does; that
// is no error. Use Append to learn how many they were.
func (t *TSDB) Write(ctx context.Context, b *sample.Batch) error {
	_, err := t.Append(ctx, b)
	return err
}

// Append is Write for a caller who wants to know what was refused. Two writers
// that store the same series at the same time under different values race: one
// is kept, and the other is not always among the refused.
//
// It waits for the disk, but no longer than the store's WriteWait. The error is
// [ErrStalled] then, and at once for every caller until the disk has let go of
// what it holds. Whether a batch that was given up is stored is not known.
func (t *TSDB) Append(ctx context.Context, b *sample.Batch) (Refused, error) {
	if err := ctx.Err(); err != nil {
		return Refused{}, fmt.Errorf("write batch: %w", err)
	}
	refused, err := t.lanes.send(ctx, b)
	if err == nil {
		return refused, nil
	}
	t.metrics.failures.Inc()
	if errors.Is(err, ErrStalled) {
		t.metrics.stalled.Inc()
	}
	return Refused{}, fmt.Errorf("write batch: %w", err)
}

// errStore says that it is the store that fails, and not the batch.
var errStore = errors.New("the sample store fails")

// errUnlogged is the reason of a failure of which the store tells none.
var errUnlogged = errors.New("see the store's own log lines")

// store writes a batch in a lane.
func (t *TSDB) store(b *sample.Batch) (Refused, error) {
	t.writing.Add(1)
	defer t.writing.Add(-1)
	o, err := t.enter()
	if err != nil {
		return Refused{}, err
	}
	defer o.users.leave()

	start := time.Now()
	refused, err := t.append(o, b, start)
	end := time.Now()
	if err != nil {
		if errors.Is(err, errStore) {
			t.health.fail(end, err)
		}
		return Refused{}, err
	}
	taken := len(b.Samples) - refused.Samples()
	t.health.succeed(end, taken, refused)
	t.metrics.duration.Observe(end.Sub(start).Seconds())
	t.metrics.samples.Add(float64(taken))
	refused.count(t.metrics)
	return refused, nil
}

// append is one transaction of the store.
//
// What the store's logs have after a write that failed may be torn, and what is
// torn takes all behind it when the logs are read again. So nothing counts as
// written from then on until the store has been opened again.
func (t *TSDB) append(o *opened, b *sample.Batch, now time.Time) (refused Refused, err error) {
	if o.broken.Load() {
		return Refused{}, fmt.Errorf("%w: it waits to be opened again", errStore)
	}
	if err := t.room.check(now); err != nil {
		return Refused{}, fmt.Errorf("%w: %w", errStore, err)
	}
	seen, _ := t.tallies.Get().(*tally)
	defer func() {
		seen.reset()
		t.tallies.Put(seen)
		if v := recover(); v != nil {
			refused, err = Refused{}, fmt.Errorf("%w: panic: %v", errStore, v)
			o.broken.Store(true)
		}
	}()

	refused, err = t.commit(o, seen, b, now.Add(maxAhead).UnixMilli())
	// A write that failed beside this one is at work still, or has said so.
	if t.writing.Load() > 1 && o.logs.failed() || o.broken.Load() || errors.Is(err, errStore) {
		o.broken.Store(true)
		return Refused{}, fmt.Errorf("%w: its log could not be written: %w", errStore, cmp.Or(err, errUnlogged))
	}
	return refused, err
}

func (t *TSDB) commit(o *opened, seen *tally, b *sample.Batch, latest int64) (Refused, error) {
	// The second kind of appender: the first is announced for removal, and
	// Prometheus's own scraping uses this one.
	app := o.db.AppenderV2(context.Background()) // it does not look at it
	var refused Refused
	for i := range b.Samples {
		s := &b.Samples[i]
		if s.Time > latest {
			refused.TooNew++
			continue
		}
		if err := o.appendSample(app, seen, s); err != nil && !refused.add(err) {
			return Refused{}, errors.Join(fmt.Errorf("series %s: %w", s.Series.Labels(), err), app.Rollback())
		}
	}
	if err := app.Commit(); err != nil {
		return Refused{}, fmt.Errorf("%w: %w", errStore, err)
	}
	return refused, nil
}

// appendSample puts one sample into the transaction and remembers the store's
// reference of its series.
func (o *opened) appendSample(app storage.AppenderV2, seen *tally, s *sample.Sample) error {
	known := o.ref(s.Series)
	ref, ls := known, labels.EmptyLabels()
	if ref == 0 {
		ls = s.Series.Labels()
		if g, ok := app.(storage.GetRef); ok {
			ref, _ = g.GetRef(ls, ls.Hash())
		}
	}
	mine := tallyOf(ref, s)
	if err := seen.check(mine); err != nil {
		return err
	}
	opts := storage.AOptions{
		// A stale marker ends a series. One that comes behind the newest sample
		// of its series ends nothing: somebody else goes on with it.
		RejectOutOfOrder: value.IsStaleNaN(s.Value),
	}
	var h *histogram.Histogram
	var fh *histogram.FloatHistogram
	if e := s.Extra; e != nil {
		h, fh = owned(e.Histogram), owned(e.FloatHistogram)
		opts.Exemplars = stamped(e.Exemplars, s.Time)
	}
	got, err := app.Append(ref, ls, 0, s.Time, s.Value, h, fh, opts)
	if known != 0 && errors.Is(err, tsdb.ErrInvalidSample) {
		// A reference whose series is gone from the head is as good as none: the
		// store finds or makes the series by its labels, and says the new one.
		// They are made for this only.
		got, err = app.Append(ref, s.Series.Labels(), 0, s.Time, s.Value, h, fh, opts)
	}
	if got == 0 {
		return blame(err, h, fh)
	}
	if got != known {
		s.Series.Ref.Store(o.mark | uint64(got))
	}
	mine.ref = got
	seen.add(mine)
	return err
}

// blame tells of an error whether it is the histogram's: the store has a dozen of
// these and no common word for them.
func blame(err error, h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	if h != nil && h.Validate() != nil || fh != nil && fh.Validate() != nil {
		return errors.Join(errInvalid, err)
	}
	return err
}

// owned is a histogram for the store: it keeps the last one of each series, and
// gives it the buckets of those before it. It puts other slices in the place of
// these and does not write into them.
func owned[H any](h *H) *H {
	if h == nil {
		return nil
	}
	mine := *h
	return &mine
}

// stamped gives exemplars without a time of their own that of the sample.
func stamped(exemplars []exemplar.Exemplar, time int64) []exemplar.Exemplar {
	if !slices.ContainsFunc(exemplars, func(e exemplar.Exemplar) bool { return !e.HasTs }) {
		return exemplars
	}
	all := slices.Clone(exemplars)
	for i := range all {
		if !all[i].HasTs {
			all[i].Ts = time
		}
	}
	return all
}

// ref answers zero for a series that this store has not seen.
func (o *opened) ref(s *sample.Series) storage.SeriesRef {
	ref := s.Ref.Load()
	if ref&^(1<<refBits-1) != o.mark {
		return 0
	}
	return storage.SeriesRef(ref & (1<<refBits - 1))
}
