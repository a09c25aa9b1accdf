package scrape

import (
	"fmt"
	"slices"
	"unicode/utf8"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/protobuf/proto"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// takeExemplars takes those of the sample's exemplars that can be stored, in the
// order of their times.
func (r *reading) takeExemplars(s *sample.Sample) *failure {
	next := r.parseExemplar
	if s.Extra != nil {
		next = r.nativeExemplars()
	}
	var all []exemplar.Exemplar
	for {
		found, err := next()
		if err != nil {
			return fail(schedule.ReasonMalformed, "%v", err)
		}
		if !found {
			break
		}
		e := r.exemplar
		if !r.storable(&e, s.Time) {
			continue
		}
		all = append(all, e)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortStableFunc(all, exemplar.Compare)
	if s.Extra == nil {
		s.Extra = &sample.Extra{}
	}
	s.Extra.Exemplars = all
	return nil
}

// storable gives an exemplar its time, that of its sample where it has none, and
// counts it where it cannot be stored.
func (r *reading) storable(e *exemplar.Exemplar, at int64) bool {
	if !e.HasTs {
		e.Ts = at
	}
	if e.Ts > r.latest || !validExemplar(e.Labels) {
		r.badExemplars++
		return false
	}
	return true
}

// nativeExemplars gives the exemplars of the last native histogram, one at each
// call, into exemplar. Without a time they could not be told from those of the
// collection before, and are left out, as Prometheus does.
func (r *reading) nativeExemplars() func() (bool, error) {
	left := r.scale.of(r.natives - 1)
	return func() (bool, error) {
		for len(left) > 0 {
			var message dto.Exemplar
			if err := proto.Unmarshal(left[0], &message); err != nil {
				return false, fmt.Errorf("an exemplar: %w", err)
			}
			left = left[1:]
			if message.GetTimestamp() == nil {
				continue
			}
			r.exemplar = exemplarOf(&message)
			return true, nil
		}
		return false, nil
	}
}

func exemplarOf(message *dto.Exemplar) exemplar.Exemplar {
	set := labels.NewScratchBuilder(len(message.GetLabel()))
	for _, l := range message.GetLabel() {
		set.Add(l.GetName(), l.GetValue())
	}
	set.Sort()
	return exemplar.Exemplar{
		Labels: set.Labels(), Value: message.GetValue(), HasTs: true,
		Ts: message.GetTimestamp().GetSeconds()*1000 + int64(message.GetTimestamp().GetNanos()/1_000_000),
	}
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
