package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/prometheus/model/histogram"
	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // a receiver can read it
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A receiver is a real server that answers as it is told.
type receiver struct {
	colmetrics.UnimplementedMetricsServiceServer
	answer  func(ctx context.Context, n int) (*colmetrics.ExportMetricsServiceResponse, error)
	got     []*colmetrics.ExportMetricsServiceRequest
	headers []metadata.MD
}

func (r *receiver) Export(ctx context.Context, req *colmetrics.ExportMetricsServiceRequest) (*colmetrics.ExportMetricsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	r.got, r.headers = append(r.got, req), append(r.headers, md)
	if r.answer == nil {
		return &colmetrics.ExportMetricsServiceResponse{}, nil
	}
	return r.answer(ctx, len(r.got))
}

// inBubble runs a test with a receiver and a client of it, in fake time.
func inBubble(t *testing.T, r *receiver, test func(t *testing.T, c *Client), edit ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 20)
		server := grpc.NewServer()
		colmetrics.RegisterMetricsServiceServer(server, r)
		go func() { _ = server.Serve(l) }()
		defer server.Stop()
		dial := func(cfg *Config) {
			cfg.Dial = func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
		}
		cfg := Config{Name: "otel", Target: "receiver:4317", Insecure: true, UserAgent: "rollcall-collector/v1"}
		for _, e := range append(edit, dial) {
			e(&cfg)
		}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		test(t, c)
	})
}

func aRequest(c *Client) *deliver.Request {
	return newBuilder(c).request([]one{
		{labels: "x_total " + "a b", typ: counter, value: 1, time: 1000},
		{labels: "y", typ: gauge, value: 2, time: 1000},
		{labels: "z", typ: "gaugehistogram", value: 2, time: 1000},
	})
}

func ignoreErr() cmp.Option { return cmpopts.IgnoreFields(deliver.Outcome{}, "Err", "Bytes") }

func TestSend(t *testing.T) {
	for _, compression := range []Compression{"", CompressionNone} {
		r := &receiver{}
		inBubble(t, r, func(t *testing.T, c *Client) {
			req := aRequest(c)
			want := decode(t, c.encode(req))
			out := c.Send(t.Context(), req)
			if diff := cmp.Diff(deliver.Outcome{Code: "OK", Refused: 1, Reason: deliver.ReasonUnsupported}, out, ignoreErr()); diff != "" {
				t.Error(diff)
			}
			if out.Bytes <= 0 || out.Err != nil {
				t.Error(out)
			}
			if got := r.got[0]; got.String() != want.String() {
				t.Errorf("%v\nwant %v", got, want)
			}
			h := r.headers[0]
			if got := h.Get("x-scope-orgid"); len(got) != 1 || got[0] != "7" || !strings.HasPrefix(h.Get("user-agent")[0], "rollcall-collector/v1 ") {
				t.Error(h)
			}
			if c.Protocol() != "otlp/grpc" {
				t.Error(c.Protocol())
			}
		}, func(cfg *Config) {
			cfg.Compression = compression
			cfg.Headers = map[string]string{"X-Scope-OrgID": "7"}
		})
	}
}

// TestSendAgain is about a request that is sent until it is taken: it is the
// same each time, though what was sent in between has moved the starts.
func TestSendAgain(t *testing.T) {
	r := &receiver{answer: func(_ context.Context, n int) (*colmetrics.ExportMetricsServiceResponse, error) {
		if n < 3 {
			return nil, status.Error(codes.Unavailable, "later")
		}
		return &colmetrics.ExportMetricsServiceResponse{}, nil
	}}
	inBubble(t, r, func(t *testing.T, c *Client) {
		b := newBuilder(c)
		req := b.request([]one{{labels: "x_total", typ: counter, value: 5, time: 1000}})
		if out := c.Send(t.Context(), req); out.Result != deliver.Retry || out.Overloaded {
			t.Error(out)
		}
		first := req.Encoded
		c.encode(b.request([]one{{labels: "x_total", typ: counter, value: 1, time: 2000}}))
		for _, want := range []deliver.Result{deliver.Retry, deliver.Delivered} {
			if req.Encoded == nil || req.Encoded != first {
				t.Error("it is encoded anew")
			}
			if out := c.Send(t.Context(), req); out.Result != want {
				t.Error(out)
			}
		}
		if r.got[0].String() != r.got[1].String() || r.got[0].String() != r.got[2].String() || req.Encoded != nil {
			t.Error(r.got)
		}
	})
}

func TestNothingToSend(t *testing.T) {
	r := &receiver{}
	inBubble(t, r, func(t *testing.T, c *Client) {
		out := c.Send(t.Context(), newBuilder(c).request([]one{{labels: "x", typ: "gaugehistogram", time: 1}, {labels: "target_info", time: 1}}))
		if diff := cmp.Diff(deliver.Outcome{Code: "OK", Refused: 1, Reason: deliver.ReasonUnsupported}, out); diff != "" || len(r.got) != 0 {
			t.Error(diff, r.got)
		}
	})
}

func TestPartialSuccess(t *testing.T) {
	for _, c := range []struct {
		points int64
		text   string
		want   deliver.Outcome
		err    string
	}{
		{1, "too old", deliver.Outcome{Code: "OK", Refused: 2, Reason: deliver.ReasonRejected}, "the receiver refused 1 of 2 data points: too old"},
		{5, "", deliver.Outcome{Code: "OK", Refused: 3, Reason: deliver.ReasonRejected}, "the receiver refused 5 of 2 data points: without a message"},
		{0, "slow down", deliver.Outcome{Code: "OK", Refused: 1, Reason: deliver.ReasonUnsupported}, "the receiver warns: slow down"},
		{-1, "", deliver.Outcome{Code: "OK", Refused: 1, Reason: deliver.ReasonUnsupported}, ""},
	} {
		r := &receiver{answer: func(context.Context, int) (*colmetrics.ExportMetricsServiceResponse, error) {
			return &colmetrics.ExportMetricsServiceResponse{PartialSuccess: &colmetrics.ExportMetricsPartialSuccess{
				RejectedDataPoints: c.points, ErrorMessage: c.text,
			}}, nil
		}}
		inBubble(t, r, func(t *testing.T, cl *Client) {
			out := cl.Send(t.Context(), aRequest(cl))
			if diff := cmp.Diff(c.want, out, ignoreErr()); diff != "" {
				t.Errorf("%d: %s", c.points, diff)
			}
			if got := text(out.Err); got != c.err {
				t.Errorf("%q, want %q", got, c.err)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestOutcomes(t *testing.T) {
	retry := func(code string) deliver.Outcome { return deliver.Outcome{Result: deliver.Retry, Code: code} }
	rejected := func(code, reason string) deliver.Outcome {
		return deliver.Outcome{Result: deliver.Rejected, Code: code, Reason: reason}
	}
	overloaded := func(code string, wait time.Duration) deliver.Outcome {
		return deliver.Outcome{Result: deliver.Retry, Code: code, Overloaded: true, RetryAfter: wait}
	}
	tooLarge := func(code string) deliver.Outcome {
		return deliver.Outcome{Result: deliver.TooLarge, Code: code, Reason: deliver.ReasonTooLarge}
	}
	with := func(code codes.Code, wait time.Duration) error {
		st, err := status.New(code, "busy").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		return errors.Join(st.Err(), err)
	}
	for _, c := range []struct {
		name string
		err  error
		want deliver.Outcome
	}{
		{"cancelled", status.Error(codes.Canceled, ""), retry("Canceled")},
		{"deadline", status.Error(codes.DeadlineExceeded, ""), retry("timeout")},
		{"aborted", status.Error(codes.Aborted, ""), retry("Aborted")},
		{"out of range", status.Error(codes.OutOfRange, ""), retry("OutOfRange")},
		{"data loss", status.Error(codes.DataLoss, ""), retry("DataLoss")},
		{"unavailable", status.Error(codes.Unavailable, ""), retry("Unavailable")},
		{"unavailable, come again", with(codes.Unavailable, 3*time.Second), overloaded("Unavailable", 3*time.Second)},
		{"exhausted", status.Error(codes.ResourceExhausted, "quota"), overloaded("ResourceExhausted", 0)},
		{"exhausted, come again", with(codes.ResourceExhausted, time.Second), overloaded("ResourceExhausted", time.Second)},
		{"come again in a year", with(codes.ResourceExhausted, 365*24*time.Hour), overloaded("ResourceExhausted", maxRetryAfter)},
		{"come again yesterday", with(codes.ResourceExhausted, -time.Hour), overloaded("ResourceExhausted", 0)},
		{"unauthenticated", status.Error(codes.Unauthenticated, ""), retry("Unauthenticated")},
		{"denied", status.Error(codes.PermissionDenied, ""), retry("PermissionDenied")},
		{"unimplemented", status.Error(codes.Unimplemented, ""), retry("Unimplemented")},
		{"not found", status.Error(codes.NotFound, ""), retry("NotFound")},
		{"invalid", status.Error(codes.InvalidArgument, ""), rejected("InvalidArgument", deliver.ReasonInvalid)},
		{"internal", status.Error(codes.Internal, ""), rejected("Internal", deliver.ReasonRejected)},
		{"unknown", errors.New("?"), rejected("Unknown", deliver.ReasonRejected)},
		{"too large in Go", status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), tooLarge("ResourceExhausted")},
		{"too large in Go, compressed", status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 4"), tooLarge("ResourceExhausted")},
		{"too large in Java", status.Error(codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"), tooLarge("ResourceExhausted")},
		{"too large in Rust", status.Error(codes.OutOfRange, "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes"), tooLarge("OutOfRange")},
	} {
		r := &receiver{answer: func(context.Context, int) (*colmetrics.ExportMetricsServiceResponse, error) { return nil, c.err }}
		inBubble(t, r, func(t *testing.T, cl *Client) {
			out := cl.Send(t.Context(), aRequest(cl))
			if diff := cmp.Diff(c.want, out, ignoreErr()); diff != "" {
				t.Errorf("%s: %s", c.name, diff)
			}
			if out.Err == nil {
				t.Errorf("%s: no error", c.name)
			}
		})
	}
}

// TestTooLarge is about the real refusal of a real server.
func TestTooLarge(t *testing.T) {
	inBubble(t, &receiver{}, func(t *testing.T, c *Client) {
		big := strings.Repeat("x", 5<<20)
		out := c.Send(t.Context(), newBuilder(c).request([]one{{labels: "x a " + big, value: 1, time: 1}}))
		if out.Result != deliver.TooLarge {
			t.Error(out.Result, out.Err)
		}
	})
}

func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Config{Target: "a:1", Insecure: true, Dial: func(context.Context, string) (net.Conn, error) {
			return nil, errors.New("nobody there")
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		out := c.Send(t.Context(), aRequest(c))
		if out.Result != deliver.Retry || out.Code != "unreachable" || out.Overloaded || out.Bytes != 0 {
			t.Errorf("%+v", out)
		}
	})
}

func TestTimeout(t *testing.T) {
	r := &receiver{answer: func(ctx context.Context, _ int) (*colmetrics.ExportMetricsServiceResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	inBubble(t, r, func(t *testing.T, c *Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if out := c.Send(ctx, aRequest(c)); out.Result != deliver.Retry || out.Code != "timeout" {
			t.Errorf("%+v", out)
		}
	})
}

// TestErrorsHoldNoSecrets is about a receiver that says what it was told.
func TestErrorsHoldNoSecrets(t *testing.T) {
	const token = "s3cr3t-token"
	r := &receiver{answer: func(ctx context.Context, _ int) (*colmetrics.ExportMetricsServiceResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Error(codes.Unauthenticated, "bad\n\x00"+md.Get("authorization")[0]+strings.Repeat("ü"+token, 1000))
	}}
	inBubble(t, r, func(t *testing.T, c *Client) {
		err := c.Send(t.Context(), aRequest(c)).Err.Error()
		if strings.Contains(err, token) || strings.ContainsAny(err, "\n\x00") || len(err) > 2*maxError {
			t.Errorf("%q", err)
		}
	}, func(cfg *Config) { cfg.Headers = map[string]string{"Authorization": "Bearer " + token} })
}

func TestNewRefuses(t *testing.T) {
	for want, edit := range map[string]func(*Config){
		"missing port":               func(c *Config) { c.Target = "receiver" },
		"is not host:port":           func(c *Config) { c.Target = ":4317" },
		"neither TLS nor insecure":   func(c *Config) { c.Insecure = false },
		"both TLS and insecure":      func(c *Config) { c.TLS = &tls.Config{} },
		"neither gzip nor none":      func(c *Config) { c.Compression = "zstd" },
		"cannot be set":              func(c *Config) { c.Headers = map[string]string{"grpc-timeout": "1"} },
		"not a name of a header":     func(c *Config) { c.Headers = map[string]string{"a b": "1"} },
		"value is not printable":     func(c *Config) { c.Headers = map[string]string{"a": "secret\n"} },
		`header "" cannot be set`:    func(c *Config) { c.Headers = map[string]string{"": "1"} },
		`OTLP sink otel: endpoint "`: func(c *Config) { c.Target = "receiver:" },
	} {
		cfg := Config{Name: "otel", Target: "receiver:4317", Insecure: true}
		edit(&cfg)
		_, err := New(cfg)
		if !errors.Is(err, ErrConfig) || !strings.Contains(text(err), want) || strings.Contains(text(err), "secret") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestSendToAReceiver sends one of each kind over a real connection: to the
// receiver that the environment names, as the tests of deploy/e2e do, or to one
// of its own.
func TestSendToAReceiver(t *testing.T) {
	target := os.Getenv("ROLLCALL_OTLP_RECEIVER")
	if target == "" {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		colmetrics.RegisterMetricsServiceServer(server, &receiver{})
		go func() { _ = server.Serve(l) }()
		defer server.Stop()
		target = l.Addr().String()
	}
	c := newClient(t, func(cfg *Config) { cfg.Target = target })
	b := newBuilder(c)
	record := func(at int64, v float64, h *sample.Extra) []one {
		all := []one{
			{labels: "target_info version 1", value: 1},
			{labels: "c_total a b", typ: counter, value: v},
			{labels: "g", typ: gauge, value: v},
			{labels: "h_bucket le 1.0", typ: classic, value: v},
			{labels: "h_bucket le +Inf", typ: classic, value: v},
			{labels: "h_sum", typ: classic, value: v},
			{labels: "h_count", typ: classic, value: v},
			{labels: "s quantile 0.5", typ: summary, value: v},
			{labels: "s_sum", typ: summary, value: v},
			{labels: "s_count", typ: summary, value: v},
			{labels: "n", typ: classic, value: v, extra: h},
		}
		for i := range all {
			all[i].time = at
		}
		return all
	}
	h := native(histogram.Histogram{Schema: 3, Count: 3, Sum: 7, PositiveSpans: []histogram.Span{{Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1}})
	at := time.Now().UnixMilli()
	out := c.Send(t.Context(), b.request(record(at, 3, h), record(at+10, staleNaN(), nil)))
	if out.Result != deliver.Delivered || out.Refused != 0 || out.Err != nil {
		t.Errorf("%+v", out)
	}
}
