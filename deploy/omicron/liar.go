package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A liar has a registry's address and plays half an answer in each way that a
// stream can end, then says nothing, and when told to an empty answer.
type liar struct {
	registryv1.UnimplementedAssignmentServiceServer
	registryv1.UnimplementedCollectorServiceServer
	server   *grpc.Server
	listener *keptConns
	nobody   chan struct{} // closed when it is time for the empty answer

	mu     sync.Mutex // guards played
	played int        // streams that were begun
}

const liarEpoch = "00000000-0000-0000-0000-000000000bad"

// halves is how many half answers come first.
const halves = 3

// newLiar starts one. The caller stops it.
func newLiar(ctx context.Context, address string) (*liar, error) {
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	l := &liar{server: grpc.NewServer(), listener: &keptConns{Listener: lis}, nobody: make(chan struct{})}
	registryv1.RegisterAssignmentServiceServer(l.server, l)
	registryv1.RegisterCollectorServiceServer(l.server, l)
	go func() { _ = l.server.Serve(l.listener) }() // until stop
	return l, nil
}

func (l *liar) stop() { l.server.Stop() }

// lies is how many streams were begun.
func (l *liar) lies() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.played
}

// RegisterCollector knows everybody.
func (l *liar) RegisterCollector(_ context.Context, m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
	c := m.GetCollector()
	c.Generation = 1
	return &registryv1.RegisterCollectorResponse{Collector: c}, nil
}

// Acknowledge explains nothing.
func (l *liar) Acknowledge(context.Context, *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error) {
	return &registryv1.AcknowledgeResponse{}, nil
}

// Subscribe plays the next lie.
func (l *liar) Subscribe(_ *registryv1.SubscribeRequest, stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	l.mu.Lock()
	l.played++
	n := l.played
	l.mu.Unlock()
	if n > halves {
		select {
		case <-l.nobody:
			return empty(stream)
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	if err := half(stream); err != nil {
		return err
	}
	switch n {
	case 1:
		return nil // a clean end
	case 2:
		return status.Error(codes.Internal, "half of it is enough")
	default:
		time.Sleep(100 * time.Millisecond) // what was said is on its way
		return l.listener.reset()
	}
}

// half says that everybody was told, with one producer, and does not seal it.
func half(stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	return errors.Join(
		stream.Send(begin(2)),
		stream.Send(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotChunk{
			SnapshotChunk: &registryv1.SnapshotChunk{SnapshotId: 1, Assignments: []*registryv1.Assignment{{
				ProducerId: "nobody", Version: 1, Endpoint: "http://127.0.0.1:1/metrics", Interval: durationpb.New(time.Minute),
			}}},
		}}))
}

// empty says that there is nobody, seals it, and repeats it.
func empty(stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	err := errors.Join(
		stream.Send(begin(0)),
		stream.Send(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotEnd{
			SnapshotEnd: &registryv1.SnapshotEnd{SnapshotId: 1, Epoch: liarEpoch, Revision: 1},
		}}))
	for err == nil {
		select {
		case <-time.After(time.Second):
			err = stream.Send(&registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_Heartbeat{
				Heartbeat: &registryv1.Heartbeat{Epoch: liarEpoch, Revision: 1},
			}})
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	return err
}

func begin(expected int64) *registryv1.SubscribeResponse {
	return &registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotBegin{SnapshotBegin: &registryv1.SnapshotBegin{
		SnapshotId: 1, SubscriptionId: "a lie", Epoch: liarEpoch, Revision: 1, Scope: registryv1.SnapshotScope_SNAPSHOT_SCOPE_ALL,
		ExpectedUpsertCount: expected, HeartbeatInterval: durationpb.New(time.Second), AssignmentFormat: 3,
	}}}
}

// keptConns is a listener that can reset what it has accepted.
type keptConns struct {
	net.Listener

	mu    sync.Mutex // guards conns
	conns []*net.TCPConn
}

// Accept accepts a connection and keeps it.
func (k *keptConns) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		k.mu.Lock()
		k.conns = append(k.conns, tcp)
		k.mu.Unlock()
	}
	return conn, err
}

// reset closes every connection so that its peer reads an error, not an end.
func (k *keptConns) reset() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.conns {
		_ = conn.SetLinger(0) // it may be closed already
		_ = conn.Close()
	}
	k.conns = nil
	return status.Error(codes.Unavailable, "reset")
}
