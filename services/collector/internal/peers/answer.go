package peers

import (
	"errors"
	"fmt"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// Errors of an answer.
var (
	errSealed   = errors.New("a frame behind the end")
	errUnsealed = errors.New("the answer has no end")
	errDisorder = errors.New("the answer is not in order")
	errUnasked  = errors.New("the answer has what was not asked for")
)

// An answer is what one collector answers to a question: frames in, checked
// series out. It is worth something when it is sealed, and nothing before.
type answer struct {
	question *question
	from     assignment.CollectorID

	// take is asked before memory is taken.
	take func(bytes int64) error

	series    []oneSeries
	values    []string
	exemplars []exemplar.QueryResult
	warnings  []string
	sealed    bool

	chunks, exemplarCount int64
	builder               labels.ScratchBuilder
}

// oneSeries is a series with its chunks, in order.
type oneSeries struct {
	labels labels.Labels
	chunks []chunks.Meta
}

// add takes the next frame. After an error the answer is worth nothing.
func (a *answer) add(m *collectorv1.SelectResponse) error {
	if a.sealed {
		return errSealed
	}
	if err := a.take(frameOverhead); err != nil {
		return err
	}
	kind := a.question.kind
	switch frame := m.GetFrame().(type) {
	case *collectorv1.SelectResponse_Series:
		if kind != collectorv1.SelectKind_SELECT_KIND_SAMPLES && kind != collectorv1.SelectKind_SELECT_KIND_SERIES {
			return errUnasked
		}
		return a.addSeries(frame.Series)
	case *collectorv1.SelectResponse_Strings:
		if kind != collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES && kind != collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES {
			return errUnasked
		}
		return a.addStrings(frame.Strings.GetValues())
	case *collectorv1.SelectResponse_Exemplars:
		if kind != collectorv1.SelectKind_SELECT_KIND_EXEMPLARS {
			return errUnasked
		}
		return a.addExemplars(frame.Exemplars.GetSeries())
	case *collectorv1.SelectResponse_End:
		return a.seal(frame.End)
	default:
		return errors.New("a frame of an unknown kind")
	}
}

func (a *answer) addSeries(frame *collectorv1.SelectedSeriesFrame) error {
	size := int64(0)
	for _, s := range frame.GetSymbols() { // Also those that nobody refers to.
		size += int64(stringOverhead + len(s))
	}
	if err := a.take(size); err != nil {
		return err
	}
	for i, m := range frame.GetSeries() {
		lset, err := a.labelsOf(frame.GetSymbols(), m.GetLabelRefs())
		if err != nil {
			return err
		}
		if err := a.begin(lset, i == 0); err != nil {
			return err
		}
		if err := a.addChunks(&a.series[len(a.series)-1], m.GetChunks()); err != nil {
			return err
		}
	}
	return nil
}

// begin begins the next series, or goes on with the last one where a frame
// begins.
func (a *answer) begin(lset labels.Labels, frameBegins bool) error {
	if n := len(a.series); n > 0 {
		last := &a.series[n-1]
		order := labels.Compare(last.labels, lset)
		switch {
		case order == 0 && frameBegins && a.question.kind == collectorv1.SelectKind_SELECT_KIND_SAMPLES:
			return nil
		case order >= 0:
			return errDisorder
		}
		if err := a.complete(last); err != nil {
			return err
		}
	}
	if !a.question.matches(lset) || a.question.limit > 0 && len(a.series) >= a.question.limit {
		return errUnasked
	}
	a.series = append(a.series, oneSeries{labels: lset})
	return nil
}

// complete checks that a series has what it must have.
func (a *answer) complete(s *oneSeries) error {
	if len(s.chunks) == 0 && a.question.kind == collectorv1.SelectKind_SELECT_KIND_SAMPLES {
		return errors.New("a series without samples")
	}
	return nil
}

// labelsOf looks up labels. A symbol counts as often as it is referred to.
func (a *answer) labelsOf(symbols []string, refs []uint32) (labels.Labels, error) {
	size := int64(seriesOverhead)
	for _, ref := range refs {
		if int64(ref) >= int64(len(symbols)) {
			return labels.EmptyLabels(), errors.New("a label refers to nothing")
		}
		size += int64(len(symbols[ref]))
	}
	if len(refs) == 0 || len(refs)%2 != 0 {
		return labels.EmptyLabels(), errors.New("a series without labels, or a label without a value")
	}
	if err := a.take(size); err != nil {
		return labels.EmptyLabels(), err
	}
	a.builder.Reset()
	last := ""
	for i := 0; i < len(refs); i += 2 {
		name, value := symbols[refs[i]], symbols[refs[i+1]]
		if err := checkLabel(last, name, value); err != nil {
			return labels.EmptyLabels(), err
		}
		last = name
		a.builder.Add(name, value)
	}
	return a.builder.Labels(), nil
}

// checkLabel checks a label that comes after another one.
func checkLabel(last, name, value string) error {
	switch {
	case name == "" || value == "":
		return errors.New("an empty label")
	case name <= last:
		return errors.New("labels are not in order")
	}
	return nil
}

func (a *answer) addChunks(s *oneSeries, all []*collectorv1.SelectedChunk) error {
	if len(all) > 0 && a.question.kind != collectorv1.SelectKind_SELECT_KIND_SAMPLES {
		return errUnasked
	}
	for _, m := range all {
		if err := a.take(int64(chunkOverhead + len(m.GetData()))); err != nil {
			return err
		}
		meta, err := parseChunk(m)
		if err != nil {
			return err
		}
		if n := len(s.chunks); n > 0 && meta.MinTime <= s.chunks[n-1].MaxTime {
			return errDisorder
		}
		if meta.MinTime < a.question.start || meta.MaxTime > a.question.end {
			return errUnasked
		}
		s.chunks = append(s.chunks, meta)
		a.chunks++
	}
	return nil
}

func (a *answer) addStrings(values []string) error {
	for _, v := range values {
		if err := a.take(int64(stringOverhead + len(v))); err != nil {
			return err
		}
		if n := len(a.values); v == "" || n > 0 && v <= a.values[n-1] {
			return errDisorder
		}
		if a.question.limit > 0 && len(a.values) >= a.question.limit {
			return errUnasked
		}
		a.values = append(a.values, v)
	}
	return nil
}

func (a *answer) addExemplars(all []*collectorv1.SelectedExemplars) error {
	for _, m := range all {
		lset, err := a.decodeLabels(m.GetSeriesLabels(), false)
		if err != nil {
			return err
		}
		if lset.IsEmpty() || len(m.GetExemplars()) == 0 || !a.question.matches(lset) {
			return errUnasked
		}
		r := exemplar.QueryResult{SeriesLabels: lset}
		for _, one := range m.GetExemplars() {
			own, err := a.decodeLabels(one.GetLabels(), true)
			if err != nil {
				return err
			}
			if one.GetTimeMs() < a.question.start || one.GetTimeMs() > a.question.end {
				return errUnasked
			}
			r.Exemplars = append(r.Exemplars, exemplar.Exemplar{Labels: own, Value: one.GetValue(), Ts: one.GetTimeMs(), HasTs: true})
			a.exemplarCount++
		}
		a.exemplars = append(a.exemplars, r)
	}
	return nil
}

// decodeLabels reads the labels of a series, or of an exemplar: there a value may
// be empty.
func (a *answer) decodeLabels(pairs []*registryv1.Label, exemplars bool) (labels.Labels, error) {
	size := int64(exemplarOverhead)
	a.builder.Reset()
	last := ""
	for _, p := range pairs {
		value := p.GetValue()
		if exemplars && value == "" {
			value = "none"
		}
		if err := checkLabel(last, p.GetName(), value); err != nil {
			return labels.EmptyLabels(), err
		}
		last = p.GetName()
		size += int64(stringOverhead + len(p.GetName()) + len(p.GetValue()))
		a.builder.Add(p.GetName(), p.GetValue())
	}
	if err := a.take(size); err != nil {
		return labels.EmptyLabels(), err
	}
	return a.builder.Labels(), nil
}

// seal checks the end against what came before.
func (a *answer) seal(end *collectorv1.SelectEnd) error {
	if n := len(a.series); n > 0 {
		if err := a.complete(&a.series[n-1]); err != nil {
			return err
		}
	}
	series := int64(len(a.series) + len(a.exemplars))
	switch {
	case end.GetCollectorId() != string(a.from):
		return fmt.Errorf("collector %.128q answers", end.GetCollectorId())
	case end.GetSeriesCount() != series, end.GetChunkCount() != a.chunks,
		end.GetValueCount() != int64(len(a.values)), end.GetExemplarCount() != a.exemplarCount:
		return errors.New("the answer's counts are not those of its end")
	case len(end.GetWarnings()) > maxWarnings:
		return errors.New("too many warnings")
	}
	for _, w := range end.GetWarnings() {
		a.warnings = append(a.warnings, clip(w))
	}
	a.sealed = true
	return nil
}
