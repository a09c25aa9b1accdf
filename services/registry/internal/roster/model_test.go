package roster_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// sets are the collectors' sets as one who knows no view would keep them.
type sets map[assignment.CollectorID]map[assignment.ProducerID]member

type member struct {
	Version assignment.Version
	Role    assignment.Role
}

func (s sets) put(c assignment.CollectorID, id assignment.ProducerID, m member) {
	if s[c] == nil {
		s[c] = map[assignment.ProducerID]member{}
	}
	s[c][id] = m
}

// putAll puts a producer into the sets that it is in by its record.
func (s sets) putAll(p *roster.Producer) {
	switch {
	case p.Collector == "":
	case p.HandoffFrom == "":
		s.put(p.Collector, p.ID, member{p.Version, assignment.RoleOwner})
	default:
		s.put(p.Collector, p.ID, member{p.Version, assignment.RoleHandoffTarget})
		s.put(p.HandoffFrom, p.ID, member{p.Version, assignment.RoleHandoffSource})
	}
}

// count is how many producers a collector has in a role.
func (s sets) count(c assignment.CollectorID, source bool) int {
	n := 0
	for _, m := range s[c] {
		if (m.Role == assignment.RoleHandoffSource) == source {
			n++
		}
	}
	return n
}

// take applies changes as a collector's stream does.
func (s sets) take(changes []roster.Change) {
	for _, c := range changes {
		if c.Entry != nil {
			s.put(c.Collector, c.ID, member{c.Entry.Version, c.Role})
			continue
		}
		delete(s[c.Collector], c.ID)
		if len(s[c.Collector]) == 0 {
			delete(s, c.Collector)
		}
	}
}

func (s sets) clone() sets {
	c := sets{}
	for id, set := range s {
		c[id] = maps.Clone(set)
	}
	return c
}

// setsOf reads the sets off a view's producers.
func setsOf(v *roster.View) sets {
	s := sets{}
	v.Snapshot().Ascend(func(e *roster.Entry) bool {
		s.putAll(&e.Producer)
		return true
	})
	return s
}

// model is the plain fold of the events: the last record under each key, with
// its revision.
type model map[roster.Key]roster.Found

func (m model) apply(b roster.Batch) {
	for _, e := range b.Events {
		if e.Record == nil {
			delete(m, e.Key)
		} else {
			m[e.Key] = roster.Found{Record: e.Record, Revision: b.Revision}
		}
	}
}

func (m model) sets() sets {
	s := sets{}
	for _, f := range m {
		if p, ok := f.Record.(*roster.Producer); ok {
			s.putAll(p)
		}
	}
	return s
}

func (m model) handoffs() int {
	n := 0
	for _, f := range m {
		if p, ok := f.Record.(*roster.Producer); ok && p.HandoffFrom != "" {
			n++
		}
	}
	return n
}

func (m model) unassigned() []assignment.ProducerID {
	ids := []assignment.ProducerID{}
	for _, f := range m {
		if p, ok := f.Record.(*roster.Producer); ok && p.Collector == "" {
			ids = append(ids, p.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// load makes a view of the model's records, as a fresh process does.
func (m model) load(revision assignment.Revision) *roster.View {
	v := roster.NewView()
	for _, f := range m {
		v.Put(f.Record, f.Revision)
	}
	v.Loaded(revision)
	return v
}

var collectorIDs = []assignment.CollectorID{"", "c1", "c2", "c3"}

func drawProducer(t *rapid.T, id assignment.ProducerID) *roster.Producer {
	stored := []byte{byte(rapid.IntRange(1, 3).Draw(t, "content"))}
	p := &roster.Producer{
		ID: id, Stored: stored, Version: assignment.VersionOf(stored),
		Collector: rapid.SampledFrom(collectorIDs).Draw(t, "collector"),
		Owner:     roster.Owner(rapid.IntRange(0, owners).Draw(t, "owner")),
	}
	if from := rapid.SampledFrom(collectorIDs).Draw(t, "handoff from"); p.Collector != "" && from != p.Collector {
		p.HandoffFrom = from
	}
	return p
}

// drawEvents draws what one transaction may do about one id.
func drawEvents(t *rapid.T) []roster.Event {
	id := assignment.ProducerID(fmt.Sprintf("p%d", rapid.IntRange(0, 7).Draw(t, "producer")))
	c := rapid.SampledFrom(collectorIDs[1:]).Draw(t, "about")
	kind := rapid.SampledFrom([]string{"put", "put", "put", "strike", "vanish", "forget", "collector", "session", "ack"}).Draw(t, "kind")
	there := rapid.Bool().Draw(t, "there")
	record := func(r roster.Record) roster.Event {
		if !there {
			return roster.Event{Key: r.Key()}
		}
		return roster.Event{Key: r.Key(), Record: r}
	}
	switch kind {
	case "put":
		p := drawProducer(t, id)
		return []roster.Event{{Key: p.Key(), Record: p}}
	case "strike":
		cause := assignment.Cause(rapid.IntRange(0, 3).Draw(t, "cause"))
		gone := &roster.Removed{ID: id, Cause: cause}
		events := []roster.Event{{Key: roster.ProducerKey(id)}, {Key: gone.Key(), Record: gone}}
		if there { // the order within a revision says nothing
			slices.Reverse(events)
		}
		return events
	case "vanish":
		return []roster.Event{{Key: roster.ProducerKey(id)}}
	case "forget":
		return []roster.Event{{Key: roster.RemovedKey(id)}}
	case "collector":
		return []roster.Event{record(&roster.Collector{ID: c})}
	case "session":
		return []roster.Event{record(&roster.Session{Collector: c, SubscriptionID: "s"})}
	default:
		return []roster.Event{record(&roster.Ack{Collector: c})}
	}
}

// drawBatch draws a batch in which no key stands twice.
func drawBatch(t *rapid.T, revision assignment.Revision) roster.Batch {
	b := roster.Batch{Revision: revision}
	seen := map[roster.Key]bool{}
	for range rapid.IntRange(0, 5).Draw(t, "transactions") {
		events := drawEvents(t)
		if slices.ContainsFunc(events, func(e roster.Event) bool { return seen[e.Key] }) {
			continue
		}
		for _, e := range events {
			seen[e.Key] = true
		}
		b.Events = append(b.Events, events...)
	}
	return b
}
