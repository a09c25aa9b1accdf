package api

import (
	"container/list"
	"math/rand/v2"
	"sync"
	"time"
)

// DefaultMaxSnapshots is how many first snapshots are sent at a time. One of
// 10,000 assignments costs about 300 KiB while it is sent, though it is 2 MiB on
// the wire: the list of its items, the chunk that is being filled, and the two or
// three that the connection has not written yet. So these are 20 MiB; and more at
// a time would not be sent sooner, they would share the network.
const DefaultMaxSnapshots = 64

const (
	// gatePatience is how long a first snapshot may be under way before it must
	// make room for others.
	gatePatience = 30 * time.Second

	// firstStay is what a stay is taken for before any has ended.
	firstStay = 200 * time.Millisecond

	minAppointment = 100 * time.Millisecond
	maxAppointment = 20 * time.Second
)

// A gate bounds the first snapshots with assignments that are being sent, each
// of which costs memory, and a pass over its whole set. What has nothing to send passes, and so do all later changes.
//
// A subscriber that reads slowly cannot keep a place from others for ever: one
// that has had it for gatePatience and has not come to the end is ended when
// somebody else wants in, the one that has been longest first. While nobody
// waits it may take its time, so a slow link alone keeps no collector from its
// set.
//
// Who is turned away is given an appointment: one after the other, as fast as
// places have become free of late. A herd is so drawn out to what can be served.
type gate struct {
	max     int
	metrics *Metrics

	mu     sync.Mutex // guards all below, and every visit's place
	inside list.List  // of *visit, the one that came first in front
	stay   time.Duration
	last   time.Time // the last appointment that was given
}

// A visit is one subscription's. It is inside the gate or not.
type visit struct {
	gate    *gate
	evicted chan struct{} // closed when it must end

	place *list.Element // nil outside
	since time.Time
}

func newGate(most int, metrics *Metrics) *gate {
	return &gate{max: most, metrics: metrics, stay: firstStay}
}

func (g *gate) visit() *visit { return &visit{gate: g, evicted: make(chan struct{})} }

// enter lets a first snapshot of so many assignments in, or turns it away with an
// *exhausted. One that is inside may enter again.
func (v *visit) enter(assignments int) error {
	g := v.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.place != nil || assignments == 0 {
		return nil
	}
	now := time.Now()
	if g.inside.Len() >= g.max && !g.evict(now) {
		full := tooMany("TOO_MANY_SNAPSHOTS", g.max, g.appointment(now))
		g.metrics.Turned.WithLabelValues(full.reason).Inc()
		return full
	}
	v.since, v.place = now, g.inside.PushBack(v)
	g.metrics.Sending.Set(float64(g.inside.Len()))
	return nil
}

// leave makes room. It may be called again.
func (v *visit) leave() {
	v.gate.mu.Lock()
	defer v.gate.mu.Unlock()
	v.gate.remove(v, time.Now())
}

// evict ends the visit that has been inside for longest, if that is too long. The
// caller holds mu.
func (g *gate) evict(now time.Time) bool {
	oldest, ok := g.inside.Front().Value.(*visit)
	if !ok || now.Sub(oldest.since) < gatePatience {
		return false
	}
	g.remove(oldest, now)
	close(oldest.evicted)
	return true
}

// remove takes a visit out, if it is inside, and learns from how long it stayed.
// The caller holds mu.
func (g *gate) remove(v *visit, now time.Time) {
	if v.place == nil {
		return
	}
	g.inside.Remove(v.place)
	v.place = nil
	g.stay += (now.Sub(v.since) - g.stay) / 8
	g.metrics.Sending.Set(float64(g.inside.Len()))
}

// appointment is how long somebody who is turned away shall wait: until the next
// place becomes free that was promised to nobody, and a little. The caller holds
// mu.
func (g *gate) appointment(now time.Time) time.Duration {
	if g.last.Before(now) {
		g.last = now
	}
	g.last = g.last.Add(g.stay / time.Duration(g.max))
	if latest := now.Add(maxAppointment); g.last.After(latest) {
		g.last = latest
	}
	wait := g.last.Sub(now) + minAppointment
	return wait + rand.N(wait/2)
}

// evictedError is what one that was evicted is told.
func (g *gate) evictedError() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &exhausted{
		"SLOW_READER", "the first snapshot has been under way for too long while others wait; the stream is ended", g.appointment(time.Now()),
	}
}
