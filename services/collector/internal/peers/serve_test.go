package peers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// client connects to a server of a store.
func (r *rig) client(c peers.ServerConfig) collectorv1.CollectionServiceClient {
	r.t.Helper()
	c.Self = "c-2"
	c.Closed = func(err error) bool { return errors.Is(err, sink.ErrClosed) }
	r.serve("server:1", func(s *grpc.Server) {
		collectorv1.RegisterCollectionServiceServer(s, &peer{answer: peers.NewServer(c).Select})
	})
	conn, err := grpc.NewClient("passthrough:///server:1", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(r.dial),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10)) // Or it takes ever more ahead of who reads.
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return collectorv1.NewCollectionServiceClient(conn)
}

// request asks for all samples.
func request(change ...func(*collectorv1.SelectRequest)) *collectorv1.SelectRequest {
	m := &collectorv1.SelectRequest{
		Kind: collectorv1.SelectKind_SELECT_KIND_SAMPLES, StartMs: between[0], EndMs: between[1],
		Selectors: []*collectorv1.Selector{{Matchers: []*collectorv1.LabelMatcher{
			{Type: collectorv1.MatchType_MATCH_TYPE_EQUAL, Name: "__name__", Value: "m"},
		}}},
	}
	for _, f := range change {
		f(m)
	}
	return m
}

// ask receives all frames.
func ask(ctx context.Context, client collectorv1.CollectionServiceClient, m *collectorv1.SelectRequest) (frames []*frame, err error) {
	stream, err := client.Select(ctx, m)
	for err == nil {
		var m *frame
		if m, err = stream.Recv(); err == nil {
			frames = append(frames, m)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return frames, err
}

// fault is an error's code and reason.
func fault(err error) string {
	s := status.Convert(err)
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return s.Code().String() + " " + info.GetReason()
		}
	}
	return s.Code().String()
}

// TestRefusedRequests: each is told what is wrong with it.
func TestRefusedRequests(t *testing.T) {
	matcher := func(m *collectorv1.LabelMatcher) func(*collectorv1.SelectRequest) {
		return func(r *collectorv1.SelectRequest) { r.Selectors[0].Matchers[0] = m }
	}
	many := func(n, size int) func(*collectorv1.SelectRequest) {
		return func(m *collectorv1.SelectRequest) {
			one := &collectorv1.LabelMatcher{Type: collectorv1.MatchType_MATCH_TYPE_EQUAL, Name: "a", Value: strings.Repeat("x", size)}
			m.Selectors[0].Matchers = slices.Repeat([]*collectorv1.LabelMatcher{one}, n)
		}
	}
	tests := map[string]struct {
		change func(*collectorv1.SelectRequest)
		want   string
	}{
		"no kind":            {func(m *collectorv1.SelectRequest) { m.Kind = 0 }, "kind"},
		"another kind":       {func(m *collectorv1.SelectRequest) { m.Kind = 99 }, "kind"},
		"backwards":          {func(m *collectorv1.SelectRequest) { m.EndMs = -1 }, "end_ms"},
		"no selector":        {func(m *collectorv1.SelectRequest) { m.Selectors = nil }, "selectors"},
		"two selectors":      {func(m *collectorv1.SelectRequest) { m.Selectors = append(m.Selectors, m.GetSelectors()...) }, "selectors"},
		"no matcher":         {func(m *collectorv1.SelectRequest) { m.Selectors[0].Matchers = nil }, "selectors[0]"},
		"no matcher at all":  {func(m *collectorv1.SelectRequest) { m.Selectors[0] = nil }, "selectors[0]"},
		"no type":            {matcher(&collectorv1.LabelMatcher{Name: "a"}), "selectors[0].matchers[0]"},
		"another type":       {matcher(&collectorv1.LabelMatcher{Type: 99, Name: "a"}), "selectors[0].matchers[0]"},
		"no name":            {matcher(&collectorv1.LabelMatcher{Type: 1}), "selectors[0].matchers[0]"},
		"no regular expr":    {matcher(&collectorv1.LabelMatcher{Type: 3, Name: "a", Value: "("}), "selectors[0].matchers[0]"},
		"a regular bomb":     {matcher(&collectorv1.LabelMatcher{Type: 3, Name: "a", Value: "((a{100}){100}){100}"}), "selectors[0].matchers[0]"},
		"many matchers":      {many(10_001, 1), "selectors"},
		"large matchers":     {many(1025, 1024), "selectors"},
		"a negative limit":   {func(m *collectorv1.SelectRequest) { m.Limit = -1 }, "limit"},
		"a negative size":    {func(m *collectorv1.SelectRequest) { m.MaxBytes = -1 }, "max_bytes"},
		"values of no label": {func(m *collectorv1.SelectRequest) { m.Kind = collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES }, "label_name"},
		"exemplars of nothing": {func(m *collectorv1.SelectRequest) {
			m.Kind, m.Selectors = collectorv1.SelectKind_SELECT_KIND_EXEMPLARS, nil
		}, "selectors"},
	}
	bubble(t, func(t *testing.T, r *rig) {
		client := r.client(peers.ServerConfig{Store: r.store})
		for name, test := range tests {
			frames, err := ask(t.Context(), client, request(test.change))
			var field string
			for _, d := range status.Convert(err).Details() {
				if bad, ok := d.(*errdetails.BadRequest); ok {
					field = bad.GetFieldViolations()[0].GetField()
				}
			}
			if fault(err) != "InvalidArgument MALFORMED" || field != test.want || len(frames) > 0 {
				t.Errorf("%s: %v, at %q, %d frames", name, err, field, len(frames))
			}
		}
		if _, err := ask(t.Context(), client, request(many(10_000, 10))); err != nil {
			t.Errorf("10,000 matchers: %v", err)
		}
	})
}

// TestAnswersAreBounded in size, number of series, and frames.
func TestAnswersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for i := range 3000 {
			write(t, r.store, fmt.Sprintf("s-%d-%s", i, strings.Repeat("x", 300)), 10)
		}
		client := r.client(peers.ServerConfig{Store: r.store, MaxAnswerBytes: 3 << 20})
		frames, err := ask(t.Context(), client, request())
		if err != nil || len(frames) < 4 || frames[len(frames)-1].GetEnd().GetSeriesCount() != 3000 {
			t.Errorf("%d frames, %v", len(frames), err)
		}
		for _, m := range frames {
			if proto.Size(m) > 1<<20 {
				t.Errorf("a frame of %d bytes", proto.Size(m))
			}
		}
		frames, err = ask(t.Context(), client, request(func(m *collectorv1.SelectRequest) { m.Limit = 7 }))
		if err != nil || len(frames) != 2 || frames[1].GetEnd().GetSeriesCount() != 7 {
			t.Errorf("limited: %d frames, %v", len(frames), err)
		}
		frames, err = ask(t.Context(), client, request(func(m *collectorv1.SelectRequest) { m.MaxBytes = 400 << 10 }))
		if fault(err) != "ResourceExhausted TOO_LARGE" || len(frames) > 2 {
			t.Errorf("too large: %d frames, %v", len(frames), err)
		}
	})
}

// TestErrorsOfTheStore have their status.
func TestErrorsOfTheStore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, err := ask(t.Context(), r.client(peers.ServerConfig{}), request())
		if fault(err) != "FailedPrecondition NO_STORE" {
			t.Errorf("no store: %v", err)
		}
		store := r.open(t.TempDir())
		client := r.client(peers.ServerConfig{Store: store})
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		for kind := collectorv1.SelectKind_SELECT_KIND_SAMPLES; kind <= collectorv1.SelectKind_SELECT_KIND_LABEL_VALUES; kind++ {
			_, err = ask(t.Context(), client, request(func(m *collectorv1.SelectRequest) { m.Kind, m.LabelName = kind, "a" }))
			if fault(err) != "Unavailable CLOSED" {
				t.Errorf("%v of a closed store: %v", kind, err)
			}
		}
	})
}

// TestReadersThatDoNotRead: each holds a place for as long as an answer may take,
// and no longer; those that wait are refused when they are too many; and the
// store can be closed then.
func TestReadersThatDoNotRead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for i := range 3000 {
			write(t, r.store, fmt.Sprintf("s-%d-%s", i, strings.Repeat("x", 300)), 10)
		}
		client := r.client(peers.ServerConfig{Store: r.store, MaxServed: 2})
		stuck := make([]grpc.ServerStreamingClient[frame], 2)
		for i := range stuck {
			var err error
			if stuck[i], err = client.Select(t.Context(), request()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		waiting := make(chan error, 9)
		for range 9 {
			go func() {
				_, err := ask(t.Context(), client, request(func(m *collectorv1.SelectRequest) { m.Limit = 1 }))
				waiting <- err
			}()
		}
		synctest.Wait()
		select {
		case err := <-waiting:
			if fault(err) != "ResourceExhausted BUSY" {
				t.Errorf("one too many: %v", err)
			}
		default:
			t.Error("nobody was refused")
		}
		begin := time.Now()
		for range 8 {
			if err := <-waiting; err != nil {
				t.Errorf("one that waited: %v", err)
			}
		}
		if took := time.Since(begin); took != 29*time.Second {
			t.Errorf("they waited for %v", took)
		}
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
		if _, err := stuckEnd(stuck[0]); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("who did not read: %v", err)
		}
	})
}

func stuckEnd(s grpc.ServerStreamingClient[frame]) (n int, err error) {
	for err == nil {
		_, err = s.Recv()
		n++
	}
	return n, err
}
