package scrape

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// defaultJob is the job of a producer that has no such label.
const defaultJob = "rollcall"

// A target is an assignment made ready to be pulled. It is immutable.
type target struct {
	assignment *assignment.Assignment
	url        *url.URL
	timeout    []string // the header's value
	limits     Limits
	access     access

	// labels are put on every series: those of the assignment, job and
	// instance; sorted by name. set and common are the same.
	labels []labels.Label
	set    labels.Labels
	common *sample.Common

	// series relabel what is exposed.
	series []*relabel.Config
}

// compile checks an assignment; the error is for people.
func compile(a *assignment.Assignment, setup *Setup) (*target, error) {
	u, err := endpoint.Parse(a.Endpoint)
	if err != nil {
		return nil, err
	}
	byName, err := ownLabels(a)
	if err != nil {
		return nil, err
	}
	if len(setup.Targets) > 0 {
		if u, byName, err = relabelTarget(a, u, byName, setup.Targets); err != nil {
			return nil, err
		}
	}
	if byName[model.InstanceLabel] == "" {
		byName[model.InstanceLabel] = endpoint.HostPort(u)
	}
	t := &target{
		assignment: a,
		url:        u,
		timeout:    []string{strconv.FormatFloat(a.Timeout.Seconds(), 'f', -1, 64)},
		limits:     limitsOf(a, setup.Limits),
		set:        labels.FromMap(byName),
		series:     setup.Series,
	}
	if t.access, err = setup.accessTo(a, u); err != nil {
		return nil, err
	}
	// One more for the metric name.
	if n := t.set.Len() + 1; n > t.limits.Labels {
		return nil, fmt.Errorf("its own labels make %d on every series, at most %d are allowed", n, t.limits.Labels)
	}
	if err := checkSizes(t.set, t.limits); err != nil {
		return nil, err
	}
	t.labels = make([]labels.Label, 0, t.set.Len())
	t.set.Range(func(l labels.Label) { t.labels = append(t.labels, l) })
	t.common = sample.NewCommon(t.labels)
	return t, nil
}

// ownLabels are those of the assignment, and a job in any case.
func ownLabels(a *assignment.Assignment) (map[string]string, error) {
	byName := map[string]string{model.JobLabel: defaultJob}
	seen := make(map[string]bool, len(a.Labels))
	for _, l := range a.Labels {
		if err := checkLabel(l); err != nil {
			return nil, err
		}
		if seen[l.Name] {
			return nil, fmt.Errorf("label %s occurs twice", l.Name)
		}
		seen[l.Name] = true
		if l.Value != "" {
			byName[l.Name] = l.Value
		}
	}
	return byName, nil
}

func checkLabel(l assignment.Label) error {
	switch {
	case !model.LegacyValidation.IsValidLabelName(l.Name):
		return fmt.Errorf("label name %.100q: want [a-zA-Z_][a-zA-Z0-9_]*", l.Name)
	case strings.HasPrefix(l.Name, model.ReservedLabelPrefix):
		return fmt.Errorf("label name %.100q: names with two leading underscores are reserved", l.Name)
	case !utf8.ValidString(l.Value):
		return fmt.Errorf("label %.100s: the value is not UTF-8", l.Name)
	}
	return nil
}

// checkSizes reports labels that are over the limits of names and values.
func checkSizes(set labels.Labels, limits Limits) error {
	return set.Validate(func(l labels.Label) error {
		if len(l.Name) > limits.LabelNameBytes {
			return fmt.Errorf("a label name of %d bytes (%.50q), at most %d are allowed", len(l.Name), l.Name, limits.LabelNameBytes)
		}
		if len(l.Value) > limits.LabelValueBytes {
			return fmt.Errorf("label %.50s has a value of %d bytes, at most %d are allowed", l.Name, len(l.Value), limits.LabelValueBytes)
		}
		return nil
	})
}

// sameSeries reports whether two targets make the same series of the same
// exposition, and allow the same ones.
func (t *target) sameSeries(o *target) bool {
	return labels.Equal(t.set, o.set) &&
		t.assignment.HonorLabels == o.assignment.HonorLabels &&
		t.limits == o.limits &&
		sameRules(t.series, o.series)
}

// merge puts the target's labels on those of an exposed series, and drops empty
// ones. Conflicts end as honor_labels says: the exposed label wins, or it is
// kept under its name with exported_ in front, as often as is needed.
func (t *target) merge(b *labels.Builder, exposed labels.Labels) {
	b.Reset(exposed)
	if t.assignment.HonorLabels {
		for _, l := range t.labels {
			// Also an empty label wins: it says that there is to be none.
			if !exposed.Has(l.Name) {
				b.Set(l.Name, l.Value)
			}
		}
		return
	}
	var conflicts []labels.Label
	for _, l := range t.labels {
		if v := exposed.Get(l.Name); v != "" {
			conflicts = append(conflicts, labels.Label{Name: l.Name, Value: v})
		}
		b.Set(l.Name, l.Value)
	}
	rename(b, conflicts)
}

// rename gives exposed labels that lost a conflict the first free name, the
// shortest names first.
func rename(b *labels.Builder, conflicts []labels.Label) {
	for len(conflicts) > 0 {
		shortest := 0
		for i, l := range conflicts {
			if len(l.Name) < len(conflicts[shortest].Name) {
				shortest = i
			}
		}
		l := conflicts[shortest]
		conflicts = append(conflicts[:shortest], conflicts[shortest+1:]...)
		name := model.ExportedLabelPrefix + l.Name
		for b.Get(name) != "" {
			name = model.ExportedLabelPrefix + name
		}
		b.Set(name, l.Value)
	}
}
