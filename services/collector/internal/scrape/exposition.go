package scrape

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"time"

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

// A reading is one pass over one exposition.
type reading struct {
	*scratch
	target   *target
	cache    *cache
	families *families
	reserved []*track
	parser   textparse.Parser
	budget   *budget
	family   *family // of the last line of metadata
	at       int64   // ms
	latest   int64   // ms; time stamps may not be later
	spelled  int64   // bytes of all series as they are spelled

	// starts says that the parser tells start times for nothing. That of
	// OpenMetrics would read on for each, to find a _created line, which is a
	// series here.
	starts bool

	// Of a protobuf exposition: what was found before, and how many native
	// histograms the parser has given.
	scale   scale
	natives int
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
	case media == "application/vnd.google.protobuf" &&
		either(params["proto"], "io.prometheus.client.MetricFamily") && either(params["encoding"], "delimited"):
		return assignment.FormatProtobuf, true
	default:
		return assignment.FormatUnspecified, false
	}
}

// either reports whether a parameter is the one that is read here, or not told.
func either(param, want string) bool { return param == "" || param == want }

// newParser makes the parser for a format. A text needs one byte of spare
// capacity, or it is copied.
//
// Of a histogram that is both, the classic half is left out, and _created lines
// of OpenMetrics are series like others: Prometheus does both by default.
func newParser(b []byte, format assignment.Format) textparse.Parser {
	switch format {
	case assignment.FormatOpenMetrics:
		return textparse.NewOpenMetricsParser(b, labels.NewSymbolTable())
	case assignment.FormatProtobuf:
		return textparse.NewProtobufParser(b, false, false, false, false, labels.NewSymbolTable())
	default:
		return textparse.NewPromParser(b, labels.NewSymbolTable(), false)
	}
}

// read parses an exposition into the batch. After a failure, the caller
// rejects the pass.
func (r *reading) read(b []byte, format assignment.Format) *failure {
	if len(b) == 0 {
		return nil // Nothing to tell, in any format.
	}
	check := r.checkText
	if format == assignment.FormatProtobuf {
		check = r.checkProtobuf
	}
	if f := check(b); f != nil {
		return f
	}
	r.parser = newParser(b, format)
	r.starts = format == assignment.FormatProtobuf
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

// checkText judges a text before it is parsed.
func (r *reading) checkText(b []byte) *failure {
	// The text parser takes this byte for the end, and what follows is lost.
	if bytes.IndexByte(b, 0) >= 0 {
		return fail(schedule.ReasonMalformed, "a zero byte")
	}
	if lineOver(b, r.target.limits.LineBytes) {
		return fail(schedule.ReasonTooLarge, "a line of more than %d bytes", r.target.limits.LineBytes)
	}
	return nil
}

// checkProtobuf judges messages before they are parsed, and takes what they will
// be in memory out of the budget.
func (r *reading) checkProtobuf(b []byte) *failure {
	r.scale = scale{limits: r.target.limits}
	if f := r.scale.weigh(b); f != nil {
		if f.reason == schedule.ReasonTooManySamples {
			r.samples = r.scale.metrics
		}
		return f
	}
	if !r.budget.take(r.scale.decoded) {
		return r.budget.over()
	}
	r.charged += r.scale.decoded
	return nil
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
		if f := r.count(); f != nil {
			return f
		}
		raw, stamp, v := r.parser.Series()
		return r.sample(raw, stamp, v, nil)
	case textparse.EntryHistogram:
		return r.histogram()
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
		if f := r.checkFamily(name, unit); f != nil {
			return f
		}
		r.family = r.families.setUnit(name, unit, r.cache.pass)
		return r.checkFamily(name, nil)
	case textparse.EntryComment:
		return nil
	default:
		return fail(schedule.ReasonMalformed, "an entry of an unknown kind")
	}
}

// checkFamily judges a family's name and its HELP or UNIT.
func (r *reading) checkFamily(name, text []byte) *failure {
	if limit := r.target.limits.LabelValueBytes; len(name) > limit {
		return fail(schedule.ReasonTooLarge, "a metric name of %d bytes, at most %d are allowed", len(name), limit)
	}
	if len(text) > maxHelp {
		return fail(schedule.ReasonTooLarge, "the help or unit of %.50s has %d bytes, at most %d are allowed", name, len(text), maxHelp)
	}
	if limit := r.target.limits.Samples; r.families.seen > limit {
		return fail(schedule.ReasonTooManySamples, "more than %d metric families", limit)
	}
	return nil
}

// count counts one more sample.
func (r *reading) count() *failure {
	if r.samples++; r.samples > r.target.limits.Samples {
		return fail(schedule.ReasonTooManySamples, "more than %d samples", r.target.limits.Samples)
	}
	return nil
}

// sample takes one sample: a value, or a histogram in extra.
func (r *reading) sample(raw []byte, stamp *int64, v float64, extra *sample.Extra) *failure {
	// In protobuf the thousands of buckets of one metric share its labels, and in
	// memory each has them.
	if r.spelled += int64(len(raw)); r.spelled > r.target.limits.BodyBytes {
		return fail(schedule.ReasonTooLarge, "series of more than %d bytes", r.target.limits.BodyBytes)
	}
	if r.target.assignment.IgnoreTimestamps {
		stamp = nil
	}
	tr := r.cache.find(raw, r.scratch)
	if tr == nil {
		var f *failure
		if tr, f = r.newSeries(raw); f != nil {
			r.dropped++ // as Prometheus counts
			return f
		}
	}
	at, ok := r.admit(tr, stamp)
	if !ok {
		return nil
	}
	r.describe(tr)
	s := sample.Sample{Series: tr.series, Time: at, Value: v, Extra: extra}
	if r.starts {
		s.Start = startOf(r.parser.StartTimestamp(), at)
	}
	f := r.takeExemplars(&s)
	r.batch.Samples = append(r.batch.Samples, s)
	return f
}

// startOf is when counting began, as a producer tells it. What is not before the
// sample is a clock that is wrong, and as good as not told.
func startOf(told, at int64) int64 {
	if told < 0 || told > at {
		return 0
	}
	return told
}

// admit notes that a series has a sample, and tells its time; false when the
// sample is left out.
func (r *reading) admit(tr *track, stamp *int64) (at int64, ok bool) {
	if tr == dropped {
		r.dropped++
		return 0, false
	}
	at = r.at
	if stamp != nil {
		at = *stamp
	}
	again := tr.seen == r.cache.pass
	if tr.reserved || again && (stamp == nil || at == tr.last) {
		r.duplicates++
		return 0, false
	}
	tr.seen, tr.last = r.cache.pass, at
	tr.plain = stamp == nil || again && tr.plain
	if at > r.latest {
		r.ahead++
		return 0, false
	}
	return at, true
}
