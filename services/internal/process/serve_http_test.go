package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc/test/bufconn"
)

// request makes one request over a listener, on a connection of its own.
func request(t *testing.T, lis *bufconn.Listener) (string, error) {
	t.Helper()
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
		DisableKeepAlives: true,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://toy/", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// stoppingHTTP is stopping for ServeHTTP.
func stoppingHTTP(t *testing.T, handle http.HandlerFunc) (took time.Duration, body string, err error) {
	t.Helper()
	lis := bufconn.Listen(1 << 16)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- process.ServeHTTP(ctx, handle, lis, grace, slog.New(slog.DiscardHandler)) }()
	outcome := make(chan error, 1)
	go func() {
		var err error
		body, err = request(t, lis)
		outcome <- err
	}()
	time.Sleep(time.Second)
	begin := time.Now()
	cancel()
	if err := <-served; err != nil {
		t.Errorf("ServeHTTP: %v", err)
	}
	took = time.Since(begin)
	if _, err := lis.Dial(); err == nil {
		t.Error("it still listens")
	}
	err = <-outcome
	return took, body, err
}

func TestServeHTTPLetsRequestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, body, err := stoppingHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(8 * time.Second)
			_, _ = w.Write([]byte("done"))
		})
		// Shutdown looks for idle connections every half second at the most.
		if took < 7*time.Second || took > 8*time.Second || err != nil || body != "done" {
			t.Errorf("stopped after %v, the request got %q, %v", took, body, err)
		}
	})
}

func TestServeHTTPCutsOffAnEndlessRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, _, err := stoppingHTTP(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		if took != grace || err == nil {
			t.Errorf("stopped after %v, the request got %v", took, err)
		}
	})
}

func TestServeHTTPLeavesADeafHandlerBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, _, err := stoppingHTTP(t, func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) })
		if took != grace || err == nil {
			t.Errorf("stopped after %v, the request got %v", took, err)
		}
		time.Sleep(time.Hour)
	})
}

// TestServeHTTPBoundsHowLongItIsAsked: who never ends the headers is cut off.
func TestServeHTTPBoundsHowLongItIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 16)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() {
			served <- process.ServeHTTP(ctx, http.NotFoundHandler(), lis, grace, slog.New(slog.DiscardHandler))
		}()
		conn, err := lis.Dial()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n")); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(conn)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("cut off after %v", took)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeHTTPStoppedBeforeItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			lis := bufconn.Listen(1 << 16)
			if err := process.ServeHTTP(ctx, http.NotFoundHandler(), lis, grace, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			if _, err := lis.Dial(); err == nil {
				t.Fatal("it still listens")
			}
		}
	})
}

func TestServeHTTPTellsWhyItCannotServe(t *testing.T) {
	err := process.ServeHTTP(t.Context(), http.NotFoundHandler(), &brokenListener{bufconn.Listen(1)}, grace, slog.New(slog.DiscardHandler))
	if !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

func TestListen(t *testing.T) {
	for address, test := range map[string]struct{ exposed, malformed bool }{
		"127.0.0.1:0":          {},
		"localhost:0":          {},
		"[::ffff:127.0.0.1]:0": {},
		":0":                   {exposed: true},
		"0.0.0.0:0":            {exposed: true},
		"[::]:0":               {exposed: true},
		"192.0.2.1:0":          {exposed: true},
		"registry.example:0":   {exposed: true},
		"localhost.example:0":  {exposed: true},
		"":                     {malformed: true},
		"127.0.0.1":            {malformed: true},
		"127.0.0.1:http:1":     {malformed: true},
	} {
		lis, err := process.Listen(t.Context(), address, false)
		if err == nil {
			_ = lis.Close()
		}
		if got := errors.Is(err, process.ErrExposed); got != test.exposed || (err != nil) != (test.exposed || test.malformed) {
			t.Errorf("%q: %v", address, err)
		}
	}
	lis, err := process.Listen(t.Context(), ":0", true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	if _, err := process.Listen(t.Context(), lis.Addr().String(), true); err == nil {
		t.Error("two listen on one address")
	}
	if _, err := process.Listen(t.Context(), "127.0.0.1:99999", false); err == nil {
		t.Error("port 99999")
	}
}

func TestProbes(t *testing.T) {
	var missing error
	mux := http.NewServeMux()
	process.AddProbes(mux, process.NewMetricsRegistry(), func() error { return missing })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		return w.Code, w.Body.String()
	}
	if code, _ := get("/readyz"); code != http.StatusOK {
		t.Errorf("ready: %d", code)
	}
	missing = errors.New("the roll is missing")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the roll is missing") {
		t.Errorf("not ready: %d %s", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("alive though not ready: %d", code)
	}
	if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, `rollcall_build_info{version="unknown"} 1`) || !strings.Contains(body, "go_goroutines") {
		t.Errorf("metrics: %d %s", code, body)
	}
}

func TestNewLogger(t *testing.T) {
	var b bytes.Buffer
	process.NewLogger(&b, slog.LevelInfo, true).InfoContext(t.Context(), "hello", "some_key", 1)
	if !strings.Contains(b.String(), `"msg":"hello","some_key":1`) {
		t.Errorf("json: %s", b.String())
	}
	b.Reset()
	logger := process.NewLogger(&b, slog.LevelWarn, false)
	logger.InfoContext(t.Context(), "quiet")
	logger.WarnContext(t.Context(), "hello", "some_key", 1)
	if strings.Contains(b.String(), "quiet") || !strings.Contains(b.String(), "msg=hello some_key=1") {
		t.Errorf("text: %s", b.String())
	}
}
