//go:build e2e

package containers_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestPartition cuts all registries off from all collectors, with connections that
// nobody ends: P2, P5 and P8. Producers reach both sides. That it is told is a part
// of it: subscribed in GetMembership and rollcall_collector_subscribed at the
// collectors, rollcall_registry_more_than_half_away at the registries. What is
// registered meanwhile is collected afterwards.
func TestPartition(t *testing.T) {
	t.Parallel()
	s := build(t, plan{registries: 3, collectors: 3, producers: 90})
	_, before, err := s.held()
	if err != nil {
		t.Fatal(err)
	}
	moves := s.total(s.registries, "rollcall_registry_moves_total")
	for _, r := range s.registries {
		s.leave(r, controlNet)
	}
	cut := time.Now()
	t.Logf("subscribed tells it %v after the cut", await(t, "collectors know it", time.Minute, func() error { return s.subscribed(false) }))
	if *severed >= 2*time.Minute {
		t.Logf("rollcall_registry_more_than_half_away tells it %v after the cut", await(t, "registries know it", *severed, func() error {
			for _, r := range s.registries {
				if away, err := s.metric(r, "rollcall_registry_more_than_half_away"); err == nil && away == 1 {
					return nil
				}
			}
			return fmt.Errorf("no registry tells it")
		}))
	}
	hold(t, time.Until(cut.Add(*severed)))
	sent := s.total(s.registries, "rollcall_registry_assignments_sent_total")
	held, applied, err := s.held()
	if err != nil || held != 0 || applied != before {
		t.Errorf("P2: after %v collectors have %d of %d producers, %d held (%v)", *severed, applied, before, held, err)
	}
	for _, r := range s.registries {
		s.join(r, controlNet)
	}
	t.Logf("all follow a registry %v after the partition", await(t, "all follow a registry", 90*time.Second, func() error { return s.subscribed(true) }))
	hold(t, 15*time.Second) // what is needless would come now: the leader looks once more
	if again := s.total(s.registries, "rollcall_registry_assignments_sent_total") - sent; again != 0 {
		t.Errorf("P8: %v assignments were sent, and nothing has changed", again)
	}
	if more := s.total(s.registries, "rollcall_registry_moves_total") - moves; more != 0 {
		t.Errorf("P2: %v producers were given to others", more)
	}
	if struck := s.total(s.registries, "rollcall_registry_struck_off_producers_total"); struck != 0 {
		t.Errorf("P5: %v were struck off", struck)
	}
	s.clean("P2")
}

// TestLoss has the kernel drop three of ten packets of a registry's gRPC, both ways,
// while producers come and change: P1, P2 and P7.
func TestLoss(t *testing.T) {
	t.Parallel()
	tool(t, "nft", "nsenter")
	s := build(t, plan{registries: 1, collectors: 2, producers: 60})
	registry := s.registries[0]
	const rules = `table inet rollcall {
	chain in {
		type filter hook input priority 0;
		tcp dport 7470 numgen random mod 100 < 30 counter drop
	}
	chain out {
		type filter hook output priority 0;
		tcp sport 7470 numgen random mod 100 < 30 counter drop
	}
}
`
	// Refused here when the kernel or the rights are wanting.
	if _, err := command(t.Context(), []byte(rules), "nsenter", "--target", s.pid(registry), "--net", "nft", "--file", "-"); err != nil {
		missing(t, "the kernel cannot lose packets (%v)", err)
	}
	changes := s.churn(registry, *lossy)
	if out, err := command(t.Context(), nil, "nsenter", "--target", s.pid(registry), "--net", "nft", "list", "table", "inet", "rollcall"); err != nil {
		t.Error(err)
	} else {
		t.Logf("%d changes while packets were lost:\n%s", changes, out)
		if strings.Contains(out, "packets 0 ") {
			t.Error("no packet was lost")
		}
	}
	if _, err := command(t.Context(), nil, "nsenter", "--target", s.pid(registry), "--net", "nft", "delete", "table", "inet", "rollcall"); err != nil {
		t.Fatal(err)
	}
	s.settled()
	s.clean("P1, P2")
}

// TestProxy puts a proxy between collectors and registry, which delays what the
// registry says, cuts it in the middle, or goes silent in the middle, while
// producers come and change: P1, P2 and P7.
func TestProxy(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	s := build(t, plan{registries: 1, collectors: 2, producers: 60, through: p.through})
	p.worsen()
	changes := s.churn(s.registries[0], *lossy)
	p.mend()
	t.Logf("%d changes, of connections %v", changes, p)
	if p.cut.Load() == 0 || p.silent.Load() == 0 {
		t.Error("the proxy has done nothing")
	}
	s.settled()
	s.clean("P1, P2")
}

// churn registers producers, changes and deregisters them for a while, and tells
// how many changes were acknowledged. The last ones are still registered.
func (s *site) churn(r *container, d time.Duration) int {
	s.t.Helper()
	conn := s.dial(r, 7470)
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	var mu sync.Mutex
	changes := 0
	count := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			changes++
		}
	}
	var done sync.WaitGroup
	for worker := range 4 {
		done.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				p := changing(fmt.Sprintf("churn-%d-%d", worker, n%10), n)
				count(register(ctx, conn, p))
				if n%3 == 0 {
					count(deregister(ctx, conn, p.GetProducerId()))
				}
				select { // some hundred changes a second are plenty
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	done.Wait()
	if changes == 0 {
		s.t.Error("no change was acknowledged")
	}
	return changes
}

// changing is a producer that is another one for each n. It is asked often enough to
// be handed off: the time for that is two intervals at least.
func changing(id string, n int) *registryv1.Producer {
	p := idle(id)
	p.Interval = durationpb.New(10*time.Second + time.Duration(n)*time.Millisecond)
	return p
}

func deregister(ctx context.Context, conn *grpc.ClientConn, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := registryv1.NewProducerServiceClient(conn).DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: id})
	return err
}

// settled waits until every collector has exactly what the registry gave it, and
// nobody is held: P7. It bounds what is left of the fault: a collector that hears
// nothing for 15 s subscribes anew, after a backoff of 30 s at most, and a handoff
// that was under way may take 60 s.
func (s *site) settled() {
	s.t.Helper()
	took := await(s.t, "P7: collectors have what the registry has", 2*time.Minute, func() error {
		if err := s.subscribed(true); err != nil {
			return err
		}
		held, applied, err := s.held()
		if err != nil {
			return err
		}
		roll, err := s.roll(s.registries[0])
		if err == nil && (held != 0 || applied != int64(len(roll))) {
			err = fmt.Errorf("%d are collected, %d of them held, and the roll has %d", applied, held, len(roll))
		}
		return err
	})
	s.t.Logf("all is as the registry has it %v after the fault", took)
}

// roll is all that a registry knows.
func (s *site) roll(r *container) (all []*registryv1.Producer, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
	defer cancel()
	client := registryv1.NewProducerServiceClient(s.dial(r, 7470))
	for token := ""; ; {
		page, err := client.ListProducers(ctx, &registryv1.ListProducersRequest{PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetProducers()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// change registers, changes or deregisters one idle producer at one of the
// registries that answer.
func (s *site) change(n int) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	address, err := s.address(ctx, s.registries[n%len(s.registries)], 7470)
	if err != nil {
		return err
	}
	conn, err := s.dialAt(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	p := changing(fmt.Sprintf("load-%d", n%40), n)
	if n%5 == 0 {
		return deregister(ctx, conn, p.GetProducerId())
	}
	return register(ctx, conn, p)
}
