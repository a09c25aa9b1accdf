package membership_test

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// pair is a runner and a log of which each waits until the other has begun.
type pair struct {
	*rig
	changing, appending chan struct{}
	done                []string
}

func (p *pair) Change(upserts []*assignment.Assignment, released []guard.Release) {
	close(p.changing)
	<-p.appending
	time.Sleep(time.Minute) // of the bubble: Take would not have to wait otherwise
	p.rig.Change(upserts, released)
	p.look(func() { p.done = append(p.done, "changed") })
}

func (p *pair) Append(e membership.Entry, current func() membership.State) error {
	close(p.appending)
	<-p.changing
	err := p.rig.Append(e, current)
	p.look(func() { p.done = append(p.done, "appended") })
	return err
}

// A large set is collected and written at the same time, and Take returns when it
// is both.
func TestLargeSetsAreAppliedAndWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pair{
			rig:      &rig{t: t, applied: map[assignment.ProducerID]bool{}, stale: map[assignment.ProducerID]bool{}},
			changing: make(chan struct{}), appending: make(chan struct{}),
		}
		p.Membership = membership.New(membership.Config{
			Log: p, Runner: p, Witness: p, MaxProducers: 10_000, Logger: slog.New(slog.DiscardHandler), Metrics: membership.NewMetrics(),
		}, membership.State{Accepted: &snapshot.Accepted{}})
		p.Begin()
		var ids []string
		for i := range 2000 {
			ids = append(ids, fmt.Sprintf("p%04d", i))
		}
		p.all("e", 1, ids...)
		if len(p.done) != 2 {
			t.Errorf("Take has returned, done is %v", p.done)
		}
		if n := len(p.collects()); n != len(ids) {
			t.Errorf("%d are collected, want %d", n, len(ids))
		}
		if len(p.entries) != 1 || !p.Status().Persisted {
			t.Errorf("%d entries, persisted %v", len(p.entries), p.Status().Persisted)
		}
	})
}
