package follow

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// answering runs an acknowledger on a holder.
func answering(t *testing.T, h *holder) (a *acknowledger, stop func()) {
	t.Helper()
	a = newAcknowledger(&session{Follower: New(Config{
		Holder: h, Runner: h, Logger: slog.New(slog.DiscardHandler), Metrics: NewMetrics(),
	})}, h)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run(ctx)
	}()
	return a, func() {
		cancel()
		<-done
	}
}

// collect is the first success of so many more targets.
func (h *holder) collect(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		h.collected = append(h.collected, assignment.ProducerID(fmt.Sprintf("t-%06d", len(h.collected)+1)))
	}
}

// tellings are when acknowledgements that told of collected targets came, counted
// from a time, and how many they told, since the last call.
func (h *holder) tellings(from time.Time) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for _, ack := range h.acks {
		all = append(all, fmt.Sprintf("%v:%d", ack.at.Sub(from), len(ack.collected)))
	}
	h.acks = nil
	return all
}

func checkTold(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: told %v, want %v", what, got, want)
	}
}

// TestCollectedTargetsAreTold: soon after the first success, once the stream has
// sealed a snapshot; all of them, 1,000 at a time, and again every 5 s until they
// are targets no more.
func TestCollectedTargetsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{persisted: true}
		a, stop := answering(t, h)
		began := time.Now()
		pass := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		h.collect(1)
		a.session.TargetCollected()
		pass(7 * time.Second)
		checkTold(t, "before the first seal", h.tellings(began))
		a.notify()
		pass(50 * time.Millisecond)
		checkTold(t, "at the seal", h.tellings(began), "7s:1")
		h.collect(2)
		a.session.TargetCollected()
		h.collect(1)
		a.session.TargetCollected()
		pass(950 * time.Millisecond)
		checkTold(t, "three more, coalesced", h.tellings(began), "7.1s:3")
		h.collect(1)
		a.session.TargetCollected()
		pass(time.Second)
		checkTold(t, "one more, at once", h.tellings(began), "8s:1")
		pass(7 * time.Second)
		checkTold(t, "all again", h.tellings(began), "10s:5", "15s:5")
		h.collect(2495)
		a.session.TargetCollected()
		pass(6 * time.Second)
		checkTold(t, "very many", h.tellings(began), "16s:1000", "16.1s:1000", "16.2s:495", "20s:1000", "20.1s:1000", "20.2s:500")
		h.change(func() { h.collected = nil })
		pass(time.Hour)
		checkTold(t, "they have become owners", h.tellings(began))
		stop()
	})
}

// All come in turn, also when that takes longer than until they are told again.
func TestTheLastCollectedTargetIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{persisted: true}
		h.collect(60_000)
		a, stop := answering(t, h)
		began := time.Now()
		a.notify()
		time.Sleep(5950 * time.Millisecond)
		synctest.Wait()
		stop()
		var last string
		for _, ack := range h.acks {
			if n := len(ack.collected); n > 0 {
				last = ack.collected[n-1]
			}
		}
		if n := len(h.tellings(began)); n != 60 || last != "t-060000" {
			t.Errorf("%d tellings, the last one of %s", n, last)
		}
	})
}

// A telling that is lost is repeated at once; one that completes nothing is none.
func TestCollectedTargetsAreToldAgainAfterALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{persisted: true, fail: true}
		a, stop := answering(t, h)
		began := time.Now()
		h.collect(1)
		a.notify()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		checkTold(t, "lost", h.tellings(began), "1s:1")
		h.change(func() { h.persisted = false })
		h.collect(1)
		a.session.TargetCollected()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		checkTold(t, "not persisted", h.tellings(began), "2s:0", "5s:0")
		h.change(func() { h.persisted = true })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		checkTold(t, "persisted", h.tellings(began), "10s:2")
		stop()

		// A new stream tells them anew.
		began = time.Now()
		a, stop = answering(t, h)
		a.notify()
		time.Sleep(time.Second)
		synctest.Wait()
		checkTold(t, "a new stream", h.tellings(began), "0s:2")
		stop()
	})
}

// Who is held is in no accepted set: the registry is not told.
func TestHeldTargetsAreNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{persisted: true}
		h.collect(3)
		h.hold(2)
		h.held[0] = "t-000002"
		a, stop := answering(t, h)
		began := time.Now()
		a.notify()
		time.Sleep(time.Second)
		synctest.Wait()
		checkTold(t, "two of three", h.tellings(began), "0s:2")
		stop()
	})
}
