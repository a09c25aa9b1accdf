package otlp

import (
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
)

// A role is what a series is in its metric.
type role uint8

const (
	// roleNone cannot be said in OTLP.
	roleNone role = iota

	// roleNumber is a gauge or a sum, and in one with native histograms what it
	// has beside them.
	roleNumber

	// Parts of a histogram or of a summary.
	roleBucket
	roleQuantile
	roleSum
	roleCount

	// roleCreated tells when counting began.
	roleCreated

	// roleTarget tells attributes of the resource.
	roleTarget
)

// A shape is which kind of data a metric has.
type shape uint8

const (
	shapeGauge shape = iota
	shapeCounter
	shapeCount // a sum that also falls
	shapeHistogram
	shapeExponential
	shapeSummary
)

const (
	targetInfo     = "target_info"
	suffixCreated  = "_created"
	suffixTotal    = "_total"
	scopePrefix    = "otel_scope_"
	scopeName      = "otel_scope_name"
	scopeVersion   = "otel_scope_version"
	scopeSchemaURL = "otel_scope_schema_url"
)

// A reading is what the labels and the metadata of a series mean.
type reading struct {
	role   role
	shape  shape
	metric string  // its name
	bound  float64 // of a bucket or quantile
	split  string  // the label that is the bound, and no attribute
	native bool    // may have native histograms
}

// read tells what a series means.
func read(name string, ls labels.Labels, typ model.MetricType) reading {
	number := reading{role: roleNumber, metric: name}
	switch typ {
	case model.MetricTypeCounter:
		number.shape = shapeCounter
	case model.MetricTypeInfo, model.MetricTypeStateset:
		number.shape = shapeCount
	case model.MetricTypeGaugeHistogram:
		return reading{}
	case model.MetricTypeHistogram:
		return readHistogram(number, ls)
	case model.MetricTypeSummary:
		return readSummary(number, ls)
	default:
	}
	if name == targetInfo {
		return reading{role: roleTarget}
	}
	// What has a type of its own is what it says.
	if _, ok := cutSuffix(name, suffixCreated); ok && (typ == "" || typ == model.MetricTypeUnknown) {
		number.role = roleCreated
	}
	return number
}

func readHistogram(number reading, ls labels.Labels) reading {
	le := ls.Get(model.BucketLabel)
	base, isBucket := cutSuffix(number.metric, "_bucket")
	if isBucket && le != "" {
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil || bound != bound {
			return reading{}
		}
		return reading{role: roleBucket, shape: shapeHistogram, metric: base, bound: bound, split: model.BucketLabel}
	}
	if r, ok := readTotal(number.metric, shapeHistogram); ok {
		return r
	}
	number.native = true
	return number
}

func readSummary(number reading, ls labels.Labels) reading {
	if q := ls.Get(model.QuantileLabel); q != "" {
		rank, err := strconv.ParseFloat(q, 64)
		if err != nil || !(rank >= 0 && rank <= 1) {
			return reading{}
		}
		return reading{role: roleQuantile, shape: shapeSummary, metric: number.metric, bound: rank, split: model.QuantileLabel}
	}
	if r, ok := readTotal(number.metric, shapeSummary); ok {
		return r
	}
	return number
}

// readTotal reads the sum and the count of a histogram or summary.
func readTotal(name string, s shape) (reading, bool) {
	if base, ok := cutSuffix(name, "_sum"); ok {
		return reading{role: roleSum, shape: s, metric: base}, true
	}
	if base, ok := cutSuffix(name, "_count"); ok {
		return reading{role: roleCount, shape: s, metric: base}, true
	}
	return reading{}, false
}

// cutSuffix cuts a suffix off what has more than that.
func cutSuffix(name, suffix string) (string, bool) {
	base, ok := strings.CutSuffix(name, suffix)
	return base, ok && base != ""
}

// typeName is the type for the key prometheus.type of a metric's metadata.
func typeName(meta *metadata.Metadata) string {
	if meta == nil || meta.Type == "" {
		return string(model.MetricTypeUnknown)
	}
	return valid(string(meta.Type))
}

// ucum is a unit in UCUM where the specification says how, and else as it is.
func ucum(unit string) string {
	switch unit {
	case "days":
		return "d"
	case "hours":
		return "h"
	case "minutes":
		return "min"
	case "seconds":
		return "s"
	case "milliseconds":
		return "ms"
	case "microseconds":
		return "us"
	case "nanoseconds":
		return "ns"
	case "meters":
		return "m"
	case "volts":
		return "V"
	case "amperes":
		return "A"
	case "joules":
		return "J"
	case "watts":
		return "W"
	case "grams":
		return "g"
	case "celsius":
		return "Cel"
	case "hertz":
		return "Hz"
	case "percent":
		return "%"
	default:
		return ucumBytes(unit)
	}
}

func ucumBytes(unit string) string {
	switch unit {
	case "bytes":
		return "By"
	case "kibibytes":
		return "KiBy"
	case "mebibytes":
		return "MiBy"
	case "gibibytes":
		return "GiBy"
	case "tebibytes":
		return "TiBy"
	case "kilobytes":
		return "kBy"
	case "megabytes":
		return "MBy"
	case "gigabytes":
		return "GBy"
	case "terabytes":
		return "TBy"
	default:
		return unit
	}
}
