package scrape

import (
	"errors"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// Of the messages of io.prometheus.client: the numbers of the fields that can
// hold many of something, or something long, or that tell what is a native
// histogram.
const (
	familyName   = 1
	familyHelp   = 2
	familyType   = 3
	familyMetric = 4
	familyUnit   = 5

	metricLabel     = 1
	metricCounter   = 3
	metricSummary   = 4
	metricHistogram = 7

	counterExemplar = 2
	summaryQuantile = 3
	bucketExemplar  = 3
	exemplarLabel   = 1

	histogramBucket        = 3
	histogramZeroThreshold = 6
	histogramZeroCount     = 7
	histogramNegativeSpan  = 9
	histogramNegativeDelta = 10
	histogramNegativeCount = 11
	histogramPositiveSpan  = 12
	histogramPositiveDelta = 13
	histogramPositiveCount = 14
	histogramExemplar      = 16
)

// Types of a family.
const (
	typeHistogram      = 4
	typeGaugeHistogram = 5
)

// What one of these is in memory, in bytes.
const (
	bytesPerBucket        = 8 // of a native histogram, also a span
	bytesPerExemplar      = 192
	bytesPerExemplarLabel = 64
)

const (
	// maxParts bounds the buckets, quantiles and exemplars of one metric: the
	// decoder has all of them in memory before the first is seen.
	maxParts = 100_000

	// maxSquares bounds the sum of the squares of the native histograms' sizes:
	// what it takes to leave out their empty buckets. It is reached by 42
	// histograms of the 10,000 buckets that are allowed.
	maxSquares = 4 << 30

	// maxEmpty bounds the families without a metric, which nobody sends.
	maxEmpty = 1000

	// maxDecoded times the limit of the body is what its histograms and
	// exemplars may be in memory. A bucket of one byte becomes one of eight.
	maxDecoded = 4
)

var (
	errWire  = errors.New("not a message of metrics")
	errEmpty = errors.New("too many families without a metric")
)

// A scale weighs an exposition in Prometheus's protobuf format before the parser
// gets it: two bytes on the wire can be eighty in memory, and the parser's limits
// come after that. On the way it finds the exemplars of the native histograms: of
// one family, the parser v0.315.0 gives those of the first only.
type scale struct {
	limits Limits

	metrics, empty int
	decoded        int64 // bytes of histograms and exemplars
	squares        int64

	// Of the metric at hand: how many buckets, quantiles and exemplars it has, how
	// many spans and buckets its native histogram has, whether it is one, and its
	// exemplars.
	parts, cells   int
	spans, zero    bool
	own, ofBuckets [][]byte

	// exemplars are those of the native histograms one after the other, and ends
	// where each histogram's end.
	exemplars [][]byte
	ends      []int
}

// weigh judges all families.
func (s *scale) weigh(b []byte) *failure {
	for len(b) > 0 {
		family, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return malformed(protowire.ParseError(n))
		}
		before := s.metrics
		if f := s.family(family); f != nil {
			return f
		}
		// The parser steps over each of these by calling itself: millions of them
		// would end the process.
		if s.metrics == before {
			if s.empty++; s.empty > maxEmpty {
				return malformed(errEmpty)
			}
		}
		b = b[n:]
	}
	return nil
}

func malformed(err error) *failure { return fail(schedule.ReasonMalformed, "protobuf: %v", err) }

// A field is one field of a message, and value what is in it.
type field struct {
	number protowire.Number
	typ    protowire.Type
	value  []byte
}

// positive reports whether a number is more than zero.
func (fd field) positive() bool {
	switch fd.typ {
	case protowire.VarintType:
		v, _ := protowire.ConsumeVarint(fd.value)
		return v > 0
	case protowire.Fixed64Type:
		v, _ := protowire.ConsumeFixed64(fd.value)
		return math.Float64frombits(v) > 0
	default:
		return false
	}
}

// cut takes the first field off a message.
func cut(message []byte) (first field, rest []byte, f *failure) {
	number, typ, n := protowire.ConsumeTag(message)
	if n < 0 {
		return field{}, nil, malformed(protowire.ParseError(n))
	}
	message = message[n:]
	if typ == protowire.BytesType {
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return field{}, nil, malformed(protowire.ParseError(n))
		}
		return field{number, typ, value}, message[n:], nil
	}
	if typ == protowire.StartGroupType || typ == protowire.EndGroupType {
		return field{}, nil, malformed(errWire) // Nobody has them, and they nest.
	}
	if n = protowire.ConsumeFieldValue(number, typ, message); n < 0 {
		return field{}, nil, malformed(protowire.ParseError(n))
	}
	return field{number, typ, message[:n]}, message[n:], nil
}

// each calls visit for each field.
func each(message []byte, visit func(field) *failure) *failure {
	for len(message) > 0 {
		first, rest, f := cut(message)
		if f != nil {
			return f
		}
		if f := visit(first); f != nil {
			return f
		}
		message = rest
	}
	return nil
}

func (s *scale) family(message []byte) *failure {
	known, kind := len(s.ends), uint64(0)
	f := each(message, func(fd field) *failure {
		switch int(fd.number) {
		case familyName, familyHelp, familyUnit:
			return s.text(len(fd.value))
		case familyType:
			kind, _ = protowire.ConsumeVarint(fd.value)
		case familyMetric:
			if s.metrics++; s.metrics > s.limits.Samples {
				return fail(schedule.ReasonTooManySamples, "more than %d metrics", s.limits.Samples)
			}
			return s.metric(fd.value)
		}
		return nil
	})
	if kind != typeHistogram && kind != typeGaugeHistogram {
		s.ends = s.ends[:known] // The parser does not look at their histograms.
		s.exemplars = s.exemplars[:s.count()]
	}
	return f
}

// text judges the length of what would be on one line of text.
func (s *scale) text(n int) *failure {
	if n > s.limits.LineBytes {
		return fail(schedule.ReasonTooLarge, "a name, a help or the labels of a series of more than %d bytes", s.limits.LineBytes)
	}
	return nil
}

func (s *scale) metric(message []byte) *failure {
	labels, size := 0, 0
	s.parts, s.cells, s.spans, s.zero = 0, 0, false, false
	s.own, s.ofBuckets = s.own[:0], s.ofBuckets[:0]
	f := each(message, func(fd field) *failure {
		switch int(fd.number) {
		case metricLabel:
			labels++
			if labels > s.limits.Labels {
				return fail(schedule.ReasonTooLarge, "a series of more than %d labels", s.limits.Labels)
			}
			size += len(fd.value)
			return s.text(size)
		case metricCounter:
			return within(fd, counterExemplar, s.exemplar)
		case metricSummary:
			return within(fd, summaryQuantile, s.part)
		case metricHistogram:
			return each(fd.value, s.histogram)
		}
		return nil
	})
	if f != nil {
		return f
	}
	if s.spans || s.zero {
		s.native()
	}
	return s.total()
}

// native notes the exemplars of a native histogram: its own, or else those of its
// classic buckets.
func (s *scale) native() {
	if len(s.own) > 0 {
		s.exemplars = append(s.exemplars, s.own...)
	} else {
		s.exemplars = append(s.exemplars, s.ofBuckets...)
	}
	s.ends = append(s.ends, len(s.exemplars))
}

// count is how many exemplars there are so far.
func (s *scale) count() int {
	if len(s.ends) == 0 {
		return 0
	}
	return s.ends[len(s.ends)-1]
}

// of are the exemplars of the native histogram of that number, as they were sent.
func (s *scale) of(i int) [][]byte {
	if i >= len(s.ends) {
		return nil
	}
	start := 0
	if i > 0 {
		start = s.ends[i-1]
	}
	return s.exemplars[start:s.ends[i]]
}

// total adds up what the metrics so far are in memory and in work.
func (s *scale) total() *failure {
	s.decoded += bytesPerBucket * int64(s.cells)
	if most := maxDecoded * s.limits.BodyBytes; s.decoded > most {
		return fail(schedule.ReasonTooLarge, "histograms and exemplars of more than %d bytes", most)
	}
	if s.squares += int64(s.cells) * int64(s.cells); s.squares > maxSquares {
		return fail(schedule.ReasonTooLarge, "too many large native histograms")
	}
	return nil
}

// within visits the fields of one number of the message in a field.
func within(fd field, number protowire.Number, visit func(field) *failure) *failure {
	return each(fd.value, func(inner field) *failure {
		if inner.number != number {
			return nil
		}
		return visit(inner)
	})
}

func (s *scale) part(field) *failure {
	if s.parts++; s.parts > maxParts {
		return fail(schedule.ReasonTooLarge, "a metric of more than %d buckets, quantiles or exemplars", maxParts)
	}
	return nil
}

func (s *scale) exemplar(fd field) *failure {
	s.decoded += bytesPerExemplar
	if f := s.part(fd); f != nil {
		return f
	}
	return within(fd, exemplarLabel, func(fd field) *failure {
		s.decoded += bytesPerExemplarLabel
		return s.part(fd)
	})
}

// histogram judges one field of a histogram.
func (s *scale) histogram(fd field) *failure {
	switch int(fd.number) {
	case histogramBucket:
		if f := s.part(fd); f != nil {
			return f
		}
		return within(fd, bucketExemplar, func(fd field) *failure {
			s.ofBuckets = append(s.ofBuckets, fd.value)
			return s.exemplar(fd)
		})
	case histogramExemplar:
		s.own = append(s.own, fd.value)
		return s.exemplar(fd)
	case histogramZeroThreshold, histogramZeroCount:
		s.zero = s.zero || fd.positive()
		return nil
	case histogramNegativeSpan, histogramPositiveSpan:
		s.spans = true
		s.cells++
	case histogramNegativeDelta, histogramPositiveDelta:
		s.cells += numbers(fd)
	case histogramNegativeCount, histogramPositiveCount:
		s.cells += max(1, len(fd.value)/8)
	default:
		return nil
	}
	if s.cells > s.limits.NativeBuckets {
		return fail(schedule.ReasonTooLarge, "a native histogram of more than %d spans and buckets", s.limits.NativeBuckets)
	}
	return nil
}

// numbers counts the variable numbers of a field, which are packed or one.
func numbers(fd field) (n int) {
	if fd.typ != protowire.BytesType {
		return 1
	}
	for _, c := range fd.value {
		if c < 0x80 {
			n++
		}
	}
	return n
}
