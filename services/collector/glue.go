package collector

import (
	"iter"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/follow"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// stateLog is the state file as the membership's log.
type stateLog struct{ file *statefile.File }

// Append writes an entry.
func (l stateLog) Append(e membership.Entry, current func() membership.State) error {
	return l.file.Append(statefile.Entry(e), func() statefile.State { return statefile.State(current()) })
}

// runner is the schedule as the membership's runner.
type runner struct{ schedule *schedule.Schedule }

// Change applies a change of the set.
func (r runner) Change(upserts []*assignment.Assignment, released []guard.Release) {
	c := schedule.Change{Upserts: upserts, Removals: make([]schedule.Removal, len(released))}
	for i, one := range released {
		c.Removals[i] = schedule.Removal(one)
	}
	r.schedule.Apply(c)
}

// witness is the schedule as the membership's source of evidence.
type witness struct{ schedule *schedule.Schedule }

// Evidence is what the collections of one producer say.
func (w witness) Evidence(id assignment.ProducerID) guard.Evidence {
	return guard.Evidence(w.schedule.Evidence(id))
}

// Survey is what all collections say.
func (w witness) Survey(held func(assignment.ProducerID) bool) guard.Survey {
	s := w.schedule.Survey(held)
	survey := guard.Survey{
		Applied: s.Applied, Run: s.Run, Answering: s.Answering, MedianInterval: s.MedianInterval,
		Failing: make(map[assignment.ProducerID]guard.Evidence, len(s.Failing)),
	}
	for id, e := range s.Failing {
		survey.Failing[id] = guard.Evidence(e)
	}
	return survey
}

// running is the schedule as the follower's source of how assignments are run.
type running struct{ schedule *schedule.Schedule }

// Unrunnable returns the number and some of the assignments that are not run.
func (r running) Unrunnable() (int, []follow.Unrunnable) {
	count, first := r.schedule.Unrunnable()
	some := make([]follow.Unrunnable, len(first))
	for i, one := range first {
		some[i] = follow.Unrunnable(one)
	}
	return count, some
}

// Collected returns targets of handoffs that have been collected.
func (r running) Collected(after uint64, limit int) ([]assignment.ProducerID, uint64) {
	return r.schedule.Collected(after, limit)
}

// targets tells the query API what is collected.
type targets struct{ collector *Collector }

// maxTargets bounds an answer about targets.
const maxTargets = 100_000

// What a target is shown with beside its labels.
const (
	producerLabel = "__meta_rollcall_producer_id"
	stateLabel    = "__meta_rollcall_state"
	reasonLabel   = "__meta_rollcall_unrunnable_reason"
)

// Targets lists the producers that are assigned now.
func (t targets) Targets() []query.Target {
	list := t.collector.schedule.List("", maxTargets, nil)
	all := make([]query.Target, 0, len(list))
	for i := range list {
		all = append(all, t.target(&list[i]))
	}
	return all
}

func (t targets) target(s *schedule.Status) query.Target {
	target := query.Target{
		Interval:       s.Assignment.Interval,
		Timeout:        s.Assignment.Timeout,
		LastCollection: s.Last.Start,
		LastDuration:   s.Last.Duration,
	}
	if u, err := endpoint.Parse(s.Assignment.Endpoint); err == nil {
		target.URL = u
	}
	if s.Last.Reason != schedule.ReasonNone {
		target.LastError = s.Last.Reason.String() + ": " + s.Last.Message
	}
	state := t.state(s.Assignment)
	if c, open := t.collector.scraper.Find(s.Assignment.ProducerID); open {
		target.Labels, target.Metadata = c.Labels(), families{c}
	} else {
		target.Labels, target.Dropped, state = assigned(s.Assignment), true, "unrunnable"
	}
	target.Discovered = labels.FromStrings(producerLabel, string(s.Assignment.ProducerID), stateLabel, state)
	if s.UnrunnableReason != "" {
		target.Discovered = labels.FromStrings(
			producerLabel, string(s.Assignment.ProducerID), stateLabel, state, reasonLabel, s.UnrunnableReason)
	}
	return target
}

// state says, for people, why a producer is collected here.
func (t targets) state(a *assignment.Assignment) string {
	switch {
	case t.collector.members.Holds(a.ProducerID):
		return "held"
	case a.Role == assignment.RoleHandoffSource:
		return "handoff_source"
	case a.Role == assignment.RoleHandoffTarget:
		return "handoff_target"
	default:
		return "assigned"
	}
}

// assigned are the labels of an assignment that is not run.
func assigned(a *assignment.Assignment) labels.Labels {
	byName := make(map[string]string, len(a.Labels))
	for _, l := range a.Labels {
		byName[l.Name] = l.Value
	}
	return labels.FromMap(byName)
}

// families are the metric families of one producer.
type families struct{ collection *scrape.Collection }

// Families goes through all of them.
func (f families) Families() iter.Seq2[string, metadata.Metadata] { return f.collection.Metadata() }

// Family looks up one.
func (f families) Family(name string) (metadata.Metadata, bool) {
	for n, m := range f.collection.Metadata() {
		if n == name {
			return m, true
		}
	}
	return metadata.Metadata{}, false
}
