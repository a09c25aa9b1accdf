package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// A stage serves the endpoints of all producers.
type stage struct {
	http.Handler
	memories map[string]*pulls // by id; does not change
}

func newStage(prefix string, producers, bound int) *stage {
	mux := http.NewServeMux()
	s := &stage{Handler: mux, memories: make(map[string]*pulls)}
	host := prometheus.NewRegistry()
	host.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newHost())
	shared := &recent{from: host}
	mux.Handle("GET /metrics", s.endpoint(prefix, bound, shared))
	for n := 1; n <= producers; n++ {
		id := producerID(prefix, n)
		mux.Handle("GET /metrics/"+strconv.Itoa(n), producer.Identify(id, s.endpoint(id, bound, shared)))
	}
	mux.HandleFunc("GET /pulls", s.tell)
	mux.HandleFunc("POST /pulls", s.forget)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return s
}

// endpoint makes the endpoint of one producer: the host's metrics, and one of its
// own. Pulls count when they arrive.
func (s *stage) endpoint(id string, bound int, host prometheus.Gatherer) http.Handler {
	own := prometheus.NewRegistry()
	pulled := prometheus.NewCounter(prometheus.CounterOpts{Name: "example_pulls_total", Help: "How often this producer was pulled."})
	own.MustRegister(pulled)
	remembered := &pulls{bound: bound}
	s.memories[id] = remembered
	metrics := promhttp.HandlerFor(prometheus.Gatherers{host, own}, promhttp.HandlerOpts{
		EnableOpenMetrics: true, DisableCompression: true, // many producers share what little there is of a trial's machine
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remembered.add(func() int64 { return time.Now().UnixMilli() })
		pulled.Inc()
		metrics.ServeHTTP(w, r)
	})
}

// recent is what a gatherer told within the last second: the host's metrics are
// the same for all producers, and dear.
type recent struct {
	from prometheus.Gatherer

	mu       sync.Mutex
	at       time.Time
	families []*dto.MetricFamily
}

const recentFor = time.Second

// Gather gathers, unless that was done a moment ago.
func (r *recent) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) < recentFor {
		return r.families, nil
	}
	families, err := r.from.Gather()
	if err == nil {
		r.families, r.at = families, time.Now()
	}
	return families, err
}

// tell answers with the pulls of all producers, or of one.
func (s *stage) tell(w http.ResponseWriter, r *http.Request) {
	answer := make(map[string]memory)
	if id := r.URL.Query().Get("id"); id != "" {
		p, ok := s.memories[id]
		if !ok {
			http.Error(w, "no such producer", http.StatusNotFound)
			return
		}
		answer[id] = p.tell()
	} else {
		for id, p := range s.memories {
			answer[id] = p.tell()
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who asked has gone
}

func (s *stage) forget(w http.ResponseWriter, _ *http.Request) {
	for _, p := range s.memories {
		p.forget()
	}
	w.WriteHeader(http.StatusNoContent)
}
