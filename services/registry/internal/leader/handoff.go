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
		heard := t.ask(ctx, t.byName(late))
		return func(ctx context.Context) { t.endLate(ctx, late, heard, time.Now()) }
	})
}

// maxAbout is how many producers one question may be about.
const maxAbout = 1000

// endLate decides how handoffs end that last too long.
func (t *term) endLate(ctx context.Context, late []*roster.Entry, heard answers, now time.Time) {
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
				txns = append(txns, t.back(e, now))
			case third:
				thirds = append(thirds, e)
			}
		}
	}) != nil {
		return
	}
	elsewhere := t.Registrar.Elsewhere(t.avoids(now))
	for _, e := range thirds {
		if txn := t.third(e, elsewhere(e), now); len(txn) > 0 {
			txns = append(txns, txn)
		}
	}
	did := t.write(ctx, "the end of late handoffs", txns)
	t.Logger.WarnContext(ctx, "handoffs took too long", "ended", did,
		"finished", ends[finish], "went_back", ends[goBack], "to_a_third", ends[third])
	t.Metrics.Late.Add(float64(did))
}

// back is the write of a return to the one that has the producer.
func (t *term) back(e *roster.Entry, now time.Time) roster.Txn {
	t.avoid[pair{e.ID, e.Collector}] = now.Add(avoidFor)
	return roster.Give(e, roster.Place{Collector: e.HandoffFrom, Reason: roster.PlacementReturned}, false, now)
}

// third is the write of a move to a third collector. If there is none the one that
// had the producer has it, if it lives; else the time-out begins anew.
func (t *term) third(e *roster.Entry, to assignment.CollectorID, now time.Time) roster.Txn {
	live := false
	_ = t.Registrar.Look(func(v *roster.View) {
		c := v.Collector(e.HandoffFrom)
		live = c != nil && c.Live()
	})
	switch {
	case to != "":
		t.avoid[pair{e.ID, e.Collector}] = now.Add(avoidFor)
		return roster.Give(e, roster.Place{Collector: to, Reason: roster.PlacementThird}, false, now)
	case live:
		return t.back(e, now)
	default:
		t.handoffs[e.ID] = handoff{e.Collector, e.HandoffFrom, now}
		return nil
	}
}

// An end is how a handoff ends that lasts too long.
type end int

const (
	finish end = iota + 1
	goBack
	third
)

// A word is what a collector says of a producer.
type word int

const (
	// unknown: it could not be asked, or does not say.
	unknown word = iota
	reaches
	fails
)

// A side is what is known of one of the two collectors of a handoff.
type side struct {
	live bool // it has a subscription
	says word
}

// sides are both of them, whether the new one has acknowledged that it was given
// the producer, and whether it is of a version that tells nothing else.
type sides struct {
	from, to     side
	acknowledged bool
	old          bool
}

// decide says how a late handoff ends. Nobody shall be collected by nobody: while
// the one that had the producer may reach it, and the other does not, it has it.
func (s sides) decide() end {
	switch {
	case s.acknowledged && (s.to.says == reaches || s.old && s.to.live):
		return finish // it was collected, and only its word of it was lost
	case s.from.live && s.from.says != fails && s.to.says != reaches:
		return goBack
	case s.acknowledged:
		return finish // neither reaches it
	default:
		return third
	}
}

// sureFailures is how many collections in a row have to fail before the one that
// had a producer is said not to reach it any more.
const sureFailures = 2

func (t *term) sides(v *roster.View, e *roster.Entry, heard answers) sides {
	of := func(id assignment.CollectorID) side {
		c := v.Collector(id)
		s := side{live: c != nil && c.Live()}
		said, about := heard[id].told[e.ID]
		switch {
		case !about:
		case said.Failing && said.Failures >= sureFailures:
			s.says = fails
		case said.Collected && !said.Failing:
			s.says = reaches
		}
		return s
	}
	to := v.Collector(e.Collector)
	return sides{
		from: of(e.HandoffFrom), to: of(e.Collector),
		acknowledged: to != nil && t.Registrar.Acknowledged(to, e.Revision),
		old:          heard[e.Collector].old,
	}
}
