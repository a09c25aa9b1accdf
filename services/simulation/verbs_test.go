package simulation

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// A verb is a command or a fault. takes names the kinds of its arguments, weight
// tells how often it is drawn, and play does it.
type verb struct {
	name   string
	takes  string
	weight int
	play   func(t *town, args []string)

	// forgets tells that a store loses something by it.
	forgets bool
}

// The verbs. Those with FOR last so long, unless a quiet time ends them before.
// A LEASED producer has a short lease; what ails one lasts until it registers
// again: one that dies neither answers nor renews, one that lapses does not
// renew, and one that hides renews and does not answer.
var verbs []verb

func init() { //nolint:gochecknoinits // the table and what it lists name each other
	verbs = []verb{
		// What owners do.
		{name: "register", takes: "PRODUCER REGISTRY", weight: 16, play: func(t *town, a []string) { t.register(a[0], a[1], false) }},
		{name: "alter", takes: "PRODUCER REGISTRY", weight: 6, play: func(t *town, a []string) { t.alter(a[0], a[1]) }},
		{name: "deregister", takes: "PRODUCER REGISTRY", weight: 8, play: func(t *town, a []string) { t.deregister(a[0], a[1]) }},
		{name: "replace", takes: "PRODUCER REGISTRY", weight: 4, play: func(t *town, a []string) { t.register(a[0], a[1], true) }},
		{name: "outdated", takes: "PRODUCER REGISTRY", weight: 3, play: func(t *town, a []string) { t.outdated(a[0], a[1]) }},
		{name: "mute", takes: "PRODUCER error|hang|reset FOR", weight: 3, play: func(t *town, a []string) { t.mute(a[0], a[1], a[2]) }},

		{name: "die", takes: "LEASED", weight: 4, play: func(t *town, a []string) { t.journal.die(a[0]) }},
		{name: "lapse", takes: "LEASED", weight: 3, play: func(t *town, a []string) { t.journal.lapse(a[0]) }},
		{name: "hide", takes: "LEASED", weight: 3, play: func(t *town, a []string) { t.journal.hide(a[0]) }},

		// What operators do.
		{name: "drain", takes: "COLLECTOR", weight: 3, play: func(t *town, a []string) { t.drain(a[0], true) }},
		{name: "undrain", takes: "COLLECTOR", weight: 4, play: func(t *town, a []string) { t.drain(a[0], false) }},
		{name: "expunge", takes: "COLLECTOR FOR", weight: 1, play: func(t *town, a []string) { t.expunge(a[0], a[1]) }},
		{name: "move", takes: "PRODUCER COLLECTOR", weight: 10, play: func(t *town, a []string) { t.moveTo(a[0], a[1]) }},
		{name: "rebalance", takes: "", weight: 2, play: func(t *town, _ []string) { t.rebalance() }},

		// What happens to processes.
		{name: "crash", takes: "NODE FOR", weight: 8, play: func(t *town, a []string) { t.down(a[0], a[1], (*registryNode).crash, (*collectorNode).crash) }},
		{name: "stop", takes: "NODE FOR", weight: 4, play: func(t *town, a []string) { t.down(a[0], a[1], (*registryNode).terminate, (*collectorNode).terminate) }},
		{name: "freeze", takes: "NODE FOR", weight: 3, play: func(t *town, a []string) { t.freezeNode(a[0], a[1]) }},
		{name: "twin", takes: "COLLECTOR FOR", weight: 2, play: func(t *town, a []string) { t.twinNode(a[0], a[1]) }},
		{name: "clock", takes: "COLLECTOR BY", weight: 3, play: func(t *town, a []string) { t.clockStep(a[0], a[1]) }},

		// What happens to links.
		{name: "part", takes: "COLLECTOR REGISTRY FOR", weight: 6, play: func(t *town, a []string) {
			t.network.part(a[0], a[1], true)
			t.later(a[2], func() { t.network.part(a[0], a[1], false) })
		}},
		{name: "seclude", takes: "COLLECTOR FOR", weight: 2, play: func(t *town, a []string) { t.seclude(a[0], a[1]) }},
		{name: "stall", takes: "COLLECTOR REGISTRY", weight: 3, play: func(t *town, a []string) { t.network.each(between(a[0], a[1]), (*link).stall) }},
		{name: "slow", takes: "COLLECTOR REGISTRY FOR", weight: 3, play: func(t *town, a []string) {
			t.network.delay(a[0], a[1], 700*time.Millisecond)
			t.later(a[2], func() { t.network.delay(a[0], a[1], 0) })
		}},
		{name: "cut", takes: "COLLECTOR REGISTRY N", weight: 4, play: func(t *town, a []string) {
			n, _ := strconv.Atoi(a[2])
			t.network.each(between(a[0], a[1]), func(l *link) { _ = l.Close() }) // so that the next bytes are those of a snapshot
			t.later("1s", func() { t.network.cutAfter(a[0], a[1], 100+n*97) })
		}},
		{name: "garble", takes: "COLLECTOR drop|repeat|swap|swallow N FOR", weight: 5, play: func(t *town, a []string) { t.garble(a[0], a[1], a[2], a[3]) }},

		// What happens to the store.
		{name: "sever", takes: "REGISTRY FOR", weight: 3, play: func(t *town, a []string) { t.gateFor(a[0], gateCut, 0, a[1]) }},
		{name: "lag", takes: "REGISTRY FOR", weight: 3, play: func(t *town, a []string) { t.gateFor(a[0], gateOpen, 4*time.Second, a[1]) }},
		{name: "backup", takes: "", weight: 3, play: func(t *town, _ []string) { t.backup = t.store.Snapshot() }},
		{name: "restore", takes: "running|stopped", weight: 2, play: func(t *town, a []string) { t.restore(t.backup, a[0]) }, forgets: true},
		{name: "empty", takes: "running|stopped", weight: 2, play: func(t *town, a []string) { t.restore(t.empty, a[0]) }, forgets: true},
		{name: "lose", takes: "N", weight: 2, play: func(t *town, a []string) { t.lose(a[0]) }, forgets: true},
		{name: "fork", takes: "REGISTRY FOR", weight: 2, play: func(t *town, a []string) { t.fork(a[0], a[1]) }, forgets: true},

		// What happens to a collector's disk.
		{name: "tear", takes: "COLLECTOR", weight: 3, play: func(t *town, a []string) { t.tear(a[0]) }},
		{name: "fill", takes: "COLLECTOR FOR", weight: 3, play: func(t *town, a []string) { t.fill(a[0], a[1]) }},

		// In a quiet time everything works; at its end everything is judged.
		{name: "quiet", takes: "FOR", weight: 0, play: func(t *town, a []string) { t.quiet(a[0]) }},

		// For stories.
		{name: "expect-collected", takes: "PRODUCER", weight: 0, play: func(t *town, a []string) { t.expect(a[0], true) }},
		{name: "expect-gone", takes: "PRODUCER", weight: 0, play: func(t *town, a []string) { t.expect(a[0], false) }},
		{name: "expect-held", takes: "COLLECTOR N", weight: 0, play: func(t *town, a []string) { t.expectHeld(a[0], a[1]) }},
		{name: "hold-on", takes: "", weight: 0, play: func(*town, []string) {}}, // lets time go by
	}
}

func (t *town) registryNamed(name string) *registryNode {
	return t.registries[slices.IndexFunc(t.registries, func(r *registryNode) bool { return r.name == name })]
}

func (t *town) collectorNamed(name string) *collectorNode {
	return t.collectors[slices.IndexFunc(t.collectors, func(c *collectorNode) bool { return c.name == name })]
}

// later ends a fault after some time, or at the next quiet time.
func (t *town) later(wait string, what func()) {
	d, err := time.ParseDuration(wait)
	if err != nil {
		t.fatalf("%q: %v", wait, err)
	}
	t.agenda = append(t.agenda, appointment{at: time.Now().Add(d), what: what})
}

// down takes a process away, as it is told to, and starts it again later.
func (t *town) down(name, wait string, registry func(*registryNode), collector func(*collectorNode)) {
	if name[0] == 'r' {
		r := t.registryNamed(name)
		registry(r)
		t.later(wait, r.start)
		return
	}
	c := t.collectorNamed(name)
	collector(c)
	t.later(wait, c.restart)
}

// restart starts the collector, unless it runs.
func (c *collectorNode) restart() {
	if c.host == nil {
		c.start()
		c.town.journal.mend(c.name, crashed)
	}
}

// freezeNode stops a process as it looks from outside: nothing comes from it and
// nothing reaches it. Its own goroutines go on, which a bubble cannot prevent.
func (t *town) freezeNode(name, wait string) {
	t.network.freeze(name, true)
	if name[0] == 'r' {
		g := t.registryNamed(name).gate
		g.set(gateFrozen, 0)
		t.later(wait, func() {
			t.network.freeze(name, false)
			g.set(gateOpen, 0)
		})
		return
	}
	t.journal.impair(name, frozen)
	t.later(wait, func() {
		t.network.freeze(name, false)
		t.journal.mend(name, frozen)
		t.journal.excuse(name, 20*time.Second) // collections that were under way have to time out
	})
}

func (t *town) twinNode(name, wait string) {
	c := t.collectorNamed(name)
	c.beginTwin()
	t.later(wait, c.endTwin)
}

func (t *town) clockStep(name, by string) {
	d, _ := time.ParseDuration(by)
	c := t.collectorNamed(name)
	c.step.Add(int64(d))
	// The schedule looks at the clock once a second; the next instant is then
	// never more than an interval away.
	t.journal.excuse(name, 1500*time.Millisecond)
}

// seclude cuts a collector off from all producers.
func (t *town) seclude(name, wait string) {
	host := hostOf((&square{name: name}).address())
	t.journal.seclude()
	t.journal.impair(name, secluded)
	t.network.part(name, host, true)
	t.later(wait, func() {
		t.network.part(name, host, false)
		t.journal.mend(name, secluded)
	})
}

func (t *town) gateFor(name string, mode gateMode, lag time.Duration, wait string) {
	r := t.registryNamed(name)
	g := r.gate
	g.set(mode, lag)
	t.later(wait, func() { g.set(gateOpen, 0) })
}

func (t *town) fill(name, wait string) {
	c := t.collectorNamed(name)
	t.journal.wound(name)
	c.disk.fill(true)
	t.later(wait, func() { c.disk.fill(false) })
}

// tear lets a collector die in the middle of its next write.
func (t *town) tear(name string) {
	c := t.collectorNamed(name)
	t.journal.wound(name)
	c.disk.arm(func(bytes int) int { return bytes * t.random.IntN(100) / 100 })
	t.later("30s", func() { c.disk.arm(nil) })
}

// restore sets the store back to what it was, under registries that run or that
// do not.
func (t *town) restore(snapshot *registry.MemorySnapshot, how string) {
	t.journal.taint()
	for _, c := range t.collectors {
		c.drained = false
	}
	if how == "stopped" {
		for _, r := range t.registries {
			r.crash()
		}
	}
	t.store.Restore(snapshot)
	if how == "stopped" {
		for _, r := range t.registries {
			r.start()
		}
	}
}

// lose takes records of producers from the store, past all registries: one that
// was loaded in part looks like that to its collectors.
func (t *town) lose(number string) {
	n, _ := strconv.Atoi(number)
	t.journal.taint()
	for _, i := range t.random.Perm(townProducers)[:min(n, townProducers)] {
		t.store.Delete("/rollcall/v1/producers/" + t.journal.order[i])
	}
}

// fork lets a registry go on from a copy of the store: two that disagree, in one
// epoch.
func (t *town) fork(name, wait string) {
	r := t.registryNamed(name)
	if r.forked != nil {
		return
	}
	t.journal.taint()
	for _, c := range t.collectors {
		c.drained = false // in one of the two
	}
	r.forked = registry.NewMemoryStore()
	r.forked.Restore(t.store.Snapshot())
	r.crash()
	r.start()
	t.later(wait, func() {
		t.journal.taint()
		for _, c := range t.collectors {
			c.drained = false
		}
		r.crash()
		r.forked = nil
		r.start()
	})
}

func (t *town) mute(id, how, wait string) {
	set := func(how string) {
		t.journal.mu.Lock()
		defer t.journal.mu.Unlock()
		s := t.journal.subjects[id]
		s.mute, s.hung, s.failed = how, s.hung || how == "hang", true
	}
	set(how)
	t.later(wait, func() { set("") })
}

// observed is what an observer is told of a collector's set.
func (t *town) observed(ctx context.Context, r *registryNode, collector string) (end *registryv1.SnapshotEnd, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := registryv1.NewAssignmentServiceClient(r.conn).Subscribe(ctx,
		&registryv1.SubscribeRequest{CollectorId: collector, Observe: true})
	for err == nil {
		var m *registryv1.SubscribeResponse
		if m, err = stream.Recv(); m.GetSnapshotEnd() != nil {
			return m.GetSnapshotEnd(), nil
		}
	}
	return nil, fmt.Errorf("observe %s at %s: %w", collector, r.name, err)
}
