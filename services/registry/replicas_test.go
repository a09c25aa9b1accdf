package registry_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/etcdtest"
)

// TestReplicasOverMembers runs three registries over an etcd of three members, all
// of them real and in this process, stops one after the other of either kind under
// load, and reads back from every replica what was acknowledged: a registration
// that stayed is told by all, one that was deregistered by none.
func TestReplicasOverMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some twenty seconds")
	}
	cluster := etcdtest.Start(t, etcdtest.Options{})
	config := registry.Config{Etcd: &registry.EtcdConfig{Endpoints: cluster.Endpoints()}}
	replicas := make([]atomic.Pointer[process], 3)
	stops := make([]func(), 3)
	for i := range replicas {
		p, stop := startReal(t, config)
		replicas[i].Store(p)
		stops[i] = stop
	}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()

	var mu sync.Mutex // guards both
	acknowledged, newest := map[string]bool{}, int64(0)
	const load = 100
	loaded, enough := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for client := range 4 {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-enough:
					return
				default:
				}
				id := fmt.Sprintf("p-%d-%d", client, n)
				p := replicas[n%3].Load()
				stays := n%4 != 0
				registered, err := p.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
					Producer: &registryv1.Producer{ProducerId: id, Endpoint: "http://h.example:9100/" + id},
				})
				revision := registered.GetRevision()
				if err == nil && !stays {
					var gone *registryv1.DeregisterProducerResponse
					gone, err = p.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: id})
					revision = gone.GetRevision()
				}
				if err != nil {
					continue // nothing is known
				}
				mu.Lock()
				acknowledged[id], newest = stays, max(newest, revision)
				if len(acknowledged) == load {
					close(loaded)
				}
				mu.Unlock()
			}
		})
	}
	for round := range 6 {
		if at := round / 2; round%2 == 0 {
			cluster.Kill(at)
			cluster.Start(t, at)
		} else {
			stops[at]()
			p, stop := startReal(t, config)
			replicas[at].Store(p)
			stops[at] = stop
		}
		serves(t, replicas[:])
	}
	select { // however slow the machine is
	case <-loaded:
	case <-time.After(time.Minute):
		t.Error("that was no load")
	}
	close(enough)
	clients.Wait()
	for i := range replicas {
		p := replicas[i].Load()
		on := map[string]bool{}
		for token := ""; ; {
			resp, err := p.ListProducers(t.Context(), &registryv1.ListProducersRequest{PageSize: 1000, PageToken: token, MinRevision: newest})
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range resp.GetProducers() {
				on[one.GetProducerId()] = true
			}
			if token = resp.GetNextPageToken(); token == "" {
				break
			}
		}
		for id, stays := range acknowledged {
			if on[id] != stays {
				t.Errorf("replica %d: %s is on the roll: %v, want %v", i, id, on[id], stays)
			}
		}
	}
	t.Logf("%d registrations were acknowledged", len(acknowledged))
}

// serves waits until every replica takes a write again.
func serves(t *testing.T, replicas []atomic.Pointer[process]) {
	t.Helper()
	for i := range replicas {
		var err error
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
			if _, err = replicas[i].Load().RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
				Producer: &registryv1.Producer{ProducerId: "probe", Endpoint: fmt.Sprintf("http://h.example:9100/%d", time.Now().UnixNano())},
			}); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("replica %d takes no write: %v", i, err)
		}
	}
}
