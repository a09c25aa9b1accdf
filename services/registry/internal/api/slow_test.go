package api_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// values is what the API's metrics have, by name and scope.
func (r *rig) values(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "rollcall_registry_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return all
}

// TestSlowReaderIsolated: one subscriber never reads. The others notice nothing,
// and after 30 s it is ended and told why, should it ever read again.
func TestSlowReaderIsolated(t *testing.T) {
	bubble(t, filled(3_000), func(t *testing.T, r *rig) {
		assignments := registryv1.NewAssignmentServiceClient(r.dial(t))
		stuck, err := assignments.Subscribe(t.Context(), r.enlist(t, "c1", "a"))
		if err != nil {
			t.Fatal(err)
		}
		observer := r.follow(t, observing("c1"), newVerifier())
		other := r.follow(t, r.enlist(t, "c2", "a"), newVerifier())
		begin := time.Now()
		for i := range 29 {
			resp := r.register(t, with("p000007", func(p *registryv1.Producer) { p.Endpoint = fmt.Sprintf("http://h:%d/", i+1) }))
			observer.seal()
			if observer.revision != resp.GetRevision() {
				t.Errorf("revision %d, written was %d", observer.revision, resp.GetRevision())
			}
			r.register(t, with(fmt.Sprintf("new-%d", i), func(p *registryv1.Producer) { p.LastCollectorId = "c2" }))
			other.seal()
			if took := time.Since(begin); took != time.Duration(i)*time.Second {
				t.Fatalf("the others wait: %v for step %d", took, i)
			}
			time.Sleep(time.Second)
		}
		if n := r.values(t)["slow_readers_total"]; n != 0 || r.feed.Subscribers() != 3 {
			t.Errorf("%v slow readers, %d subscribers, after %v", n, r.feed.Subscribers(), time.Since(begin))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := r.values(t)["slow_readers_total"]; n != 1 || r.feed.Subscribers() != 2 {
			t.Fatalf("%v slow readers, %d subscribers, after %v", n, r.feed.Subscribers(), time.Since(begin))
		}
		v := newVerifier()
		got := faultOf(t, v.untilEnd(stuck))
		if got.code != codes.ResourceExhausted || got.reason != "SLOW_READER" || len(v.set) > 0 {
			t.Errorf("%+v after %d frames, %d members", got, v.frames, len(v.set))
		}
		if n := r.values(t)["subscriptions"]; n != 2 {
			t.Errorf("%v subscriptions", n)
		}
	})
}

// TestPanicOfAStream is the end of that stream only.
func TestPanicOfAStream(t *testing.T) {
	panics := setup{stream: func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, &panicking{ServerStream: stream, after: 4})
	}}
	bubble(t, panics, func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		stream, err := r.Subscribe(t.Context(), cmd)
		if err != nil {
			t.Fatal(err)
		}
		if got := faultOf(t, newVerifier().untilEnd(stream)); got.code != codes.Internal {
			t.Errorf("%+v", got)
		}
		if n := r.feed.Subscribers(); n != 0 {
			t.Errorf("%d subscribers are left", n)
		}
		r.follow(t, cmd, newVerifier())
		got, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
		if err != nil || got.GetCollector().GetState() != registryv1.CollectorState_COLLECTOR_STATE_LIVE {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// panicking panics instead of sending the last of so many messages.
type panicking struct {
	grpc.ServerStream
	after int
}

func (p *panicking) SendMsg(m any) error {
	if p.after--; p.after == 0 {
		panic("struck by the test")
	}
	return p.ServerStream.SendMsg(m)
}

// TestSnapshotMetrics count what was sent whole.
func TestSnapshotMetrics(t *testing.T) {
	bubble(t, filled(3), func(t *testing.T, r *rig) {
		f := r.follow(t, r.enlist(t, "c1", "a"), newVerifier())
		r.register(t, producer("p"))
		f.seal()
		if err := deregistering("p", "")(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		f.seal()
		synctest.Wait()
		got := r.values(t)
		if got["chunk_bytes_total"] == 0 {
			t.Error("no bytes were counted")
		}
		delete(got, "chunk_bytes_total")
		want := map[string]float64{
			"subscriptions": 1, "first_snapshots_sending": 0, "paced_registrations_total": 0, "slow_readers_total": 0, "removals_sent_total": 1,
			"snapshots_sent_total all": 1, "snapshots_sent_total changes": 2,
			"assignments_sent_total all": 3, "assignments_sent_total changes": 1,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}
