//go:build e2e

package containers_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestRegistryKilled kills the only registry by SIGKILL, while it is given
// producers, and starts it again: P1, P2 and P9.
func TestRegistryKilled(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 1, collectors: 2, producers: 100})
	registry := s.registries[0]
	for n := range *killings {
		acknowledged := s.registering(fmt.Sprintf("durable-%d", n), 20, func() { s.kill(registry) })
		s.again(registry)
		t.Logf("ready %v after docker start", await(t, "the registry is ready", time.Minute, func() error { return s.ready(registry) }))
		conn := s.dial(registry, 7470)
		for _, id := range acknowledged {
			ctx, cancel := context.WithTimeout(t.Context(), askLimit)
			if _, err := registryv1.NewProducerServiceClient(conn).GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: id}); err != nil {
				t.Errorf("P9: %s was acknowledged before the kill: %v", id, err)
			}
			cancel()
		}
		t.Logf("%d registrations were acknowledged before the kill, and are there", len(acknowledged))
		await(t, "all collectors follow the registry", time.Minute, func() error { return s.subscribed(true) })
	}
	s.clean("P1, P2")
	if held, _, err := s.held(); err != nil || held != 0 {
		t.Errorf("P9: %d producers are held (%v)", held, err)
	}
}

// registering registers one producer after the other until the registry is gone,
// which fault is called for as soon as enough were acknowledged. It returns those
// that were.
func (s *site) registering(prefix string, enough int, fault func()) (acknowledged []string) {
	s.t.Helper()
	conn := s.dial(s.registries[0], 7470)
	ctx, cancel := context.WithCancel(s.t.Context())
	defer cancel()
	ready := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			p := idle(fmt.Sprintf("%s-%d", prefix, n))
			if err := register(ctx, conn, p); err == nil {
				acknowledged = append(acknowledged, p.GetProducerId())
			} else if len(acknowledged) >= enough {
				return
			}
			if len(acknowledged) == enough {
				close(ready)
				enough-- // once
			}
		}
	})
	select {
	case <-ready:
	case <-time.After(time.Minute):
		s.t.Fatalf("not even %d registrations within a minute", enough)
	}
	fault()
	cancel()
	done.Wait()
	return acknowledged
}

// idle is a producer that answers, and is asked once an hour.
func idle(id string) *registryv1.Producer {
	return &registryv1.Producer{
		ProducerId: id, Endpoint: fmt.Sprintf("http://example-1:%d/metrics?of=%s", examplePort, id),
		Interval: durationpb.New(time.Hour), Permanent: new(true),
	}
}

// TestRegistryPaused stops the registry's clock for longer than a collector waits
// for a heartbeat, with all connections open: P2.
func TestRegistryPaused(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 1, collectors: 2, producers: 100})
	registry := s.registries[0]
	must(t, "pause", registry.name)
	paused := time.Now()
	t.Logf("told by subscribed and rollcall_collector_subscribed %v after the pause",
		await(t, "collectors know that they hear nothing", 40*time.Second, func() error { return s.subscribed(false) }))
	hold(t, time.Until(paused.Add(35*time.Second)))
	must(t, "unpause", registry.name)
	t.Logf("followed again %v after the pause", await(t, "the registry is followed", time.Minute, func() error { return s.subscribed(true) }))
	s.clean("P2")
	if struck := s.total(s.registries, "rollcall_registry_struck_off_producers_total"); struck != 0 {
		t.Errorf("P5: %v were struck off", struck)
	}
}

// TestStoreLost removes the registry with its volume and starts one with an empty
// volume: P4, and that producers bring themselves back.
func TestStoreLost(t *testing.T) {
	t.Parallel()
	// Collectors renew their own registrations every 200 s, which is too long to wait for.
	s := build(t, plan{registries: 1, collectors: 2, producers: 100, collectorEnv: []string{"ROLLCALL_SELF_REGISTER=false"}})
	registry := s.registries[0]
	_, before, err := s.held()
	if err != nil {
		t.Fatal(err)
	}
	s.kill(registry)
	must(t, "rm", "--force", registry.name)
	must(t, "volume", "rm", registry.volume)
	s.volume(registry)
	s.start(registry)
	began := time.Now()
	most := int64(0)
	await(t, "all are held", time.Minute, func() error {
		held, applied, err := s.held()
		most = max(most, held)
		if err == nil && applied < before {
			t.Errorf("P4: %d producers are collected, %d were", applied, before)
		}
		if err == nil && most < int64(len(s.ids))*9/10 { // the first ones may be back already
			err = fmt.Errorf("%d are held", held)
		}
		return err
	})
	t.Logf("%v after the start with an empty store %d producers are held", time.Since(began).Round(100*time.Millisecond), most)
	await(t, "nobody is held", 6*time.Minute, func() error {
		held, applied, err := s.held()
		switch {
		case err != nil:
			return err
		case applied < int64(len(s.ids)):
			t.Errorf("P4: %d producers are collected of %d", applied, len(s.ids))
			return nil
		case held > 0:
			return fmt.Errorf("%d are held", held)
		}
		return nil
	})
	t.Logf("%v after the start nobody is held", time.Since(began).Round(100*time.Millisecond))
	s.clean("P4")
	if struck := s.total(s.registries, "rollcall_registry_struck_off_producers_total"); struck != 0 {
		t.Errorf("P5: %v were struck off", struck)
	}
}
