package scrape

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// newSeries makes a spelling known that the cache does not know.
func (r *reading) newSeries(raw []byte) (*track, *failure) {
	if err := r.parseLabels(); err != nil {
		return nil, fail(schedule.ReasonMalformed, "%v", err)
	}
	return r.newTrack(raw)
}

// newTrack is newSeries for the labels in exposed.
func (r *reading) newTrack(raw []byte) (*track, *failure) {
	limits := r.target.limits
	// Empty ones count here: dropping many of them takes very long.
	if n := r.exposed.Len(); n > limits.Labels {
		return nil, fail(schedule.ReasonTooLarge, "a series of %d labels, at most %d are allowed: %s", n, limits.Labels, shown(raw))
	}
	if name, twice := r.exposed.HasDuplicateLabelNames(); twice {
		return nil, fail(schedule.ReasonMalformed, "label %.50q occurs twice in %s", name, shown(raw))
	}
	r.target.merge(r.builder, r.exposed)
	set, f := r.limited(raw)
	if f == nil && len(r.target.series) > 0 {
		if !relabel.ProcessBuilder(r.builder, r.target.series...) {
			return r.cache.drop(raw, r.scratch), nil
		}
		if set, f = r.limited(raw); set.IsEmpty() {
			return r.cache.drop(raw, r.scratch), nil
		}
	}
	if f != nil {
		return nil, f
	}
	if !set.Has(model.MetricNameLabel) || !set.IsValid(model.UTF8Validation) {
		return nil, fail(schedule.ReasonMalformed, "a bad name of a metric or label: %s", shown(raw))
	}
	tr, added := r.cache.add(raw, set, r.target, r.reserved, r.scratch)
	if added {
		r.added++
		if r.covered(tr) {
			tr.series.Meta = r.family.meta
		}
	}
	return tr, nil
}

// limited are the labels that a new series has so far, within the limits: those
// that relabeling sees, and those that are stored.
func (r *reading) limited(raw []byte) (labels.Labels, *failure) {
	set, limits := r.builder.Labels(), r.target.limits
	if n := set.Len(); n > limits.Labels {
		return set, fail(schedule.ReasonTooLarge, "a series of %d labels with the producer's own, at most %d are allowed: %s", n, limits.Labels, shown(raw))
	}
	if err := checkSizes(set, limits); err != nil {
		return set, fail(schedule.ReasonTooLarge, "%v", err)
	}
	return set, nil
}

// covered reports whether a series belongs to the family of the last line of
// metadata.
func (r *reading) covered(tr *track) bool {
	if r.family == nil {
		return false
	}
	return r.family.covers(tr.series.Get(model.MetricNameLabel))
}

// parseLabels is the parser's Labels, into exposed.
func (r *reading) parseLabels() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	r.parser.Labels(&r.exposed)
	return nil
}

// describe gives a known series its metadata. A series is immutable once it was
// handed out: with other metadata it is another one.
func (r *reading) describe(tr *track) {
	if r.family == nil || tr.series.Meta == r.family.meta || !r.covered(tr) {
		return
	}
	tr.series = &sample.Series{Own: tr.series.Own, Common: tr.series.Common, Meta: r.family.meta}
}

// shown is a spelling for people: the protobuf parser separates by a byte that
// no text has.
func shown(raw []byte) string {
	return strings.ReplaceAll(string(raw[:min(len(raw), 100)]), "\xff", " ")
}
