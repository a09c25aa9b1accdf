package scrape

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// metaProducerID is the label by which relabel_configs see who is pulled.
const metaProducerID = model.MetaLabelPrefix + "rollcall_producer_id"

// errDropped is for people: the words are those of the configuration.
var errDropped = errors.New("dropped by relabel_configs")

// relabelTarget applies rules to a producer's labels and its endpoint, as
// Prometheus does with a discovered target. own are the labels of the
// assignment, with job and without an instance that is only a default.
//
// The interval and the timeout are shown and not taken back: they are the
// registry's.
func relabelTarget(a *assignment.Assignment, u *url.URL, own map[string]string, rules []*relabel.Config) (*url.URL, map[string]string, error) {
	b := labels.NewBuilder(labels.FromMap(own))
	b.Set(metaProducerID, string(a.ProducerID))
	b.Set(model.AddressLabel, u.Host)
	b.Set(model.SchemeLabel, u.Scheme)
	b.Set(model.ScrapeIntervalLabel, model.Duration(a.Interval).String())
	b.Set(model.ScrapeTimeoutLabel, model.Duration(a.Timeout).String())
	params := u.Query() // without what is malformed
	if !endpoint.Native(u) {
		b.Set(model.MetricsPathLabel, pathOf(u))
		for name, values := range params {
			b.Set(model.ParamLabelPrefix+name, values[0])
		}
	}
	if !relabel.ProcessBuilder(b, rules...) {
		return nil, nil, errDropped
	}
	moved, err := relabeledURL(u, b, params)
	if err != nil {
		return nil, nil, err
	}
	set := map[string]string{}
	err = b.Labels().Validate(func(l labels.Label) error {
		if strings.HasPrefix(l.Name, model.ReservedLabelPrefix) {
			return nil
		}
		if !model.UTF8Validation.IsValidLabelName(l.Name) || !utf8.ValidString(l.Value) {
			return fmt.Errorf("label %.100q is not UTF-8 after relabel_configs", l.Name)
		}
		set[l.Name] = l.Value
		return nil
	})
	return moved, set, err
}

// relabeledURL is the endpoint that the labels of a target tell. What no rule
// has changed is left as it was written.
func relabeledURL(u *url.URL, b *labels.Builder, params url.Values) (*url.URL, error) {
	next := *u
	next.Scheme, next.Host = b.Get(model.SchemeLabel), b.Get(model.AddressLabel)
	if next.Host == "" {
		return nil, errors.New("no address after relabel_configs")
	}
	if endpoint.Native(&next) {
		next.Path, next.RawPath, next.RawQuery, next.ForceQuery = "", "", "", false
	} else {
		if path := b.Get(model.MetricsPathLabel); endpoint.Native(u) || path != pathOf(u) {
			next.Path, next.RawPath = path, ""
		}
		if changeParams(b, params) {
			next.RawQuery, next.ForceQuery = params.Encode(), false
		}
	}
	if next == *u {
		return u, nil
	}
	moved, err := endpoint.Parse(next.String())
	if err != nil {
		return nil, fmt.Errorf("after relabel_configs: %w", err)
	}
	return moved, nil
}

// changeParams puts the labels of parameters in the place of their first values,
// and reports whether that changes anything. A label that is gone changes
// nothing, as in Prometheus.
func changeParams(b *labels.Builder, params url.Values) (changed bool) {
	b.Range(func(l labels.Label) {
		name, ok := strings.CutPrefix(l.Name, model.ParamLabelPrefix)
		if !ok {
			return
		}
		switch values := params[name]; {
		case len(values) == 0:
			params[name], changed = []string{l.Value}, true
		case values[0] != l.Value:
			values[0], changed = l.Value, true
		}
	})
	return changed
}

// pathOf is the path that is asked for.
func pathOf(u *url.URL) string {
	if u.Path == "" {
		return "/"
	}
	return u.Path
}

// sameRules reports whether two lists of rules do the same.
func sameRules(a, b []*relabel.Config) bool {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) { //nolint:gosec // both are as long
		return true
	}
	return slices.EqualFunc(a, b, func(x, y *relabel.Config) bool {
		return x == y || x.Action == y.Action &&
			slices.Equal(x.SourceLabels, y.SourceLabels) &&
			x.Separator == y.Separator &&
			x.Regex.String() == y.Regex.String() &&
			x.Modulus == y.Modulus &&
			x.TargetLabel == y.TargetLabel &&
			x.Replacement == y.Replacement &&
			x.NameValidationScheme == y.NameValidationScheme
	})
}
