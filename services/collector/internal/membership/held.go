package membership

import (
	"context"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	// tickInterval is how often the evidence is looked at.
	tickInterval = 10 * time.Second

	// keepInterval is how often the log is told how far absences have been
	// confirmed. A crash loses at most that much of the confirmation, which is
	// then waited for again.
	keepInterval = 15 * time.Minute

	// remindInterval is how often the log of the process says that producers
	// are held.
	remindInterval = time.Hour

	defaultHeartbeat = 5 * time.Second
	minHeartbeat     = 100 * time.Millisecond
	maxHeartbeat     = 5 * time.Minute
)

// BeatOf is the interval of heartbeats to reckon with, whatever the registry says
// it is: for how long a stream may be silent, and what one heartbeat may confirm.
// None, or a negative one, is no interval: a watchdog of milliseconds would end
// every stream, and nothing would ever be confirmed.
func BeatOf(told time.Duration) time.Duration {
	if told <= 0 {
		return defaultHeartbeat
	}
	return min(max(told, minHeartbeat), maxHeartbeat)
}

// Run lets go of held producers when there is evidence, until ctx ends.
func (m *Membership) Run(ctx context.Context) error {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			m.tick(ctx, time.Now())
		case <-ctx.Done():
			return nil
		}
	}
}

// tick looks at the evidence, at a time of the monotonic clock. The survey is
// made also while nothing is held: it tells for how long this collector has been
// fit to judge.
func (m *Membership) tick(ctx context.Context, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	survey := m.Witness.Survey(m.guard.Holds)
	v := m.guard.Tick(&survey, now)
	if len(v.Released) > 0 {
		m.apply(ctx, Entry{}, nil, &v)
		m.Logger.WarnContext(ctx, "released held producers by evidence", "failing", count(&v, guard.ReasonFailing),
			"confirmed", count(&v, guard.ReasonConfirmed), "held", m.guard.Len())
	}
	if m.guard.Len() == 0 {
		m.kept = time.Time{}
		return
	}
	m.keepProgress(ctx, now)
	if m.reminded.IsZero() || now.Sub(m.reminded) >= remindInterval {
		m.reminded = now
		m.Logger.WarnContext(ctx, "producers are still held", "held", m.guard.Len(), "accepted", m.accepted.Set.Len())
	}
}

// keepProgress tells the log how far absences have been confirmed. The caller
// holds mu.
func (m *Membership) keepProgress(ctx context.Context, now time.Time) {
	if m.kept.IsZero() {
		m.kept = now
	}
	if now.Sub(m.kept) < keepInterval {
		return
	}
	m.kept = now
	if held := m.guard.Progress(); len(held) > 0 {
		m.persist(ctx, Entry{Held: held})
	}
}

func count(v *guard.Verdict, reason guard.Reason) int {
	n := 0
	for _, e := range v.Ended {
		if e.Reason == reason {
			n++
		}
	}
	return n
}

// Expunged holds everything that was accepted: the registry says that this
// collector is no member any more, and names nobody who has its producers. It is
// sealed as a snapshot of nobody, so that the log stays a recorded stream; when
// the collector is a member again, its producers return. Again it does nothing.
func (m *Membership) Expunged(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.accepted.Epoch == "" || m.accepted.Set.Len() == 0 {
		return nil
	}
	position := m.accepted.Position
	assembler := snapshot.NewAssembler(m.accepted, m.MaxProducers)
	if _, err := assembler.Add(&assignment.Begin{
		SnapshotID: 1, Epoch: position.Epoch, Revision: position.Revision, Scope: assignment.ScopeAll,
		AssignmentFormat: m.accepted.Format,
	}); err != nil {
		return err
	}
	sealed, err := assembler.Add(&assignment.End{SnapshotID: 1, Epoch: position.Epoch, Revision: position.Revision})
	if err != nil {
		return err
	}
	m.guard.NewStream()
	v := m.guard.Seal(changeOf(sealed, position), 0, m.Witness.Evidence, time.Now())
	m.guard.NewStream()
	m.Logger.ErrorContext(ctx, "this collector was expunged; what it collected is held", "held", m.guard.Len())
	m.apply(ctx, Entry{Frames: sealed.Frames}, nil, &v)
	return nil
}

// A Released is what an operator's release came to.
type Released struct {
	// Count is how many were released, NotHeld those that were not held.
	Count   int
	NotHeld []assignment.ProducerID

	// Persisted tells that it is on stable storage. Else a restart may hold
	// them again.
	Persisted bool
}

// Release lets go of held producers because an operator says so.
func (m *Membership) Release(ctx context.Context, ids []assignment.ProducerID) Released {
	m.mu.Lock()
	defer m.mu.Unlock()
	var r Released
	for _, id := range ids {
		if !m.guard.Holds(id) {
			r.NotHeld = append(r.NotHeld, id)
		}
	}
	r.Count = m.release(ctx, ids)
	r.Persisted = m.persisted
	return r
}

// ReleaseAll lets go of everything that is held because an operator says so.
func (m *Membership) ReleaseAll(ctx context.Context) Released {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []assignment.ProducerID
	for h := range m.guard.After("") {
		ids = append(ids, h.Assignment.ProducerID)
	}
	count := m.release(ctx, ids)
	return Released{Count: count, Persisted: m.persisted}
}

func (m *Membership) release(ctx context.Context, ids []assignment.ProducerID) int {
	v := m.guard.Release(ids)
	if len(v.Released) > 0 {
		m.apply(ctx, Entry{}, nil, &v)
		m.Logger.WarnContext(ctx, "an operator released held producers", "released", len(v.Released), "held", m.guard.Len())
	}
	return len(v.Released)
}

// Held returns up to limit held producers behind an id, in the order of the ids.
func (m *Membership) Held(after assignment.ProducerID, limit int) []guard.Held {
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []guard.Held
	for h := range m.guard.After(after) {
		if len(held) == limit {
			break
		}
		held = append(held, h)
	}
	return held
}

// HeldIDs returns the ids of those that Held returns.
func (m *Membership) HeldIDs(after assignment.ProducerID, limit int) []assignment.ProducerID {
	held := m.Held(after, limit)
	ids := make([]assignment.ProducerID, len(held))
	for i, h := range held {
		ids[i] = h.Assignment.ProducerID
	}
	return ids
}

// Holds reports whether a producer is held.
func (m *Membership) Holds(id assignment.ProducerID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guard.Holds(id)
}
