// Package membership owns a collector's set: what the registry sealed, what is
// held back, and so what is collected.
//
// Its invariant: what is collected changes only when a snapshot was sealed or a
// held producer released, as a whole; the state file is told in the same step,
// and the registry after that.
package membership

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// State is what a collector resumes with.
type State struct {
	Accepted *snapshot.Accepted
	Held     []guard.Held
}

// Entry is one step of the state.
type Entry struct {
	// Frames are those of one sealed snapshot, or none.
	Frames []assignment.Frame

	// Released are no longer held.
	Released []assignment.ProducerID

	// Held are newly held, or were confirmed further.
	Held []guard.Held

	// Position is where an equal heartbeat has advanced the set to, or nil.
	Position *snapshot.Position
}

// A Log keeps the state on stable storage. An Append that returned nil survives
// a crash. current tells the state after the entry, should the log want to
// write it anew.
type Log interface {
	Append(entry Entry, current func() State) error
}

// A Runner collects the applied set. Change is atomic, quick, and safe for
// concurrent use.
type Runner interface {
	Change(upserts []*assignment.Assignment, released []guard.Release)
}

// A Witness tells how the collections of the applied set go. It is safe for
// concurrent use, and must not call the Membership.
type Witness interface {
	// Evidence is what those of one producer say.
	Evidence(id assignment.ProducerID) guard.Evidence

	// Survey is what all of them say; held tells which producers to look at
	// more closely.
	Survey(held func(assignment.ProducerID) bool) guard.Survey
}

// Config is what a Membership needs.
type Config struct {
	Log     Log
	Runner  Runner
	Witness Witness

	// MaxProducers bounds the accepted set.
	MaxProducers int

	Logger  *slog.Logger
	Metrics *Metrics
}

// A Membership is safe for concurrent use, but frames come from one stream at a
// time.
type Membership struct {
	Config

	mu        sync.Mutex // guards all below
	accepted  *snapshot.Accepted
	guard     *guard.Guard
	assembler *snapshot.Assembler
	lastBegin Subscription
	beat      time.Duration // the heartbeat interval of the stream
	persisted bool
	lastSeal  time.Time
	refusal   *assignment.Refusal // since the last seal
	refusals  int                 // in a row
	snapshot  uint64              // that was sealed or refused last
	holds     int64               // producers that were held since the start
	reminded  time.Time           // of what is held; zero before the first time
	kept      time.Time           // the progress of what is held, in the log
}

// Subscription names the stream that the last snapshot came by.
type Subscription struct {
	ID       string
	Registry assignment.InstanceID
}

// New makes a Membership that resumes a state, and has its producers collected
// at once.
func New(c Config, resume State) *Membership {
	m := &Membership{
		Config:    c,
		accepted:  resume.Accepted,
		guard:     guard.New(resume.Accepted.Epoch, resume.Held),
		persisted: true,
		holds:     int64(len(resume.Held)),
	}
	upserts := make([]*assignment.Assignment, 0, m.accepted.Set.Len()+len(resume.Held))
	for _, a := range m.accepted.Set.All() {
		upserts = append(upserts, a)
	}
	for h := range m.guard.All {
		upserts = append(upserts, h.Assignment)
	}
	if len(upserts) > 0 {
		m.Runner.Change(upserts, nil)
	}
	m.observe()
	return m
}

// Begin prepares for a new stream and tells what to subscribe with: nil asks for
// everything.
func (m *Membership) Begin() *assignment.Accepted {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.assembler = snapshot.NewAssembler(m.accepted, m.MaxProducers)
	m.guard.NewStream()
	m.assembler.MaxBytes, m.assembler.Admit = maxBytes(m.MaxProducers), m.admit
	if m.refusals >= 2 {
		return nil
	}
	return m.accepted.Describe()
}

// An Event is what a frame came to.
type Event int

// The events.
const (
	// EventNone: the set is as before.
	EventNone Event = iota

	// EventSealed: a snapshot was sealed and applied.
	EventSealed

	// EventAgreed: a heartbeat told the same set.
	EventAgreed

	// EventDiverged: a heartbeat told another set. The stream is no good any
	// more.
	EventDiverged
)

// Take takes the next frame of the stream. A *snapshot.Fault refuses the
// snapshot that it belongs to; the stream is then no good any more.
func (m *Membership) Take(ctx context.Context, frame assignment.Frame) (Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := frame.(*assignment.Begin); ok {
		m.lastBegin = Subscription{b.SubscriptionID, b.RegistryInstanceID}
		m.snapshot = b.SnapshotID
		m.beat = BeatOf(b.HeartbeatInterval)
	}
	had := m.accepted.Position
	sealed, err := m.assembler.Add(frame)
	if err != nil {
		if fault, ok := errors.AsType[*snapshot.Fault](err); ok {
			m.refuse(ctx, fault.Refusal)
		}
		return EventNone, err
	}
	if sealed != nil {
		m.seal(ctx, sealed, had)
		return EventSealed, nil
	}
	if h, ok := frame.(*assignment.Heartbeat); ok {
		return m.heartbeat(ctx, h), nil
	}
	return EventNone, nil
}

// Malformed refuses a frame that could not even be decoded.
func (m *Membership) Malformed(ctx context.Context, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse(ctx, assignment.Refusal{Reason: snapshot.ReasonMalformed, Message: err.Error()})
}

func (m *Membership) refuse(ctx context.Context, r assignment.Refusal) {
	m.refusal = &r
	m.refusals++
	m.Metrics.Refused.WithLabelValues(r.Reason).Inc()
	m.Logger.ErrorContext(ctx, "refused a snapshot", "reason", r.Reason, "message", r.Message, "revision", r.Revision)
}

// seal applies a sealed snapshot; had is the position before it. The caller holds
// mu; the accepted set has changed already.
func (m *Membership) seal(ctx context.Context, s *snapshot.Sealed, had snapshot.Position) {
	now := time.Now()
	v := m.guard.Seal(changeOf(s, had), m.beat, m.Witness.Evidence, now)
	m.refusal, m.refusals, m.lastSeal = nil, 0, now
	m.apply(ctx, Entry{Frames: s.Frames}, s.Upserts, &v)
	m.Metrics.Sealed.Inc()
	if s.EpochChanged {
		m.Logger.WarnContext(ctx, "the registry has a new epoch", "epoch", s.Epoch)
	}
	m.Logger.InfoContext(ctx, "sealed", "scope", s.Scope, "revision", s.Revision, "updated", len(s.Upserts),
		"released", len(v.Released), "held", len(v.Held), "accepted", m.accepted.Set.Len())
}

// apply has the runner follow, and writes an entry to the log: in this order, for
// a first collection need not wait for the disk, or both at once where they take
// long. A crash in between resumes the set before, which nobody was told of as
// gone, or the sealed one. A log that fails keeps nothing from being applied.
func (m *Membership) apply(ctx context.Context, e Entry, upserts []*assignment.Assignment, v *guard.Verdict) {
	e.Held, e.Released = append(e.Held, v.Held...), v.EndedIDs()
	var changing sync.WaitGroup
	switch {
	case len(upserts) >= many:
		changing.Go(func() { m.Runner.Change(upserts, v.Released) })
	case len(upserts) > 0 || len(v.Released) > 0:
		m.Runner.Change(upserts, v.Released)
	}
	m.persist(ctx, e)
	changing.Wait()
	for _, ended := range v.Ended {
		m.Metrics.Releases.WithLabelValues(string(ended.Reason)).Inc()
	}
	if len(v.Held) > 0 {
		m.holds += int64(len(v.Held))
		m.reminded = time.Now()
		m.Metrics.Holds.Add(float64(len(v.Held)))
		m.Logger.WarnContext(ctx, "holding producers whose removal is not believed", "held", len(v.Held), "all", m.guard.Len())
	}
	m.observe()
}

// many is from how many upserts on the runner and the log are worth a goroutine
// each.
const many = 1000

func (m *Membership) persist(ctx context.Context, e Entry) {
	err := m.Log.Append(e, m.state)
	m.persisted = err == nil
	if err != nil {
		m.Metrics.LogFailures.Inc()
		m.Logger.ErrorContext(ctx, "could not write the state file", "error", err)
	}
}

// state is what is to be resumed with. The caller holds mu.
func (m *Membership) state() State {
	return State{Accepted: m.accepted, Held: slices.Collect(m.guard.All)}
}

func (m *Membership) heartbeat(ctx context.Context, h *assignment.Heartbeat) Event {
	if !m.accepted.Agrees(h) {
		m.Metrics.Diverged.Inc()
		m.Logger.ErrorContext(ctx, "diverged from the registry", "epoch", h.Epoch, "revision", h.Revision,
			"count", h.SetCount, "accepted_epoch", m.accepted.Epoch, "accepted_revision", m.accepted.Revision,
			"accepted_count", m.accepted.Set.Len())
		return EventDiverged
	}
	m.guard.Agree(time.Now(), m.beat)
	if h.Revision > m.accepted.Revision || !m.persisted {
		m.accepted.Revision = h.Revision
		position := m.accepted.Position
		m.persist(ctx, Entry{Position: &position}) // which also mends a log that had failed
	}
	return EventAgreed
}

// Explained takes what the registry says of held producers.
func (m *Membership) Explained(ctx context.Context, named []assignment.Removal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.guard.Explain(named, m.Witness.Evidence, time.Now())
	if len(v.Released) == 0 {
		return
	}
	m.apply(ctx, Entry{}, nil, &v)
	m.Logger.InfoContext(ctx, "released held producers that the registry explained", "released", len(v.Released), "held", m.guard.Len())
}

// changeOf is a sealed snapshot as the guard sees it: members that it took away,
// with the cause if that was named, and names of producers that were no members.
func changeOf(s *snapshot.Sealed, had snapshot.Position) *guard.Change {
	causes := map[assignment.ProducerID]assignment.Removal{}
	for _, f := range s.Frames {
		if c, ok := f.(*assignment.Chunk); ok {
			for _, r := range c.Removals {
				causes[r.ProducerID] = r
			}
		}
	}
	c := &guard.Change{Had: had.Epoch, HadRevision: had.Revision, Epoch: s.Epoch, Present: s.Upserts}
	for _, a := range s.Gone {
		c.Gone = append(c.Gone, guard.Departure{Assignment: a, Cause: causes[a.ProducerID].Cause})
		delete(causes, a.ProducerID)
	}
	for _, r := range causes {
		c.Named = append(c.Named, r)
	}
	return c
}
