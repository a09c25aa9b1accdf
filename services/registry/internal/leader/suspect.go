package leader

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// maxNewSuspects is how many producers become suspects in one round. A collector
// whose network broke says that all of its producers fail.
const maxNewSuspects = 10_000

// maxUnreachable is how many producers that their collector does not reach are
// moved in one round.
const maxUnreachable = 1000

// maxAge is how old the word of a collector may be to count: others may have taken
// long to answer.
const maxAge = 30 * time.Second

// hear takes what the collectors said of those that fail.
func (t *term) hear(ctx context.Context, heard hearing) {
	now := time.Now()
	for id, said := range heard.told {
		if now.Sub(said.at) > maxAge {
			delete(heard.told, id)
		}
	}
	var txns, strikes []roster.Txn
	var verdict lease.Verdict
	var unreachable []*roster.Entry
	suspects := 0
	if t.Registrar.Look(func(v *roster.View) {
		round := lease.Round{Credited: t.clock.Credited(), Fleet: v.Producers(), Control: mode(v.Expiry(), now)}
		for s := range v.Suspects {
			suspects++
			e := v.Producer(s.ID)
			if e == nil || e.Permanent {
				txns = append(txns, s.Acquit())
				continue
			}
			round.Suspects = append(round.Suspects, suspectOf(s, e, heard, now))
		}
		verdict = t.judge.Tick(&round)
		for _, id := range verdict.Recovered {
			if s, ok := v.Suspect(id); ok {
				txns = append(txns, s.Acquit())
			}
		}
		for _, id := range verdict.Strike {
			if s, ok := v.Suspect(id); ok {
				strikes = append(strikes, v.StrikeOff(s, now))
			}
		}
		for _, id := range verdict.Unreachable {
			unreachable = append(unreachable, v.Producer(id))
		}
		txns = append(txns, suspected(v, heard, now)...)
	}) != nil {
		return
	}
	t.Metrics.Suspects.Set(float64(suspects))
	t.report(ctx, &verdict)
	t.write(ctx, "suspects", txns)
	t.strike(ctx, strikes)
	t.judge.Moved(t.moveUnreachable(ctx, unreachable, now))
}

// mode is the judge's word for an operator's.
func mode(e *roster.Expiry, now time.Time) lease.Mode {
	switch e.Stands(now) {
	case roster.ExpiryHold:
		return lease.Hold
	case roster.ExpiryHasten:
		return lease.Hasten
	default:
		return lease.Auto
	}
}

// suspectOf is a suspect as the judge sees it.
func suspectOf(s roster.SuspectEntry, e *roster.Entry, heard hearing, now time.Time) lease.Suspect {
	says, reason := witnesses(e, heard)
	return lease.Suspect{
		ID:       s.ID,
		Revision: s.Revision,
		// One whose address answers is reached: another collector would reach the
		// same.
		Renewed:     !s.RenewTime.IsZero() && now.Sub(s.RenewTime) <= e.Lease && reason != overtaken,
		Lease:       e.Lease,
		ExpireAfter: e.ExpireAfter,
		Heard:       says != unknown,
		Failing:     says == fails,
	}
}

// witnesses tells what the collectors with a part in a producer say of it: that it
// answers if it does at one of them, that it fails if it does at each of them, and
// why: that it was overtaken only if that is the reason everywhere. Who says
// nothing of it, because it was given it just now or was started anew, is no
// witness.
func witnesses(e *roster.Entry, heard hearing) (all word, reason string) {
	if e.Collector == "" {
		return unknown, ""
	}
	all = fails
	for id := range e.Parts {
		said, about := heard.told[id].told[e.ID]
		switch {
		case about && said.Failing:
			reason = said.Reason
		case about && said.Collected && heard.overtaken[e.ID] && !said.Identified:
			if reason == "" {
				reason = overtaken
			}
		case about && said.Collected:
			return reaches, ""
		default:
			all = unknown
		}
	}
	return all, reason
}

// suspected are the writes of new suspicions.
func suspected(v *roster.View, heard hearing, now time.Time) []roster.Txn {
	var txns []roster.Txn
	for collector, said := range heard.told {
		for id := range said.told {
			e := v.Producer(id)
			if len(txns) == maxNewSuspects {
				return txns
			}
			if e == nil || e.Collector != collector {
				continue
			}
			if says, reason := witnesses(e, heard); says == fails {
				if txn := v.Suspected(e, collector, reason, now); len(txn) > 0 {
					txns = append(txns, txn)
				}
			}
		}
	}
	return txns
}

// tick lets the clock of the suspects go on, if the registry is able to hear them.
func (t *term) tick(ctx context.Context) {
	healthy := t.pulse(ctx)
	now := time.Now()
	loss := t.clock.Tick(lease.Instant{Mono: now.Sub(t.began), Wall: now}, healthy)
	if loss == "" {
		return
	}
	t.Metrics.Lost.WithLabelValues(string(loss)).Inc()
	t.Logger.WarnContext(ctx, "the last seconds count against nobody", "because", loss)
}

// pulse tells whether the store takes writes, by writing the leader's record
// anew. While nobody is suspected nothing depends on it.
func (t *term) pulse(ctx context.Context) bool {
	var txn roster.Txn
	mine := false
	if t.Registrar.Look(func(v *roster.View) {
		// It may be another's since the last step, and bound to this process's
		// session it would outlive that one.
		lead := v.Leader()
		if mine = t.leadsBy(lead); !mine {
			return
		}
		for range v.Suspects {
			txn = lead.Again()
			break
		}
	}) != nil || !mine {
		return false
	}
	if len(txn) == 0 {
		return true
	}
	did, err := t.Registrar.Write(ctx, []roster.Txn{txn})
	return err == nil && did == 1 && t.stands()
}

// report tells people how many are due.
func (t *term) report(ctx context.Context, v *lease.Verdict) {
	t.Metrics.Due.Set(float64(v.Due))
	t.Metrics.Held.Set(flag(v.Held))
	if v.Held {
		t.Logger.ErrorContext(ctx, "many producers seem to be dead at once: their expiry is held, and then paced",
			"mass", v.Mass, "of", v.Of, "due", v.Due, "held_for", v.HeldFor, "paced", v.Paced)
	}
}

// strike takes those off that neither renew nor answer.
func (t *term) strike(ctx context.Context, txns []roster.Txn) {
	kept := txns[:0]
	for _, txn := range txns {
		if len(txn) > 0 {
			kept = append(kept, txn)
		}
	}
	if did := t.write(ctx, "the end of producers", kept); len(kept) > 0 {
		t.Metrics.Struck.Add(float64(did))
		t.Logger.WarnContext(ctx, "struck off producers that neither renewed nor answered", "producers", did, "renewed_meanwhile", len(kept)-did)
	}
}

// moveUnreachable gives producers that renew, and that their collector does not
// reach, to another one. It returns those that it gave away, or that were given
// away by the leader before not long ago.
func (t *term) moveUnreachable(ctx context.Context, all []*roster.Entry, now time.Time) (moved []assignment.ProducerID) {
	var txns []roster.Txn
	elsewhere := t.Registrar.Elsewhere(t.avoids(now))
	for _, e := range all {
		switch {
		case e == nil, e.HandoffFrom != "", len(txns) == maxUnreachable:
		case e.AssignReason == roster.PlacementUnreachable && now.Sub(e.AssignTime) < time.Hour:
			moved = append(moved, e.ID)
		default:
			if to := elsewhere(e); to != "" {
				txns = append(txns, roster.Give(e, roster.Place{Collector: to, Reason: roster.PlacementUnreachable}, false, now))
				moved = append(moved, e.ID)
			}
		}
	}
	did := t.write(ctx, "moves of those that are not reached", txns)
	if did > 0 {
		t.Metrics.Moves.WithLabelValues("unreachable").Add(float64(did))
		t.Logger.InfoContext(ctx, "moving producers that renew and that their collector does not reach", "producers", did)
	}
	if did < len(txns) {
		return nil // some are told again; those that were moved are in a handoff
	}
	return moved
}
