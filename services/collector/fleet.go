package collector

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/query"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// selector gives others what is in this collector's own store.
func (k *Collector) selector() *peers.Server {
	c := peers.ServerConfig{
		Self:   assignment.CollectorID(k.config.ID),
		Closed: func(err error) bool { return errors.Is(err, sink.ErrClosed) || errors.Is(err, sink.ErrUnavailable) },
	}
	if k.tsdb != nil {
		c.Store = k.tsdb
	}
	return peers.NewServer(c)
}

// assembleFleet makes what asks the others.
func (k *Collector) assembleFleet() {
	c := k.config
	if c.DialPeer == nil {
		c.DialPeer = process.DialWithin(endpoint.Policy{Loopback: c.Endpoints.Loopback, Deny: c.Endpoints.Deny})
	}
	asking := peers.NewMetrics()
	c.Metrics.MustRegister(asking)
	k.fleet = peers.New(peers.Config{
		Self:         assignment.CollectorID(c.ID),
		Registries:   c.Registries,
		DialRegistry: c.DialRegistry,
		DialPeer:     c.DialPeer,
		Credentials:  c.ClientTLS.Credentials(),
		Local:        k.tsdb,
		ScopeOf:      func(ctx context.Context) peers.Scope { return peers.Scope(query.ScopeOf(ctx)) },
		Logger:       c.Logger,
		Metrics:      asking,
	})
}

// addPrometheusProbes adds the probes where Prometheus has them, for what asks
// there whether a Prometheus is up.
func addPrometheusProbes(mux *http.ServeMux) {
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Rollcall is Healthy.") })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Rollcall is Ready.") })
}
