package scrape

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// A layout is what a producer has said of its series, once for many answers. It
// is immutable.
type layout struct {
	id       []byte
	tracks   []*track // of the series, by number
	families []*family

	// starts are when the series began to count, in ms since the Unix epoch, 0
	// where that is not told; nil when it is of none.
	starts []int64

	// natives are the numbers of the series with native histograms.
	natives []uint32
}

// start is when a series of the layout began to count that has a sample at that
// time.
func (l *layout) start(i int, at int64) int64 {
	if l.starts == nil {
		return 0
	}
	return startOf(l.starts[i], at)
}

// layoutOf is the layout of an answer: the one that it brings, or that of the
// answers before.
func (r *reading) layoutOf(id []byte, m *producerv1.CollectResponse) (*layout, *failure) {
	if m.GetLayout() != nil {
		return r.newLayout(id, m.GetLayout())
	}
	l := r.cache.layout
	if l == nil || !bytes.Equal(l.id, id) {
		return nil, fail(schedule.ReasonMalformed, "samples of a layout that was not sent")
	}
	for _, fam := range l.families {
		r.families.touch(fam, r.cache.pass)
	}
	if len(l.tracks) > 0 {
		// All spellings that are known are of this layout.
		r.cache.hits = len(r.cache.spellings)
	}
	return l, nil
}

// newLayout takes the layout that an answer has brought.
func (r *reading) newLayout(id []byte, m *producerv1.Layout) (*layout, *failure) {
	if f := r.checkLayout(m); f != nil {
		return nil, f
	}
	l := &layout{
		id:       bytes.Clone(id),
		tracks:   make([]*track, len(m.GetSeriesNames())),
		families: make([]*family, len(m.GetFamilyNames())),
		natives:  append([]uint32(nil), m.GetHistogramSeries()...),
		starts:   append([]int64(nil), m.GetSeriesStartTimesMs()...),
	}
	for i := range l.families {
		if f := r.newFamily(l, m, i); f != nil {
			return nil, f
		}
	}
	symbols := m.GetLabelSymbols()
	var spelling []byte
	for i := range l.tracks {
		n := 2 * m.GetSeriesLabelCounts()[i]
		mine := symbols[:n]
		symbols = symbols[n:]
		spelling = spell(spelling[:0], m, i, mine)
		// A byte of an answer can stand for a string of thousands.
		if r.spelled += int64(len(spelling)); r.spelled > r.target.limits.BodyBytes {
			return nil, fail(schedule.ReasonTooLarge, "series of more than %d bytes", r.target.limits.BodyBytes)
		}
		r.family = l.families[m.GetSeriesFamilies()[i]]
		tr := r.cache.find(spelling, r.scratch)
		if tr == nil {
			r.expose(m, i, mine)
			var f *failure
			if tr, f = r.newTrack(spelling); f != nil {
				return nil, f
			}
		}
		if tr != dropped {
			r.describe(tr)
		}
		l.tracks[i] = tr
	}
	r.layout = l
	return l, nil
}

// checkLayout judges the columns of a layout: afterwards all references and
// numbers are within bounds.
func (r *reading) checkLayout(m *producerv1.Layout) *failure {
	families, series, symbols := len(m.GetFamilyNames()), len(m.GetSeriesNames()), uint32(len(m.GetSymbols()))
	if len(m.GetFamilyTypes()) != families || len(m.GetFamilyHelps()) != families || len(m.GetFamilyUnits()) != families ||
		len(m.GetSeriesFamilies()) != series || len(m.GetSeriesLabelCounts()) != series {
		return fail(schedule.ReasonMalformed, "the columns of the layout are not of one length")
	}
	if n := len(m.GetSeriesStartTimesMs()); n != 0 && n != series {
		return fail(schedule.ReasonMalformed, "%d start times of %d series", n, series)
	}
	limits, total := r.target.limits, 0
	if families > limits.Samples {
		return fail(schedule.ReasonTooManySamples, "more than %d metric families", limits.Samples)
	}
	for _, n := range m.GetSeriesLabelCounts() {
		// With its name.
		if int64(n)+1 > int64(limits.Labels) {
			return fail(schedule.ReasonTooLarge, "a series of %d labels, at most %d are allowed", int64(n)+1, limits.Labels)
		}
		total += int(n)
	}
	if len(m.GetLabelSymbols()) != 2*total {
		return fail(schedule.ReasonMalformed, "%d symbols of %d labels", len(m.GetLabelSymbols()), total)
	}
	if slices.Contains(m.GetSymbols(), "") {
		return fail(schedule.ReasonMalformed, "an empty symbol")
	}
	for _, column := range [][]uint32{m.GetFamilyNames(), m.GetFamilyHelps(), m.GetFamilyUnits(), m.GetSeriesNames(), m.GetLabelSymbols()} {
		for _, n := range column {
			if n > symbols {
				return fail(schedule.ReasonMalformed, "symbol %d of %d", n, symbols)
			}
		}
	}
	last := uint32(0)
	for _, n := range m.GetSeriesFamilies() {
		if n < last || n >= uint32(families) {
			return fail(schedule.ReasonMalformed, "family %d behind %d, of %d", n, last, families)
		}
		last = n
	}
	return checkNumbers("histograms", m.GetHistogramSeries(), series, false)
}

// checkNumbers judges numbers of series: in ascending order, and below series.
func checkNumbers(of string, numbers []uint32, series int, repeated bool) *failure {
	last := int64(-1)
	for _, n := range numbers {
		if int64(n) >= int64(series) || int64(n) < last || int64(n) == last && !repeated {
			return fail(schedule.ReasonMalformed, "%s: series %d behind %d, of %d", of, n, last, series)
		}
		last = int64(n)
	}
	return nil
}

// newFamily takes the i-th metric family of a layout.
func (r *reading) newFamily(l *layout, m *producerv1.Layout, i int) *failure {
	name, help, unit := symbol(m, m.GetFamilyNames()[i]), symbol(m, m.GetFamilyHelps()[i]), symbol(m, m.GetFamilyUnits()[i])
	for _, text := range []string{help, unit} {
		if f := r.checkFamily([]byte(name), []byte(text)); f != nil {
			return f
		}
	}
	pass := r.cache.pass
	switch fam := r.families.byName[name]; {
	case name == "":
		return fail(schedule.ReasonMalformed, "a metric family without a name")
	case fam != nil && fam.seen == pass:
		return fail(schedule.ReasonMalformed, "the metric family %.50s comes twice", name)
	}
	if r.spelled += int64(len(name) + len(help) + len(unit)); r.spelled > r.target.limits.BodyBytes {
		return fail(schedule.ReasonTooLarge, "metric families of more than %d bytes", r.target.limits.BodyBytes)
	}
	l.families[i] = r.families.setType([]byte(name), typeOf(m.GetFamilyTypes()[i]), pass)
	r.families.setHelp([]byte(name), []byte(help), pass)
	r.families.setUnit([]byte(name), []byte(unit), pass)
	return r.checkFamily([]byte(name), nil)
}

func typeOf(t producerv1.MetricType) model.MetricType {
	switch t {
	case producerv1.MetricType_METRIC_TYPE_COUNTER:
		return model.MetricTypeCounter
	case producerv1.MetricType_METRIC_TYPE_GAUGE:
		return model.MetricTypeGauge
	case producerv1.MetricType_METRIC_TYPE_HISTOGRAM:
		return model.MetricTypeHistogram
	case producerv1.MetricType_METRIC_TYPE_GAUGE_HISTOGRAM:
		return model.MetricTypeGaugeHistogram
	case producerv1.MetricType_METRIC_TYPE_SUMMARY:
		return model.MetricTypeSummary
	default:
		return model.MetricTypeUnknown
	}
}

// symbol is the string that a number refers to.
func symbol(m *producerv1.Layout, n uint32) string {
	if n == 0 {
		return ""
	}
	return m.GetSymbols()[n-1]
}

// spell appends the i-th series of a layout in a spelling of its own: each string
// behind its length, and the type of its family, by which its labels are read.
func spell(b []byte, m *producerv1.Layout, i int, symbols []uint32) []byte {
	b = append(b, byte(m.GetFamilyTypes()[m.GetSeriesFamilies()[i]]))
	b = spellString(b, symbol(m, m.GetSeriesNames()[i]))
	for _, n := range symbols {
		b = spellString(b, symbol(m, n))
	}
	return b
}

func spellString(b []byte, s string) []byte {
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

// expose puts the labels of the i-th series of a layout into exposed.
func (r *reading) expose(m *producerv1.Layout, i int, symbols []uint32) {
	typ := m.GetFamilyTypes()[m.GetSeriesFamilies()[i]]
	set := labels.NewScratchBuilder(1 + len(symbols)/2)
	set.Add(model.MetricNameLabel, symbol(m, m.GetSeriesNames()[i]))
	for n := 0; n < len(symbols); n += 2 {
		name, v := symbol(m, symbols[n]), symbol(m, symbols[n+1])
		set.Add(name, normal(typ, name, v))
	}
	set.Sort()
	r.exposed = set.Labels()
}

// normal is the value of a label; numbers in the labels of buckets and quantiles
// are written in one way, as the parsers of the other formats do.
func normal(typ producerv1.MetricType, name, v string) string {
	switch {
	case typ == producerv1.MetricType_METRIC_TYPE_HISTOGRAM && name == model.BucketLabel:
	case typ == producerv1.MetricType_METRIC_TYPE_SUMMARY && name == model.QuantileLabel:
	default:
		return v
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return v
	}
	return labels.FormatOpenMetricsFloat(f)
}
