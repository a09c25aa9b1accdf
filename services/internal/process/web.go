package process

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewMetricsRegistry makes a registry that has Go's and the process's own
// metrics already.
func NewMetricsRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "rollcall_build_info",
		Help:        "The version that runs, as a label.",
		ConstLabels: prometheus.Labels{"version": Version},
	})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// maxProfile bounds how long a profile is taken, in seconds.
const maxProfile = 60

// AddProfiles adds Go's profiles at /debug/pprof/.
func AddProfiles(mux *http.ServeMux) {
	bounded := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if s := r.FormValue("seconds"); s != "" {
				if n, err := strconv.ParseFloat(s, 64); err != nil || !(n >= 0 && n <= maxProfile) { // NaN is neither
					http.Error(w, "seconds: want 0 to "+strconv.Itoa(maxProfile), http.StatusBadRequest)
					return
				}
			}
			h(w, r)
		}
	}
	mux.HandleFunc("GET /debug/pprof/", bounded(pprof.Index))
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", bounded(pprof.Profile))
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", bounded(pprof.Trace))
}

// AddProbes adds /metrics, /healthz and /readyz. ready says what is missing, or
// nil; it must not depend on any other process.
func AddProbes(mux *http.ServeMux, gatherer prometheus.Gatherer, ready func() error) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 8}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
}
