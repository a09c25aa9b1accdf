// Package receiver takes Prometheus remote write as a store would, for tests and
// measurements of what sends it: it can be away, refuse, answer slowly, and forget.
//
// Its invariant: what it acknowledges is in its ledger, and, where it has a
// journal, on disk, so that it can be killed and begun again.
package receiver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// maxBody bounds the body of a request, compressed and not.
	maxBody = 64 << 20

	// maxQueue is for how long a request waits for its turn when the rate is
	// bounded; one that would wait longer is refused with 429.
	maxQueue = 5 * time.Second
)

// Path is where requests are posted, TotalsPath where [Totals] are told as JSON.
const (
	Path       = "/api/v1/write"
	TotalsPath = "/totals"
)

// Config tells what a receiver is.
type Config struct {
	// Address is where it listens, host:port; it is the same each time it is up.
	Address string

	// Ledger is where samples are noted; without one they are counted and
	// forgotten.
	Ledger *Ledger

	// Journal, if there is one, has each request before it is acknowledged.
	Journal *Journal
}

// Totals is what a receiver has acknowledged.
type Totals struct {
	Requests int64
	Samples  int64

	// WireBytes are those of the bodies as they came, RawBytes when they are
	// decompressed.
	WireBytes, RawBytes int64

	// Refused counts the requests that were answered with an error on purpose.
	Refused int64

	// Protocols counts requests by version and compression.
	Protocols map[string]int64

	// Last is when the last sample was acknowledged.
	Last time.Time
}

// A Receiver takes remote write 1.0 and 2.0, as snappy or zstd. It is safe for
// concurrent use.
type Receiver struct {
	config Config

	mu     sync.Mutex // guards the following
	server *http.Server
	status int       // answered instead of taking anything; 0: takes
	rate   float64   // samples a second; 0: no bound
	turn   time.Time // when the next request has its turn, with a rate
	totals Totals
}

// New makes a receiver that is down.
func New(config Config) *Receiver {
	return &Receiver{config: config, totals: Totals{Protocols: map[string]int64{}}}
}

// URL is where senders post.
func (r *Receiver) URL() string { return "http://" + r.config.Address + Path }

// Up begins to listen. It does nothing when the receiver is up.
func (r *Receiver) Up(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		return nil
	}
	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", r.config.Address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, r.take)
	mux.HandleFunc("GET "+TotalsPath, r.tell)
	r.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(lis) }(r.server) // until Down
	return nil
}

// Down closes the listener and all connections. Requests that are being served
// may still be taken, and are then not acknowledged.
func (r *Receiver) Down() {
	r.mu.Lock()
	server := r.server
	r.server = nil
	r.mu.Unlock()
	if server != nil {
		_ = server.Close() // nobody is told
	}
}

// Refuse has every request answered with a status; 0 ends that.
func (r *Receiver) Refuse(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// Throttle bounds how many samples a second are taken; 0 is no bound.
func (r *Receiver) Throttle(rate float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate, r.turn = rate, time.Time{}
}

// Totals is what it has acknowledged.
func (r *Receiver) Totals() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.totals
	t.Protocols = maps.Clone(t.Protocols)
	return t
}

func (r *Receiver) tell(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(r.Totals()) // who has gone away needs no answer
}

// take is the handler of a request.
func (r *Receiver) take(w http.ResponseWriter, req *http.Request) {
	wire, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m := message{two: req.Header.Get("Content-Type") == contentTypeTwo, zstd: req.Header.Get("Content-Encoding") == "zstd", wire: wire}
	raw, err := m.raw()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	found, err := count(raw, m.two)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if status := r.await(req.Context(), found.samples); status != 0 {
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, "not now", status)
		return
	}
	if err := r.keep(m, raw); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	r.account(m, len(raw), found.samples)
	if m.two {
		w.Header().Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(found.samples))
		w.Header().Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(found.histograms))
		w.Header().Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(found.exemplars))
	}
	w.WriteHeader(http.StatusNoContent)
}

// await waits until a request of so many samples may be taken. It returns the
// status to refuse it with, or 0.
func (r *Receiver) await(ctx context.Context, samples int) int {
	r.mu.Lock()
	status, rate := r.status, r.rate
	var wait time.Duration
	if status == 0 && rate > 0 {
		now := time.Now()
		turn := r.turn
		if turn.Before(now) {
			turn = now
		}
		if turn.Sub(now) > maxQueue {
			status = http.StatusTooManyRequests
		} else {
			r.turn = turn.Add(time.Duration(float64(samples) / rate * float64(time.Second)))
			wait = r.turn.Sub(now)
		}
	}
	if status != 0 {
		r.totals.Refused++
	}
	r.mu.Unlock()
	if status != 0 {
		return status
	}
	if wait <= 0 {
		return 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return 0
	case <-ctx.Done():
		return http.StatusServiceUnavailable
	}
}

// keep puts a request where it is to be found again.
func (r *Receiver) keep(m message, raw []byte) error {
	if r.config.Journal != nil {
		if err := r.config.Journal.append(m); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	if r.config.Ledger != nil {
		return r.config.Ledger.add(raw, m.two)
	}
	return nil
}

func (r *Receiver) account(m message, raw, samples int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.totals.Requests++
	r.totals.Samples += int64(samples)
	r.totals.WireBytes += int64(len(m.wire))
	r.totals.RawBytes += int64(raw)
	r.totals.Protocols[m.protocol()]++
	r.totals.Last = time.Now()
}
