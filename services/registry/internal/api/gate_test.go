package api_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// crowd registers collectors c0..cn-1, and a producer for each of them with so
// many bytes of labels.
func (r *rig) crowd(t *testing.T, n, bytes int) []*registryv1.SubscribeRequest {
	t.Helper()
	all := make([]*registryv1.SubscribeRequest, n)
	for i := range all {
		id := fmt.Sprint("c", i)
		all[i] = r.enlist(t, id, "a")
		for part := range max(1, bytes/4000) {
			r.register(t, with(fmt.Sprintf("p-%d-%d", i, part), func(p *registryv1.Producer) {
				p.LastCollectorId = id
				p.Labels = []*registryv1.Label{{Name: "large", Value: strings.Repeat("x", min(bytes, 4000))}}
			}))
		}
	}
	return all
}

// slowly subscribes on a connection of its own that nobody reads.
func (r *rig) slowly(t *testing.T, m *registryv1.SubscribeRequest) grpc.ServerStreamingClient[registryv1.SubscribeResponse] {
	t.Helper()
	return r.slowlyUntil(t.Context(), t, m)
}

func (r *rig) slowlyUntil(ctx context.Context, t *testing.T, m *registryv1.SubscribeRequest) grpc.ServerStreamingClient[registryv1.SubscribeResponse] {
	t.Helper()
	s, err := registryv1.NewAssignmentServiceClient(r.dial(t)).Subscribe(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return s
}

// large is a first snapshot that no connection takes without being read.
const large = 400_000

// TestSnapshotsAreAdmitted: so many at a time. Those who have it all, and changes
// on streams that run, are not kept waiting; who is turned away writes nothing.
func TestSnapshotsAreAdmitted(t *testing.T) {
	bubble(t, setup{snapshots: 2}, func(t *testing.T, r *rig) {
		all := r.crowd(t, 5, large)
		running := r.follow(t, all[4], newVerifier())
		resuming := r.follow(t, all[3], newVerifier())
		resuming.cancel()
		empty := r.enlist(t, "empty", "a")
		synctest.Wait()
		r.slowly(t, all[0])
		r.slowly(t, all[1])
		if n := r.values(t)["first_snapshots_sending"]; n != 2 {
			t.Fatalf("%v are being sent", n)
		}

		at := r.memory.Revision()
		got := faultOf(t, newVerifier().untilEnd(r.slowly(t, all[2])))
		if got.code != codes.ResourceExhausted || got.reason != "TOO_MANY_SNAPSHOTS" || got.retry <= 0 || got.retry > 5*time.Second {
			t.Errorf("the third: %+v", got)
		}
		if r.memory.Revision() != at {
			t.Error("who was turned away has written a session")
		}
		again := resuming.accepted()
		all[3].Accepted = again
		r.follow(t, all[3], resuming.verifier)
		r.follow(t, empty, newVerifier())
		r.register(t, with("new", func(p *registryv1.Producer) { p.LastCollectorId = "c4" }))
		running.seal()
		if len(running.set) != large/4000+1 {
			t.Errorf("the stream that runs has %d", len(running.set))
		}
		if n := r.values(t)["subscriptions_refused_total TOO_MANY_SNAPSHOTS"]; n != 1 {
			t.Errorf("%v were turned away", n)
		}
	})
}

// TestAPlaceIsGivenBack: by a stream that is cancelled in the middle of its first
// snapshot, and by one that is refused after it was let in.
func TestAPlaceIsGivenBack(t *testing.T) {
	bubble(t, setup{snapshots: 1}, func(t *testing.T, r *rig) {
		all := r.crowd(t, 2, large)
		wrong := &registryv1.SubscribeRequest{CollectorId: "c0", InstanceId: "a", Generation: 1 << 40}
		if got := faultOf(t, newVerifier().untilEnd(r.slowly(t, wrong))); got.reason != "GENERATION_MISMATCH" {
			t.Errorf("%+v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r.slowlyUntil(ctx, t, all[0])
		if got := faultOf(t, newVerifier().untilEnd(r.slowly(t, all[1]))); got.reason != "TOO_MANY_SNAPSHOTS" {
			t.Errorf("%+v", got)
		}
		cancel()
		synctest.Wait()
		r.follow(t, all[1], newVerifier())
	})
}

// TestASlowSnapshotMakesRoom: it may take its time while nobody waits, and is
// ended when somebody does, after a while.
func TestASlowSnapshotMakesRoom(t *testing.T) {
	bubble(t, setup{snapshots: 1}, func(t *testing.T, r *rig) {
		all := r.crowd(t, 2, 3*large)
		slow := r.slowly(t, all[0])
		v := newVerifier()
		read := func() {
			t.Helper()
			m, err := slow.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.take(m); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if got := faultOf(t, newVerifier().untilEnd(r.slowly(t, all[1]))); got.reason != "TOO_MANY_SNAPSHOTS" {
			t.Errorf("after 25 s: %+v", got)
		}
		for range 4 {
			read() // so that no single send blocks for too long
		}
		synctest.Wait()
		time.Sleep(4 * time.Second)
		if got := faultOf(t, newVerifier().untilEnd(r.slowly(t, all[1]))); got.reason != "TOO_MANY_SNAPSHOTS" {
			t.Errorf("after 29 s: %+v", got)
		}
		time.Sleep(time.Second)
		r.follow(t, all[1], newVerifier())
		got := faultOf(t, v.untilEnd(slow))
		if got.code != codes.ResourceExhausted || got.reason != "SLOW_READER" || got.retry <= 0 || len(v.set) > 0 {
			t.Errorf("the slow one: %+v, with %d members", got, len(v.set))
		}
		synctest.Wait()
		if n := r.values(t)["first_snapshots_sending"]; n != 0 {
			t.Errorf("%v are being sent", n)
		}
	})
}

// slow takes its time for every message.
type slow struct {
	grpc.ServerStream
	each time.Duration
}

func (s slow) SendMsg(m any) error {
	time.Sleep(s.each)
	return s.ServerStream.SendMsg(m)
}

// TestAHerdGetsThrough: a thousand collectors at once, each of whose snapshots
// takes 100 ms, eight at a time: 12.5 s if no time is lost. All of them
// get it in about that time, with few tries, and there are never more than eight.
func TestAHerdGetsThrough(t *testing.T) {
	const herd, places, frames = 1000, 8, 3
	s := setup{snapshots: places, stream: func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, slow{stream, 100 * time.Millisecond / frames})
	}}
	bubble(t, s, func(t *testing.T, r *rig) {
		all := r.crowd(t, herd, 8)
		synctest.Wait()
		conn := registryv1.NewAssignmentServiceClient(r.dial(t))
		var group sync.WaitGroup
		var tries atomic.Int64
		begin := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, m := range all {
			group.Go(func() {
				for {
					tries.Add(1)
					stream, err := conn.Subscribe(ctx, m)
					if err == nil {
						err = newVerifier().untilSeal(stream)
					}
					if err == nil {
						return
					}
					f := faultOf(t, err)
					if f.reason != "TOO_MANY_SNAPSHOTS" || f.retry <= 0 {
						t.Errorf("%+v", f)
						return
					}
					time.Sleep(f.retry)
				}
			})
		}
		most := 0.0
		done := make(chan struct{})
		go func() { group.Wait(); close(done) }()
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			case <-time.After(10 * time.Millisecond):
				most = max(most, r.values(t)["first_snapshots_sending"])
			}
		}
		t.Logf("%d collectors within %v, %d tries, up to %v at a time", herd, time.Since(begin), tries.Load(), most)
		if took := time.Since(begin); took > time.Minute || most > places {
			t.Errorf("within %v, up to %v at a time", took, most)
		}
		if n := tries.Load(); n > 10*herd {
			t.Errorf("%d tries", n)
		}
	})
}

// TestRegistrationRate: both ways to register count, a batch as many as it holds;
// deregistering and reading do not.
func TestRegistrationRate(t *testing.T) {
	bubble(t, setup{registrations: 300}, func(t *testing.T, r *rig) {
		batch := func(from int) error {
			m := &registryv1.BatchRegisterProducersRequest{}
			for i := range 500 {
				m.Requests = append(m.Requests, &registryv1.RegisterProducerRequest{Producer: producer(fmt.Sprintf("p%d", from+i))})
			}
			_, err := r.BatchRegisterProducers(t.Context(), m)
			return err
		}
		for i := range 3 {
			if err := batch(500 * i); err != nil {
				t.Fatal(err)
			}
		}
		want := fault{code: codes.ResourceExhausted, reason: "REGISTRATION_RATE", retry: 500 * time.Second / 300}
		got := faultOf(t, batch(1500))
		if got.retry = got.retry.Round(time.Microsecond); got.code != want.code || got.reason != want.reason || got.retry != want.retry.Round(time.Microsecond) {
			t.Errorf("%+v, want %+v", got, want)
		}
		_, err := r.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: producer("p0")})
		if got := faultOf(t, err); got.reason != want.reason || got.retry > 4*time.Millisecond {
			t.Errorf("a renewal: %+v", got)
		}
		if err := deregistering("p7", "")(t.Context(), r); err != nil {
			t.Error(err)
		}
		if n := r.values(t)["paced_registrations_total"]; n != 501 {
			t.Errorf("%v were counted", n)
		}
		time.Sleep(got.retry + time.Millisecond)
		if err := batch(1500); err != nil {
			t.Errorf("when told: %v", err)
		}
	})
}
