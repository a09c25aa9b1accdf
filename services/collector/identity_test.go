package collector_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// TestCollectorTellsWhoItIs: at its metrics, and only there, and only when it is a
// producer.
func TestCollectorTellsWhoItIs(t *testing.T) {
	if producer.Header != scrape.ProducerHeader {
		t.Errorf("producers tell %s, collectors look for %s", producer.Header, scrape.ProducerHeader)
	}
	for _, self := range []string{"", "rollcall/collector/c-1"} {
		serving(t, self, func(address string) {
			for path, want := range map[string]string{"/metrics": self, "/healthz": "", "/api/v1/status/buildinfo": ""} {
				resp, err := http.Get("http://" + address + path)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := resp.Header.Get(producer.Header); got != want || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: status %d, it is %q, want %q", path, resp.StatusCode, got, want)
				}
			}
		})
	}
}

// serving runs a collector, the producer self, for as long as use does.
func serving(t *testing.T, self string, use func(address string)) {
	t.Helper()
	var listeners [2]net.Listener
	for i := range listeners {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = lis
	}
	c, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: t.TempDir(), Listener: listeners[0], HTTPListener: listeners[1],
		SelfID: self, SelfEndpoint: "http://127.0.0.1:1/metrics", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	use(listeners[1].Addr().String())
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
}
