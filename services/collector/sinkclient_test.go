package collector_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	promconfig "github.com/prometheus/common/config"

	"github.com/rollcall-metrics/rollcall/services/collector"
)

// A login gives tokens, and remembers what it was told. While it is silent it takes
// what it is sent and does not answer.
type login struct {
	mu     sync.Mutex
	silent bool   // guarded by mu
	told   string // guarded by mu
}

func (l *login) serve(conn net.Conn) {
	l.mu.Lock()
	silent := l.silent
	l.mu.Unlock()
	if silent {
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		return
	}
	serveOne(conn, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.told = user + ":" + password
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token": "sesame", "token_type": "Bearer", "expires_in": 3600}`)
	})
}

// serveOne serves one connection until its client ends it.
func serveOne(conn net.Conn, handler http.HandlerFunc) {
	calls := make(chan net.Conn, 1)
	calls <- conn
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Hour}
	server.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(calls)
		}
	}
	_ = server.Serve(queued(calls))
}

// queued is a listener of those that have called.
type queued chan net.Conn

func (q queued) Accept() (net.Conn, error) {
	if conn, ok := <-q; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (queued) Close() error   { return nil }
func (queued) Addr() net.Addr { return &net.UnixAddr{} }

// TestALoginThatDoesNotAnswer holds up no request for ever: it is told, and tried
// again when it is back.
func TestALoginThatDoesNotAnswer(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("open\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const limit = 30 * time.Second
		var l login
		var ends sync.WaitGroup
		client, err := collector.SinkClient(promconfig.HTTPClientConfig{
			OAuth2: &promconfig.OAuth2{ClientID: "me", ClientSecretFile: secret, TokenURL: "http://login/token"},
		}, limit, func(_ context.Context, _, address string) (net.Conn, error) {
			near, far := net.Pipe()
			ends.Go(func() {
				if strings.HasPrefix(address, "login:") {
					l.serve(far)
					return
				}
				serveOne(far, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, r.Header.Get("Authorization"))
				})
			})
			return near, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, silent := range []bool{true, true, false, false} {
			l.mu.Lock()
			l.silent = silent
			l.mu.Unlock()
			begun := time.Now()
			got, err := ask(t, client, limit)
			if (err != nil) != silent || !silent && got != "Bearer sesame" || time.Since(begun) > limit {
				t.Errorf("silent: %t; %q, %v after %v", silent, got, err, time.Since(begun))
			}
		}
		if l.told != "me:open" {
			t.Errorf("told %q", l.told)
		}
		client.CloseIdleConnections()
		ends.Wait()
	})
}

// ask is what a receiver answers.
func ask(t *testing.T, client *http.Client, limit time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://receiver/", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
