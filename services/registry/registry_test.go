package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestServes: a producer registers, a collector is given it, probes and health
// say that all is well.
func TestServes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, registry.Config{Memory: registry.NewMemoryStore()})
		synctest.Wait()
		registered := p.register(t, "p")
		s, begin, end := p.subscribe(t, p.enlist(t, "c1", "a"))
		if begin.GetHeartbeatInterval().AsDuration() != registry.DefaultHeartbeat {
			t.Errorf("heartbeats every %v", begin.GetHeartbeatInterval().AsDuration())
		}
		for end.GetSetCount() == 0 {
			_, end = snapshot(t, s)
		}
		if end.GetEpoch() != registered.GetEpoch() || end.GetRevision() <= registered.GetRevision() {
			t.Errorf("assigned at %v, registered at %v", end, registered)
		}
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if code := p.get(t, path); code != http.StatusOK {
				t.Errorf("%s: %d", path, code)
			}
		}
		for _, service := range []string{"", registryv1.AssignmentService_ServiceDesc.ServiceName, registryv1.ProducerService_ServiceDesc.ServiceName} {
			resp, err := p.health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			if err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
				t.Errorf("health of %q: %v, %v", service, resp, err)
			}
		}
	})
}

// TestNotReadyBeforeTheRollIsKnown: alive, but not ready.
func TestNotReadyBeforeTheRollIsKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := registry.NewMemoryStore()
		var broken atomic.Bool
		m.Fail(func(string) error {
			if broken.Load() {
				return errStore
			}
			return nil
		})
		broken.Store(true)
		p := start(t, registry.Config{Memory: m})
		time.Sleep(time.Minute)
		expect := func(ready int, serving healthv1.HealthCheckResponse_ServingStatus) {
			t.Helper()
			if alive, got := p.get(t, "/healthz"), p.get(t, "/readyz"); alive != http.StatusOK || got != ready {
				t.Errorf("alive %d, ready %d, want %d", alive, got, ready)
			}
			resp, err := p.health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: registryv1.ProducerService_ServiceDesc.ServiceName})
			if resp.GetStatus() != serving {
				t.Errorf("health %v, %v, want %v", resp, err, serving)
			}
		}
		expect(http.StatusServiceUnavailable, healthv1.HealthCheckResponse_NOT_SERVING)
		broken.Store(false)
		time.Sleep(2 * time.Second)
		expect(http.StatusOK, healthv1.HealthCheckResponse_SERVING)
		broken.Store(true)
		time.Sleep(30 * time.Second)
		expect(http.StatusServiceUnavailable, healthv1.HealthCheckResponse_NOT_SERVING)
		broken.Store(false)
		time.Sleep(30 * time.Second)
		expect(http.StatusOK, healthv1.HealthCheckResponse_SERVING)
	})
}

// TestRegistersItself once, as a producer like any other, also if that does not
// work at first.
func TestRegistersItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := registry.NewMemoryStore()
		c := registry.Config{Memory: m, SelfID: "rollcall/registry-1", SelfEndpoint: "http://registry.example:7471/metrics"}
		begin := time.Now()
		m.Fail(func(op string) error {
			if op == "commit" && time.Since(begin) > 0 && time.Since(begin) < 5*time.Second {
				return errStore
			}
			return nil
		})
		p := start(t, c)
		time.Sleep(10 * time.Second)
		got, err := p.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: c.SelfID})
		if err != nil || got.GetProducer().GetEndpoint() != c.SelfEndpoint || got.GetProducer().GetLabels()[0].GetValue() != "rollcall-registry" {
			t.Errorf("%v, %v", got, err)
		}
		at := m.Revision()
		time.Sleep(3 * time.Hour)
		if m.Revision() != at {
			t.Errorf("the store went from revision %d to %d in idle hours", at, m.Revision())
		}
		if _, err := p.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: c.SelfID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(201 * time.Second)
		if _, err := p.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: c.SelfID}); err != nil {
			t.Errorf("a renewal later: %v", err)
		}
	})
}

// TestConfigIsRefused when it is in doubt.
func TestConfigIsRefused(t *testing.T) {
	for name, c := range map[string]registry.Config{
		"own id":          {SelfID: "-", SelfEndpoint: "http://h:1/metrics"},
		"own endpoint":    {SelfID: "r", SelfEndpoint: "h:1"},
		"no own endpoint": {SelfID: "r"},
		"heartbeat":       {Heartbeat: -1},
		"stop grace":      {StopGrace: -1},
	} {
		c.Memory = registry.NewMemoryStore()
		if _, err := registry.New(t.Context(), c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	etcd := &registry.EtcdConfig{Endpoints: []string{"http://127.0.0.1:1"}}
	for name, c := range map[string]registry.Config{
		"no store":               {},
		"etcd and a directory":   {Etcd: etcd, DataDir: filepath.Join(t.TempDir(), "data")},
		"etcd and memory":        {Etcd: etcd, Memory: registry.NewMemoryStore()},
		"a directory and memory": {DataDir: filepath.Join(t.TempDir(), "data"), Memory: registry.NewMemoryStore()},
		"etcd nowhere":           {Etcd: &registry.EtcdConfig{}},
	} {
		if _, err := registry.New(t.Context(), c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestStopSendsAway: subscribers are told to go before their streams end, at once;
// their collectors do not count as live any more.
func TestStopSendsAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := registry.NewMemoryStore()
		p := start(t, registry.Config{Memory: m})
		synctest.Wait()
		var streams []stream
		for i := range 3 {
			s, _, _ := p.subscribe(t, p.enlist(t, fmt.Sprintf("c%d", i), "a"))
			streams = append(streams, s)
		}
		streams = append(streams, must(p.Subscribe(t.Context(), &registryv1.SubscribeRequest{CollectorId: "c0", Observe: true})))
		snapshot(t, streams[3])
		if took := p.end(t); took != 0 {
			t.Errorf("stopped after %v", took)
		}
		for i, s := range streams {
			got, err := s.Recv()
			away := got.GetGoAway()
			if err != nil || away.GetReason() != registryv1.GoAwayReason_GO_AWAY_REASON_SHUTDOWN || away.GetRetryAfterMax().AsDuration() < time.Second ||
				away.GetRetryAfterMin().AsDuration() > away.GetRetryAfterMax().AsDuration() || away.GetMessage() == "" {
				t.Errorf("stream %d: %v, %v", i, got, err)
			}
			if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
				t.Errorf("stream %d ended with %v", i, err)
			}
		}
		next := start(t, registry.Config{Memory: m})
		synctest.Wait()
		list, err := next.ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{State: registryv1.CollectorState_COLLECTOR_STATE_LIVE})
		if err != nil || len(list.GetCollectors()) > 0 {
			t.Errorf("live are %v, %v", list.GetCollectors(), err)
		}
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestStopIsBounded: a subscriber that does not read cannot keep the process.
func TestStopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, registry.Config{Memory: registry.NewMemoryStore(), StopGrace: 7 * time.Second})
		synctest.Wait()
		m := p.enlist(t, "c1", "a")
		for from := range 4 {
			batch := &registryv1.BatchRegisterProducersRequest{}
			for i := range 1000 {
				batch.Requests = append(batch.Requests, &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{
					ProducerId: fmt.Sprintf("p%d-%d", from, i), Endpoint: "http://h.example:9100/metrics", LastCollectorId: "c1",
					Labels: []*registryv1.Label{{Name: "large", Value: strings.Repeat("x", 2000)}},
				}})
			}
			if _, err := p.BatchRegisterProducers(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Subscribe(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if took := p.end(t); took < 7*time.Second || took > 9*time.Second {
			t.Errorf("stopped after %v", took)
		}
	})
}

// TestLateSubscribersDoNotKeepIt: who subscribes while it stops is told to go
// as well.
func TestLateSubscribersDoNotKeepIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		mem := registry.NewMemoryStore()
		p := start(t, registry.Config{Memory: mem})
		synctest.Wait()
		cmd := p.enlist(t, "c1", "a")
		begin := time.Now()
		var slow atomic.Bool
		mem.Fail(func(op string) error {
			if op == "commit" && slow.Load() {
				time.Sleep(2 * time.Second)
			}
			return nil
		})
		slow.Store(true)
		s := must(p.Subscribe(t.Context(), cmd))
		time.Sleep(time.Second) // its session is being written
		p.stop()
		var err error
		for err == nil {
			_, err = s.Recv()
		}
		<-p.ended
		if took := time.Since(begin); took > 8*time.Second || status.Code(err) != codes.Unavailable {
			t.Errorf("stopped after %v, the stream ended with %v", took, err)
		}
	})
}

// TestRestart: the same roll, the same epoch, revisions that go on, and nothing
// is sent again to those who have it.
func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := registry.NewMemoryStore()
		p := start(t, registry.Config{Memory: m})
		synctest.Wait()
		cmd := p.enlist(t, "c1", "a")
		s, _, end := p.subscribe(t, cmd)
		var before *registryv1.RegisterProducerResponse
		for i := range 10 {
			before = p.register(t, fmt.Sprintf("p%d", i))
			_, end = snapshot(t, s)
		}
		p.end(t)

		p = start(t, registry.Config{Memory: m})
		synctest.Wait()
		after := p.register(t, "another")
		if after.GetEpoch() != before.GetEpoch() || after.GetRevision() <= before.GetRevision() {
			t.Errorf("registered at %s/%d, before the restart at %s/%d", after.GetEpoch(), after.GetRevision(), before.GetEpoch(), before.GetRevision())
		}
		if _, err := p.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: "another"}); err != nil {
			t.Fatal(err)
		}
		again := p.enlist(t, "c1", "a")
		if again.GetGeneration() != cmd.GetGeneration() {
			t.Errorf("generation %d, before the restart %d", again.GetGeneration(), cmd.GetGeneration())
		}
		again.Accepted = &registryv1.AcceptedSet{
			Epoch: end.GetEpoch(), Revision: end.GetRevision(), SetCount: end.GetSetCount(), SetDigest: end.GetSetDigest(),
			BucketDigests: []uint64{end.GetSetDigest()}, AssignmentFormat: assignment.AssignmentFormat,
		}
		_, begin, sealed := p.subscribe(t, again)
		if len(begin.GetReplacedBuckets()) > 0 || sealed.GetUpsertCount() > 0 || sealed.GetSetDigest() != end.GetSetDigest() {
			t.Errorf("resumed with %v, %v", begin, sealed)
		}
	})
}

// TestStopsWhenAPartGivesUp: a registry that cannot do all of its work does
// none.
func TestStopsWhenAPartGivesUp(t *testing.T) {
	for name, strike := range map[string]func(p *process, m *registry.MemoryStore){
		"a listener":           func(p *process, _ *registry.MemoryStore) { _ = p.web.Close() },
		"an unreadable record": func(_ *process, m *registry.MemoryStore) { m.Put("/rollcall/v1/producers/p", []byte("\xff garbage")) },
		"an unreadable assignment": func(_ *process, m *registry.MemoryStore) {
			m.Put("/rollcall/v1/producers/p", []byte("\x0a\x01\xff"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := registry.NewMemoryStore()
				p := start(t, registry.Config{Memory: m})
				synctest.Wait()
				p.subscribe(t, p.enlist(t, "c1", "a"))
				strike(p, m)
				select {
				case <-p.ended:
					if p.err == nil {
						t.Error("it ended without an error")
					}
				case <-time.After(time.Minute):
					t.Error("it still runs")
				}
			})
		})
	}
}

func TestStoppedBeforeItBegan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, registry.Config{Memory: registry.NewMemoryStore()})
		p.stop()
		<-p.ended
		if p.err != nil && !errors.Is(p.err, context.Canceled) {
			t.Error(p.err)
		}
	})
}
