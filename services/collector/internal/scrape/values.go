package scrape

import (
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// columns reads an answer in columns into the batch. After a failure, the caller
// rejects the pass.
func (r *reading) columns(layoutID []byte, m *producerv1.CollectResponse) *failure {
	l, f := r.layoutOf(layoutID, m)
	if f != nil {
		return f
	}
	values, natives := len(m.GetValues()), len(m.GetHistograms().GetSchemas())
	if values+natives != len(l.tracks) || natives != len(l.natives) {
		return fail(schedule.ReasonMalformed, "%d values and %d native histograms of %d series, %d of them with native histograms",
			values, natives, len(l.tracks), len(l.natives))
	}
	r.samples += len(l.tracks)
	r.batch.Samples = slices.Grow(r.batch.Samples, len(l.tracks)+reportSeries)
	s := &sparse{
		stamped: m.GetTimestamps().GetSeries(), stamps: m.GetTimestamps().GetTimesMs(),
		exemplars: m.GetExemplars(), natives: l.natives, histograms: histograms{m: m.GetHistograms()},
	}
	if f := s.check(len(l.tracks), r.target.limits); f != nil {
		return f
	}
	if s.none() {
		r.plainValues(l, m.GetValues())
		return nil
	}
	if !r.charge(m) {
		return r.budget.over()
	}
	return r.mixed(l, m.GetValues(), s)
}

// What exemplars and native histograms take in a batch beside their columns, in
// bytes, at most.
const (
	exemplarCost  = 128
	histogramCost = 256
	bucketCost    = 8
)

// charge takes out of the budget what exemplars and native histograms will be in
// the batch.
func (r *reading) charge(m *producerv1.CollectResponse) bool {
	h, e := m.GetHistograms(), m.GetExemplars()
	n := exemplarCost*len(e.GetSeries()) + histogramCost*len(h.GetSchemas()) +
		bucketCost*(len(h.GetSpanLengths())+len(h.GetBucketDeltas())+len(h.GetBucketCounts())+len(h.GetCustomBounds()))
	for _, s := range e.GetLabels() {
		n += len(s)
	}
	if !r.budget.take(int64(n)) {
		return false
	}
	r.charged += int64(n)
	return true
}

// plainValues takes values without anything else: those of nearly all answers.
func (r *reading) plainValues(l *layout, values []float64) {
	for i, tr := range l.tracks {
		if at, ok := r.admit(tr, nil); ok {
			r.batch.Samples = append(r.batch.Samples, sample.Sample{Series: tr.series, Time: at, Start: l.start(i, at), Value: values[i]})
		}
	}
}

// mixed takes values and what is told of some of them.
func (r *reading) mixed(l *layout, values []float64, from *sparse) *failure {
	for i, tr := range l.tracks {
		var s sample.Sample
		native, f := from.native(uint32(i), r.target.limits)
		if f != nil {
			return f
		}
		if native != nil {
			s.Extra = native
		} else {
			s.Value, values = values[0], values[1:]
		}
		stamp := from.stamp(uint32(i))
		if r.target.assignment.IgnoreTimestamps {
			stamp = nil
		}
		first, n := from.exemplarsOf(uint32(i))
		if n > 1 && native == nil {
			return fail(schedule.ReasonMalformed, "%d exemplars of one value", n)
		}
		at, ok := r.admit(tr, stamp)
		if !ok {
			from.skip(n)
			continue
		}
		s.Series, s.Time, s.Start = tr.series, at, l.start(i, at)
		r.attach(&s, from, first, n)
		r.batch.Samples = append(r.batch.Samples, s)
	}
	return from.histograms.end()
}

// attach puts n exemplars onto a sample, as far as they can be stored.
func (r *reading) attach(s *sample.Sample, from *sparse, first, n int) {
	var all []exemplar.Exemplar
	for i := first; i < first+n; i++ {
		e := from.exemplar(i)
		if s.Extra != nil && !e.HasTs || !r.storable(&e, s.Time) {
			continue
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return
	}
	slices.SortStableFunc(all, exemplar.Compare)
	if s.Extra == nil {
		s.Extra = &sample.Extra{}
	}
	s.Extra.Exemplars = all
}

// sparse are the columns of what few samples have, read from front to back.
type sparse struct {
	stamped   []uint32
	stamps    []int64
	exemplars *producerv1.Exemplars
	next      int // exemplar
	labels    int // of exemplars.Labels
	natives   []uint32
	histograms
}

func (s *sparse) none() bool {
	return len(s.stamped) == 0 && len(s.exemplars.GetSeries()) == 0 && len(s.natives) == 0
}

// check judges the columns: afterwards they can be read.
func (s *sparse) check(series int, limits Limits) *failure {
	if len(s.stamped) != len(s.stamps) {
		return fail(schedule.ReasonMalformed, "%d time stamps of %d samples", len(s.stamps), len(s.stamped))
	}
	if f := checkNumbers("time stamps", s.stamped, series, false); f != nil {
		return f
	}
	e := s.exemplars
	n, total := len(e.GetSeries()), uint64(0)
	if len(e.GetValues()) != n || len(e.GetTimesMs()) != n || len(e.GetLabelCounts()) != n {
		return fail(schedule.ReasonMalformed, "the columns of exemplars are not of one length")
	}
	for _, count := range e.GetLabelCounts() {
		if int64(count) > int64(limits.Labels) {
			return fail(schedule.ReasonTooLarge, "an exemplar of %d labels, at most %d are allowed", count, limits.Labels)
		}
		total += uint64(count)
	}
	if 2*total != uint64(len(e.GetLabels())) {
		return fail(schedule.ReasonMalformed, "%d strings of %d labels of exemplars", len(e.GetLabels()), total)
	}
	if f := checkNumbers("exemplars", e.GetSeries(), series, true); f != nil {
		return f
	}
	return s.histograms.check()
}

// stamp is the time stamp of the series, if it has one.
func (s *sparse) stamp(series uint32) *int64 {
	if len(s.stamped) == 0 || s.stamped[0] != series {
		return nil
	}
	at := &s.stamps[0]
	s.stamped, s.stamps = s.stamped[1:], s.stamps[1:]
	return at
}

// exemplarsOf are the exemplars of the series: the first, and how many.
func (s *sparse) exemplarsOf(series uint32) (first, n int) {
	first = s.next
	for s.next < len(s.exemplars.GetSeries()) && s.exemplars.GetSeries()[s.next] == series {
		s.next++
	}
	return first, s.next - first
}

// skip passes over the labels of the last n exemplars.
func (s *sparse) skip(n int) {
	for _, count := range s.exemplars.GetLabelCounts()[s.next-n : s.next] {
		s.labels += 2 * int(count)
	}
}

// exemplar is the i-th one. Each is read once, in order.
func (s *sparse) exemplar(i int) exemplar.Exemplar {
	n := 2 * int(s.exemplars.GetLabelCounts()[i])
	texts := s.exemplars.GetLabels()[s.labels : s.labels+n]
	s.labels += n
	set := labels.NewScratchBuilder(n / 2)
	for j := 0; j < n; j += 2 {
		set.Add(texts[j], texts[j+1])
	}
	set.Sort()
	at := s.exemplars.GetTimesMs()[i]
	return exemplar.Exemplar{Labels: set.Labels(), Value: s.exemplars.GetValues()[i], Ts: at, HasTs: at != 0}
}

// native is the native histogram of the series, if it is one of those.
func (s *sparse) native(series uint32, limits Limits) (*sample.Extra, *failure) {
	if len(s.natives) == 0 || s.natives[0] != series {
		return nil, nil
	}
	s.natives = s.natives[1:]
	return s.histograms.next(limits)
}

// histograms are native histograms in columns, read from front to back.
type histograms struct {
	m *producerv1.Histograms

	// How many of each column are read.
	read, integers, doubles, spans, deltas, counts, bounds int

	squares int64 // of their sizes
}

// check judges the columns that have something of each histogram.
func (h *histograms) check() *failure {
	n := len(h.m.GetSchemas())
	doubles := 0
	if len(h.m.GetFloats()) == n {
		for _, double := range h.m.GetFloats() {
			if double {
				doubles++
			}
		}
	}
	if len(h.m.GetFloats()) != n || len(h.m.GetCounterResets()) != n || len(h.m.GetSums()) != n || len(h.m.GetZeroThresholds()) != n ||
		len(h.m.GetCounts()) != 2*(n-doubles) || len(h.m.GetFloatCounts()) != 2*doubles ||
		len(h.m.GetSpanCounts()) != 2*n || len(h.m.GetCustomBoundCounts()) != n ||
		len(h.m.GetSpanOffsets()) != len(h.m.GetSpanLengths()) {
		return fail(schedule.ReasonMalformed, "the columns of native histograms do not fit each other")
	}
	return nil
}

// end checks that all has been read.
func (h *histograms) end() *failure {
	if h.spans != len(h.m.GetSpanLengths()) || h.deltas != len(h.m.GetBucketDeltas()) ||
		h.counts != len(h.m.GetBucketCounts()) || h.bounds != len(h.m.GetCustomBounds()) {
		return fail(schedule.ReasonMalformed, "there are more spans, buckets or bounds than native histograms have")
	}
	return nil
}

// next reads one histogram.
func (h *histograms) next(limits Limits) (*sample.Extra, *failure) {
	i := h.read
	h.read++
	positive, f := h.nextSpans(h.m.GetSpanCounts()[2*i], limits)
	if f != nil {
		return nil, f
	}
	negative, f := h.nextSpans(h.m.GetSpanCounts()[2*i+1], limits)
	if f != nil {
		return nil, f
	}
	bounds, ok := part(h.m.GetCustomBounds(), &h.bounds, uint64(h.m.GetCustomBoundCounts()[i]))
	if !ok {
		return nil, fail(schedule.ReasonMalformed, "a native histogram lacks bounds")
	}
	if n := len(positive) + len(negative) + len(bounds); n > limits.NativeBuckets {
		return nil, tooManyBuckets(uint64(n), limits)
	}
	size := int64(width(positive)+width(negative)) + int64(len(positive)+len(negative))
	if h.squares += size * size; h.squares > maxSquares {
		return nil, fail(schedule.ReasonTooLarge, "too many large native histograms")
	}
	var extra *sample.Extra
	var err error
	if h.m.GetFloats()[i] {
		extra, err = h.double(i, positive, negative, bounds)
	} else {
		extra, err = h.integer(i, positive, negative, bounds)
	}
	if err != nil {
		return nil, fail(schedule.ReasonMalformed, "a native histogram: %v", err)
	}
	return extra, nil
}

func tooManyBuckets(n uint64, limits Limits) *failure {
	return fail(schedule.ReasonTooLarge, "a native histogram of %d buckets or spans, at most %d are allowed", n, limits.NativeBuckets)
}

func (h *histograms) nextSpans(n uint32, limits Limits) ([]histogram.Span, *failure) {
	if uint64(n) > uint64(limits.NativeBuckets) {
		return nil, tooManyBuckets(uint64(n), limits)
	}
	at := h.spans
	lengths, ok := part(h.m.GetSpanLengths(), &h.spans, uint64(n))
	if !ok {
		return nil, fail(schedule.ReasonMalformed, "a native histogram lacks spans")
	}
	spans, total := make([]histogram.Span, n), uint64(0)
	for i, length := range lengths {
		spans[i] = histogram.Span{Offset: h.m.GetSpanOffsets()[at+i], Length: length}
		if total += uint64(length); total > uint64(limits.NativeBuckets) {
			return nil, tooManyBuckets(total, limits)
		}
	}
	return spans, nil
}

// part reads n elements of a column, a copy.
func part[T any](column []T, read *int, n uint64) ([]T, bool) {
	if n > uint64(len(column)-*read) {
		return nil, false
	}
	from := *read
	*read += int(n)
	return slices.Clone(column[from:*read]), true
}

var errBuckets = errors.New("it lacks buckets")

func (h *histograms) integer(i int, positive, negative []histogram.Span, bounds []float64) (*sample.Extra, error) {
	m := h.m
	count := m.GetCounts()[2*h.integers : 2*h.integers+2]
	h.integers++
	up, ok1 := part(m.GetBucketDeltas(), &h.deltas, width(positive))
	down, ok2 := part(m.GetBucketDeltas(), &h.deltas, width(negative))
	if !ok1 || !ok2 {
		return nil, errBuckets
	}
	out := &histogram.Histogram{
		CounterResetHint: resetOf(m.GetCounterResets()[i]), Schema: m.GetSchemas()[i],
		ZeroThreshold: m.GetZeroThresholds()[i], ZeroCount: count[1], Count: count[0], Sum: m.GetSums()[i],
		PositiveSpans: positive, NegativeSpans: negative, PositiveBuckets: up, NegativeBuckets: down,
		CustomValues: bounds,
	}
	out.Compact(0)
	return &sample.Extra{Histogram: out}, errors.Join(out.Validate(), checkSpans(out.PositiveSpans), checkSpans(out.NegativeSpans))
}

func (h *histograms) double(i int, positive, negative []histogram.Span, bounds []float64) (*sample.Extra, error) {
	m := h.m
	count := m.GetFloatCounts()[2*h.doubles : 2*h.doubles+2]
	h.doubles++
	up, ok1 := part(m.GetBucketCounts(), &h.counts, width(positive))
	down, ok2 := part(m.GetBucketCounts(), &h.counts, width(negative))
	if !ok1 || !ok2 {
		return nil, errBuckets
	}
	out := &histogram.FloatHistogram{
		CounterResetHint: resetOf(m.GetCounterResets()[i]), Schema: m.GetSchemas()[i],
		ZeroThreshold: m.GetZeroThresholds()[i], ZeroCount: count[1], Count: count[0], Sum: m.GetSums()[i],
		PositiveSpans: positive, NegativeSpans: negative, PositiveBuckets: up, NegativeBuckets: down,
		CustomValues: bounds,
	}
	out.Compact(0)
	return &sample.Extra{FloatHistogram: out}, errors.Join(out.Validate(), checkSpans(out.PositiveSpans), checkSpans(out.NegativeSpans))
}

// width is how many buckets spans have.
func width(spans []histogram.Span) (n uint64) {
	for _, s := range spans {
		n += uint64(s.Length)
	}
	return n
}

func resetOf(r producerv1.CounterReset) histogram.CounterResetHint {
	switch r {
	case producerv1.CounterReset_COUNTER_RESET_YES:
		return histogram.CounterReset
	case producerv1.CounterReset_COUNTER_RESET_NO:
		return histogram.NotCounterReset
	case producerv1.CounterReset_COUNTER_RESET_GAUGE:
		return histogram.GaugeType
	default:
		return histogram.UnknownCounterReset
	}
}
