package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/etcdtest"
)

// TestMembersAreKilled breaks connections and kills the leader while registries
// commit. What was acknowledged stands, in the revision that was told; what failed may or
// may not; what lost a comparison was not written.
func TestMembersAreKilled(t *testing.T) {
	t.Parallel()
	const writers, cuts, kills = 4, 30, 2
	cluster := etcdtest.Start(t, etcdtest.Options{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	tallies := make([]tally, writers)
	var group sync.WaitGroup
	for i := range writers {
		s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
		group.Go(func() { tallies[i] = writeUntil(ctx, s, i) })
	}
	reader := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
	watched := watchUntil(ctx, t, reader)
	for i := range cuts {
		awaitCommits(t, reader, 5)
		cluster.Cut(i % 3)
	}
	for range kills {
		awaitCommits(t, reader, 50)
		victim := cluster.Leader()
		for ; victim < 0; victim = cluster.Leader() {
			awaitCommits(t, reader, 1)
		}
		cluster.Kill(victim)
		awaitCommits(t, reader, 50) // by those that are left
		cluster.Start(t, victim)
	}
	stop()
	group.Wait()
	seen := <-watched
	stands := map[string]roster.Found{}
	if _, err := reader.Load(background(t), func(found roster.Found) error {
		stands[found.Record.Key().ID] = found
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var all tally
	for _, one := range tallies {
		one.check(t, stands)
		all.acknowledged, all.uncertain = all.acknowledged+one.acknowledged, all.uncertain+one.uncertain
	}
	t.Logf("%d commits were acknowledged, of %d nothing is known; the watch broke %d times", all.acknowledged, all.uncertain, seen)
	if all.acknowledged == 0 {
		t.Error("nothing was acknowledged")
	}
}

// awaitCommits makes commits of its own, and so has others make theirs. They may
// fail while nobody leads.
func awaitCommits(t *testing.T, s *store.Store, n int) {
	t.Helper()
	for ctx := background(t); n > 0; {
		_, err := s.Commit(ctx, []roster.Txn{create(fmt.Sprintf("witness-%d", rand.Int64()))})
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		if err == nil {
			n--
		}
	}
}

// A tally is what one writer was told.
type tally struct {
	stands       map[string]assignment.Revision
	unknown      map[string]bool // of these nothing is known
	acknowledged int
	uncertain    int
	fault        error
}

// writeUntil creates, changes and deletes records of its own, several a call.
func writeUntil(ctx context.Context, s *store.Store, writer int) tally {
	t := tally{stands: map[string]assignment.Revision{}, unknown: map[string]bool{}}
	for n := 0; ctx.Err() == nil; n++ {
		var txns []roster.Txn
		for i := range 1 + rand.IntN(5) {
			id := fmt.Sprintf("w%d-%d", writer, (n+i)%2000)
			if t.unknown[id] {
				continue
			}
			r := record(id, fmt.Sprint(n))
			w := roster.Write{Key: r.Key(), Expect: t.stands[id], Record: r}
			if t.stands[id] != 0 && rand.IntN(3) == 0 {
				w.Record = nil
			}
			txns = append(txns, roster.Txn{w, {Key: roster.ProducerKey("nobody"), Check: true}})
		}
		once, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		outcomes, err := s.Commit(once, txns)
		cancel()
		t.take(txns, outcomes, err)
	}
	return t
}

func (t *tally) take(txns []roster.Txn, outcomes []roster.Outcome, err error) {
	if err == nil {
		t.acknowledged += len(txns)
	}
	for i, txn := range txns {
		id := txn[0].Key.ID
		switch {
		case err != nil:
			t.uncertain++
			t.unknown[id] = true
		case !outcomes[i].Committed:
			// Nobody else writes it.
			t.fault = fmt.Errorf("%s: expected revision %d, found %+v", id, txn[0].Expect, outcomes[i].Found)
		case txn[0].Record == nil:
			delete(t.stands, id)
		default:
			t.stands[id] = outcomes[i].Revision
		}
	}
}

func (t *tally) check(tt *testing.T, stands map[string]roster.Found) {
	tt.Helper()
	if t.fault != nil {
		tt.Error(t.fault)
	}
	for id, at := range t.stands {
		if !t.unknown[id] && stands[id].Revision != at {
			tt.Errorf("%s was acknowledged at revision %d and stands at %d", id, at, stands[id].Revision)
		}
	}
}

// watchUntil watches as the registrar does, and checks that revisions increase
// from one watch to the next. It tells how often a watch broke.
func watchUntil(ctx context.Context, t *testing.T, s *store.Store) <-chan int {
	t.Helper()
	broke := make(chan int, 1)
	go func() {
		last, breaks := assignment.Revision(0), 0
		for ctx.Err() == nil {
			err := s.Watch(ctx, last, func(b roster.Batch) error {
				if b.Revision < last || b.Revision == last && len(b.Events) > 0 {
					t.Errorf("revision %d after %d", b.Revision, last)
				}
				last = b.Revision
				return nil
			})
			if ctx.Err() == nil {
				breaks++
			}
			if errors.Is(err, store.ErrSetBack) {
				t.Error(err)
			}
		}
		broke <- breaks
	}()
	return broke
}

// TestExternalLosesMembers has the lease outlive the loss of any one member, and
// a Store notice the loss of two.
func TestExternalLosesMembers(t *testing.T) {
	t.Parallel()
	const ttl = 12 * time.Second // an election and a machine that stands still are less than half of it
	cluster := etcdtest.Start(t, etcdtest.Options{})
	s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
	held := make(chan struct{})
	lease := make(chan error, 1)
	go func() { lease <- s.HoldLease(t.Context(), ttl, func() { close(held) }) }()
	select {
	case <-held:
	case err := <-lease:
		t.Fatalf("no lease: %v", err)
	}
	for i := range 3 {
		cluster.Kill(i)
		select {
		case err := <-lease:
			t.Fatalf("without member %d: %v", i, err)
		case <-time.After(ttl / 2):
		}
		awaitCommits(t, s, 1)
		cluster.Start(t, i)
	}
	cluster.Kill(0)
	cluster.Kill(1)
	if err := <-lease; !errors.Is(err, registrar.ErrLeaseLost) {
		t.Errorf("with one member of three: %v", err)
	}
}
