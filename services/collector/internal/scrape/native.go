package scrape

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// maxLayoutID bounds the id of a layout, in bytes.
const maxLayoutID = 64

// fetchColumns is fetch for a producer that answers over gRPC.
func (c *Collection) fetchColumns(ctx context.Context, t *target, at time.Time, sc *scratch) (answer, *failure) {
	c.cache.speak(tongueColumns)
	cols := c.scraper.newColumns(t)
	defer cols.release()
	p, f := c.scraper.pullColumns(ctx, t, c.cache.layout, cols)
	ans := answer{size: cols.came, identity: p.identity}
	if f != nil {
		if f.reason == schedule.ReasonTooManySamples {
			sc.samples = t.limits.Samples + 1
		}
		return ans, f
	}
	c.scraper.metrics.bodyBytes.Add(float64(cols.came))
	r := c.reading(sc, t, at)
	c.families.mu.Lock()
	defer c.families.mu.Unlock()
	if f := r.columns(p.layoutID, &cols.answer); f != nil {
		c.families.reject()
		return ans, f
	}
	c.families.accept(c.cache.pass, t.limits.Samples)
	return ans, nil
}

// pullColumns asks the producer once, and reads its answer to its seal and the
// stream's end. known is the layout that the collector has, if any.
func (s *Scraper) pullColumns(ctx context.Context, t *target, known *layout, cols *columns) (*pull, *failure) {
	inner, cancel := context.WithCancel(ctx)
	if t.assignment.Timeout > 0 {
		inner, cancel = context.WithTimeout(ctx, t.assignment.Timeout)
	}
	defer cancel()
	if a := t.access.authorization; a != nil {
		inner = metadata.AppendToOutgoingContext(inner, "authorization", a[0])
	}
	p := &pull{outer: ctx, inner: inner, target: t, columns: cols}
	ch, err := s.channels.acquire(t)
	if err != nil {
		return p, fail(schedule.ReasonUnreachable, "%v", err)
	}
	f := p.run(ch.conn, s.collect(t, known))
	// What is wrong with an answer is not the connection's fault.
	sound := f == nil || f.reason != schedule.ReasonUnreachable && f.reason != schedule.ReasonTimeout
	s.channels.release(ch, sound && t.assignment.Interval < idleConnTimeout)
	return p, f
}

// collect makes the request of one collection.
func (s *Scraper) collect(t *target, known *layout) *producerv1.CollectRequest {
	req := &producerv1.CollectRequest{
		ProducerId:     string(t.assignment.ProducerID),
		MaxSampleCount: int64(t.limits.Samples),
	}
	if s.collectorID != nil {
		req.CollectorId = s.collectorID[0]
	}
	if known != nil {
		req.KnownLayoutId = known.id
	}
	return req
}

// A pull is one call of a producer.
type pull struct {
	outer, inner context.Context //nolint:containedctx // lives as long as the call
	target       *target
	columns      *columns
	identity     schedule.Identity
	layoutID     []byte
	sealed       bool
}

// run makes the call.
func (p *pull) run(conn *grpc.ClientConn, req *producerv1.CollectRequest) *failure {
	stream, err := conn.NewStream(p.inner, &producerv1.ExpositionService_ServiceDesc.Streams[0], producerv1.ExpositionService_Collect_FullMethodName)
	if err != nil {
		return p.refused(err)
	}
	if err := stream.SendMsg(req); err != nil && !errors.Is(err, io.EOF) {
		return p.refused(err)
	}
	if err := stream.CloseSend(); err != nil {
		return p.refused(err)
	}
	for {
		switch err := stream.RecvMsg(p.columns); {
		case errors.Is(err, io.EOF) && !p.sealed:
			return fail(schedule.ReasonMalformed, "the answer ends after %d chunks, without a seal", p.columns.chunks)
		case errors.Is(err, io.EOF):
			return nil
		case p.columns.fault != nil:
			return p.columns.fault
		case err != nil:
			return p.refused(err)
		}
		if f := p.check(&p.columns.answer); f != nil {
			return f
		}
	}
}

// check judges an answer after each chunk. It takes begin and seal out of it, to
// see whether the next chunk has one.
func (p *pull) check(m *producerv1.CollectResponse) *failure {
	if p.sealed {
		return fail(schedule.ReasonMalformed, "a chunk behind the seal")
	}
	if (p.columns.chunks == 1) != (m.GetBegin() != nil) {
		return fail(schedule.ReasonMalformed, "chunk %d: the begin is of the first chunk, and of no other", p.columns.chunks)
	}
	if m.GetBegin() != nil {
		if f := p.begin(m.GetBegin()); f != nil {
			return f
		}
		m.Begin = nil
	}
	limit := p.target.limits.Samples
	if len(m.GetValues())+len(m.GetHistograms().GetSchemas()) > limit || len(m.GetLayout().GetSeriesNames()) > limit {
		return fail(schedule.ReasonTooManySamples, "more than %d samples", limit)
	}
	seal := m.GetSeal()
	m.Seal = nil
	switch p.sealed = seal != nil; {
	case !p.sealed:
		return nil
	case seal.GetChunkCount() != p.columns.chunks:
		return fail(schedule.ReasonMalformed, "%d chunks, and a seal that tells of %d", p.columns.chunks, seal.GetChunkCount())
	case seal.GetSampleCount() != int64(len(m.GetValues())+len(m.GetHistograms().GetSchemas())):
		return fail(schedule.ReasonMalformed, "%d samples, and a seal that tells of %d",
			len(m.GetValues())+len(m.GetHistograms().GetSchemas()), seal.GetSampleCount())
	}
	return nil
}

// begin judges what an answer says that it is.
func (p *pull) begin(b *producerv1.Begin) *failure {
	switch id := b.GetProducerId(); id {
	case "":
		p.identity = schedule.IdentityNameless
	case string(p.target.assignment.ProducerID):
		p.identity = schedule.IdentityOwn
	default:
		p.identity = schedule.IdentityOther
		return fail(schedule.ReasonWrongProducer, "the endpoint says that it is producer %.130q", id)
	}
	if n := len(b.GetLayoutId()); n == 0 || n > maxLayoutID {
		return fail(schedule.ReasonMalformed, "a layout id of %d bytes, want 1 to %d", n, maxLayoutID)
	}
	p.layoutID = b.GetLayoutId()
	return nil
}

// refused tells what the error of a call came from.
func (p *pull) refused(err error) *failure {
	s := status.Convert(err)
	switch {
	case cancelled(p.outer) || p.inner.Err() != nil:
		return interrupted(p.outer, p.inner, err)
	case s.Code() == codes.DeadlineExceeded:
		// The producer's clock, or gRPC's, was a moment ahead of the context's.
		return fail(schedule.ReasonTimeout, "timed out: %s", s.Message())
	}
	reason := ""
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "rollcall" {
			reason = info.GetReason()
		}
	}
	code, text := s.Code(), s.Message()
	switch {
	case code == codes.FailedPrecondition && reason == "WRONG_PRODUCER":
		p.identity = schedule.IdentityOther
		return fail(schedule.ReasonWrongProducer, "the endpoint refuses: %.200s", text)
	case code == codes.ResourceExhausted && reason == "TOO_MANY_SAMPLES":
		return fail(schedule.ReasonTooManySamples, "the producer says: %.200s", text)
	case code == codes.ResourceExhausted && strings.HasPrefix(text, "grpc: received message"):
		return fail(schedule.ReasonTooLarge, "a chunk of more than %d bytes", maxChunk)
	case code == codes.Unavailable:
		return fail(schedule.ReasonUnreachable, "%s", text)
	default:
		return fail(schedule.ReasonStatus, "gRPC status %s: %s", code, text)
	}
}
