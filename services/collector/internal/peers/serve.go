package peers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A ServerConfig says what a collector gives to others. Zero limits stand for the
// defaults.
type ServerConfig struct {
	// Self is this collector.
	Self assignment.CollectorID

	// Store is this collector's own; nil: it keeps no samples.
	Store Store

	// MaxServed bounds the answers at work. Four times as many may wait.
	MaxServed int

	// MaxAnswerBytes bounds one answer, Timeout the time that it takes: whoever
	// does not read it in that time does not get it.
	MaxAnswerBytes int64
	Timeout        time.Duration

	// Closed tells whether an error of the store says that it is closed.
	Closed func(error) bool
}

// A Server answers from this collector's own store.
type Server struct {
	ServerConfig
	admitted chan struct{} // Those waiting and those at work.
	working  chan struct{}
}

// waiters is how many may wait for each one at work.
const waiters = 4

// NewServer makes a Server.
func NewServer(c ServerConfig) *Server {
	orDefault(&c.MaxServed, DefaultMaxServed)
	orDefault(&c.MaxAnswerBytes, DefaultMaxQueryBytes)
	orDefault(&c.Timeout, DefaultServeTimeout)
	return &Server{
		ServerConfig: c,
		admitted:     make(chan struct{}, c.MaxServed*(1+waiters)),
		working:      make(chan struct{}, c.MaxServed),
	}
}

// Select answers one question. The errors have a status.
func (s *Server) Select(m *collectorv1.SelectRequest, stream grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
	q, err := decode(m)
	if err != nil {
		return err
	}
	if s.Store == nil {
		return failure(codes.FailedPrecondition, "this collector keeps no samples", "NO_STORE")
	}
	ctx, cancel := context.WithTimeout(stream.Context(), s.Timeout)
	defer cancel()
	leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	// A send to somebody who does not read ends with the stream only, so the
	// sender does not keep this function from ending it.
	done := make(chan ending, 1)
	go func() {
		defer leave()
		done <- s.finish(ctx, q, stream.Send)
	}()
	select {
	case e := <-done:
		if e.panicked != "" {
			panic(e.panicked) // Here it is recovered from; there it would end the process.
		}
		return e.err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// An ending is how an answer ended: with an error, or with a panic and its stack.
type ending struct {
	err      error
	panicked string
}

// enter waits for a place among those at work.
func (s *Server) enter(ctx context.Context) (leave func(), err error) {
	select {
	case s.admitted <- struct{}{}:
	default:
		return nil, failure(codes.ResourceExhausted, "too many questions at once", "BUSY")
	}
	select {
	case s.working <- struct{}{}:
		return func() { <-s.working; <-s.admitted }, nil
	case <-ctx.Done():
		<-s.admitted
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (s *Server) finish(ctx context.Context, q *question, send func(*collectorv1.SelectResponse) error) (e ending) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked = fmt.Sprintf("%v, at %s", p, debug.Stack())
		}
	}()
	f := &framer{send: send, full: fullFrame, left: s.MaxAnswerBytes, end: collectorv1.SelectEnd{CollectorId: string(s.Self)}}
	if q.maxBytes > 0 {
		f.left = min(f.left, q.maxBytes)
	}
	err := s.answer(ctx, q, f)
	if err == nil {
		err = f.seal()
	}
	return ending{err: s.explain(ctx, err)}
}

// explain gives an error of the store its status.
func (s *Server) explain(ctx context.Context, err error) error {
	if _, ok := status.FromError(err); ok { // Nil, too.
		return err
	}
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case s.Closed != nil && s.Closed(err):
		return failure(codes.Unavailable, err.Error(), "CLOSED")
	default:
		return failure(codes.Internal, err.Error(), "STORE")
	}
}

func (s *Server) answer(ctx context.Context, q *question, f *framer) error {
	switch q.kind {
	case collectorv1.SelectKind_SELECT_KIND_SAMPLES:
		return s.samples(ctx, q, f)
	case collectorv1.SelectKind_SELECT_KIND_EXEMPLARS:
		return s.exemplars(ctx, q, f)
	default:
	}
	store, err := s.Store.Querier(q.start, q.end)
	if err != nil {
		return err
	}
	defer store.Close()
	if q.kind == collectorv1.SelectKind_SELECT_KIND_SERIES {
		return series(ctx, store, q, f)
	}
	hints := &storage.LabelHints{Limit: q.limit}
	var values []string
	var warnings annotations.Annotations
	if q.kind == collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES {
		values, warnings, err = store.LabelNames(ctx, hints, q.selector()...)
	} else {
		values, warnings, err = store.LabelValues(ctx, q.label, hints, q.selector()...)
	}
	if err != nil {
		return err
	}
	if q.limit > 0 && len(values) > q.limit {
		values = values[:q.limit]
	}
	for _, v := range values {
		if err := f.value(v); err != nil {
			return err
		}
	}
	f.warn(warnings)
	return nil
}

// hints are the question's for the store.
func (q *question) hints() *storage.SelectHints {
	h := &storage.SelectHints{Start: q.start, End: q.end, Limit: q.limit}
	if q.kind == collectorv1.SelectKind_SELECT_KIND_SERIES {
		h.Func = "series"
	}
	return h
}

// full tells that the answer has as many series as are asked for.
func (q *question) full(f *framer) bool {
	return q.limit > 0 && f.end.SeriesCount >= int64(q.limit)
}

func series(ctx context.Context, store storage.Querier, q *question, f *framer) error {
	set := store.Select(ctx, true, q.hints(), q.selector()...)
	for !q.full(f) && set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.beginSeries(set.At().Labels()); err != nil {
			return err
		}
	}
	f.warn(set.Warnings())
	return set.Err()
}

func (s *Server) samples(ctx context.Context, q *question, f *framer) error {
	store, err := s.Store.ChunkQuerier(q.start, q.end)
	if err != nil {
		return err
	}
	defer store.Close()
	set := store.Select(ctx, true, q.hints(), q.selector()...)
	var it chunks.Iterator
	for !q.full(f) && set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		one := set.At()
		it = one.Iterator(it)
		begun := false
		for it.Next() {
			if !begun {
				if err := f.beginSeries(one.Labels()); err != nil {
					return err
				}
				begun = true
			}
			if err := f.chunk(it.At().Chunk); err != nil {
				return err
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	f.warn(set.Warnings())
	return set.Err()
}

func (s *Server) exemplars(ctx context.Context, q *question, f *framer) error {
	store, err := s.Store.ExemplarQuerier(ctx)
	if err != nil {
		return err
	}
	all, err := store.Select(q.start, q.end, q.selectors...)
	if err != nil {
		return err
	}
	for i := range all {
		if err := f.exemplarsOf(&all[i]); err != nil {
			return err
		}
	}
	return nil
}

// warn notes what the store has to say.
func (f *framer) warn(all annotations.Annotations) {
	for _, err := range all {
		if len(f.end.Warnings) < maxWarnings && !errors.Is(err, annotations.PromQLInfo) {
			f.end.Warnings = append(f.end.Warnings, clip(err.Error()))
		}
	}
}

// clip shortens what others say.
func clip(s string) string { return fmt.Sprintf("%.200s", s) }
