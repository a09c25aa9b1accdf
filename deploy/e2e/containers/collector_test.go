//go:build e2e

package containers_test

import (
	"fmt"
	"testing"
	"time"
)

// TestCollectorKilled kills a collector by SIGKILL and starts it again while no
// registry runs: P3. What it had it collects at once; the others miss nothing.
func TestCollectorKilled(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 1, collectors: 2, producers: 100})
	victim := s.collectors[0]
	before, err := s.membership(victim)
	if err != nil {
		t.Fatal(err)
	}
	s.kill(s.registries[0])
	for range *killings {
		killed := time.Now()
		s.kill(victim)
		s.again(victim)
		ready := await(t, "the collector is ready", time.Minute, func() error { return s.ready(victim) })
		m, err := s.membership(victim)
		if err != nil {
			t.Fatal(err)
		}
		if m.GetSubscribed() || m.GetAppliedCount() != before.GetAppliedCount() || m.GetAppliedDigest() != before.GetAppliedDigest() {
			t.Errorf("P3: it had %d producers and has %d, subscribed is %v", before.GetAppliedCount(), m.GetAppliedCount(), m.GetSubscribed())
		}
		back := time.Now().Add(interval) // a whole interval: one that has just begun is not made up for
		s.steady(startLimit)
		v := s.verdictUntil(killed.Add(-5*interval), killed.Add(-interval)) // what was under way at the kill is nobody's
		if v.missed > 0 {
			t.Errorf("P10: samples from before the kill are missing: %v", &v)
		}
		v = s.verdictUntil(back, back.Add(10*interval))
		if !v.clean() {
			t.Errorf("P3: missed after it was ready: %v", &v)
		}
		v = s.verdictUntil(killed.Add(-5*interval), back.Add(5*interval))
		if v.missed == 0 {
			t.Error("the judge has not seen that the collector was away")
		}
		t.Logf("ready %v after docker start; the longest gap is %v", ready, v.longest)
		if limit := back.Sub(killed) + 2*interval; v.longest > limit {
			t.Errorf("P3: a gap of %v, and it was away for %v", v.longest, back.Sub(killed))
		}
	}
	s.again(s.registries[0])
	await(t, "the registry is followed", time.Minute, func() error { return s.subscribed(true) })
}

// TestCollectorPaused stops the clock of one of two collectors for so long that its
// producers are handed off, and lets it go on: P5 and P6. Its connections stay
// open, so the registry finds it out by its keepalive, within 40 s; then the grace
// begins.
func TestCollectorPaused(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	s := build(t, plan{registries: 1, collectors: 2, producers: 60, grace: grace})
	victim := s.collectors[0]
	must(t, "pause", victim.name)
	paused := time.Now()
	healthy := s.collectors[1]
	handed := await(t, "all are handed off", 90*time.Second, func() error {
		m, err := s.membership(healthy)
		if err == nil && m.GetAppliedCount() < int64(len(s.ids)) {
			err = fmt.Errorf("%s has %d", healthy.alias, m.GetAppliedCount())
		}
		return err
	})
	handedAt := time.Now().Add(2 * interval)
	t.Logf("handed off %v after the pause", handed)
	hold(t, 5*interval)
	must(t, "unpause", victim.name)
	await(t, "the registry is followed", time.Minute, func() error { return s.subscribed(true) })
	s.steady(startLimit)
	if v := s.verdictUntil(handedAt, time.Now()); !v.clean() {
		t.Errorf("P6: missed after the handoff: %v", &v)
	}
	v := s.verdict(paused.Add(-5 * interval))
	if v.strayed > 0 {
		t.Errorf("P6: the grid has shifted: %v", &v)
	}
	const keepalive, settle, slack = 40 * time.Second, 10 * time.Second, 10 * time.Second
	if limit := keepalive + grace + settle + slack; v.longest > limit {
		t.Errorf("a gap of %v, more than %v", v.longest, limit)
	}
}
