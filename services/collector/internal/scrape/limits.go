package scrape

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

// Limits bound one collection. Exactly the limit is allowed.
type Limits struct {
	// BodyBytes is the most bytes of an answer, uncompressed.
	BodyBytes int64

	// Samples is the most samples of an exposition, and of its metric families.
	Samples int

	// Labels is the most labels of one series as it is stored, with the metric
	// name and the producer's own labels.
	Labels int

	// LabelNameBytes and LabelValueBytes are the most bytes of one label. A
	// metric name is the value of a label.
	LabelNameBytes  int
	LabelValueBytes int

	// LineBytes is the most bytes of one line of an exposition. It is raised
	// where a label value may be longer. In protobuf it bounds what would be on
	// one line.
	LineBytes int

	// NativeBuckets is the most spans and buckets of one native histogram. It is
	// one sample, however large it is.
	NativeBuckets int
}

// maxLabelValue bounds what an assignment may allow: the store's own encoding
// of labels ends at 16 MiB.
const maxLabelValue = 1 << 20

// DefaultLimits are 16 MiB, 50,000 samples, 64 labels, names of 4 KiB, values of
// 16 KiB, lines of 1 MiB and 10,000 buckets of a native histogram.
func DefaultLimits() Limits {
	return Limits{
		BodyBytes:       16 << 20,
		Samples:         50_000,
		Labels:          64,
		LabelNameBytes:  4 << 10,
		LabelValueBytes: 16 << 10,
		LineBytes:       1 << 20,
		NativeBuckets:   10_000,
	}
}

// orElse is l with the fields of other where it has none.
func (l Limits) orElse(other Limits) Limits {
	l.BodyBytes = positive(l.BodyBytes, other.BodyBytes)
	l.Samples = positive(l.Samples, other.Samples)
	l.Labels = positive(l.Labels, other.Labels)
	l.LabelNameBytes = positive(l.LabelNameBytes, other.LabelNameBytes)
	l.LabelValueBytes = min(positive(l.LabelValueBytes, other.LabelValueBytes), maxLabelValue)
	l.LineBytes = positive(l.LineBytes, other.LineBytes)
	l.NativeBuckets = positive(l.NativeBuckets, other.NativeBuckets)
	return l
}

// limitsOf are the limits of one assignment.
func limitsOf(a *assignment.Assignment, defaults Limits) Limits {
	l := Limits{
		BodyBytes:       a.Limits.MaxBodyBytes,
		Samples:         int(a.Limits.MaxSamples),
		Labels:          int(a.Limits.MaxLabels),
		LabelValueBytes: int(a.Limits.MaxLabelValueBytes),
	}.orElse(defaults)
	// A value of the allowed length, all of it escaped, fits into a line.
	l.LineBytes = max(l.LineBytes, 2*l.LabelValueBytes+64<<10)
	return l
}

func positive[N int | int64](n, otherwise N) N {
	if n > 0 {
		return n
	}
	return otherwise
}
