package leader

import (
	"context"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A hearing is what all collectors said in one round.
type hearing struct {
	told answers

	// overtaken are the producers at whose host and port another one answers that
	// was registered later, and which the collectors were asked about by name.
	// That something answers there is no sign of life of theirs, unless it says
	// that it is they.
	overtaken map[assignment.ProducerID]bool
}

// overtaken is why such a producer fails.
const overtaken = "another producer was registered at its address"

// maxOvertaken is how many of them are asked about in one round, beside those that
// are suspected.
const maxOvertaken = 10_000

// listen asks all collectors about those that fail, and about those that were
// overtaken.
//
// Of those that answer all the same and renew, such as several producers behind
// one exporter, nothing is kept but that they are suspects, and nothing is done.
func (t *term) listen(ctx context.Context) (hearing, error) {
	questions, err := t.questions(true)
	if err != nil {
		return hearing{}, err
	}
	h := hearing{overtaken: map[assignment.ProducerID]bool{}}
	all := t.Registrar.Overtaken(maxOvertaken)
	for _, e := range all {
		h.overtaken[e.ID] = true
	}
	all = append(all, t.suspects()...) // one that answers has to be heard to do so
	h.told = t.ask(ctx, slices.Concat(questions, t.byName(all)))
	return h, nil
}

// suspects are those that are suspected now.
func (t *term) suspects() []*roster.Entry {
	var all []*roster.Entry
	_ = t.Registrar.Look(func(v *roster.View) {
		for s := range v.Suspects {
			if e := v.Producer(s.ID); e != nil {
				all = append(all, e)
			}
		}
	})
	return all
}

// byName are questions about producers to all that have a part in them, as many
// as it takes.
func (t *term) byName(all []*roster.Entry) []Question {
	parts := map[assignment.CollectorID][]assignment.ProducerID{}
	for _, e := range all {
		for id := range e.Parts {
			parts[id] = append(parts[id], e.ID)
		}
	}
	var questions []Question
	_ = t.Registrar.Look(func(v *roster.View) {
		for id, ids := range parts {
			c := v.Collector(id)
			if c == nil {
				continue
			}
			for some := range slices.Chunk(ids, maxAbout) {
				q := question(c)
				q.Producers, q.Most = some, len(some)
				questions = append(questions, q)
			}
		}
	})
	return questions
}
