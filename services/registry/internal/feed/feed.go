// Package feed keeps the current set of every collector and brings its changes
// to any number of subscribers.
//
// Its invariant: what a subscriber is given, snapshot after snapshot, is its
// collector's set as of the revision told with it, exactly; and no heartbeat
// tells a revision at which a change is still pending for that subscriber.
// Nobody waits for a slow subscriber: what it has not taken yet is coalesced,
// last write wins, and bounded by the size of the set.
package feed

import (
	"iter"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// An Item is one assignment of one collector. It is immutable and shared by all
// subscribers.
type Item struct {
	ProducerID assignment.ProducerID
	Version    assignment.Version
	Role       assignment.Role

	// Stored is the encoded assignment without version and role. The feed does
	// not look inside.
	Stored []byte
}

// ID is the producer's id. With Hash it makes *Item a member of a set.
func (i *Item) ID() assignment.ProducerID { return i.ProducerID }

// Hash is the item's part of the digest.
func (i *Item) Hash() assignment.Hash {
	return assignment.HashOf(i.ProducerID, i.Version, i.Role)
}

// A Change is one change of one collector's set.
type Change struct {
	Collector assignment.CollectorID
	ID        assignment.ProducerID

	// Item is what the set has under ID from now on; nil: nothing, because of
	// Cause.
	Item  *Item
	Cause assignment.Cause
}

// A Feed is safe for concurrent use.
type Feed struct {
	heartbeat time.Duration

	mu       sync.Mutex // guards all below, and every Subscription's fields
	epoch    assignment.Epoch
	revision assignment.Revision
	sets     map[assignment.CollectorID]*set
	subs     int

	// dismissed is nil until Dismiss.
	dismissed *dismissal
}

type dismissal struct {
	away assignment.GoAway
	err  error
}

// set is one collector's. It lives as long as it has members or subscribers.
type set struct {
	items assignment.Set[*Item]
	subs  map[*Subscription]struct{}
}

// New makes an empty feed. heartbeat is the time after which a subscriber that
// was given nothing is given a heartbeat.
func New(heartbeat time.Duration) *Feed {
	return &Feed{heartbeat: heartbeat, sets: map[assignment.CollectorID]*set{}}
}

// Heartbeat is the interval of heartbeats.
func (f *Feed) Heartbeat() time.Duration { return f.heartbeat }

// Load replaces everything by the sets as of one revision. Subscriptions that
// stand end with err: what they were given may be of another history.
func (f *Feed) Load(epoch assignment.Epoch, revision assignment.Revision, members iter.Seq2[assignment.CollectorID, *Item], err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endAll(err)
	f.epoch, f.revision = epoch, revision
	f.sets = map[assignment.CollectorID]*set{}
	for collector, item := range members {
		f.set(collector).items.Put(item)
	}
}

// Apply takes the changes up to a revision, all of them at once.
func (f *Feed) Apply(revision assignment.Revision, changes []Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range changes {
		s := f.set(c.Collector)
		_, had := s.items.Find(c.ID)
		if c.Item != nil {
			s.items.Put(c.Item)
		} else {
			s.items.Remove(c.ID)
		}
		if had || c.Item != nil { // else nothing changed, whatever its cause
			for sub := range s.subs {
				sub.note(c, had, revision)
			}
		}
		f.forget(c.Collector)
	}
	f.revision = revision
}

// Revision is that of the last changes applied.
func (f *Feed) Revision() assignment.Revision {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.revision
}

// Subscribers is the number of subscriptions that stand, observers included.
func (f *Feed) Subscribers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.subs
}

// Keep ends, with err, the subscriptions of a collector other than the one
// named. Observers stay.
func (f *Feed) Keep(collector assignment.CollectorID, subscription string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sets[collector]
	if s == nil {
		return
	}
	for sub := range s.subs {
		if !sub.observer && sub.id != subscription {
			sub.end(err)
		}
	}
}

// EndAll ends every subscription with err.
func (f *Feed) EndAll(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endAll(err)
}

func (f *Feed) endAll(err error) {
	for _, s := range f.sets {
		for sub := range s.subs {
			sub.end(err)
		}
	}
}

// Release gives every subscriber a last GoAway and then ends it with err. Those
// who come later are taken.
func (f *Feed) Release(away assignment.GoAway, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release(away, err)
}

func (f *Feed) release(away assignment.GoAway, err error) {
	for _, s := range f.sets {
		for sub := range s.subs {
			if sub.err == nil {
				sub.away = &away
			}
			sub.end(err)
		}
	}
}

// Dismiss gives every subscriber a last GoAway and then ends it with err. So it
// does with those who come later.
func (f *Feed) Dismiss(away assignment.GoAway, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dismissed = &dismissal{away, err}
	f.release(away, err)
}

// Spread is the window within which so many subscribers that are told to go away
// shall come back: 50 of them a second, and all of them soon enough that none
// counts as gone.
func Spread(subscribers int) time.Duration {
	return min(time.Duration(subscribers)*20*time.Millisecond+time.Second, maxSpread)
}

// maxSpread is half of what a collector may be away by default, so that one that
// comes back last, and is turned away once, is still in time.
const maxSpread = 30 * time.Second

func (f *Feed) set(id assignment.CollectorID) *set {
	s := f.sets[id]
	if s == nil {
		s = &set{subs: map[*Subscription]struct{}{}}
		f.sets[id] = s
	}
	return s
}

func (f *Feed) forget(id assignment.CollectorID) {
	if s := f.sets[id]; s != nil && s.items.Len() == 0 && len(s.subs) == 0 {
		delete(f.sets, id)
	}
}
