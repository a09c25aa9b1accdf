package otlp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// TestAProxyThatFails has something in front of the receiver answer in its place:
// what it says is not about the samples.
func TestAProxyThatFails(t *testing.T) {
	for status, want := range map[int]deliver.Result{
		400: deliver.Retry, 408: deliver.Retry, 413: deliver.TooLarge, 421: deliver.Retry, 500: deliver.Retry, 503: deliver.Retry, 200: deliver.Retry,
	} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = w.Write([]byte("<html>no</html>"))
		}))
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetUnencryptedHTTP2(true)
		server.Start()
		c := newClient(t, func(cfg *Config) { cfg.Target = server.Listener.Addr().String() })
		if o := c.Send(t.Context(), aRequest(c)); o.Result != want || o.Err == nil {
			t.Errorf("%d: %+v", status, o)
		}
		server.Close()
	}
}

// TestAStreamThatBreaks has the receiver's process, or what is in front of it,
// break off.
func TestAStreamThatBreaks(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	defer server.Close()
	c := newClient(t, func(cfg *Config) { cfg.Target = server.Listener.Addr().String() })
	if o := c.Send(t.Context(), aRequest(c)); o.Result != deliver.Retry || o.Err == nil {
		t.Errorf("%+v", o)
	}
}

// TestALongAnswer has a receiver that took all but one point say so at length.
func TestALongAnswer(t *testing.T) {
	r := &receiver{answer: func(context.Context, int) (*colmetrics.ExportMetricsServiceResponse, error) {
		return &colmetrics.ExportMetricsServiceResponse{PartialSuccess: &colmetrics.ExportMetricsPartialSuccess{
			RejectedDataPoints: 1, ErrorMessage: strings.Repeat("no ", 1<<20/3),
		}}, nil
	}}
	inBubble(t, r, func(t *testing.T, c *Client) {
		if o := c.Send(t.Context(), aRequest(c)); o.Result != deliver.Delivered || o.Refused != 2 || len(o.Err.Error()) > 2*maxError {
			t.Errorf("%+v", o)
		}
	})
}

// TestCodesAreFew has a receiver answer with numbers of its own, each of which
// would be a series of a metric.
func TestCodesAreFew(t *testing.T) {
	next := codes.Unauthenticated
	r := &receiver{answer: func(context.Context, int) (*colmetrics.ExportMetricsServiceResponse, error) {
		next++
		return nil, status.Error(next, "no")
	}}
	inBubble(t, r, func(t *testing.T, c *Client) {
		for range 3 {
			if o := c.Send(t.Context(), aRequest(c)); o.Code != "invalid" || o.Result != deliver.Rejected {
				t.Errorf("%+v", o)
			}
		}
	})
}

// TestALongLabelInEachPoint does not make a message of many times what was
// collected.
func TestALongLabelInEachPoint(t *testing.T) {
	r := &receiver{}
	inBubble(t, r, func(t *testing.T, c *Client) {
		const size = 1 << 20
		req := newBuilder(c).request([]one{{labels: "x l " + strings.Repeat("v", size), typ: gauge, time: 1000}})
		req.Items = slices.Repeat(req.Items, 100)
		req.Ends = []int{100}
		if n := c.encode(req).buffer.Len(); n > maxMessage+2*size {
			t.Errorf("%d bytes are written", n)
		}
		if o := c.Send(t.Context(), req); o.Result != deliver.TooLarge || req.Encoded != nil || len(r.got) != 0 {
			t.Errorf("%+v", o)
		}
	})
}

// TestAReceiverThatIsBack is found at the next try, however long it was away.
func TestAReceiverThatIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := bufconn.Listen(1 << 20)
		server := grpc.NewServer()
		colmetrics.RegisterMetricsServiceServer(server, &receiver{})
		go func() { _ = server.Serve(l) }()
		defer server.Stop()
		var back atomic.Bool
		c, err := New(Config{Name: "otel", Target: "receiver:4317", Insecure: true, Dial: func(ctx context.Context, _ string) (net.Conn, error) {
			if !back.Load() {
				return nil, errors.New("nobody there")
			}
			return l.DialContext(ctx)
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 120 {
			if o := c.Send(t.Context(), aRequest(c)); o.Result != deliver.Retry {
				t.Fatalf("%+v", o)
			}
			time.Sleep(30 * time.Second)
		}
		back.Store(true)
		time.Sleep(10 * time.Second)
		if o := c.Send(t.Context(), aRequest(c)); o.Result != deliver.Delivered {
			t.Errorf("10 s after it is back: %+v", o)
		}
	})
}
