package registry_test

import (
	"context"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/etcdtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestExternal: registries that share an etcd are one. They start before it is
// there, and what one of them acknowledges the others know.
func TestExternal(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.Options{})
	cluster.KillAll()
	config := registry.Config{
		Etcd: &registry.EtcdConfig{Endpoints: cluster.Endpoints()}, Endpoints: registry.EndpointPolicy{Loopback: true},
	}
	one, stopOne := startReal(t, config)
	defer stopOne()
	two, stopTwo := startReal(t, config)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := one.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: "p"}); status.Code(err) != codes.Unavailable {
		t.Errorf("without a store: %v", err)
	}
	cluster.StartAll(t)
	register := func(p *process, id string) int64 {
		t.Helper()
		for {
			r, err := p.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{
				Producer: &registryv1.Producer{ProducerId: id, Endpoint: "http://127.0.0.1:1/metrics"},
			})
			if status.Code(err) == codes.Unavailable && ctx.Err() == nil {
				continue // it has not loaded the roll yet
			}
			if err != nil {
				t.Fatal(err)
			}
			return r.GetRevision()
		}
	}
	revision := register(one, "p")
	register(two, "q") // it is ready, too
	got, err := two.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: "p", MinRevision: revision})
	if err != nil || got.GetProducer().GetProducerId() != "p" {
		t.Errorf("the other one knows %v, %v", got, err)
	}
	// Another one takes the place of one that has gone.
	stopTwo()
	three, stopThree := startReal(t, config)
	defer stopThree()
	register(three, "r")
	if _, err := three.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: "q"}); err != nil {
		t.Error(err)
	}
}
