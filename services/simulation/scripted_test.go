package simulation

import (
	"context"
	"slices"
	"sync"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc"
)

// scripted is a registry that says what a test wants it to say.
type scripted struct {
	registryv1.UnimplementedAssignmentServiceServer
	registryv1.UnimplementedCollectorServiceServer

	mu      sync.Mutex
	scripts []script // one for each subscription; the last one stays
	asked   []*registryv1.SubscribeRequest
	acks    []*registryv1.AcknowledgeRequest

	// welcome and answer, if set, are what else it does with a registration and
	// with an acknowledgement.
	welcome func(m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error)
	answer  func(m *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error)
}

// script plays one stream. What it returns ends the stream.
type script func(s *stage) error

// stage is the stream of one script.
type stage struct {
	grpc.ServerStreamingServer[registryv1.SubscribeResponse]
	request *registryv1.SubscribeRequest
}

// say sends frames.
func (s *stage) say(frames ...assignment.Frame) error {
	for _, f := range frames {
		if err := s.Send(wire.EncodeFrame(f)); err != nil {
			return err
		}
	}
	return nil
}

// wait lets the stream stand until the other side ends it.
func (s *stage) wait() error {
	<-s.Context().Done()
	return s.Context().Err()
}

// sleep lets time go by while the stream stands.
func (s *stage) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.Context().Done():
	}
}

// live keeps the stream alive with heartbeats of a set.
func (s *stage) live(end *assignment.End) error {
	for {
		select {
		case <-time.After(5 * time.Second):
		case <-s.Context().Done():
			return s.Context().Err()
		}
		if err := s.say(&assignment.Heartbeat{
			Epoch: end.Epoch, Revision: end.Revision, SetCount: end.SetCount, SetDigest: end.SetDigest,
			AcknowledgedRevision: end.Revision,
		}); err != nil {
			return err
		}
	}
}

// scriptedRegistry starts one in the registry's place.
func (w *world) scriptedRegistry(scripts ...script) *scripted {
	r := &scripted{scripts: scripts}
	srv := grpc.NewServer(grpc.WaitForHandlers(true), grpc.ForceServerCodecV2(wire.Codec()))
	registryv1.RegisterAssignmentServiceServer(srv, r)
	registryv1.RegisterCollectorServiceServer(srv, r)
	lis := w.network.listen(registryAddress)
	w.done.Go(func() { _ = srv.Serve(lis) })
	w.done.Go(func() {
		<-w.ctx.Done()
		srv.Stop()
	})
	return r
}

func (r *scripted) RegisterCollector(_ context.Context, m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
	r.mu.Lock()
	welcome := r.welcome
	r.mu.Unlock()
	if welcome != nil {
		return welcome(m)
	}
	c := m.GetCollector()
	c.Generation = 1
	return &registryv1.RegisterCollectorResponse{Collector: c}, nil
}

func (r *scripted) Subscribe(m *registryv1.SubscribeRequest, stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	r.mu.Lock()
	play := r.scripts[min(len(r.asked), len(r.scripts)-1)]
	r.asked = append(r.asked, m)
	r.mu.Unlock()
	return play(&stage{stream, m})
}

func (r *scripted) Acknowledge(_ context.Context, m *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error) {
	r.mu.Lock()
	r.acks = append(r.acks, m)
	answer := r.answer
	r.mu.Unlock()
	if answer != nil {
		return answer(m)
	}
	return &registryv1.AcknowledgeResponse{}, nil
}

// subscriptions is how often the collector subscribed.
func (r *scripted) subscriptions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// request is one of the subscriptions' requests.
func (r *scripted) request(n int) *registryv1.SubscribeRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[n]
}

// lastAck is the newest acknowledgement that is as wanted, nil for none.
func (r *scripted) lastAck(wanted func(*registryv1.AcknowledgeRequest) bool) *registryv1.AcknowledgeRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range slices.Backward(r.acks) {
		if wanted(a) {
			return a
		}
	}
	return nil
}

const scriptedEpoch = "11111111-2222-3333-4444-555555555555"

// roll is a whole and correct snapshot of scope ALL.
type roll struct {
	begin  *assignment.Begin
	chunks []*assignment.Chunk
	end    *assignment.End
}

// callRoll makes a roll of producers of the fleet, in so many chunks.
func callRoll(revision assignment.Revision, chunks int, ids ...string) *roll {
	var set assignment.Set[*assignment.Assignment]
	r := &roll{
		begin: &assignment.Begin{
			SnapshotID: 1, SubscriptionID: "scripted", Epoch: scriptedEpoch, Revision: revision, Scope: assignment.ScopeAll,
			ExpectedUpserts: int64(len(ids)), HeartbeatInterval: 5 * time.Second, AssignmentFormat: assignment.AssignmentFormat,
		},
	}
	size := (len(ids) + chunks - 1) / chunks
	for i, id := range ids {
		if i%max(size, 1) == 0 {
			r.chunks = append(r.chunks, &assignment.Chunk{SnapshotID: 1, Sequence: uint64(len(r.chunks))})
		}
		a := assigned(id)
		set.Put(a)
		c := r.chunks[len(r.chunks)-1]
		c.Assignments = append(c.Assignments, a)
	}
	r.end = &assignment.End{
		SnapshotID: 1, Epoch: scriptedEpoch, Revision: revision, Chunks: uint64(len(r.chunks)),
		Upserts: int64(len(ids)), SetCount: int64(set.Len()), SetDigest: set.Digest(),
	}
	return r
}

// assigned is a producer of the fleet as its collector is told it.
func assigned(id string) *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: assignment.ProducerID(id),
		Version:    assignment.VersionOf([]byte(id)),
		Role:       assignment.RoleOwner,
		Endpoint:   "http://" + fleetAddress + "/" + id,
		Interval:   interval,
		Timeout:    5 * time.Second,
	}
}

// frames are all of a roll's.
func (r *roll) frames() []assignment.Frame {
	frames := []assignment.Frame{r.begin}
	for _, c := range r.chunks {
		frames = append(frames, c)
	}
	return append(frames, r.end)
}

// stands plays a whole roll and keeps the stream alive.
func (r *roll) stands(s *stage) error {
	if err := s.say(r.frames()...); err != nil {
		return err
	}
	return s.live(r.end)
}

// once plays a whole roll and ends the stream some time later.
func (r *roll) once(s *stage) error {
	if err := s.say(r.frames()...); err != nil {
		return err
	}
	select {
	case <-time.After(20 * time.Second):
		return nil
	case <-s.Context().Done():
		return s.Context().Err()
	}
}
