package peers

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

// question is what a selector of the query asks.
func (q *inquiry) question(kind collectorv1.SelectKind, hints *storage.SelectHints, matchers []*labels.Matcher) *question {
	one := &question{kind: kind, start: q.start, end: q.end}
	if len(matchers) > 0 {
		one.selectors = [][]*labels.Matcher{slices.Clone(matchers)}
	}
	if hints != nil {
		one.start, one.end, one.limit = hints.Start, hints.End, hints.Limit
	}
	return one
}

// LabelValues lists the values of a label.
func (q *inquiry) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	one := q.question(collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES, nil, matchers)
	one.label = name
	return q.strings(ctx, one, hints)
}

// LabelNames lists the names of labels.
func (q *inquiry) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.strings(ctx, q.question(collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES, nil, matchers), hints)
}

func (q *inquiry) strings(ctx context.Context, one *question, hints *storage.LabelHints) ([]string, annotations.Annotations, error) {
	if hints != nil {
		one.limit = hints.Limit
	}
	p := q.ask(ctx, one)
	if p == nil {
		return nil, nil, nil
	}
	answers, warnings, err := q.settle(p)
	if err != nil {
		return nil, nil, err
	}
	var all []string
	for _, a := range answers {
		all = append(all, a.values...)
	}
	slices.Sort(all)
	return slices.Compact(all), warnings, nil
}

// A chunkQuerier asks the others for encoded chunks.
type chunkQuerier struct{ *inquiry }

// Select begins to ask at once; the set waits for the answers.
func (q *chunkQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.ChunkSeriesSet {
	p := q.ask(ctx, q.question(collectorv1.SelectKind_SELECT_KIND_SAMPLES, hints, matchers))
	if p == nil {
		return storage.EmptyChunkSeriesSet()
	}
	return &chunkSet{pending: pending{inquiry: q.inquiry, poll: p}, ChunkSeriesSet: storage.EmptyChunkSeriesSet()}
}

// A sampleQuerier asks the others for samples.
type sampleQuerier struct{ *inquiry }

// Select begins to ask at once; the set waits for the answers.
func (q *sampleQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	kind := collectorv1.SelectKind_SELECT_KIND_SAMPLES
	if hints != nil && hints.Func == "series" { // As the store takes it, too.
		kind = collectorv1.SelectKind_SELECT_KIND_SERIES
	}
	p := q.ask(ctx, q.question(kind, hints, matchers))
	if p == nil {
		return storage.EmptySeriesSet()
	}
	return &sampleSet{pending: pending{inquiry: q.inquiry, poll: p}, SeriesSet: storage.EmptySeriesSet()}
}

// pending is a set whose answers are not there yet.
type pending struct {
	inquiry  *inquiry
	poll     *poll
	settled  bool
	warnings annotations.Annotations
	err      error
}

// settle waits for the answers, once. It tells whether there are any now.
func (p *pending) settle() []*answer {
	if p.settled {
		return nil
	}
	p.settled = true
	var answers []*answer
	answers, p.warnings, p.err = p.inquiry.settle(p.poll)
	return answers
}

// A chunkSet is the series of all others, in encoded chunks.
type chunkSet struct {
	storage.ChunkSeriesSet // Of the answers, once they are there.
	pending
}

// Next goes to the next series, and waits for the answers first.
func (s *chunkSet) Next() bool {
	if answers := s.settle(); len(answers) > 0 {
		s.ChunkSeriesSet = merged(answers)
	}
	return s.ChunkSeriesSet.Next()
}

// Err is the error of a query of which nothing may be missing.
func (s *chunkSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.ChunkSeriesSet.Err()
}

// Warnings tells what is missing.
func (s *chunkSet) Warnings() annotations.Annotations { return s.warnings }

// merged merges the series of answers. They are read through, so reading them
// again does not fail.
func merged(answers []*answer) storage.ChunkSeriesSet {
	sets := make([]storage.ChunkSeriesSet, len(answers))
	for i, a := range answers {
		sets[i] = &answerSet{series: a.series}
	}
	return storage.NewMergeChunkSeriesSet(sets, 0, mergeChunks())
}

// A sampleSet is the series of all others.
type sampleSet struct {
	storage.SeriesSet // Of the answers, once they are there.
	pending
}

// Next goes to the next series, and waits for the answers first.
func (s *sampleSet) Next() bool {
	if answers := s.settle(); len(answers) > 0 {
		if s.poll.question.kind == collectorv1.SelectKind_SELECT_KIND_SERIES {
			s.SeriesSet = mergedLabels(answers)
		} else {
			s.SeriesSet = storage.NewSeriesSetFromChunkSeriesSet(merged(answers))
		}
	}
	return s.SeriesSet.Next()
}

// Err is the error of a query of which nothing may be missing.
func (s *sampleSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.SeriesSet.Err()
}

// Warnings tells what is missing.
func (s *sampleSet) Warnings() annotations.Annotations { return s.warnings }

// mergedLabels are series without samples.
func mergedLabels(answers []*answer) storage.SeriesSet {
	sets := make([]storage.SeriesSet, len(answers))
	for i, a := range answers {
		sets[i] = &labelSet{answerSet{series: a.series}}
	}
	return storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
}

// An answerSet is the series of one answer.
type answerSet struct {
	series []oneSeries
	at     int // one beyond
}

// Next goes to the next series.
func (s *answerSet) Next() bool {
	s.at++
	return s.at <= len(s.series)
}

// At is the series.
func (s *answerSet) At() storage.ChunkSeries {
	one := &s.series[s.at-1]
	return &storage.ChunkSeriesEntry{
		Lset: one.labels,
		ChunkIteratorFn: func(chunks.Iterator) chunks.Iterator {
			return storage.NewListChunkSeriesIterator(one.chunks...)
		},
	}
}

// Err is nil: the answer is sealed.
func (*answerSet) Err() error { return nil }

// Warnings are those of the whole poll.
func (*answerSet) Warnings() annotations.Annotations { return nil }

// A labelSet is an answerSet of series without samples.
type labelSet struct{ answerSet }

// At is the series.
func (s *labelSet) At() storage.Series {
	return &storage.SeriesEntry{
		Lset:             s.series[s.at-1].labels,
		SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator { return chunkenc.NewNopIterator() },
	}
}
