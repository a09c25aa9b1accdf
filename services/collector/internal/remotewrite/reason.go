package remotewrite

import (
	"net/http"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// A phrase is what receivers write when they refuse samples for a reason.
type phrase struct{ words, reason string }

// phrases are those of Prometheus, Thanos, Cortex, Mimir and VictoriaMetrics, in
// lower case. Of two that are in one text, the former counts: the more precise
// one, and a loss before a duplicate, which is none.
func phrases() []phrase {
	return []phrase{
		// Says "out of bounds" as well.
		{"too far in the future", deliver.ReasonTooNew},
		{"too-far-in-future", deliver.ReasonTooNew},
		{"too far into the future", deliver.ReasonTooNew},

		{"out of bounds", deliver.ReasonTooOld},
		{"out-of-bounds", deliver.ReasonTooOld},
		{"too old", deliver.ReasonTooOld},
		{"too-old", deliver.ReasonTooOld},
		{"outside the time window", deliver.ReasonTooOld},
		{"outside the retention", deliver.ReasonTooOld},

		{"out of order", deliver.ReasonOutOfOrder},
		{"out-of-order", deliver.ReasonOutOfOrder},
		{"more recent timestamp", deliver.ReasonOutOfOrder},

		// These are limits of one label or series, which are faults of it.
		{"label-names-per-series", deliver.ReasonLimit},
		{"label-name-too-long", deliver.ReasonLimit},
		{"label-value-too-long", deliver.ReasonLimit},
		{"label names; actual", deliver.ReasonLimit},
		{"too long", deliver.ReasonLimit},
		{"limit", deliver.ReasonLimit},
		{"max-series", deliver.ReasonLimit},
		{"exceed", deliver.ReasonLimit},
		{"quota", deliver.ReasonLimit},

		{"native histograms are disabled", deliver.ReasonUnsupported},
		{"native histogram ingestion is disabled", deliver.ReasonUnsupported},
		{"not supported", deliver.ReasonUnsupported},
		{"unsupported", deliver.ReasonUnsupported},

		{"duplicate label", deliver.ReasonInvalid},
		{"duplicate-label", deliver.ReasonInvalid},
		{"duplicated label", deliver.ReasonInvalid},

		{"duplicate sample", deliver.ReasonDuplicate},
		{"duplicate-timestamp", deliver.ReasonDuplicate},
		{"same timestamp", deliver.ReasonDuplicate},

		{"invalid", deliver.ReasonInvalid},
		{"missing metric name", deliver.ReasonInvalid},
		{"missing-metric-name", deliver.ReasonInvalid},
		{"unmarshal", deliver.ReasonInvalid},
		{"decod", deliver.ReasonInvalid},
		{"corrupt", deliver.ReasonInvalid},
		{"pars", deliver.ReasonInvalid},
		{"histogram", deliver.ReasonInvalid}, // what is wrong with one has many names
	}
}

// reasonOf is why samples were refused, by the text of the answer.
func reasonOf(text string) string {
	text = strings.ToLower(withoutSeries(text))
	for _, p := range phrases() {
		if strings.Contains(text, p.words) {
			return p.reason
		}
	}
	return deliver.ReasonRejected
}

// withoutSeries is a text without what stands in braces: the labels of series,
// which may have any words, braces and quotes in their quotes. Where a brace is
// not closed the line ends.
func withoutSeries(text string) string {
	var kept strings.Builder
	for {
		before, after, found := strings.Cut(text, "{")
		kept.WriteString(before)
		if !found {
			return kept.String()
		}
		end := closing(after)
		if end < 0 {
			return kept.String()
		}
		text = after[end+1:]
		kept.WriteByte(' ')
	}
}

// closing is where a brace is closed, or the line ends; -1 when neither.
func closing(text string) int {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n', c == '}' && !quoted:
			return i
		case c == '\\' && quoted && i+1 < len(text) && text[i+1] != '\n':
			i++
		case c == '"':
			quoted = !quoted
		}
	}
	return -1
}

// undone reports whether a refusal in 1.0 is one by which the receiver has taken
// back all of the request. Prometheus does so at the first sample that it does
// not take, and says only why; those behind a distributor, and Thanos with its
// conflict, keep what they could take.
func undone(a *answer) bool {
	if a.status != http.StatusBadRequest {
		return false
	}
	if distributed(a.text) {
		return false
	}
	switch reasonOf(a.text) {
	case deliver.ReasonOutOfOrder, deliver.ReasonDuplicate, deliver.ReasonTooOld, deliver.ReasonTooNew, deliver.ReasonInvalid:
		return true
	default:
		return false
	}
}

// distributed reports whether a text is of a receiver that hands samples on to
// others, and keeps what it could take of what it refuses. It counts as written
// what it has handed on, whatever came of that.
func distributed(text string) bool {
	text = strings.ToLower(withoutSeries(text))
	for _, words := range []string{"mimir", "cortex", "ingester", "user="} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// tooLarge reports whether a text says that a request is, which not all say by
// the status.
func tooLarge(text string) bool {
	text = strings.ToLower(withoutSeries(text))
	for _, words := range []string{
		"request body exceeds", "decoded size exceeds", "request body too large", "message larger than max",
		"too big packed", "too big unpacked", "max-write-message-size",
	} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// unsupported reports whether a text says that samples are of a kind that is
// turned off at the receiver, which some say by the status of an internal error.
func unsupported(text string) bool {
	return strings.Contains(strings.ToLower(withoutSeries(text)), "native histograms are disabled")
}

// aboutHistograms reports whether a text speaks of them.
func aboutHistograms(text string) bool {
	return strings.Contains(strings.ToLower(withoutSeries(text)), "histogram")
}
