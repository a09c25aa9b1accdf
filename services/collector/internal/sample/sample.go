// Package sample holds the plain types that a collection produces and a sink
// stores. Its one invariant: a Batch is the whole result of one collection,
// and a sink keeps all of it or none of it.
package sample

import (
	"sync/atomic"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// A Series is one time series as a producer exposes it, with its final labels.
// The collector of a producer makes one Series for each series it has seen and
// hands out the same pointer at every collection, so that a sink can remember
// what it knows of it. It is immutable but for Ref and
// Number.
type Series struct {
	// Own are the final labels without those in Common, sorted: mostly the metric
	// name is among them. Producers of one program can share them.
	Own labels.Labels

	// Common are the rest of the labels; nil when Own has all.
	Common *Common

	// Meta is the HELP, TYPE and UNIT of the metric family, nil when the
	// producer told none.
	Meta *metadata.Metadata

	// Ref belongs to the embedded store: its own number for this series, or
	// zero. Other sinks must not touch it.
	Ref atomic.Uint64

	// Number belongs to the log of the queue: what it may be in the table of
	// the log's last segment. Whether it is, that table tells.
	Number atomic.Uint32
}

// A Sample is one value of one series. A stale marker is a Sample whose Value
// is value.StaleNaN.
type Sample struct {
	Series *Series

	// Time is in milliseconds since the Unix epoch.
	Time int64

	// Start is when the counting began that led to this value, in milliseconds
	// since the Unix epoch; 0 when the producer does not tell, or nothing is
	// counted.
	Start int64

	// Value is not used when there is a histogram.
	Value float64

	// Extra is nil for nearly every sample.
	Extra *Extra
}

// An Extra is what few samples have. It is immutable.
type Extra struct {
	// Histogram and FloatHistogram are a native histogram, one of the two; the
	// other is nil. Both are nil for a plain value. The stale marker of a series
	// is always a plain value.
	Histogram      *histogram.Histogram
	FloatHistogram *histogram.FloatHistogram

	// Exemplars are in the order of their times; that of one without a time of
	// its own is the sample's.
	Exemplars []exemplar.Exemplar
}

// A Batch is what one collection of one producer yields: its samples, the
// synthetic series (up and the scrape_ ones) and the stale markers. The caller
// may reuse it once the sink has returned; the Series it points to live on.
type Batch struct {
	// Source is the producer's id. No two batches of one source are written at
	// the same time.
	Source string

	Samples []Sample
}
