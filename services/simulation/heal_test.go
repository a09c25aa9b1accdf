package simulation

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// A liar stands between collectors and a registry and hands everything on, but
// for what it is told to spoil.
type liar struct {
	registryv1.UnimplementedAssignmentServiceServer
	registryv1.UnimplementedCollectorServiceServer
	registry *grpc.ClientConn

	mu    sync.Mutex
	spoil spoiler // of the next changes; nil: none
}

// A spoiler makes of the frames of a snapshot what is sent in their place.
type spoiler func(frames []*registryv1.SubscribeResponse) []*registryv1.SubscribeResponse

// liarAt starts one at an address, before the registry at registryAddress.
func (w *world) liarAt(address string) *liar {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+registryAddress,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.network.dial))
	if err != nil {
		w.fatalf("connect: %v", err)
	}
	l := &liar{registry: conn}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	registryv1.RegisterAssignmentServiceServer(srv, l)
	registryv1.RegisterCollectorServiceServer(srv, l)
	lis := w.network.listen(address)
	w.done.Go(func() { _ = srv.Serve(lis) })
	w.done.Go(func() {
		<-w.ctx.Done()
		srv.Stop()
		_ = conn.Close()
	})
	return l
}

// spoilNext spoils the next snapshot of scope CHANGES.
func (l *liar) spoilNext(s spoiler) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spoil = s
}

// spoiled gives the frames of a snapshot of changes to the spoiler, once.
func (l *liar) spoiled(frames []*registryv1.SubscribeResponse) []*registryv1.SubscribeResponse {
	l.mu.Lock()
	defer l.mu.Unlock()
	spoil := l.spoil
	if spoil == nil || frames[0].GetSnapshotBegin().GetScope() != registryv1.SnapshotScope_SNAPSHOT_SCOPE_CHANGES {
		return frames
	}
	l.spoil = nil
	return spoil(frames)
}

func (l *liar) RegisterCollector(ctx context.Context, m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
	return registryv1.NewCollectorServiceClient(l.registry).RegisterCollector(ctx, m)
}

func (l *liar) Acknowledge(ctx context.Context, m *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error) {
	return registryv1.NewAssignmentServiceClient(l.registry).Acknowledge(ctx, m)
}

// Subscribe hands snapshots on as wholes.
func (l *liar) Subscribe(m *registryv1.SubscribeRequest, down grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	up, err := registryv1.NewAssignmentServiceClient(l.registry).Subscribe(down.Context(), m)
	if err != nil {
		return err
	}
	var open []*registryv1.SubscribeResponse
	for {
		frame, err := up.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		open = append(open, frame)
		if open[0].GetSnapshotBegin() != nil {
			if frame.GetSnapshotEnd() == nil {
				continue
			}
			open = l.spoiled(open)
		}
		for _, f := range open {
			if err := down.Send(f); err != nil {
				return err
			}
		}
		open = nil
	}
}

// swallow makes nothing of a snapshot.
func swallow([]*registryv1.SubscribeResponse) []*registryv1.SubscribeResponse { return nil }

// alter gives one assignment another label and version, and has the seal agree.
func alter(frames []*registryv1.SubscribeResponse) []*registryv1.SubscribeResponse {
	hash := func(a *registryv1.Assignment) uint64 {
		return uint64(assignment.HashOf(assignment.ProducerID(a.GetProducerId()), assignment.Version(a.GetVersion()), assignment.Role(a.GetRole())))
	}
	a := frames[1].GetSnapshotChunk().GetAssignments()[0]
	end := frames[len(frames)-1].GetSnapshotEnd()
	end.SetDigest -= hash(a)
	a.Version++
	a.Labels = append(a.Labels, &registryv1.Label{Name: "forged", Value: "yes"})
	end.SetDigest += hash(a)
	return frames
}

// TestDigestHeals: a collector that has been told something else than the
// registry said finds out by the next heartbeat, and is sent the bucket that
// differs and no other.
func TestDigestHeals(t *testing.T) {
	all := names(1000) // 16 buckets of about 63
	for name, c := range map[string]struct {
		spoil  spoiler
		change func(w *world)
		want   []string
	}{
		"lost registration": {
			swallow, func(w *world) { w.register("new-1") }, append(slices.Clone(all), "new-1"),
		},
		"lost deregistration": {
			swallow, func(w *world) { w.deregister(all[7]) }, append(slices.Clone(all[:7]), all[8:]...),
		},
		"altered assignment": {
			alter, func(w *world) { w.register("new-1") }, append(slices.Clone(all), "new-1"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				r := w.registry(registry.NewMemoryStore())
				l := w.liarAt(replica1)
				k := w.follower("c-1", replica1)
				w.pass(time.Second)
				w.register(all...)
				start := time.Now()
				w.pass(time.Minute)

				sent := r.metric(t, sentAssignments, "buckets")
				l.spoilNext(c.spoil)
				c.change(w)
				w.pass(time.Millisecond)
				if n := k.metric(t, "rollcall_collector_divergences_total"); n != 0 {
					t.Fatalf("%v divergences before a heartbeat", n)
				}
				w.pass(registry.DefaultHeartbeat + 100*time.Millisecond)
				if n := k.metric(t, "rollcall_collector_divergences_total"); n != 1 {
					t.Errorf("%v divergences were found within a heartbeat, want 1", n)
				}
				w.pass(time.Second)
				w.subscribed("c-1", replica1)
				w.collects("c-1", c.want...)
				if n := r.metric(t, sentAssignments, "buckets") - sent; n == 0 || n > 130 {
					t.Errorf("%v assignments were sent again for one that differed", n)
				}
				if labels := w.collections("c-1")[c.want[len(c.want)-1]].GetAssignment().GetLabels(); len(labels) != 0 {
					t.Errorf("what was forged is collected still: %v", labels)
				}
				w.pass(5 * time.Minute)
				if n := k.metric(t, "rollcall_collector_divergences_total"); n != 1 {
					t.Errorf("%v divergences in all, want 1", n)
				}
				if n := k.metric(t, "rollcall_collector_refused_snapshots_total"); n != 0 {
					t.Errorf("%v snapshots were refused", n)
				}
				w.noGap(start, time.Now(), slices.DeleteFunc(slices.Clone(c.want), func(id string) bool { return id == "new-1" })...)
			})
		})
	}
}
