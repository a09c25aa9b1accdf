package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// undisturbed follows a collector of its own while others misbehave, and checks
// that its stream and its acknowledgements are as ever.
func undisturbed(t *testing.T, r *rig, misbehave func()) {
	t.Helper()
	cmd := r.enlist(t, "honest", "a")
	f := r.follow(t, cmd, newVerifier())
	misbehave()
	for i := range 3 {
		begin := time.Now()
		r.register(t, with(fmt.Sprintf("undisturbed-%d", i), func(p *registryv1.Producer) { p.LastCollectorId = "honest" }))
		f.seal()
		m := f.applied(cmd)
		m.CollectorId = "honest"
		if _, err := r.Acknowledge(t.Context(), m); err != nil {
			t.Errorf("the other's acknowledgement: %v", err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("the other waits for %v", took)
		}
	}
}

// ended is how a stream ended: a fault that is no list.
type ended struct {
	code   codes.Code
	reason string
	retry  time.Duration
}

// flood opens streams that nobody reads, all at once, and tells how they ended
// that did within a second.
func flood(t *testing.T, r *rig, requests ...*registryv1.SubscribeRequest) map[ended]int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	assignments := registryv1.NewAssignmentServiceClient(r.dial(t))
	var mu sync.Mutex
	ends := map[ended]int{}
	for _, m := range requests {
		stream, err := assignments.Subscribe(ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				if _, err := stream.Recv(); err != nil {
					mu.Lock()
					defer mu.Unlock()
					f := faultOf(t, err)
					ends[ended{f.code, f.reason, f.retry}]++
					return
				}
			}
		}()
	}
	time.Sleep(time.Second)
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	return ends
}

// TestHostileFloods: a thousand subscriptions at once, of one collector, of many
// that nobody knows, of observers, or of more than may be: what is over a bound
// is refused with a time to come back, and counted.
func TestHostileFloods(t *testing.T) {
	thousand := func(request func(i int) *registryv1.SubscribeRequest) []*registryv1.SubscribeRequest {
		all := make([]*registryv1.SubscribeRequest, 1000)
		for i := range all {
			all[i] = request(i)
		}
		return all
	}
	full := func(reason string) ended { return ended{codes.ResourceExhausted, reason, time.Second} }
	for name, c := range map[string]struct {
		most    int // subscriptions
		request func(t *testing.T, r *rig) func(i int) *registryv1.SubscribeRequest
		refusal string
		least   int // of those refusals
	}{
		"one collector": {0, func(t *testing.T, r *rig) func(int) *registryv1.SubscribeRequest {
			cmd := r.enlist(t, "c1", "a")
			return func(int) *registryv1.SubscribeRequest { return cmd }
		}, "TOO_MANY_OF_ONE_COLLECTOR", 500}, // one that is superseded in time lets another in
		"observers": {0, func(*testing.T, *rig) func(int) *registryv1.SubscribeRequest {
			return func(int) *registryv1.SubscribeRequest { return observing("c1") }
		}, "TOO_MANY_OBSERVERS", 1000 - 64},
		"that wait": {100, func(*testing.T, *rig) func(int) *registryv1.SubscribeRequest {
			return func(i int) *registryv1.SubscribeRequest {
				return &registryv1.SubscribeRequest{CollectorId: fmt.Sprint("c", i), InstanceId: "a", Generation: 1, MinRevision: 1 << 60}
			}
		}, "TOO_MANY_SUBSCRIPTIONS", 900},
	} {
		t.Run(name, func(t *testing.T) {
			s := filled(10)
			s.subscriptions = c.most
			bubble(t, s, func(t *testing.T, r *rig) {
				undisturbed(t, r, func() {
					ends := flood(t, r, thousand(c.request(t, r))...)
					if n := ends[full(c.refusal)]; n < c.least || n == 1000 {
						t.Errorf("%d refused, want %d: %+v", n, c.least, ends)
					}
					if n := r.values(t)["subscriptions_refused_total "+c.refusal]; n != float64(ends[full(c.refusal)]) {
						t.Errorf("%v are counted", n)
					}
				})
			})
		})
	}
}

// TestHostileFloodLeavesNoTrace: once it is over, all may enter again.
func TestHostileFloodLeavesNoTrace(t *testing.T) {
	s := filled(10)
	s.subscriptions = 10
	bubble(t, s, func(t *testing.T, r *rig) {
		cmd := r.enlist(t, "c1", "a")
		for range 30 {
			ctx, cancel := context.WithCancel(t.Context())
			for range 10 {
				if _, err := r.Subscribe(ctx, observing("c1")); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			synctest.Wait()
			if n := r.feed.Subscribers(); n != 0 {
				t.Fatalf("%d subscribers are left", n)
			}
		}
		r.follow(t, cmd, newVerifier())
	})
}

// TestHostileCollectorsWithoutNumber: new ones are refused beyond a bound; those
// that are known are not.
func TestHostileCollectorsWithoutNumber(t *testing.T) {
	bubble(t, setup{collectors: 20}, func(t *testing.T, r *rig) {
		undisturbed(t, r, func() {
			refusals := 0
			for i := range 100 {
				err := enlisting(&registryv1.Collector{CollectorId: fmt.Sprint("c", i), InstanceId: "a"})(t.Context(), r)
				if err == nil {
					continue
				}
				refusals++
				want := fault{code: codes.ResourceExhausted, reason: "TOO_MANY_COLLECTORS", retry: time.Second}
				if diff := cmp.Diff(want, faultOf(t, err), cmp.AllowUnexported(fault{})); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
			if refusals != 81 {
				t.Errorf("%d refused", refusals)
			}
			r.enlist(t, "honest", "a")
			r.follow(t, r.enlist(t, "c1", "b"), newVerifier())
		})
	})
}

// TestHostileGenerations: a collector that comes as another instance again and
// again harms itself only, and its record does not grow.
func TestHostileGenerations(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		undisturbed(t, r, func() {
			for i := range 200 {
				cmd := r.enlist(t, "c1", fmt.Sprint("instance-", i))
				if cmd.GetGeneration() != int64(i+1) {
					t.Fatalf("generation %d", cmd.GetGeneration())
				}
				if _, err := r.Subscribe(t.Context(), cmd); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			if n := r.feed.Subscribers(); n != 2 {
				t.Errorf("%d subscribers", n)
			}
		})
	})
}

// TestHostileHeldLearnsLittle: who asks about another's producers learns which of
// them were deregistered, and nothing else: not whether they are there, or whose.
func TestHostileHeldLearnsLittle(t *testing.T) {
	bubble(t, filled(10), func(t *testing.T, r *rig) {
		if err := deregistering("p000001", "")(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		cmd := r.enlist(t, "spy", "a")
		f := r.follow(t, cmd, newVerifier())
		m := f.applied(cmd)
		m.CollectorId, m.HeldCount, m.HeldProducerIds = "spy", 3, []string{"p000000", "p000001", "never"}
		resp, err := r.Acknowledge(t.Context(), m)
		if e := resp.GetExplained(); err != nil || len(e) != 1 || e[0].GetProducerId() != "p000001" {
			t.Errorf("%v, %v", resp, err)
		}
	})
}

// TestHostileRequests: lists and texts out of all proportion are refused, by the
// name of the field, and the answer stays small.
func TestHostileRequests(t *testing.T) {
	long := strings.Repeat("x", 1<<19)
	many := make([]string, 100_000)
	digests := make([]uint64, 1<<17)
	accepted := func(a *registryv1.AcceptedSet) call {
		a.Epoch = "e"
		return subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "a", Generation: 1, Accepted: a})
	}
	unrunnable := make([]*registryv1.UnrunnableAssignment, 1001)
	labels := make([]*registryv1.Label, 50_000)
	for name, c := range map[string]struct {
		call   call
		fields []string
	}{
		"bits 17":          {accepted(&registryv1.AcceptedSet{BucketBits: 17, BucketDigests: digests}), []string{"accepted.bucket_bits"}},
		"bits 255":         {accepted(&registryv1.AcceptedSet{BucketBits: 255}), []string{"accepted.bucket_bits"}},
		"bits of 32":       {accepted(&registryv1.AcceptedSet{BucketBits: 1<<32 - 1}), []string{"accepted.bucket_bits"}},
		"length":           {accepted(&registryv1.AcceptedSet{BucketBits: 3, BucketDigests: digests[:7]}), []string{"accepted.bucket_digests"}},
		"no digests":       {accepted(&registryv1.AcceptedSet{}), []string{"accepted.bucket_digests"}},
		"huge list":        {accepted(&registryv1.AcceptedSet{BucketBits: 16, BucketDigests: digests}), []string{"accepted.bucket_digests"}},
		"sum":              {accepted(&registryv1.AcceptedSet{BucketDigests: digests[:1], SetDigest: 7}), []string{"accepted.set_digest"}},
		"negatives":        {accepted(&registryv1.AcceptedSet{BucketDigests: digests[:1], Revision: -1, SetCount: -1}), []string{"accepted.revision", "accepted.set_count"}},
		"subscriber":       {subscribing(&registryv1.SubscribeRequest{CollectorId: long, InstanceId: long, Generation: -1, MinRevision: -1}), []string{"collector_id", "instance_id", "generation", "min_revision"}},
		"held":             {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = many })), []string{"held_producer_ids"}},
		"held id":          {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = []string{"p", long} })), []string{"held_producer_ids[1]"}},
		"unrunnable":       {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.Unrunnable = unrunnable })), []string{"unrunnable"}},
		"outcome":          {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.Outcome = 99 })), []string{"outcome"}},
		"counts":           {acknowledging(applied(func(m *registryv1.AcknowledgeRequest) { m.HeldCount, m.UnrunnableCount = -1, -1 })), []string{"held_count", "unrunnable_count"}},
		"collector labels": {enlisting(&registryv1.Collector{CollectorId: "c", InstanceId: "a", Labels: labels}), []string{"collector.labels"}},
		"collector texts":  {enlisting(&registryv1.Collector{CollectorId: long, InstanceId: long, IntrospectionEndpoint: long, SoftwareVersion: long}), []string{"collector.collector_id", "collector.instance_id", "collector.introspection_endpoint", "collector.software_version"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, filled(1), func(t *testing.T, r *rig) {
				err := c.call(t.Context(), r)
				if diff := cmp.Diff(invalid(c.fields...), faultOf(t, err), cmp.AllowUnexported(fault{})); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if n := len(fmt.Sprint(err)); n > 2000 {
					t.Errorf("an answer of %d bytes", n)
				}
			})
		})
	}
}

// TestBatchAnswerFits: the answer to every batch that is taken is one that a
// client takes.
func TestBatchAnswerFits(t *testing.T) {
	batch := func(value int) *registryv1.BatchRegisterProducersRequest {
		m := &registryv1.BatchRegisterProducersRequest{}
		for i := range 1000 {
			m.Requests = append(m.Requests, &registryv1.RegisterProducerRequest{
				Producer: with(fmt.Sprintf("p%04d", i), func(p *registryv1.Producer) {
					p.Labels = []*registryv1.Label{{Name: "fat", Value: strings.Repeat("x", value)}}
				}),
			})
		}
		return m
	}
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		_, err := r.BatchRegisterProducers(t.Context(), batch(3000))
		if diff := cmp.Diff(invalid("requests"), faultOf(t, err), cmp.AllowUnexported(fault{})); diff != "" {
			t.Errorf("3 MiB (-want +got):\n%s", diff)
		}
		m := batch(2000)
		resp, err := r.BatchRegisterProducers(t.Context(), m, grpc.MaxCallRecvMsgSize(4<<20))
		if err != nil || len(resp.GetResults()) != 1000 || resp.GetResults()[999].GetCode() != 0 {
			t.Errorf("%d results to %d bytes, %v", len(resp.GetResults()), proto.Size(m), err)
		}
	})
}

// TestHostileConnections: those that say nothing, or too little, are dropped in
// time, and keep nobody from being served.
func TestHostileConnections(t *testing.T) {
	for name, says := range map[string]string{
		"nothing":    "",
		"half":       "PRI * HTTP/2.0\r\n",
		"no_preface": "GET / HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, setup{}, func(t *testing.T, r *rig) {
				var conns []net.Conn
				undisturbed(t, r, func() {
					for range 50 {
						conn, err := r.listener.DialContext(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						if _, err := conn.Write([]byte(says)); err != nil {
							t.Fatal(err)
						}
						conns = append(conns, conn)
					}
				})
				time.Sleep(11 * time.Second)
				for _, conn := range conns {
					drop(t, conn)
				}
			})
		})
	}
}

// drop checks that the other side has closed a connection.
func drop(t *testing.T, conn net.Conn) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 4096); ; {
		if _, err := conn.Read(buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection stands")
			}
			return
		}
	}
}
