package membership_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// running lets a story happen in fake time, with the membership's Run.
func running(t *testing.T, story func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
		r.survey = guard.Survey{Applied: 4, Run: 4, Answering: 4, MedianInterval: time.Minute}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		story(t, r)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// beats plays equal heartbeats for some time.
func (r *rig) beats(d time.Duration) {
	r.t.Helper()
	for until := time.Now().Add(d); time.Now().Before(until); {
		time.Sleep(time.Minute)
		st := r.Status()
		event, err := r.Take(r.t.Context(), &assignment.Heartbeat{
			Epoch: st.Epoch, Revision: st.Revision, SetCount: int64(st.AcceptedCount), SetDigest: st.Digest,
		})
		if err != nil || event != membership.EventAgreed {
			r.t.Fatal(event, err)
		}
	}
	synctest.Wait()
}

// TestGuardEnds: in one epoch a day of heartbeats ends a hold, and the log is
// told how far it is at most every 15 minutes.
func TestGuardEnds(t *testing.T) {
	running(t, func(t *testing.T, r *rig) {
		r.all("e", 1, "a", "b", "c", "d")
		r.all("e", 2, "d")
		var entries []membership.Entry
		r.look(func() { r.entries = nil })
		r.beats(time.Hour)
		r.look(func() { entries = r.entries })
		var told []time.Duration
		for _, e := range entries {
			for _, h := range e.Held {
				if h.Assignment.ProducerID == "a" {
					told = append(told, h.Confirmed)
				}
			}
		}
		if len(told) < 3 || len(told) > 4 || told[0] < 14*time.Minute || told[0] > 16*time.Minute {
			t.Errorf("the log was told of %v", told)
		}
		if n := strings.Count(r.logged.String(), "still held"); n != 1 {
			t.Errorf("reminded %d times in an hour", n)
		}
		r.beats(23*time.Hour - time.Minute)
		r.want("a", "b", "c", "d")
		r.beats(2 * time.Minute)
		if n := len(r.collects()); n != 3 && n != 2 {
			t.Errorf("%d are collected after a day, want one less a minute", n)
		}
		r.beats(3 * time.Minute)
		r.want("d")
		r.look(func() {
			if !r.stale["a"] {
				t.Error("the series were left open")
			}
			if n := len(r.entries[len(r.entries)-1].Released); n != 1 {
				t.Errorf("the log was told of %d released at last", n)
			}
		})
		if n := testutil.ToFloat64(r.Metrics.Releases.WithLabelValues("confirmed")); n != 3 {
			t.Errorf("%v were counted", n)
		}
	})
}

// TestNegativeHeartbeatsConfirm: a registry that tells a negative interval does not
// turn the confirmation back, nor keep it from ending a hold.
func TestNegativeHeartbeatsConfirm(t *testing.T) {
	running(t, func(_ *testing.T, r *rig) {
		r.interval = -time.Hour
		r.all("e", 1, "a", "b")
		r.all("e", 2, "b")
		r.beats(48 * time.Hour)
		r.want("a", "b") // a minute's silence counts for 15 s of it
		r.beats(49 * time.Hour)
		r.want("b")
	})
}

// TestOldEpochStays: the epoch of a hold is that of the set which had it.
func TestOldEpochStays(t *testing.T) {
	running(t, func(_ *testing.T, r *rig) {
		r.all("e", 1, "a", "b")
		r.all("f", 1, "b")
		r.beats(48 * time.Hour)
		r.want("a", "b")
		r.all("f", 2)
		r.beats(25 * time.Hour)
		r.want("a")
	})
}

func TestTheDeadGo(t *testing.T) {
	running(t, func(_ *testing.T, r *rig) {
		r.all("e", 1, "a", "b", "c")
		r.all("f", 1, "b")
		time.Sleep(time.Minute)
		r.look(func() {
			r.survey.Failing = map[assignment.ProducerID]guard.Evidence{"a": {Interval: time.Minute, FailingSince: time.Now(), Failures: 3}}
		})
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		r.want("a", "b", "c")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.want("b", "c")
	})
}

// TestExpunged: all is held, once, and returns when the collector is a member
// again. The log has a snapshot of nobody.
func TestExpunged(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	if err := r.Expunged(t.Context()); err != nil || len(r.entries) != 0 {
		t.Fatalf("expunged with nothing accepted: %v, %d entries", err, len(r.entries))
	}
	r.all("e", 7, "a", "b")
	applied := r.Status().AppliedDigest
	for range 2 {
		if err := r.Expunged(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r.want("a", "b")
	st := r.Status()
	if st.HeldCount != 2 || st.AcceptedCount != 0 || st.Revision != 7 || st.AppliedDigest != applied || st.Digest != 0 {
		t.Errorf("expunged: %+v", st)
	}
	if n := len(r.entries); n != 2 || len(r.entries[1].Frames) != 2 || len(r.entries[1].Held) != 2 {
		t.Errorf("the log has %d entries", n)
	}
	r.Begin()
	r.all("e", 7, "a", "b")
	if st := r.Status(); st.HeldCount != 0 || st.AcceptedCount != 2 || st.AppliedDigest != applied {
		t.Errorf("a member again: %+v", st)
	}
}

// TestRelease: an operator is told what became of it, and whether it is on disk.
func TestRelease(t *testing.T) {
	r := newRig(t, membership.State{Accepted: &snapshot.Accepted{}})
	r.all("e", 1, "a", "b", "c", "d")
	r.all("f", 1, "d")
	if ids := r.HeldIDs("a", 1); !slices.Equal(ids, []assignment.ProducerID{"b"}) {
		t.Errorf("behind a: %v", ids)
	}
	got := r.Release(t.Context(), []assignment.ProducerID{"a", "d", "x"})
	if got.Count != 1 || !got.Persisted || !slices.Equal(got.NotHeld, []assignment.ProducerID{"d", "x"}) {
		t.Errorf("%+v", got)
	}
	r.want("b", "c", "d")
	if released := r.entries[len(r.entries)-1].Released; !r.stale["a"] || len(released) != 1 {
		t.Errorf("stale: %v, the log was told of %v", r.stale["a"], released)
	}
	r.fail = errors.New("disk full")
	if got = r.ReleaseAll(t.Context()); got.Count != 2 || got.Persisted {
		t.Errorf("with a full disk: %+v", got)
	}
	r.want("d")
}

// TestReconnectingConfirmsNothing: what was while no stream told the set is not
// known.
func TestReconnectingConfirmsNothing(t *testing.T) {
	running(t, func(t *testing.T, r *rig) {
		r.all("e", 1, "a", "b")
		r.all("e", 2, "b")
		for range 20 {
			time.Sleep(time.Minute)
			r.Begin()
			r.all("e", 2, "b")
		}
		if held := r.Held("", 2); len(held) != 1 || held[0].Confirmed != 0 {
			t.Errorf("held: %+v", held)
		}
	})
}
