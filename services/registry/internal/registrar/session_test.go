package registrar_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// live tells whether a collector counts as live.
func (r *replica) live(t *testing.T, id assignment.CollectorID) bool {
	t.Helper()
	c, _, err := r.Collector(t.Context(), id, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c.Live()
}

// TestNewestGenerationWins, on one replica and across two.
func TestNewestGenerationWins(t *testing.T) {
	for name, across := range map[string]bool{"one replica": false, "two replicas": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
				other := r
				if across {
					other = serve(t, m.Open(), "r2")
				}
				old := r.enlist(t, "c1", "a")
				a := r.subscribe(t, old)
				young := other.enlist(t, "c1", "b")
				if young.Generation <= old.Generation {
					t.Errorf("generation %d after %d", young.Generation, old.Generation)
				}
				b := other.subscribe(t, young)
				refused(t, a.end(), roster.Aborted, roster.ReasonSuperseded)
				a.stream.Close(t.Context())

				_, err := r.Subscribe(t.Context(), old)
				refused(t, err, roster.Aborted, roster.ReasonSuperseded)
				_, _, err = r.RegisterCollector(t.Context(), roster.Collector{ID: "c1"}, "a")
				refused(t, err, roster.Aborted, roster.ReasonInstanceReplaced)
				// Among one instance's streams the latest stands.
				b2 := r.subscribe(t, young)
				refused(t, b.end(), roster.Aborted, roster.ReasonSuperseded)
				b.stream.Close(t.Context())
				r.register(t, producers(0, 1)...)
				b2.until(1)
				if !other.live(t, "c1") {
					t.Error("the close of a superseded stream took the session of the one that stands")
				}
			})
		})
	}
}

// An insistent process keeps subscribing with the generation it has, as one
// does that was told nothing else; it registers before, if so told.
func insist(ctx context.Context, r *replica, cmd registrar.Subscribe, register bool) (streams int) {
	backoff := 200 * time.Millisecond
	for ctx.Err() == nil {
		if register {
			_, _, _ = r.RegisterCollector(ctx, roster.Collector{ID: cmd.Collector}, cmd.Instance)
		}
		if s, err := r.Subscribe(ctx, cmd); err == nil {
			streams++
			for err == nil {
				if _, err = s.Next(ctx); err == nil {
					backoff = 200 * time.Millisecond
				}
			}
			s.Close(ctx)
		}
		time.Sleep(rand.N(backoff))
		backoff = min(2*backoff, 30*time.Second)
	}
	return streams
}

// TestSameIdNoPingPong: two processes with one id, both insisting. The stream of
// the newer one stands all the time.
func TestSameIdNoPingPong(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		other := serve(t, m.Open(), "r2")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		older, newer := r.enlist(t, "c1", "a"), r.enlist(t, "c1", "b")
		count := make(chan int, 4)
		for i, replica := range []*replica{r, other} {
			go func() { count <- insist(ctx, replica, older, i == 0) }()
		}
		time.Sleep(time.Minute)
		member := other.subscribe(t, newer)
		for time.Since(member.since()) < 25*time.Minute {
			d, err := member.stream.Next(ctx)
			if err != nil {
				t.Fatalf("the newer one's stream ended: %v", err)
			}
			if _, ok := d.(*feed.Beat); !ok {
				t.Errorf("%T, want heartbeats only", d)
			}
		}
		<-ctx.Done()
		before := <-count + <-count
		if before == 0 {
			t.Error("the older one never had a stream: this test proves nothing")
		}
	})
}

// since is when the stream began.
func (m *member) since() time.Time {
	if m.begun.IsZero() {
		m.begun = time.Now()
	}
	return m.begun
}

// TestASessionThatIsLostEndsItsStream: whoever took it off the store, the
// collector is not live any more, and its stream must not seem so.
func TestASessionThatIsLostEndsItsStream(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		member := r.join(t, "c1")
		observer := r.subscribe(t, registrar.Subscribe{Collector: "c1", Observe: true})
		m.Delete("/rollcall/v1/sessions/c1")
		refused(t, member.end(), roster.Unavailable, roster.ReasonNotServing)
		if _, err := observer.stream.Next(t.Context()); err != nil {
			t.Errorf("the observer's stream ended: %v", err)
		}
	})
}

func TestAReplicasDeathEndsItsSessions(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		other := serve(t, s, "r2")
		other.join(t, "c1")
		r.register(t, producers(0, 1)...)
		d.fail(store.OpKeepAlive, store.OpRevoke, store.OpCommit, store.OpRead, store.OpGrant)
		begin := time.Now()
		for r.live(t, "c1") {
			time.Sleep(time.Second)
			if time.Since(begin) > 16*time.Second {
				t.Fatal("its collector is live still")
			}
		}
	})
}

// TestObserversTakeNoPart in the rule of one stream for each collector, and
// need no instance.
func TestObserversTakeNoPart(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		_, err := r.Subscribe(t.Context(), registrar.Subscribe{Collector: "c1", Observe: true})
		refused(t, err, roster.NotFound, roster.ReasonUnknownCollector)
		r.enlist(t, "c1", "a")
		at := m.Revision()
		observer := r.subscribe(t, registrar.Subscribe{Collector: "c1", Observe: true})
		if r.live(t, "c1") || m.Revision() != at {
			t.Error("looking makes a collector live")
		}
		member := r.join(t, "c1")
		r.register(t, producers(0, 1)...)
		member.until(1)
		observer.until(1)
		observer.stream.Close(t.Context())
		if !r.live(t, "c1") {
			t.Error("who stopped looking took the session along")
		}
	})
}

func TestSubscribeIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		_, err := r.Subscribe(t.Context(), registrar.Subscribe{Collector: "c1", Instance: "a", Generation: 1})
		refused(t, err, roster.NotFound, roster.ReasonUnknownCollector)
		cmd := r.enlist(t, "c1", "a")
		cmd.Generation++
		_, err = r.Subscribe(t.Context(), cmd)
		refused(t, err, roster.FailedPrecondition, roster.ReasonGenerationMismatch)
		if r.live(t, "c1") {
			t.Error("who was refused is live")
		}
	})
}

// TestNoGhosts: a subscription that came to nothing leaves no session behind,
// which would have the collector count as live and be given producers.
func TestNoGhosts(t *testing.T) {
	for name, fail := range map[string]func(t *testing.T, d *door, cancel context.CancelFunc){
		"the caller gives up after the commit": func(_ *testing.T, d *door, cancel context.CancelFunc) {
			d.close(store.OpDeliver)
			time.AfterFunc(500*time.Millisecond, cancel)
			time.AfterFunc(time.Second, d.open)
		},
		"the view never shows the session": func(_ *testing.T, d *door, _ context.CancelFunc) {
			d.close(store.OpDeliver)
			time.AfterFunc(time.Minute, d.open)
		},
		"the answer of the store is lost": func(_ *testing.T, d *door, _ context.CancelFunc) {
			d.fail(store.OpCommitted)
			time.AfterFunc(time.Second, func() { d.fail() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := store.NewMemory()
				s, d := faulty(t, m)
				r := serve(t, s, "r1")
				cmd := r.enlist(t, "c1", "a")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				fail(t, d, cancel)
				stream, err := r.Subscribe(ctx, cmd)
				if err == nil {
					stream.Close(ctx)
					t.Fatal("subscribed: this test proves nothing")
				}
				time.Sleep(2 * time.Minute)
				if r.live(t, "c1") {
					t.Errorf("nobody is subscribed (%v), and the collector is live", err)
				}
			})
		})
	}
}

// TestACloseIsMadeGood: a session whose close met a faulty store goes when the
// store is well again, not when this process dies.
func TestACloseIsMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		member := r.join(t, "c1")
		d.fail(store.OpCommit)
		member.stream.Close(t.Context())
		time.Sleep(10 * time.Second)
		if !r.live(t, "c1") {
			t.Fatal("it was closed: this test proves nothing")
		}
		d.fail()
		time.Sleep(time.Minute)
		if r.live(t, "c1") {
			t.Error("nobody is subscribed, and the collector is live")
		}
	})
}

// TestACloseIsBounded, also while the store hangs.
func TestACloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := faulty(t, store.NewMemory())
		r := serve(t, s, "r1")
		member := r.join(t, "c1")
		d.close(store.OpCommit)
		begin := time.Now()
		member.stream.Close(t.Context())
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestRegisterCollectorAnswersOneself: of two instances that register at the
// same moment none is given the other's generation.
func TestRegisterCollectorAnswersOneself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r, other := serve(t, s, "r1"), serve(t, m.Open(), "r2")
		d.close(store.OpDeliver)
		var got *registrar.CollectorStatus
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			got, _, err = r.RegisterCollector(t.Context(), roster.Collector{ID: "c1"}, "a")
		}()
		synctest.Wait()
		other.enlist(t, "c1", "b")
		d.open()
		<-done
		if err != nil {
			refused(t, err, roster.Aborted, roster.ReasonInstanceReplaced)
		} else if n := len(got.Collector.Instances); got.Collector.Instances[n-1].ID != "a" {
			t.Errorf("a registered and is told that %+v stands", got.Collector.Instances[n-1])
		}
	})
}

// TestARecordWithoutInstances, as a vandal may write it, harms nobody else.
func TestARecordWithoutInstances(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		m.Put("/rollcall/v1/collectors/c1", []byte{})
		synctest.Wait()
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("panic: %v", p)
				}
			}()
			_, err := r.Acknowledge(t.Context(), registrar.Acknowledge{Ack: roster.Ack{Collector: "c1", Instance: "a"}, Generation: 1})
			refused(t, err, roster.FailedPrecondition, roster.ReasonStaleAcknowledgement)
		}()
		done := make(chan error, 1)
		go func() { done <- r.RegisterProducers(t.Context(), producers(0, 1))[0].Err }()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("nothing moves any more")
		}
		if cmd := r.enlist(t, "c1", "a"); cmd.Generation != 1 {
			t.Errorf("%+v", cmd)
		}
	})
}

// TestNextOfAClosedStream ends.
func TestNextOfAClosedStream(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		member := r.join(t, "c1")
		member.stream.Close(t.Context())
		if _, err := member.stream.Next(t.Context()); !errors.Is(err, feed.ErrClosed) {
			t.Error(err)
		}
		if r.live(t, "c1") {
			t.Error("it is live")
		}
	})
}
