package registrar_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// TestReadYourWrites: who was answered sees what was done, at the revision
// answered.
func TestReadYourWrites(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				id := producerID(i)
				result := r.register(t, registrar.RegisterProducer{ID: id, Stored: []byte("x"), Instance: "a"})[0]
				e, at, err := r.Producer(t.Context(), id, 0)
				if err != nil || e.Revision != result.Revision || at.Revision < result.Revision || at.Epoch != result.Epoch || !result.Changed {
					t.Errorf("read %+v at %+v, %v, after %+v", e, at, err, result)
				}
				revision := r.deregister(t, id)
				_, at, err = r.Producer(t.Context(), id, 0)
				refused(t, err, roster.NotFound, roster.ReasonUnknownProducer)
				if at.Revision < revision {
					t.Errorf("read at %d after a write at %d", at.Revision, revision)
				}
			})
		}
		group.Wait()
		r.enlist(t, "c1", "a")
		if _, _, err := r.Collector(t.Context(), "c1", 0); err != nil {
			t.Error(err)
		}
	})
}

// TestReadYourWritesElsewhere: with the revision answered, any replica shows
// the write, or says that it cannot.
func TestReadYourWritesElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		other := serve(t, s, "r2")
		d.close(store.OpDeliver)
		written := r.register(t, producers(0, 1)...)[0].Revision
		if _, _, err := other.Producer(t.Context(), producerID(0), 0); err == nil {
			t.Error("the other replica does not lag: this test proves nothing")
		}
		begin := time.Now()
		_, _, err := other.Producer(t.Context(), producerID(0), written)
		refused(t, err, roster.Unavailable, roster.ReasonBehind)
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("refused after %v", took)
		}
		time.AfterFunc(2*time.Second, d.open)
		if _, at, err := other.Producer(t.Context(), producerID(0), written); err != nil || at.Revision < written {
			t.Errorf("read at %+v: %v", at, err)
		}
	})
}

func TestARenewalWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		cmd := registrar.RegisterProducer{ID: "p", Stored: []byte("x"), Instance: "a"}
		first := r.register(t, cmd)[0]
		at := m.Revision()
		for range 10 {
			again := r.register(t, cmd)[0]
			if again.Changed || again.Revision != first.Revision || again.Producer.Version != first.Producer.Version {
				t.Errorf("renewed as %+v, registered as %+v", again, first)
			}
		}
		if m.Revision() != at {
			t.Errorf("the store went from %d to %d", at, m.Revision())
		}
	})
}

func TestValidateOnlyWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		r.join(t, "c1")
		r.register(t, registrar.RegisterProducer{ID: "q", Stored: []byte("x"), Instance: "old"})
		r.register(t, registrar.RegisterProducer{ID: "q", Stored: []byte("x"), Instance: "new"})
		at := m.Revision()
		results := r.RegisterProducers(t.Context(), []registrar.RegisterProducer{
			{ID: "p", Stored: []byte("x"), ValidateOnly: true},
			{ID: "q", Stored: []byte("y"), Instance: "old", ValidateOnly: true},
		})
		if p := results[0]; p.Err != nil || !p.Changed || p.Producer.Collector != "c1" || p.Revision != 0 {
			t.Errorf("%+v", p)
		}
		refused(t, results[1].Err, roster.Aborted, roster.ReasonInstanceReplaced)
		if _, _, err := r.Producer(t.Context(), "p", 0); err == nil || m.Revision() != at {
			t.Errorf("it was registered, revision %d", m.Revision())
		}
	})
}

// TestConcurrentRegistrationsOfOneID: each one is carried out after another, in
// some order; none is lost.
func TestConcurrentRegistrationsOfOneID(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		replicas := []*replica{r, serve(t, m.Open(), "r2")}
		var group sync.WaitGroup
		results := make([]registrar.Registered, 12)
		for i := range results {
			group.Go(func() {
				instance := assignment.InstanceID(fmt.Sprintf("i%d", i))
				results[i] = replicas[i%2].register(t, registrar.RegisterProducer{ID: "p", Stored: []byte(instance), Instance: instance})[0]
			})
		}
		group.Wait()
		last := results[0]
		seen := map[assignment.Revision]bool{}
		for i, result := range results {
			if seen[result.Revision] || !result.Changed {
				t.Errorf("registration %d: %+v", i, result)
			}
			seen[result.Revision] = true
			if result.Revision > last.Revision {
				last = result
			}
		}
		e, _, err := r.Producer(t.Context(), "p", last.Revision)
		if err != nil || e.Revision != last.Revision || string(e.Stored) != string(last.Producer.Stored) || len(e.Instances.All()) != 4 {
			t.Errorf("%+v, %v, want what was registered last: %+v", e, err, last.Producer)
		}
	})
}

// TestNoResurrection: a registration that was decided before a deregistration
// never undoes it, whatever it knew of the producer.
func TestNoResurrection(t *testing.T) {
	for name, known := range map[string]bool{"decided while it was there": true, "decided before it ever was": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
				cmd := registrar.RegisterProducer{ID: "p", Stored: []byte("x"), Instance: "a"}
				if known {
					r.register(t, cmd)
				}
				s, d := faulty(t, m)
				other := serve(t, s, "r2")
				d.close(store.OpCommit)
				late := make(chan registrar.Registered)
				go func() {
					changed := cmd
					changed.Stored = []byte("y")
					late <- other.RegisterProducers(t.Context(), []registrar.RegisterProducer{changed})[0]
				}()
				synctest.Wait()
				if d.waited() != 1 {
					t.Fatal("the registration is not between its decision and its commit")
				}
				if !known {
					r.register(t, cmd)
				}
				r.deregister(t, "p")
				d.open()
				refused(t, (<-late).Err, roster.FailedPrecondition, roster.ReasonInstanceDeregistered)
				_, _, err := r.Producer(t.Context(), "p", m.Revision())
				refused(t, err, roster.NotFound, roster.ReasonUnknownProducer)
			})
		})
	}
}

// TestADeregistrationIsNeverMissed: a replica whose view does not know the
// producer yet must not answer that there is none.
func TestADeregistrationIsNeverMissed(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		other := serve(t, s, "r2")
		d.close(store.OpDeliver)
		r.register(t, producers(0, 1)...)
		time.AfterFunc(3*time.Second, d.open)
		if _, _, changed, err := other.DeregisterProducer(t.Context(), producerID(0), ""); err != nil || !changed {
			t.Errorf("changed %v, %v", changed, err)
		}
		_, _, err := r.Producer(t.Context(), producerID(0), m.Revision())
		refused(t, err, roster.NotFound, roster.ReasonUnknownProducer)

		d.close(store.OpDeliver)
		r.register(t, producers(1, 2)...)
		_, _, _, err = other.DeregisterProducer(t.Context(), producerID(1), "")
		refused(t, err, roster.Unavailable, roster.ReasonBehind)
		d.open()
	})
}

// TestADeregistrationIsDecidedAnew when somebody has written what it was decided
// on.
func TestADeregistrationIsDecidedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		other := serve(t, s, "r2")
		r.register(t, producers(0, 1)...)
		awaitRevision(t, other, m.Revision())
		d.close(store.OpDeliver)
		r.register(t, registrar.RegisterProducer{ID: producerID(0), Stored: []byte("v2")})
		time.AfterFunc(3*time.Second, d.open)
		if _, _, changed, err := other.DeregisterProducer(t.Context(), producerID(0), ""); err != nil || !changed {
			t.Errorf("changed %v, %v", changed, err)
		}
		_, _, err := r.Producer(t.Context(), producerID(0), m.Revision())
		refused(t, err, roster.NotFound, roster.ReasonUnknownProducer)
	})
}

func TestDeregisterIsIdempotent(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		r.register(t, producers(0, 1)...)
		r.deregister(t, producerID(0))
		at := m.Revision()
		epoch, revision, changed, err := r.DeregisterProducer(t.Context(), producerID(0), "")
		if err != nil || changed || revision != at || epoch == "" || m.Revision() != at {
			t.Errorf("again: changed %v at %s/%d, %v", changed, epoch, revision, err)
		}
	})
}

// TestABatchWithConflicts: registrations that lose a race are decided anew; the
// others of their batch stand, and every result is in its place.
func TestABatchWithConflicts(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		other := serve(t, s, "r2")
		cmds := producers(0, 300)
		for i := range cmds {
			cmds[i].Instance = "late"
		}
		d.close(store.OpCommit)
		late := make(chan []registrar.Registered)
		go func() { late <- other.RegisterProducers(t.Context(), cmds) }()
		synctest.Wait()
		for i := 0; i < 300; i += 30 {
			early := cmds[i]
			early.Instance, early.Stored = "early", []byte("v2")
			r.register(t, early)
			if i == 60 {
				r.register(t, cmds[i]) // the late one has been here
				early.Instance = "newer"
				r.register(t, early)
			}
		}
		d.open()
		for i, result := range <-late {
			if i == 60 {
				refused(t, result.Err, roster.Aborted, roster.ReasonInstanceReplaced)
				continue
			}
			if result.Err != nil || result.Producer.ID != cmds[i].ID || result.Revision == 0 {
				t.Errorf("registration %d: %+v", i, result)
				continue
			}
			e, _, err := r.Producer(t.Context(), cmds[i].ID, m.Revision())
			if err != nil || e.Revision != result.Revision || string(e.Stored) != "v1" {
				t.Errorf("%+v, %v, want what %+v says", e, err, result)
			}
		}
	})
}

// TestAFullStoreIsTold as what it is; so is a store that does not answer, and a
// caller that gave up.
func TestAFullStoreIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		r := serve(t, m.Open(), "r1")
		m.Fail(func(op string) error {
			if op == store.OpCommit {
				return registrar.ErrFull
			}
			return nil
		})
		for _, result := range r.RegisterProducers(t.Context(), producers(0, 200)) {
			if !errors.Is(result.Err, registrar.ErrFull) {
				t.Errorf("%+v, want ErrFull", result)
			}
		}
		m.Fail(func(op string) error {
			if op == store.OpCommit {
				return errStore
			}
			return nil
		})
		refused(t, r.RegisterProducers(t.Context(), producers(0, 1))[0].Err, roster.Unavailable, roster.ReasonOutcomeUnknown)
		m.Fail(nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.RegisterProducers(ctx, producers(0, 1))[0].Err; !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want the context's end", err)
		}
	})
}

// TestAHangingStoreIsBounded: it does not collect callers.
func TestAHangingStoreIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := faulty(t, store.NewMemory())
		r := serve(t, s, "r1")
		r.register(t, producers(0, 1)...)
		d.close(store.OpCommit)
		begin := time.Now()
		refused(t, r.RegisterProducers(t.Context(), producers(1, 2))[0].Err, roster.Unavailable, roster.ReasonOutcomeUnknown)
		_, _, _, err := r.DeregisterProducer(t.Context(), producerID(0), "")
		refused(t, err, roster.Unavailable, roster.ReasonOutcomeUnknown)
		d.open()
		d.close(store.OpRead)
		_, _, _, err = r.DeregisterProducer(t.Context(), producerID(7), "")
		refused(t, err, roster.Unavailable, roster.ReasonNotServing)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestEndlessContentionIsBounded: somebody else writes the record before each of
// our commits.
func TestEndlessContentionIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		r := serve(t, m.Open(), "r1")
		writes := 0
		s := m.OpenFaulty(func(op string) error {
			if op == store.OpCommit {
				writes++
				r.register(t, registrar.RegisterProducer{ID: "p", Stored: []byte(strings.Repeat("x", writes))})
			}
			return nil
		})
		other := serve(t, s, "r2")
		refused(t, other.RegisterProducers(t.Context(), []registrar.RegisterProducer{{ID: "p", Stored: []byte("y")}})[0].Err,
			roster.Aborted, roster.ReasonContended)
		_, _, _, err := other.DeregisterProducer(t.Context(), "p", "")
		refused(t, err, roster.Aborted, roster.ReasonContended)
		if writes > 40 {
			t.Errorf("%d attempts", writes)
		}
	})
}

// TestForgottenAfterADay: names of producers that left are kept a day, however
// many left at once.
func TestForgottenAfterADay(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, _ *replica) {
		const many = 2500
		var txns []roster.Txn
		for i := range many {
			gone := &roster.Removed{ID: producerID(i), Cause: assignment.CauseDeregistered, RemoveTime: time.Now()}
			txns = append(txns, roster.Txn{{Key: gone.Key(), Record: gone}})
		}
		if _, err := m.Open().Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		removed := func() int {
			n := 0
			_, err := m.Open().Load(t.Context(), func(f roster.Found) error {
				if f.Record.Key().Kind == roster.KindRemoved {
					n++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		time.Sleep(24*time.Hour - time.Minute)
		if n := removed(); n != many {
			t.Errorf("%d are remembered within a day", n)
		}
		time.Sleep(12 * time.Minute)
		if n := removed(); n != 0 {
			t.Errorf("%d are remembered after it", n)
		}
	})
}
