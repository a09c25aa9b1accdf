// Package leader does what one registry process does for all of them: it asks
// the collectors how their producers answer, and strikes off, hands off and
// evens out by what they say.
//
// Its invariant: what it does it does under one leadership. Every write is
// fenced by the leader's record, and what it remembers (since when somebody is
// away, since when somebody fails) it forgets when it leads no more.
package leader

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"golang.org/x/sync/errgroup"
)

// A Testimony is what a collector says of one producer.
type Testimony struct {
	ID assignment.ProducerID

	// Failing tells that its last collection failed for a reason of its own,
	// Failures how many have in a row, and Reason why the last one did.
	Failing  bool
	Failures int64
	Reason   string

	// Rate is how many samples a second it yields; zero before the first
	// collection that succeeded.
	Rate float64

	// Collected tells that any collection has succeeded there.
	Collected bool

	// Identified tells that its last answer named it.
	Identified bool
}

// A Question is put to one collector.
type Question struct {
	Collector assignment.CollectorID
	Instance  assignment.InstanceID

	// Address is where the collector answers, host:port.
	Address string

	// Producers are those that it is about; empty: all.
	Producers []assignment.ProducerID

	// Failing asks only for those that fail.
	Failing bool

	// Most is how many testimonies there can be.
	Most int
}

// ErrNoWitness is the error of a collector of a version that cannot be asked.
var ErrNoWitness = errors.New("it is of a version that is no witness")

// An Asker asks collectors. It is called by several goroutines at a time.
type Asker interface {
	// Ask hands every testimony to tell, and fails unless all of them were had
	// from the very process that the question is for.
	Ask(ctx context.Context, q Question, tell func(Testimony)) error
}

// Config is what a Leader needs.
type Config struct {
	Registrar *registrar.Registrar
	Asker     Asker

	// Instance names this registry process.
	Instance assignment.InstanceID

	// IntervalOf is the interval of an encoded assignment.
	IntervalOf func(stored []byte) time.Duration

	Times

	Logger  *slog.Logger
	Metrics *Metrics
}

// Times are the leader's. Zero stands for the default of each.
type Times struct {
	// Grace is how long a collector may be without a subscription, Settle how
	// long the live ones must be the same before those of others are handed off.
	Grace, Settle time.Duration

	// Handoff is how long a handoff may take, two intervals at least.
	Handoff time.Duration

	// Ask is the time between two rounds of questions about those that fail,
	// Weigh between two about what all yield.
	Ask, Weigh time.Duration

	// MassLease is how long a mass expiry is held.
	MassLease time.Duration
}

// The defaults of Times that no other package has.
const (
	DefaultHandoff = 60 * time.Second
	DefaultAsk     = 15 * time.Second
	DefaultWeigh   = 60 * time.Second
)

const (
	stepInterval = time.Second
	tickInterval = 5 * time.Second
	askTimeout   = time.Minute

	// maxAsking is how many collectors are asked at a time.
	maxAsking = 16

	// writeBatch is how many transactions are committed at once.
	writeBatch = 1000
)

// A Leader leads when it is its turn.
type Leader struct {
	Config
}

// New makes a Leader. It does nothing before Run.
func New(c Config) *Leader {
	or := func(d *time.Duration, standard time.Duration) {
		if *d <= 0 {
			*d = standard
		}
	}
	or(&c.Handoff, DefaultHandoff)
	or(&c.Ask, DefaultAsk)
	or(&c.Weigh, DefaultWeigh)
	return &Leader{Config: c}
}

// Run weighs what producers yield and, whenever nobody else leads, leads, until
// ctx ends.
func (l *Leader) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { l.weigh(ctx); return nil })
	group.Go(func() error { l.lead(ctx); return nil })
	return group.Wait()
}

// weigh asks all collectors, from time to time, what their producers yield.
// Every replica does: each of them places producers.
func (l *Leader) weigh(ctx context.Context) {
	for l.Registrar.AwaitServing(ctx) == nil {
		questions, err := l.questions(false)
		if err == nil && len(questions) > 0 {
			for q, said := range l.ask(ctx, questions) {
				rates := make(map[assignment.ProducerID]float64, len(said.told))
				for id, t := range said.told {
					if t.Rate > 0 {
						rates[id] = t.Rate
					}
				}
				l.Registrar.Weigh(q, rates)
			}
		}
		l.Registrar.SumWeights()
		if !pause(ctx, l.Weigh/2+rand.N(l.Weigh/2)+l.Weigh/4) {
			return
		}
	}
}

// questions are those to all live collectors that have producers.
func (l *Leader) questions(failing bool) ([]Question, error) {
	var all []Question
	err := l.Registrar.Look(func(v *roster.View) {
		for c := range v.Collectors {
			if c.Live() && c.Assigned+c.Leaving > 0 {
				q := question(c)
				q.Failing = failing
				all = append(all, q)
			}
		}
	})
	return all, err
}

// moreThanKnown is how many more producers a collector may tell of than it has
// here: what it holds, and what has just left it.
const moreThanKnown = 10_000

func question(c *roster.CollectorEntry) Question {
	return Question{
		Collector: c.Collector.ID, Instance: c.Collector.Newest().ID, Address: c.Collector.IntrospectionEndpoint,
		Most: 2*(c.Assigned+c.Leaving) + moreThanKnown,
	}
}

// An answer is what one collector said.
type answer struct {
	told map[assignment.ProducerID]Testimony

	// at is when it began to say so, the first of several answers.
	at time.Time

	// old tells that it is of a version that cannot be asked.
	old bool
}

// answers are those of the collectors that were heard.
type answers map[assignment.CollectorID]answer

// ask puts questions, some at a time, and returns what those said that could be
// asked. One that answers only some of several questions is not heard.
func (l *Leader) ask(ctx context.Context, questions []Question) answers {
	all := make([]*answer, len(questions))
	var group errgroup.Group
	group.SetLimit(maxAsking)
	for i, q := range questions {
		group.Go(func() error {
			all[i] = l.askOne(ctx, q)
			return nil
		})
	}
	_ = group.Wait() // no error is returned above
	heard := answers{}
	for i, q := range questions {
		if all[i] == nil {
			continue
		}
		before, known := heard[q.Collector]
		if !known {
			heard[q.Collector] = *all[i]
			continue
		}
		maps.Copy(before.told, all[i].told)
		if all[i].at.Before(before.at) {
			before.at = all[i].at
		}
		heard[q.Collector] = before
	}
	for i, q := range questions {
		if all[i] == nil {
			delete(heard, q.Collector)
		}
	}
	return heard
}

// askOne returns nil if the collector could not be asked.
func (l *Leader) askOne(ctx context.Context, q Question) *answer {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a := &answer{told: map[assignment.ProducerID]Testimony{}, at: time.Now()}
	err := l.Asker.Ask(ctx, q, func(t Testimony) { a.told[t.ID] = t })
	switch {
	case err == nil:
		l.Metrics.Asked.WithLabelValues("answered").Inc()
	case errors.Is(err, ErrNoWitness):
		l.Metrics.Asked.WithLabelValues("no_witness").Inc()
		a.old = true
	default:
		l.Metrics.Asked.WithLabelValues("failed").Inc()
		l.Logger.DebugContext(ctx, "a collector could not be asked", "collector", q.Collector, "address", q.Address, "error", err)
		return nil
	}
	return a
}

// lead leads whenever nobody else does.
func (l *Leader) lead(ctx context.Context) {
	for l.Registrar.AwaitServing(ctx) == nil {
		if lead, ok := l.elect(ctx); ok {
			l.Logger.InfoContext(ctx, "this registry leads")
			l.Metrics.Leading.Set(1)
			newTerm(l, lead).run(ctx)
			l.Metrics.forget()
			l.Logger.InfoContext(ctx, "this registry leads no more")
		}
		if !pause(ctx, stepInterval) {
			return
		}
	}
}

// elect takes the lead if nobody has it, and tells whether this process has.
func (l *Leader) elect(ctx context.Context) (roster.LeaderEntry, bool) {
	lead, txn := l.leads()
	if len(txn) > 0 {
		if _, err := l.Registrar.Write(ctx, []roster.Txn{txn}); err != nil {
			l.Logger.DebugContext(ctx, "could not take the lead", "error", err)
			return roster.LeaderEntry{}, false
		}
		lead, _ = l.leads()
	}
	return lead, l.leadsBy(lead)
}

// leadsBy tells whether a leader's record is this process's.
func (l *Leader) leadsBy(lead roster.LeaderEntry) bool {
	return lead.Leader != nil && lead.Registry == l.Instance
}

// leads is who leads, and what taking the lead writes if nobody does.
func (l *Leader) leads() (lead roster.LeaderEntry, txn roster.Txn) {
	err := l.Registrar.Look(func(v *roster.View) { lead, txn = v.Leader(), v.Elect(l.Instance, time.Now()) })
	if err != nil {
		return roster.LeaderEntry{}, nil
	}
	return lead, txn
}

// pause returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
