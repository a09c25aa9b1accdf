package scrape

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// maxAhead is how far ahead of now a time stamp of a producer may be.
const maxAhead = 10 * time.Minute

// maxHelp bounds the HELP of one family, in bytes.
const maxHelp = 16 << 10

// A scratch is what one collection needs while it runs.
type scratch struct {
	texts   *texts // the scraper's
	batch   sample.Batch
	fresh   []fresh
	index   map[labels.Labels]*track
	indexed bool

	builder  *labels.Builder
	exposed  labels.Labels
	exemplar exemplar.Exemplar

	// Counts of the running pass.
	samples, added, duplicates, ahead, badExemplars int
}

func newScratch(t *texts) *scratch {
	return &scratch{texts: t, index: map[labels.Labels]*track{}, builder: labels.NewBuilder(labels.EmptyLabels())}
}

// reset drops all that a collection has left, and what it points to.
func (sc *scratch) reset() {
	clear(sc.batch.Samples)
	clear(sc.fresh)
	if sc.indexed {
		clear(sc.index)
	}
	sc.builder.Reset(labels.EmptyLabels())
	*sc = scratch{
		texts:   sc.texts,
		batch:   sample.Batch{Samples: sc.batch.Samples[:0]},
		fresh:   sc.fresh[:0],
		index:   sc.index,
		builder: sc.builder,
	}
}

// A reading is one pass over one exposition.
type reading struct {
	*scratch
	target   *target
	cache    *cache
	families *families
	reserved []*track
	parser   textparse.Parser
	family   *family // of the last line of metadata
	at       int64   // ms
	latest   int64   // ms; time stamps may not be later
}

// formatOf is the format that a Content-Type tells; false when it tells none
// that is read here.
func formatOf(contentType string) (assignment.Format, bool) {
	media, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return assignment.FormatUnspecified, false
	case media == "text/plain":
		return assignment.FormatPrometheusText, true
	case media == "application/openmetrics-text" && params["version"] != "2.0.0":
		return assignment.FormatOpenMetrics, true
	default:
		return assignment.FormatUnspecified, false
	}
}

// newParser makes the parser for a format. The body needs one byte of spare
// capacity, or it is copied.
func newParser(b []byte, format assignment.Format) textparse.Parser {
	if format == assignment.FormatOpenMetrics {
		return textparse.NewOpenMetricsParser(b, labels.NewSymbolTable())
	}
	return textparse.NewPromParser(b, labels.NewSymbolTable(), false)
}

// read parses an exposition into the batch. After a failure, the caller
// rejects the pass.
func (r *reading) read(b []byte, format assignment.Format) *failure {
	if len(b) == 0 {
		return nil // Nothing to tell, in any format.
	}
	// The text parser takes this byte for the end, and what follows is lost.
	if bytes.IndexByte(b, 0) >= 0 {
		return fail(schedule.ReasonMalformed, "a zero byte")
	}
	if lineOver(b, r.target.limits.LineBytes) {
		return fail(schedule.ReasonTooLarge, "a line of more than %d bytes", r.target.limits.LineBytes)
	}
	r.parser = newParser(b, format)
	for {
		entry, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fail(schedule.ReasonMalformed, "%v", err)
		}
		if f := r.entry(entry); f != nil {
			return f
		}
	}
}

// next is the parser's Next. Its lexer is made by a generator, its input by
// anybody: a panic is one more kind of malformed.
func (r *reading) next() (entry textparse.Entry, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the parser failed: %v", p)
		}
	}()
	return r.parser.Next()
}

func (r *reading) entry(entry textparse.Entry) *failure {
	switch entry {
	case textparse.EntrySeries:
		return r.sample()
	case textparse.EntryType:
		name, typ := r.parser.Type()
		r.family = r.families.setType(name, typ, r.cache.pass)
		return r.checkFamily(name, nil)
	case textparse.EntryHelp:
		name, help := r.parser.Help()
		if f := r.checkFamily(name, help); f != nil {
			return f
		}
		r.family = r.families.setHelp(name, help, r.cache.pass)
		return r.checkFamily(name, nil)
	case textparse.EntryUnit:
		name, unit := r.parser.Unit()
		r.family = r.families.setUnit(name, unit, r.cache.pass)
		return r.checkFamily(name, nil)
	case textparse.EntryComment:
		return nil
	default:
		return fail(schedule.ReasonMalformed, "an entry of an unknown kind")
	}
}

func (r *reading) checkFamily(name, help []byte) *failure {
	if limit := r.target.limits.LabelValueBytes; len(name) > limit {
		return fail(schedule.ReasonTooLarge, "a metric name of %d bytes, at most %d are allowed", len(name), limit)
	}
	if len(help) > maxHelp {
		return fail(schedule.ReasonTooLarge, "the help of %.50s has %d bytes, at most %d are allowed", name, len(help), maxHelp)
	}
	if limit := r.target.limits.Samples; r.families.seen > limit {
		return fail(schedule.ReasonTooManySamples, "more than %d metric families", limit)
	}
	return nil
}

// sample takes one sample.
func (r *reading) sample() *failure {
	if r.samples++; r.samples > r.target.limits.Samples {
		return fail(schedule.ReasonTooManySamples, "more than %d samples", r.target.limits.Samples)
	}
	raw, stamp, v := r.parser.Series()
	if r.target.assignment.IgnoreTimestamps {
		stamp = nil
	}
	tr := r.cache.find(raw)
	if tr == nil {
		var f *failure
		if tr, f = r.newSeries(raw); f != nil {
			return f
		}
	}
	at := r.at
	if stamp != nil {
		at = *stamp
	}
	again := tr.seen == r.cache.pass
	if tr.reserved || again && (stamp == nil || at == tr.last) {
		r.duplicates++
		return nil
	}
	tr.seen, tr.last = r.cache.pass, at
	tr.plain = stamp == nil || again && tr.plain
	if at > r.latest {
		r.ahead++
		return nil
	}
	r.describe(tr)
	s := sample.Sample{Series: tr.series, Time: at, Value: v}
	f := r.takeExemplar(&s)
	r.batch.Samples = append(r.batch.Samples, s)
	return f
}

// newSeries makes a spelling known that the cache does not know.
func (r *reading) newSeries(raw []byte) (*track, *failure) {
	if err := r.parseLabels(); err != nil {
		return nil, fail(schedule.ReasonMalformed, "%v", err)
	}
	limits := r.target.limits
	// Empty ones count here: dropping many of them takes very long.
	if n := r.exposed.Len(); n > limits.Labels {
		return nil, fail(schedule.ReasonTooLarge, "a series of %d labels, at most %d are allowed: %.100s", n, limits.Labels, raw)
	}
	if name, twice := r.exposed.HasDuplicateLabelNames(); twice {
		return nil, fail(schedule.ReasonMalformed, "label %.50q occurs twice in %.100s", name, raw)
	}
	set := r.target.merge(r.builder, r.exposed)
	if n := set.Len(); n > limits.Labels {
		return nil, fail(schedule.ReasonTooLarge, "a series of %d labels with the producer's own, at most %d are allowed: %.100s", n, limits.Labels, raw)
	}
	if err := checkSizes(set, limits); err != nil {
		return nil, fail(schedule.ReasonTooLarge, "%v", err)
	}
	if !set.Has(model.MetricNameLabel) || !set.IsValid(model.UTF8Validation) {
		return nil, fail(schedule.ReasonMalformed, "a bad name of a metric or label: %.100s", raw)
	}
	tr, added := r.cache.add(raw, set, r.reserved, r.scratch)
	if added {
		r.added++
		if r.covered(tr) {
			tr.series.Meta = r.family.meta
		}
	}
	return tr, nil
}

// covered reports whether a series belongs to the family of the last line of
// metadata.
func (r *reading) covered(tr *track) bool {
	if r.family == nil {
		return false
	}
	return r.family.covers(tr.series.Labels.Get(model.MetricNameLabel))
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
	tr.series = &sample.Series{Labels: tr.series.Labels, Hash: tr.series.Hash, Meta: r.family.meta}
}

// takeExemplar takes the sample's exemplar, if there is one that can be stored.
func (r *reading) takeExemplar(s *sample.Sample) *failure {
	found, err := r.parseExemplar()
	if err != nil {
		return fail(schedule.ReasonMalformed, "%v", err)
	}
	if !found {
		return nil
	}
	e := r.exemplar
	if !e.HasTs {
		e.Ts = s.Time
	}
	if e.Ts > r.latest || !validExemplar(e.Labels) {
		r.badExemplars++
		return nil
	}
	s.Extra = &sample.Extra{Exemplars: []exemplar.Exemplar{e}}
	return nil
}

// parseExemplar is the parser's Exemplar, into exemplar.
func (r *reading) parseExemplar() (found bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			found, err = false, fmt.Errorf("the parser failed: %v", p)
		}
	}()
	r.exemplar = exemplar.Exemplar{}
	return r.parser.Exemplar(&r.exemplar), nil
}

// validExemplar checks an exemplar's labels: names and values in UTF-8, no
// name twice, and no more characters in all than OpenMetrics allows.
func validExemplar(set labels.Labels) bool {
	if _, twice := set.HasDuplicateLabelNames(); twice || !set.IsValid(model.UTF8Validation) {
		return false
	}
	runes := 0
	set.Range(func(l labels.Label) {
		runes += utf8.RuneCountInString(l.Name) + utf8.RuneCountInString(l.Value)
	})
	return runes <= exemplar.ExemplarMaxLabelSetLength
}
