package simulation

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Two replicas that collectors follow, beside the one at registryAddress, where
// the stories register and deregister.
const (
	replica1 = "registry-1:7470"
	replica2 = "registry-2:7470"
)

const sentAssignments = "rollcall_registry_assignments_sent_total"

// follower starts a collector that knows some of the replicas.
func (w *world) follower(id string, replicas ...string) *host {
	w.t.Helper()
	return w.collectorOf(collector.Config{ID: id, Registries: replicas})
}

// cut makes replicas unreachable: connections end, and no new one is made.
func (w *world) cut(replicas ...string) {
	for _, address := range replicas {
		w.network.refuse(address, true)
		w.network.reset(address)
	}
}

// mend undoes cut.
func (w *world) mend(replicas ...string) {
	for _, address := range replicas {
		w.network.refuse(address, false)
	}
}

// subscribed checks that a collector follows a replica, and holds nobody.
func (w *world) subscribed(id, replica string) {
	w.t.Helper()
	if m := w.membership(id); !m.GetSubscribed() || m.GetRegistryAddress() != replica || m.GetHeldCount() != 0 {
		w.t.Errorf("%s is to follow %s and hold nobody: %v", id, replica, m)
	}
}

// TestResumeOnAnotherReplica: another replica sends nothing that has not changed,
// and about k buckets for k changes.
func TestResumeOnAnotherReplica(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		w.registry(store)
		one := w.registryAt(replica1, registry.Config{Memory: store})
		two := w.registryAt(replica2, registry.Config{Memory: store})
		w.follower("c-1", replica1, replica2)
		w.pass(time.Second)
		all := names(4000)
		w.register(all...)
		w.pass(time.Second)
		start := time.Now()
		w.pass(time.Minute)
		w.subscribed("c-1", replica1)

		w.cut(replica1)
		w.pass(30 * time.Second)
		w.subscribed("c-1", replica2)
		if n := two.metric(t, sentAssignments); n != 0 {
			t.Errorf("the other replica sent %v assignments, though nothing had changed", n)
		}
		w.noGap(start, time.Now(), all...)

		before := one.metric(t, sentAssignments)
		w.cut(replica2)
		w.pass(time.Second)
		w.register("new-1")
		w.deregister(all[7])
		w.mend(replica1)
		w.pass(time.Minute)
		w.subscribed("c-1", replica1)
		all = append(slices.DeleteFunc(all, func(id string) bool { return id == all[7] }), "new-1")
		w.collects("c-1", all...)
		// 4,000 producers are 64 buckets of about 63.
		if n := one.metric(t, sentAssignments) - before; n == 0 || n > 2*130 {
			t.Errorf("%v assignments were sent for two changes", n)
		}
	})
}

// TestResumeAcrossEpochs: producers that stand in a new epoch as they stood in
// the one before are not sent again, nor held, nor missed.
func TestResumeAcrossEpochs(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		c := w.collector("c-1")
		w.pass(time.Second)
		all := names(4000)
		w.register(all...)
		w.pass(time.Second)
		start := time.Now()
		w.pass(time.Minute)
		first := w.membership("c-1").GetEpoch()

		t.Log("the store that runs is given another epoch")
		sent := r.metric(t, sentAssignments)
		beginEpoch(t, store, "22222222-0000-0000-0000-000000000000")
		w.pass(time.Minute)
		w.subscribed("c-1", registryAddress)
		if e := w.membership("c-1").GetEpoch(); e == first {
			t.Errorf("still in epoch %s", e)
		}
		if n := r.metric(t, sentAssignments) - sent; n != 0 {
			t.Errorf("%v assignments were sent again", n)
		}

		t.Log("a copy takes the store's place, with another epoch and two changes")
		restored := registry.NewMemoryStore()
		restored.Restore(store.Snapshot())
		w.crash(r, registryAddress)
		beginEpoch(t, restored, "33333333-0000-0000-0000-000000000000")
		r = w.registry(restored)
		w.register("new-1")
		w.deregister(all[7])
		w.pass(time.Minute)
		w.subscribed("c-1", registryAddress)
		w.collects("c-1", append(slices.DeleteFunc(slices.Clone(all), func(id string) bool { return id == all[7] }), "new-1")...)
		if n := r.metric(t, sentAssignments); n == 0 || n > 2*130 {
			t.Errorf("%v assignments were sent for two changes", n)
		}
		if n := c.metric(t, "rollcall_collector_divergences_total"); n != 0 {
			t.Errorf("%v heartbeats told another set", n)
		}
		w.noGap(start, time.Now(), slices.DeleteFunc(all, func(id string) bool { return id == all[7] })...)
	})
}

// beginEpoch writes a new epoch, as a restore does.
func beginEpoch(t *testing.T, store *registry.MemoryStore, epoch string) {
	t.Helper()
	value, err := proto.Marshal(&storev1.EpochRecord{Epoch: epoch, CreateTime: timestamppb.Now()})
	if err != nil {
		t.Fatal(err)
	}
	store.Put("/rollcall/v1/epoch", value)
}

// TestStaleReplicaLetsGo: a replica that has lost its store ends its streams
// within the life of its sessions, and takes no new ones.
func TestStaleReplicaLetsGo(t *testing.T) {
	const sessionTTL = 15 * time.Second
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		w.registry(store)
		var lost atomic.Bool
		stale := w.registryAt(replica1, registry.Config{Memory: store, MemoryFaults: func(string) error {
			if lost.Load() {
				return errors.New("the store does not answer")
			}
			return nil
		}})
		w.registryAt(replica2, registry.Config{Memory: store})
		w.follower("c-1", replica1, replica2)
		w.pass(time.Second)
		all := names(50)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		w.subscribed("c-1", replica1)
		generation := w.membership("c-1").GetGeneration()

		lost.Store(true)
		w.register("late")
		w.pass(sessionTTL)
		if n := stale.metric(t, "rollcall_registry_subscriptions"); n != 0 {
			t.Errorf("%v streams stand after %v", n, sessionTTL)
		}
		if code := w.subscribeAt(replica1, "c-1", generation); code != codes.Unavailable {
			t.Errorf("a new stream there: %v, want Unavailable", code)
		}
		w.pass(time.Minute)
		w.subscribed("c-1", replica2)
		w.collects("c-1", append(all, "late")...)
		w.noGap(start, time.Now(), all...)

		lost.Store(false)
		w.pass(5 * time.Second)
		w.cut(replica2)
		w.pass(time.Minute)
		w.subscribed("c-1", replica1)
		w.noGap(start, time.Now(), all...)
	})
}

// subscribeAt tries to observe a collector's stream at a replica.
func (w *world) subscribeAt(replica, id string, generation int64) codes.Code {
	w.t.Helper()
	return status.Code(w.client(replica, func(conn *grpc.ClientConn) error {
		stream, err := registryv1.NewAssignmentServiceClient(conn).Subscribe(w.ctx,
			&registryv1.SubscribeRequest{CollectorId: id, Generation: generation, Observe: true})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}))
}

// TestFullStoreStrikesNobody: a store that takes no more writes goes on being
// read and streamed from; only what would be written is refused.
func TestFullStoreStrikesNobody(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		c := w.collector("c-1")
		w.pass(time.Second)
		all := names(50)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)

		store.Fail(func(op string) error {
			if op == registry.MemoryCommit || op == registry.MemoryGrant {
				return registry.ErrStoreFull
			}
			return nil
		})
		for range 20 {
			w.pass(time.Minute)
			if code := w.tryRegister("late"); code != codes.ResourceExhausted {
				t.Fatalf("a registration: %v, want ResourceExhausted", code)
			}
			w.subscribed("c-1", registryAddress)
			w.collects("c-1", all...)
		}
		if n := w.producersAt(registryAddress); n != len(all) {
			t.Errorf("%d producers can be read, want %d", n, len(all))
		}
		if n := c.metric(t, "rollcall_collector_subscriptions_ended_total"); n != 0 {
			t.Errorf("%v streams ended", n)
		}
		// A collector that loses its stream cannot have another one, and loses
		// nothing else.
		w.network.reset(registryAddress)
		w.pass(10 * time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetSubscribed() || m.GetHeldCount() != 0 || m.GetAcceptedCount() != int64(len(all)) {
			t.Errorf("without a stream: %v", m)
		}

		store.Fail(nil)
		w.pass(time.Minute)
		w.subscribed("c-1", registryAddress)
		w.register("late")
		w.deregister(all[0])
		w.pass(time.Second)
		w.collects("c-1", append(slices.Clone(all[1:]), "late")...)
		w.noGap(start, time.Now(), all[1:]...)
		if n := r.metric(t, "rollcall_registry_epochs_total"); n != 1 {
			t.Errorf("%v epochs began, want the first one only", n)
		}
	})
}

// tryRegister registers one producer and tells what came of it.
func (w *world) tryRegister(id string) codes.Code {
	return status.Code(w.client(registryAddress, func(conn *grpc.ClientConn) error {
		_, err := registryv1.NewProducerServiceClient(conn).RegisterProducer(w.ctx,
			&registryv1.RegisterProducerRequest{Producer: w.fleet.producer(id)})
		return err
	}))
}

// producersAt is how many producers a registry tells.
func (w *world) producersAt(address string) int {
	w.t.Helper()
	var n int
	err := w.client(address, func(conn *grpc.ClientConn) error {
		resp, err := registryv1.NewProducerServiceClient(conn).ListProducers(w.ctx, &registryv1.ListProducersRequest{PageSize: 1000})
		n = len(resp.GetProducers())
		return err
	})
	if err != nil {
		w.fatalf("list producers: %v", err)
	}
	return n
}
