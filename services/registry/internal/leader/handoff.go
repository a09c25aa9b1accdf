package leader

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// A handoff is one that this term has seen, and since when.
type handoff struct {
	to, from assignment.CollectorID
	since    time.Time
}

// avoidFor is how long a producer is not given to a collector again that did not
// come to collect it.
const avoidFor = 10 * time.Minute

// lookAtHandoffs ends those that last too long.
func (t *term) lookAtHandoffs(ctx context.Context, now time.Time) {
	var orphaned []roster.Txn // those whose source can be told nothing any more
	var late []*roster.Entry
	seen := map[assignment.ProducerID]handoff{}
	if t.Registrar.Look(func(v *roster.View) {
		for e := range v.Handoffs {
			if c := v.Collector(e.HandoffFrom); c == nil {
				orphaned = append(orphaned, roster.Finish(e))
				continue
			} else if c.Collector.Expunged() {
				orphaned = append(orphaned, roster.Standing(roster.Finish(e), e.HandoffFrom, c.CollectorRevision))
				continue
			}
			h, known := t.handoffs[e.ID]
			if !known || h.to != e.Collector || h.from != e.HandoffFrom {
				h = handoff{e.Collector, e.HandoffFrom, now}
			}
			seen[e.ID] = h
			if now.Sub(h.since) >= max(t.Handoff, 2*t.IntervalOf(e.Stored)) {
				late = append(late, e)
			}
		}
	}) != nil {
		return
	}
	t.handoffs = seen
	t.write(ctx, "the end of handoffs without a source", orphaned)
	if len(late) == 0 {
		return
	}
	t.besides(ctx, "handoffs", func(ctx context.Context) func(context.Context) {
		heard := t.ask(ctx, t.about(late))
		return func(ctx context.Context) { t.endLate(ctx, late, heard, time.Now()) }
	})
}

// maxAbout is how many producers one question may be about.
const maxAbout = 1000

// about are questions to both sides of handoffs.
func (t *term) about(late []*roster.Entry) []Question {
	asked := map[assignment.CollectorID]*Question{}
	_ = t.Registrar.Look(func(v *roster.View) {
		for _, e := range late {
			for id := range e.Parts {
				if asked[id] == nil && v.Collector(id) != nil {
					q := question(v.Collector(id))
					asked[id] = &q
				}
				if q := asked[id]; q != nil && len(q.Producers) < maxAbout {
					q.Producers = append(q.Producers, e.ID)
				}
			}
		}
	})
	var questions []Question
	for _, q := range asked {
		questions = append(questions, *q)
	}
	return questions
}

// endLate decides how handoffs end that last too long.
func (t *term) endLate(ctx context.Context, late []*roster.Entry, heard map[assignment.CollectorID]testimonies, now time.Time) {
	var txns []roster.Txn
	var thirds []*roster.Entry
	ends := map[end]int{}
	if t.Registrar.Look(func(v *roster.View) {
		for _, was := range late {
			e := v.Producer(was.ID)
			if e == nil || e.Revision != was.Revision {
				continue
			}
			how := t.sides(v, e, heard).decide()
			ends[how]++
			switch how {
			case finish:
				txns = append(txns, roster.Finish(e))
			case goBack:
				t.avoid[pair{e.ID, e.Collector}] = now.Add(avoidFor)
				back := roster.Place{Collector: e.HandoffFrom, Reason: roster.PlacementReturned}
				txns = append(txns, roster.Give(e, back, false, now))
			case third:
				t.avoid[pair{e.ID, e.Collector}] = now.Add(avoidFor)
				thirds = append(thirds, e)
			case wait:
			}
		}
	}) != nil {
		return
	}
	for _, e := range thirds {
		if to := t.Registrar.Elsewhere(e, t.avoids(now)); to != "" {
			txns = append(txns, roster.Give(e, roster.Place{Collector: to, Reason: roster.PlacementThird}, false, now))
		}
	}
	did := t.write(ctx, "the end of late handoffs", txns)
	t.Logger.WarnContext(ctx, "handoffs took too long", "ended", did,
		"finished", ends[finish], "went_back", ends[goBack], "to_a_third", ends[third], "waiting", ends[wait])
	t.Metrics.Late.Add(float64(did))
}

// An end is how a handoff ends that lasts too long.
type end int

const (
	wait end = iota
	finish
	goBack
	third
)

// A side is what is known of one of the two collectors of a handoff.
type side struct {
	live bool // it has a subscription

	// heard tells that it could be asked, reaches that the producer's last
	// collection there succeeded.
	heard, reaches bool
}

// sides are both of them, and whether the new one has acknowledged that it was
// given the producer.
type sides struct {
	from, to     side
	acknowledged bool
}

// decide says how a late handoff ends. Nobody shall be collected by nobody: while
// the one that had the producer may reach it, and the other does not, it has it.
func (s sides) decide() end {
	switch {
	case s.to.reaches && s.acknowledged:
		return finish // it was collected; only its word of it was lost
	case s.from.live && (s.from.reaches || !s.from.heard) && !s.to.reaches:
		return goBack
	case s.acknowledged:
		return finish // neither reaches it
	case !s.from.live || !s.to.live:
		return third
	default:
		return wait
	}
}

func (t *term) sides(v *roster.View, e *roster.Entry, heard map[assignment.CollectorID]testimonies) sides {
	of := func(id assignment.CollectorID) side {
		var s side
		c := v.Collector(id)
		s.live = c != nil && c.Live()
		told, ok := heard[id]
		said, about := told[e.ID]
		s.heard = ok
		s.reaches = about && said.Collected && !said.Failing
		return s
	}
	to := v.Collector(e.Collector)
	return sides{
		from: of(e.HandoffFrom), to: of(e.Collector),
		acknowledged: to != nil && t.Registrar.Acknowledged(to, e.Revision),
	}
}
