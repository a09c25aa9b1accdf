package registrar_test

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// TestBehindReplicaRefuses: a replica whose view is older than what the
// subscriber has seen waits for 5 s, then sends it elsewhere.
func TestBehindReplicaRefuses(t *testing.T) {
	for name, ask := range map[string]func(cmd *registrar.Subscribe, held *assignment.Accepted){
		"accepted revision": func(cmd *registrar.Subscribe, held *assignment.Accepted) { cmd.Accepted = held },
		"min_revision":      func(cmd *registrar.Subscribe, held *assignment.Accepted) { cmd.MinRevision = held.Revision },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
				s, d := faulty(t, m)
				lagging := serve(t, s, "r2")
				cmd := r.enlist(t, "c1", "a")
				awaitRevision(t, lagging, m.Revision())
				member := r.subscribe(t, cmd)
				d.close(store.OpDeliver)
				r.register(t, producers(0, 3)...)
				member.until(3)
				ask(&cmd, member.accepted())
				begin := time.Now()
				_, err := lagging.Subscribe(t.Context(), cmd)
				refused(t, err, roster.Unavailable, roster.ReasonBehind)
				if took := time.Since(begin); took != 5*time.Second {
					t.Errorf("refused after %v", took)
				}
				if !r.live(t, "c1") {
					t.Error("a refused subscription took the session")
				}
				if _, at, _ := r.Producers(t.Context(), 0); at.Epoch != member.epoch {
					t.Error("a lagging view was taken for a rewound store")
				}
				d.fail(store.OpRead) // not even the store's revision is known
				_, err = lagging.Subscribe(t.Context(), cmd)
				refused(t, err, roster.Unavailable, roster.ReasonBehind)
			})
		})
	}
}

// awaitRevision waits for a replica's view.
func awaitRevision(t *testing.T, r *replica, revision assignment.Revision) {
	t.Helper()
	if _, _, err := r.Collectors(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
}

// TestNoTimeTravel: a replica that lags serves the subscriber as soon as it has
// caught up, never anything older than what it holds.
func TestNoTimeTravel(t *testing.T) {
	for name, observe := range map[string]bool{"collector": false, "observer": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
				s, d := faulty(t, m)
				lagging := serve(t, s, "r2")
				cmd := r.enlist(t, "c1", "a")
				cmd.Observe = observe
				awaitRevision(t, lagging, m.Revision())
				d.close(store.OpDeliver)
				r.join(t, "c2")
				r.register(t, registrar.RegisterProducer{ID: "p", Stored: []byte("x"), Hint: "c1"})
				member := r.subscribe(t, cmd)
				time.AfterFunc(3*time.Second, d.open)
				begin := time.Now()
				again := lagging.resume(t, cmd, member)
				if again.at < member.at {
					t.Errorf("revision %d after %d", again.at, member.at)
				}
				if took := time.Since(begin); took != 3*time.Second {
					t.Errorf("served after %v", took)
				}
			})
		})
	}
}

// TestNoTimeTravelAcrossEpochs: a replica that has not heard of a new epoch
// asks the store before it serves one who knows it.
func TestNoTimeTravelAcrossEpochs(t *testing.T) {
	for name, observe := range map[string]bool{"collector": false, "observer": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
				s, d := faulty(t, m)
				lagging := serve(t, s, "r2")
				cmd := r.enlist(t, "c1", "a")
				cmd.Observe = observe
				awaitRevision(t, lagging, m.Revision())
				d.close(store.OpDeliver)
				newEpoch(t, m, "another")
				r.register(t, registrar.RegisterProducer{ID: "p", Stored: []byte("x"), Hint: "c1"})
				member := r.subscribe(t, cmd)
				if member.epoch != "another" {
					t.Fatalf("epoch %s", member.epoch)
				}
				time.AfterFunc(3*time.Second, d.open)
				again := lagging.resume(t, cmd, member)
				if again.epoch != "another" || again.at < member.at {
					t.Errorf("epoch %s at %d, the subscriber has %s at %d", again.epoch, again.at, member.epoch, member.at)
				}
			})
		})
	}
}

// newEpoch writes another epoch, as an operator's restore does.
func newEpoch(t *testing.T, m *store.Memory, epoch assignment.Epoch) {
	t.Helper()
	s := m.Open()
	var at assignment.Revision
	if _, err := s.Load(t.Context(), func(f roster.Found) error {
		if f.Record.Key().Kind == roster.KindEpoch {
			at = f.Revision
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	record := &roster.Epoch{Epoch: epoch}
	outcomes, err := s.Commit(t.Context(), []roster.Txn{{{Key: record.Key(), Expect: at, Record: record}}})
	if err != nil || !outcomes[0].Committed {
		t.Fatalf("%+v, %v", outcomes, err)
	}
}

// TestANewEpochEndsTheStreams, and its subscribers resume in it without being
// sent what they hold.
func TestANewEpochEndsTheStreams(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		member := r.join(t, "c1")
		r.register(t, producers(0, 3)...)
		member.until(3)
		newEpoch(t, m, "another")
		refused(t, member.end(), roster.Unavailable, roster.ReasonEpochChanged)
		member.stream.Close(t.Context())
		cmd := r.enlist(t, "c1", "c1-a")
		first := r.resume(t, cmd, member).first
		if first.Epoch != "another" || first.Scope != assignment.ScopeBuckets || len(first.Items) > 0 || len(first.Replaced) > 0 {
			t.Errorf("%+v", first)
		}
	})
}

// rewind makes a store that was set back to before the last ten registrations,
// which its one member has seen.
func rewind(t *testing.T, m *store.Memory, r *replica) (*member, registrar.Subscribe) {
	t.Helper()
	cmd := r.enlist(t, "c1", "a")
	member := r.subscribe(t, cmd)
	r.register(t, producers(0, 3)...)
	member.until(3)
	backup := m.Snapshot()
	for i := range 10 {
		r.register(t, producers(10+i, 11+i)...)
	}
	member.until(13)
	m.Restore(backup)
	refused(t, member.end(), roster.Unavailable, roster.ReasonEpochChanged)
	member.stream.Close(t.Context())
	return member, cmd
}

// TestRestoredBackupSameEpoch: nobody announced that the store was set back. The
// registry notices that it has seen more itself, and begins a new epoch: the
// old one's revisions mean something else now.
func TestRestoredBackupSameEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		member, cmd := rewind(t, m, r)
		time.Sleep(5 * time.Second)
		again := r.resume(t, cmd, member)
		if again.epoch == member.epoch {
			t.Errorf("epoch %s goes on, at revision %d after %d", again.epoch, again.at, member.at)
		}
	})
}

// TestARewoundStoreIsFoundOut by what a collector has seen, by a registry that
// was started after the restore: at its next subscription, or by its
// acknowledgement.
func TestARewoundStoreIsFoundOut(t *testing.T) {
	for name, acknowledge := range map[string]bool{"subscription": false, "acknowledgement": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
				cmd := r.enlist(t, "c1", "a")
				member := r.subscribe(t, cmd)
				r.register(t, producers(0, 3)...)
				member.until(3)
				member.at += 1000 // seen before the store was set back
				held := member.accepted()
				streaming := r.subscribe(t, cmd)
				other := r.join(t, "c2")
				if acknowledge {
					_, err := r.Acknowledge(t.Context(), registrar.Acknowledge{Generation: cmd.Generation, Ack: roster.Ack{
						Collector: "c1", Instance: "a", Epoch: held.Epoch, Revision: held.Revision,
					}})
					if err != nil {
						t.Error(err)
					}
				} else {
					cmd.Accepted = held
					_, err := r.Subscribe(t.Context(), cmd)
					refused(t, err, roster.Unavailable, roster.ReasonBehind)
				}
				refused(t, streaming.end(), roster.Unavailable, roster.ReasonEpochChanged)
				refused(t, other.end(), roster.Unavailable, roster.ReasonEpochChanged)
				if again := r.resume(t, cmd, member); again.epoch == held.Epoch || len(again.first.Items) != 0 {
					t.Errorf("epoch %s, %d members were sent again", again.epoch, len(again.first.Items))
				}
				if again := r.join(t, "c2"); again.epoch == held.Epoch {
					t.Error("the epoch goes on")
				}
			})
		})
	}
}

// TestNotJustAnybodyRewinds: a made-up revision of somebody who only looks, or
// is no collector, must not end everybody's streams.
func TestNotJustAnybodyRewinds(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		member := r.join(t, "c1")
		lie := &assignment.Accepted{Epoch: member.epoch, Revision: 1 << 40, BucketDigests: make([]assignment.Digest, 1), AssignmentFormat: 1}
		for _, cmd := range []registrar.Subscribe{
			{Collector: "c1", Observe: true, Accepted: lie},
			{Collector: "c9", Instance: "x", Generation: 1, Accepted: lie},
			{Collector: "c1", Instance: "x", Generation: 1, Accepted: lie},
			{Collector: "c1", Instance: "c1-a", Generation: 7, Accepted: lie},
		} {
			if _, err := r.Subscribe(t.Context(), cmd); err == nil {
				t.Errorf("%+v subscribed", cmd)
			}
		}
		if _, at, _ := r.Producers(t.Context(), 0); at.Epoch != member.epoch {
			t.Error("somebody who is no collector has begun a new epoch")
		}
	})
}

// TestReloadBesideTheOldView: the watch was lost and its events are compacted.
// What the subscribers are given is the exact difference, named.
func TestReloadBesideTheOldView(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		cut := serve(t, s, "r2")
		member := cut.join(t, "c1")
		r.register(t, producers(0, 20)...)
		member.until(20)
		before := maps.Clone(member.set)

		d.close(store.OpDeliver)
		r.register(t, producers(20, 25)...)
		r.register(t, registrar.RegisterProducer{ID: producerID(1), Stored: []byte("v2")})
		r.deregister(t, producerID(2))
		m.Delete("/rollcall/v1/producers/" + string(producerID(3))) // without a name
		r.deregister(t, producerID(4))
		m.Delete("/rollcall/v1/removed/" + string(producerID(4))) // its name is lost
		m.Compact(m.Revision())
		d.fail(store.OpDeliver)
		d.open()
		synctest.Wait()
		d.fail()
		snapshot := member.snapshot()

		var ids []assignment.ProducerID
		for _, item := range snapshot.Items {
			ids = append(ids, item.ProducerID)
		}
		slices.Sort(ids)
		want := []assignment.ProducerID{
			producerID(1), producerID(20), producerID(21), producerID(22), producerID(23), producerID(24),
		}
		if diff := cmp.Diff(want, ids); diff != "" || snapshot.Scope != assignment.ScopeChanges {
			t.Errorf("scope %d, items (-want +got):\n%s", snapshot.Scope, diff)
		}
		causes := map[assignment.ProducerID]assignment.Cause{}
		for _, removal := range snapshot.Removals {
			causes[removal.ProducerID] = removal.Cause
		}
		wantCauses := map[assignment.ProducerID]assignment.Cause{
			producerID(2): assignment.CauseDeregistered,
			producerID(3): assignment.CauseUnspecified,
			producerID(4): assignment.CauseUnspecified,
		}
		if diff := cmp.Diff(wantCauses, causes); diff != "" {
			t.Errorf("causes (-want +got):\n%s", diff)
		}
		if len(member.set) != 22 || len(before) != 20 {
			t.Errorf("%d members after %d", len(member.set), len(before))
		}
	})
}

// TestAReloadFindsWhoLost: sessions that went while the watch was cut off.
func TestAReloadFindsWhoLost(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		s, d := faulty(t, m)
		cut := serve(t, s, "r2")
		lost := cut.join(t, "c1")
		replaced := cut.join(t, "c2")
		stands := cut.join(t, "c3")
		d.close(store.OpDeliver)
		m.Delete("/rollcall/v1/sessions/c1")
		r.join(t, "c2")
		d.fail(store.OpDeliver)
		d.open()
		synctest.Wait()
		d.fail()
		refused(t, lost.end(), roster.Unavailable, roster.ReasonNotServing)
		refused(t, replaced.end(), roster.Aborted, roster.ReasonSuperseded)
		if _, err := stands.stream.Next(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
