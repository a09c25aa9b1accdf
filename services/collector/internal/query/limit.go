package query

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"
)

// waiters is how many requests may wait for each one at work.
const waiters = 4

// isCheap says that a handler costs next to nothing: it answers in an overload
// too. One that is new in a later Prometheus is not among them.
func isCheap(name string) bool {
	switch name {
	case "/*path", // OPTIONS
		"/alertmanagers", "/alerts", "/features", "/notifications", "/notifications/live", "/openapi.yaml", "/rules",
		"/status/buildinfo", "/status/config", "/status/flags", "/status/walreplay":
		return true
	default:
		return false
	}
}

// A limiter bounds the requests, each and together.
type limiter struct {
	logger   *slog.Logger
	metrics  *metrics
	timeout  time.Duration
	maxBytes int64
	admitted chan struct{} // Those waiting and those at work.
	working  chan struct{}
}

func newLimiter(cfg Config, m *metrics) *limiter {
	return &limiter{
		logger:   cfg.Logger,
		metrics:  m,
		timeout:  cfg.Timeout,
		maxBytes: cfg.MaxRequestBytes,
		admitted: make(chan struct{}, cfg.MaxConcurrent*(1+waiters)),
		working:  make(chan struct{}, cfg.MaxConcurrent),
	}
}

// wrap puts the bounds around one handler of Prometheus's router; name is its
// path pattern.
func (l *limiter) wrap(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := &recorder{ResponseWriter: rw}
		start := time.Now()
		defer func() {
			l.metrics.requests.WithLabelValues(name, strconv.Itoa(w.code())).Inc()
			l.metrics.duration.WithLabelValues(name).Observe(time.Since(start).Seconds())
		}()
		defer l.recoverPanic(name, w)

		if int64(len(r.URL.RawQuery)) > l.maxBytes {
			refuse(w, http.StatusRequestURITooLong, "bad_data", "the URL's query is too long")
			return
		}
		if r.ContentLength > l.maxBytes {
			refuse(w, http.StatusRequestEntityTooLarge, "bad_data", "the request's body is too large")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, l.maxBytes)
		ctx, cancel := context.WithTimeout(r.Context(), l.timeout)
		defer cancel()
		if !isCheap(name) {
			leave, ok := l.enter(ctx)
			if !ok {
				l.metrics.shed.Inc()
				w.Header().Set("Retry-After", "1")
				refuse(w, http.StatusServiceUnavailable, "unavailable", "too many queries at once")
				return
			}
			defer leave()
		}
		next(w, r.WithContext(ctx))
	}
}

// enter waits for a place among those at work, if there is one to wait for.
func (l *limiter) enter(ctx context.Context) (leave func(), ok bool) {
	select {
	case l.admitted <- struct{}{}:
	default:
		return nil, false
	}
	select {
	case l.working <- struct{}{}:
		l.metrics.working.Inc()
		return func() {
			l.metrics.working.Dec()
			<-l.working
			<-l.admitted
		}, true
	case <-ctx.Done():
		<-l.admitted
		return nil, false
	}
}

// recoverPanic answers a panic of the handler with an error. It is deferred.
func (l *limiter) recoverPanic(name string, w *recorder) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	l.metrics.panics.Inc()
	l.logger.Error("query handler panicked", "handler", name, "panic", p, "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler) // Half an answer must not look whole.
	}
	w.Header().Del("Content-Encoding")
	refuse(w, http.StatusInternalServerError, "internal", "the query failed; the collector's log has the reason")
}

// refuse answers an error in Prometheus's form.
func refuse(w http.ResponseWriter, code int, kind, text string) {
	body, err := json.Marshal(map[string]string{"status": "error", "errorType": kind, "error": text})
	if err != nil {
		body = nil // Cannot be: they are strings.
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // The client's loss.
}

// A recorder notes the status code that was sent.
type recorder struct {
	http.ResponseWriter

	status int
}

// WriteHeader sends the status code.
func (r *recorder) WriteHeader(code int) {
	if r.status == 0 {
		r.status = code
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write sends a part of the body.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Flush is what streamed remote reads ask for.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}
