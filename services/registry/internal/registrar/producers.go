package registrar

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// RegisterProducer is the command of a producer that asks to be collected.
type RegisterProducer struct {
	ID       assignment.ProducerID
	Stored   []byte
	Instance assignment.InstanceID

	// Hint is the collector of the producer's last answer, or empty.
	Hint assignment.CollectorID

	roster.Life
	Zone string
	Rate float64

	Quota Quota

	// ValidateOnly asks what would be, and writes nothing.
	ValidateOnly bool
}

// Registered is what became of a registration.
type Registered struct {
	Producer *roster.Producer
	Epoch    assignment.Epoch
	Revision assignment.Revision
	Changed  bool

	// Err is why it was refused; the rest is then empty.
	Err error
}

// maxAttempts bounds how often a command is decided anew because somebody else
// wrote what it had read.
const maxAttempts = 16

// RegisterProducers carries out registrations, each by itself, and answers in
// their order. No two may have the same id.
func (r *Registrar) RegisterProducers(ctx context.Context, cmds []RegisterProducer) []Registered {
	results := make([]Registered, len(cmds))
	todo := make([]int, len(cmds))
	for i := range todo {
		todo[i] = i
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		var err error
		if attempt == maxAttempts {
			err = roster.Refuse(roster.Aborted, roster.ReasonContended, "others keep writing this producer; try again")
		} else {
			todo, err = r.registerRound(ctx, cmds, todo, results)
		}
		if err != nil {
			for _, i := range todo {
				results[i] = Registered{Err: err}
			}
			break
		}
	}
	return results
}

// A round is what one attempt at registrations writes.
type round struct {
	txns    []roster.Txn
	writing []int // the registration of each transaction
	planned []assignment.CollectorID

	arriving []*arrival // of each transaction; nil: it counts for nobody anew
}

// registerRound decides and commits what is still to do, and returns what was
// contended. With an error everything it returns has failed by it.
func (r *Registrar) registerRound(ctx context.Context, cmds []RegisterProducer, todo []int, results []Registered) ([]int, error) {
	round, err := r.decideRound(cmds, todo, results)
	if err != nil {
		return todo, err
	}
	defer r.landed(round.planned)
	if len(round.txns) == 0 {
		return nil, nil
	}
	outcomes, err := r.commit(ctx, round.txns)
	r.arrived(&round, outcomes)
	if err != nil {
		return round.writing, err
	}
	var contended []int
	var newest assignment.Revision
	for n, o := range outcomes {
		if o.Committed {
			if results[round.writing[n]].Changed {
				results[round.writing[n]].Revision = o.Revision
			}
			newest = max(newest, o.Revision)
		} else {
			contended = append(contended, round.writing[n])
		}
	}
	return contended, r.settle(ctx, newest, len(contended) > 0)
}

func (r *Registrar) decideRound(cmds []RegisterProducer, todo []int, results []Registered) (round, error) {
	var d round
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.serving(); err != nil {
		return d, err
	}
	epoch, plan, now := r.view.Epoch(), r.plan(), time.Now()
	for _, i := range todo {
		txn, result := r.decideRegister(cmds[i], plan, now)
		results[i] = result
		results[i].Epoch = epoch
		if len(txn) == 0 || cmds[i].ValidateOnly {
			continue
		}
		d.txns, d.writing = append(d.txns, txn), append(d.writing, i)
		d.arriving = append(d.arriving, r.arrive(result.Producer))
		if before := r.view.Producer(cmds[i].ID); result.Changed && (before == nil || before.Collector == "") {
			d.planned = append(d.planned, result.Producer.Collector)
			r.inFlight[result.Producer.Collector]++
		}
	}
	return d, nil
}

// decideRegister decides one registration. The caller holds mu.
func (r *Registrar) decideRegister(cmd RegisterProducer, plan func(*RegisterProducer) roster.Place, now time.Time) (roster.Txn, Registered) {
	before := r.view.Producer(cmd.ID)
	if cmd.Life == (roster.Life{}) {
		cmd.Life = roster.LifeOf(cmd.Instance != "")
	}
	same := before != nil && (bytes.Equal(before.Stored, cmd.Stored) || r.SameStored(before.Stored, cmd.Stored))
	did, err := r.view.Register(
		roster.RegisterProducer{
			ID: cmd.ID, Stored: cmd.Stored, Same: same, Instance: cmd.Instance, Life: cmd.Life, Zone: cmd.Zone, Rate: cmd.Rate,
			Owner: cmd.Quota.Owner, Limit: cmd.Quota.Limit, Owned: r.owned(cmd.Quota.Owner, cmd.ID),
		},
		func() roster.Place { return plan(&cmd) }, now)
	if err != nil {
		if refused := (*roster.Error)(nil); !cmd.ValidateOnly && errors.As(err, &refused) && refused.Reason == roster.ReasonInstanceReplaced {
			r.rivals.note(cmd.ID, cmd.Instance, leaseOf(before), now)
		}
		return nil, Registered{Err: err}
	}
	result := Registered{Producer: did.Producer, Changed: did.Changed}
	if before != nil {
		result.Revision = before.Revision
	}
	return did.Txn, result
}

// leaseOf is a producer's, zero of none.
func leaseOf(e *roster.Entry) time.Duration {
	if e == nil {
		return 0
	}
	return e.Lease
}

// landed takes placements off those in flight: they are in the view now, or
// never will be.
func (r *Registrar) landed(planned []assignment.CollectorID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range planned {
		if r.inFlight[id]--; r.inFlight[id] == 0 {
			delete(r.inFlight, id)
		}
	}
}

// commit counts what becomes of transactions. It is bounded, whatever the
// caller's patience: a store that hangs must not collect callers.
func (r *Registrar) commit(ctx context.Context, txns []roster.Txn) ([]roster.Outcome, error) {
	bounded, cancel := context.WithTimeout(ctx, commitWait)
	defer cancel()
	outcomes, err := r.Store.Commit(bounded, txns)
	if err != nil {
		r.Metrics.Commits.WithLabelValues("failed").Add(float64(len(txns)))
		if ctx.Err() != nil || errors.Is(err, ErrFull) {
			return nil, err
		}
		r.Logger.WarnContext(ctx, "the store failed a transaction", "error", err)
		return nil, roster.Refuse(roster.Unavailable, roster.ReasonOutcomeUnknown, "the store does not answer; what became of this command is not known")
	}
	committed := 0
	for _, o := range outcomes {
		if o.Committed {
			committed++
		}
	}
	r.Metrics.Commits.WithLabelValues("committed").Add(float64(committed))
	r.Metrics.Commits.WithLabelValues("conflict").Add(float64(len(txns) - committed))
	return outcomes, nil
}

// settle waits for the own view: a short time for what was written, so that the
// writer reads its write here, and after a conflict until it shows what the
// conflict was with.
func (r *Registrar) settle(ctx context.Context, written assignment.Revision, conflict bool) error {
	if conflict {
		bounded, cancel := context.WithTimeout(ctx, catchUpWait)
		defer cancel()
		revision, err := r.Store.Sync(bounded)
		if err != nil {
			return roster.Refuse(roster.Unavailable, roster.ReasonNotServing, "the store does not answer")
		}
		return r.catchUp(ctx, revision)
	}
	bounded, cancel := context.WithTimeout(ctx, ownViewWait)
	defer cancel()
	if err := r.await(bounded, written); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// execute decides and commits until nobody else's write comes in between. An
// empty Txn ends it with the revision of the view.
func (r *Registrar) execute(ctx context.Context, decide func(now time.Time) (roster.Txn, error)) (assignment.Epoch, assignment.Revision, error) {
	for range maxAttempts {
		txn, at, err := r.decide(decide)
		if err != nil || len(txn) == 0 {
			return at.Epoch, at.Revision, err
		}
		outcomes, err := r.commit(ctx, []roster.Txn{txn})
		if err != nil {
			return "", 0, err
		}
		if err := r.settle(ctx, outcomes[0].Revision, !outcomes[0].Committed); err != nil {
			return "", 0, err
		}
		if outcomes[0].Committed {
			return at.Epoch, outcomes[0].Revision, nil
		}
	}
	return "", 0, roster.Refuse(roster.Aborted, roster.ReasonContended, "others keep writing the same; try again")
}

func (r *Registrar) decide(decide func(now time.Time) (roster.Txn, error)) (roster.Txn, Position, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at := Position{r.view.Epoch(), r.view.Revision()}
	if err := r.serving(); err != nil {
		return nil, at, err
	}
	txn, err := decide(time.Now())
	return txn, at, err
}

// DeregisterProducer takes a producer off the roll. changed tells whether there
// was one.
func (r *Registrar) DeregisterProducer(ctx context.Context, id assignment.ProducerID, instance assignment.InstanceID) (epoch assignment.Epoch, revision assignment.Revision, changed bool, err error) {
	decide := func(now time.Time) (roster.Txn, error) {
		txn, err := r.view.Deregister(id, instance, now)
		changed = len(txn) > 0
		return txn, err
	}
	epoch, revision, err = r.execute(ctx, decide)
	if err != nil || changed {
		return epoch, revision, changed, err
	}
	// Who is not in the view may be in the store already, and must not be left
	// there by an answer that it is gone.
	if err := r.settle(ctx, 0, true); err != nil {
		return "", 0, false, err
	}
	epoch, revision, err = r.execute(ctx, decide)
	return epoch, revision, changed, err
}
