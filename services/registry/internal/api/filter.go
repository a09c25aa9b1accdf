package api

import (
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// maxSelector bounds a selector, in bytes.
const maxSelector = 4 << 10

// metricName is the label that stands for a metric's name in a selector.
const metricName = "__name__"

// filter is a checked ListProducersRequest.
type filter struct {
	page      page
	collector assignment.CollectorID
	state     registryv1.ProducerState
	matchers  []*labels.Matcher
}

func decodeFilter(m *registryv1.ListProducersRequest) (*filter, error) {
	f := &filter{state: m.GetState()}
	var err error
	f.page, err = decodePage(m.GetPageSize(), m.GetPageToken(), func(s string) error {
		_, err := assignment.ParseProducerID(s)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := checkMinRevision(m.GetMinRevision()); err != nil {
		return nil, err
	}
	if s := m.GetCollectorId(); s != "" {
		if f.collector, err = assignment.ParseCollectorID(s); err != nil {
			return nil, violation("collector_id", err.Error())
		}
	}
	if _, known := registryv1.ProducerState_name[int32(f.state)]; !known {
		return nil, violation("state", fmt.Sprintf("%d is not known", f.state))
	}
	if s := m.GetSelector(); s != "" {
		if len(s) > maxSelector {
			return nil, violation("selector", fmt.Sprintf("%d bytes, at most %d are allowed", len(s), maxSelector))
		}
		if f.matchers, err = parser.NewParser(parser.Options{}).ParseMetricSelector(s); err != nil {
			return nil, violation("selector", err.Error())
		}
		if slices.ContainsFunc(f.matchers, func(m *labels.Matcher) bool { return m.Name == metricName }) {
			return nil, violation("selector", "names a metric; producers have labels only")
		}
	}
	return f, nil
}

// placed tells whether a producer's collector and state are as wanted. A collector
// that hands it off has it too.
func (f *filter) placed(p *roster.Producer) bool {
	if f.collector != "" && p.RoleOf(f.collector) == assignment.RoleUnspecified {
		return false
	}
	switch f.state {
	case registryv1.ProducerState_PRODUCER_STATE_ASSIGNED:
		return p.Collector != ""
	case registryv1.ProducerState_PRODUCER_STATE_UNASSIGNED:
		return p.Collector == ""
	default:
		return true
	}
}

// labelled tells whether a producer's labels match, `job` and `instance` among
// them as its collector will have them.
func (f *filter) labelled(a *assignment.Assignment) bool {
	if len(f.matchers) == 0 {
		return true
	}
	values := map[string]string{}
	for _, l := range finalLabels(a) {
		values[l.Name] = l.Value
	}
	for _, m := range f.matchers {
		if !m.Matches(values[m.Name]) {
			return false
		}
	}
	return true
}
