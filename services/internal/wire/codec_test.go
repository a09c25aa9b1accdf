package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// A broadcaster sends the same frames to everyone: some encoded once for all,
// some as messages.
type broadcaster struct {
	registryv1.UnimplementedAssignmentServiceServer
	messages []any
}

func (b *broadcaster) Subscribe(_ *registryv1.SubscribeRequest, stream grpc.ServerStreamingServer[registryv1.SubscribeResponse]) error {
	for _, m := range b.messages {
		if err := stream.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

func (b *broadcaster) Acknowledge(_ context.Context, m *registryv1.AcknowledgeRequest) (*registryv1.AcknowledgeResponse, error) {
	return &registryv1.AcknowledgeResponse{Explained: []*registryv1.Removal{{ProducerId: m.GetCollectorId()}}}, nil
}

func serve(t *testing.T, service registryv1.AssignmentServiceServer, options ...grpc.DialOption) registryv1.AssignmentServiceClient {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()))
	registryv1.RegisterAssignmentServiceServer(server, service)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///registry", append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return registryv1.NewAssignmentServiceClient(conn)
}

// Encoded frames and messages arrive alike, at any number of readers, and the
// bytes that they share stay as they are.
func TestCodecPassesEncodedFramesThrough(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("streams", func(t *testing.T) {
		a := wholeAssignment()
		a.Endpoint += strings.Repeat("x", 50<<10) // many HTTP/2 frames to a chunk
		var w wire.ChunkWriter
		for w.Fits(len(wire.EncodeStored(a))) {
			w.Add(wire.EncodeStored(a), a.Version, a.Role)
		}
		n := w.Len()
		full := w.Finish(1, 0)
		w.Remove(assignment.Removal{ProducerID: "gone", Cause: assignment.CauseExpired, Revision: 9})
		removal := w.Finish(1, 1)
		want := []assignment.Frame{
			&assignment.Begin{SnapshotID: 1, Epoch: "e", Revision: 9},
			&assignment.Chunk{SnapshotID: 1, Assignments: slices.Repeat([]*assignment.Assignment{a}, n)},
			&assignment.Chunk{SnapshotID: 1, Sequence: 1, Removals: []assignment.Removal{{ProducerID: "gone", Cause: assignment.CauseExpired, Revision: 9}}},
			&assignment.End{SnapshotID: 1, Epoch: "e", Revision: 9},
			&assignment.Unknown{},
		}
		shared := slices.Concat(full, removal)
		client := serve(t, &broadcaster{messages: []any{
			wire.EncodeFrame(want[0]), full, removal, wire.EncodeFrame(want[3]), wire.Encoded{},
		}})
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() { readFrames(t, client, want) })
		}
		readers.Wait()
		if !slices.Equal(slices.Concat(full, removal), shared) {
			t.Error("what was shared has changed")
		}

		// Unary calls go through the same codec.
		response, err := client.Acknowledge(t.Context(), &registryv1.AcknowledgeRequest{CollectorId: "c"})
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, wire.DecodeExplained(response), []assignment.Removal{{ProducerID: "c"}})
	})
}

func readFrames(t *testing.T, client registryv1.AssignmentServiceClient, want []assignment.Frame) {
	stream, err := client.Subscribe(t.Context(), &registryv1.SubscribeRequest{})
	if err != nil {
		t.Error(err)
		return
	}
	for i := 0; ; i++ {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) && i == len(want) {
			return
		}
		if err != nil || i == len(want) {
			t.Errorf("after %d frames: %v", i, err)
			return
		}
		frame, err := wire.DecodeFrame(m)
		if err != nil {
			t.Errorf("frame %d: %v", i, err)
			return
		}
		checkEqual(t, frame, want[i])
	}
}

// A client takes frames as they are, and may keep them: they are its own, and
// not the transport's that reuses them.
func TestCodecHandsEncodedFramesOver(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("stream", func(t *testing.T) {
		var messages []any
		var want []wire.Encoded
		var w wire.ChunkWriter
		for i := range 50 {
			w.Add(bytes.Repeat([]byte{byte(i)}, 1<<(i%16)), assignment.Version(i), 1)
			want = append(want, w.Finish(1, uint64(i)))
			messages = append(messages, want[i])
		}
		client := serve(t, &broadcaster{messages: messages}, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(wire.Codec())))
		stream, err := client.Subscribe(t.Context(), &registryv1.SubscribeRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var got []wire.Encoded
		for {
			var encoded wire.Encoded
			err := stream.RecvMsg(&encoded)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, encoded)
		}
		if !slices.EqualFunc(got, want, func(a, b wire.Encoded) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%d frames that are not the %d that were sent", len(got), len(want))
		}
	})
}

func TestCodecIsTheOneOfProtocolBuffers(t *testing.T) {
	c := wire.Codec()
	if c.Name() != "proto" {
		t.Errorf("its name is %q", c.Name())
	}
	if _, err := c.Marshal("text"); err == nil {
		t.Error("it encodes what is no message")
	}
	want := wire.EncodeFrame(&assignment.GoAway{Message: "m"})
	b, err := c.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got registryv1.SubscribeResponse
	if err := c.Unmarshal(b, &got); err != nil || got.GetGoAway().GetMessage() != "m" {
		t.Errorf("%v, %v", &got, err)
	}
}
