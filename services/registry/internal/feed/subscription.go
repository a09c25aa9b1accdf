package feed

import (
	"context"
	"errors"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Delivery is what a subscriber is given next: a *Snapshot, a *Beat or a
// *GoAway.
type Delivery interface{ delivery() }

type (
	// A Snapshot is a change of the set, or at first the set itself. Items are
	// in no order.
	Snapshot struct {
		Epoch      assignment.Epoch
		Revision   assignment.Revision
		Base       assignment.Revision
		Scope      assignment.Scope
		BucketBits uint8
		Replaced   []uint32
		Items      []*Item
		Removals   []assignment.Removal
		SetCount   int
		SetDigest  assignment.Digest
	}

	// A Beat is the material of a heartbeat.
	Beat struct {
		Epoch     assignment.Epoch
		Revision  assignment.Revision
		SetCount  int
		SetDigest assignment.Digest
	}

	// A GoAway comes before the end.
	GoAway struct{ assignment.GoAway }
)

func (*Snapshot) delivery() {}
func (*Beat) delivery()     {}
func (*GoAway) delivery()   {}

// A Request asks for a subscription.
type Request struct {
	Collector assignment.CollectorID

	// ID names the subscription.
	ID string

	// Accepted is what the subscriber holds; nil for nothing.
	Accepted *assignment.Accepted

	// Observer takes no part in the rule of one stream per collector.
	Observer bool

	// Admit, if set, is asked once, with the number of its items, whether the
	// first snapshot may be given. An error ends the subscription. It must not
	// wait, nor call the feed.
	Admit func(items int) error
}

// ErrClosed says that the subscription was closed by its own caller.
var ErrClosed = errors.New("the subscription is closed")

// A Subscription is one subscriber's. Next is for one goroutine at a time.
type Subscription struct {
	feed      *Feed
	collector assignment.CollectorID
	id        string
	observer  bool
	accepted  *assignment.Accepted // until the first delivery
	admit     func(items int) error
	begun     bool

	// All below is guarded by feed.mu.
	pending map[assignment.ProducerID]pendingChange
	given   assignment.Revision // of the last delivery
	away    *assignment.GoAway
	err     error
	closed  bool
	wake    chan struct{} // holds one token when there is something to take
}

type pendingChange struct {
	item     *Item
	cause    assignment.Cause
	revision assignment.Revision

	// known tells that the subscriber was given this producer.
	known bool
}

// Subscribe begins a subscription. The caller must Close it.
func (f *Feed) Subscribe(r Request) *Subscription {
	s := &Subscription{
		feed:      f,
		collector: r.Collector,
		id:        r.ID,
		observer:  r.Observer,
		accepted:  r.Accepted,
		admit:     r.Admit,
		wake:      make(chan struct{}, 1),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(r.Collector).subs[s] = struct{}{}
	f.subs++
	if d := f.dismissed; d != nil {
		s.away = &d.away
		s.end(d.err)
	}
	return s
}

// Close ends the subscription and forgets it.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.closed {
		return
	}
	s.closed, s.pending = true, nil
	s.signal()
	s.feed.subs--
	delete(s.feed.set(s.collector).subs, s)
	s.feed.forget(s.collector)
}

// ID names the subscription.
func (s *Subscription) ID() string { return s.id }

// Next waits for what comes next. The first delivery is a snapshot, or the
// GoAway of a feed that was dismissed. It fails with ctx, for the reason that
// the subscription was ended for (that Admit refused is one), or with ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Delivery, error) {
	timer := time.NewTimer(s.feed.heartbeat)
	defer timer.Stop()
	for beat := false; ; {
		d, err := s.take(beat)
		if d != nil || err != nil {
			return d, err
		}
		select {
		case <-s.wake:
		case <-timer.C:
			beat = true
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take returns what there is, nothing, or with beat a heartbeat for nothing.
func (s *Subscription) take(beat bool) (Delivery, error) {
	f := s.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.err != nil {
		if away := s.away; away != nil {
			s.away = nil
			return &GoAway{*away}, nil
		}
		return nil, s.err
	}
	set := f.set(s.collector)
	if !s.begun {
		s.begun = true
		return s.admitted(s.first(set))
	}
	if len(s.pending) > 0 {
		return s.changes(set), nil
	}
	if !beat {
		return nil, nil //nolint:nilnil // nothing yet
	}
	s.given = f.revision
	return &Beat{Epoch: f.epoch, Revision: f.revision, SetCount: set.items.Len(), SetDigest: set.items.Digest()}, nil
}

// admitted is the first snapshot, if it may be given.
func (s *Subscription) admitted(d *Snapshot) (Delivery, error) {
	if s.admit != nil {
		if err := s.admit(len(d.Items)); err != nil {
			s.end(err)
			return nil, s.err
		}
	}
	return d, nil
}

// snapshot begins a delivery of the set as it is now.
func (s *Subscription) snapshot(set *set, scope assignment.Scope) *Snapshot {
	d := &Snapshot{
		Epoch:     s.feed.epoch,
		Revision:  s.feed.revision,
		Base:      s.given,
		Scope:     scope,
		SetCount:  set.items.Len(),
		SetDigest: set.items.Digest(),
	}
	s.given, s.pending = d.Revision, nil
	return d
}

// first is the whole set, or the buckets that differ from what the subscriber
// holds.
func (s *Subscription) first(set *set) *Snapshot {
	accepted := s.accepted
	s.accepted = nil
	if wantsAll(accepted) {
		d := s.snapshot(set, assignment.ScopeAll)
		d.Items = make([]*Item, 0, set.items.Len())
		for _, item := range set.items.All() {
			d.Items = append(d.Items, item)
		}
		return d
	}
	d := s.snapshot(set, assignment.ScopeBuckets)
	d.BucketBits = accepted.BucketBits
	d.Replaced = set.replaced(accepted, func(item *Item) { d.Items = append(d.Items, item) })
	return d
}

// wantsAll tells whether a subscriber that holds this is sent the set as a whole.
func wantsAll(accepted *assignment.Accepted) bool {
	return accepted == nil || accepted.AssignmentFormat != assignment.AssignmentFormat
}

// replaced returns the numbers of the buckets that differ from what a subscriber
// holds, and calls yield with each item in them.
func (s *set) replaced(accepted *assignment.Accepted, yield func(*Item)) []uint32 {
	var numbers []uint32
	differs := make([]bool, 1<<accepted.BucketBits)
	for i, digest := range s.items.BucketDigests(accepted.BucketBits) {
		if digest != accepted.BucketDigests[i] {
			differs[i] = true
			numbers = append(numbers, uint32(i))
		}
	}
	if len(numbers) == 0 {
		return nil
	}
	for id, item := range s.items.All() {
		if differs[assignment.Bucket(id, accepted.BucketBits)] {
			yield(item)
		}
	}
	return numbers
}

// Missing is how many items the first snapshot of a subscriber that holds this
// would have now.
func (f *Feed) Missing(collector assignment.CollectorID, accepted *assignment.Accepted) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sets[collector]
	if s == nil {
		return 0
	}
	if wantsAll(accepted) {
		return s.items.Len()
	}
	n := 0
	s.replaced(accepted, func(*Item) { n++ })
	return n
}

func (s *Subscription) changes(set *set) *Snapshot {
	pending := s.pending
	d := s.snapshot(set, assignment.ScopeChanges)
	for id, p := range pending {
		if p.item != nil {
			d.Items = append(d.Items, p.item)
		} else {
			d.Removals = append(d.Removals, assignment.Removal{ProducerID: id, Cause: p.cause, Revision: p.revision})
		}
	}
	return d
}

// note remembers a change until it is taken. had tells whether the producer was
// in the set before.
func (s *Subscription) note(c Change, had bool, revision assignment.Revision) {
	if !s.begun || s.err != nil {
		return // the first snapshot will show it
	}
	before, waiting := s.pending[c.ID]
	known := had
	if waiting {
		known = before.known
	}
	if s.pending == nil {
		s.pending = map[assignment.ProducerID]pendingChange{}
	}
	if c.Item == nil && !known {
		delete(s.pending, c.ID) // came and went unseen
		return
	}
	s.pending[c.ID] = pendingChange{item: c.Item, cause: c.Cause, revision: revision, known: known}
	s.signal()
}

func (s *Subscription) end(err error) {
	if s.err == nil {
		s.err = err
		s.pending = nil
		s.signal()
	}
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
