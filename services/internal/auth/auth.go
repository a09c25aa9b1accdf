// Package auth asks who calls, lets in who may, and tells in the log what was
// changed by whom: access's rules, applied to gRPC and HTTP.
//
// Its invariant: no handler is reached by a call that the table of package access
// does not allow to its caller. It takes the certificate of a connection as
// proven: the server's TLS has verified it, or there is none.
package auth

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"golang.org/x/time/rate"
)

// Config is what a Porter needs.
type Config struct {
	// Rules are those that hold now. It is called for each call, and returns
	// another value when the rules have changed.
	Rules func() *access.Rules

	// Open lets everybody do everything; what is changed is told all the same.
	Open bool

	// Self is the collector that is served, empty for a registry.
	Self assignment.CollectorID

	Logger  *slog.Logger
	Metrics *Metrics
}

// A Porter stands at the door of one process. It is safe for concurrent use.
type Porter struct {
	config  Config
	methods map[string]access.Method

	strangers, known *lines // for refusals of those without an identity, and with one
}

// lines bound how much is told of refusals in the log: who is refused decides how
// many come. Strangers do not crowd out those who are known.
type lines struct {
	limiter *rate.Limiter
	untold  atomic.Int64 // since the last one that was told
}

const (
	linesPerSecond = 5
	linesAtOnce    = 50
)

func newLines() *lines { return &lines{limiter: rate.NewLimiter(linesPerSecond, linesAtOnce)} }

// take tells whether one more may be told, and how many were not before it.
func (l *lines) take() (untold int64, ok bool) {
	if !l.limiter.Allow() {
		l.untold.Add(1)
		return 0, false
	}
	return l.untold.Swap(0), true
}

// New makes a Porter. Without rules, and not open, it lets nobody in.
func New(c Config) *Porter {
	p := &Porter{config: c, methods: map[string]access.Method{}, strangers: newLines(), known: newLines()}
	for _, m := range access.Methods() {
		p.methods[m.Name] = m
	}
	return p
}

// Assemble makes the Porter of a process and registers its metrics. Without rules
// everybody may do everything; self is the collector that is served, or empty.
func Assemble(rules func() *access.Rules, self assignment.CollectorID, logger *slog.Logger, r prometheus.Registerer) *Porter {
	metrics := NewMetrics()
	r.MustRegister(metrics)
	return New(Config{Rules: rules, Open: rules == nil, Self: self, Logger: logger, Metrics: metrics})
}

// rules are those that hold now.
func (p *Porter) rules() *access.Rules {
	if p.config.Rules != nil {
		if r := p.config.Rules(); r != nil {
			return r
		}
	}
	return &access.Rules{}
}

type identityKey struct{}

// From is who makes the call that has the context. It is nobody where nobody is
// asked, and where everybody is let in.
func From(ctx context.Context) (who access.Identity, ok bool) {
	who, ok = ctx.Value(identityKey{}).(access.Identity)
	return who, ok
}

// with is the context of a call of somebody.
func with(ctx context.Context, who access.Identity) context.Context {
	if who.Name == "" {
		return ctx
	}
	return context.WithValue(ctx, identityKey{}, who)
}

// A refusal is a call that is not let in.
type refusal struct {
	protocol string // grpc or http
	what     string // its method, or verb and path
	peer     string
	code     string
	reason   access.Reason
	who      access.Identity
	subjects []string
	err      error // why its credentials are worth nothing
}

// refused counts a refusal and tells of it.
func (p *Porter) refused(ctx context.Context, r refusal) {
	if p.config.Metrics != nil {
		p.config.Metrics.Denied.WithLabelValues(r.protocol, r.code, string(r.reason)).Inc()
	}
	level := slog.LevelWarn
	if r.reason == access.NoRule {
		level = slog.LevelError
	}
	bound := p.strangers
	if r.who.Name != "" {
		bound = p.known
	}
	untold, ok := bound.take()
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", cut(r.what)), slog.String("reason", string(r.reason)),
		slog.String("identity", r.who.Name), slog.String("peer", r.peer),
	}
	attrs = append(attrs, subjectAttrs(r.subjects)...)
	if r.err != nil {
		attrs = append(attrs, slog.String("error", cut(r.err.Error())))
	}
	if untold > 0 {
		attrs = append(attrs, slog.Int64("untold", untold))
	}
	p.config.Logger.LogAttrs(ctx, level, "a call is refused", attrs...)
}

const (
	// maxSubjects and maxText bound what a line of the log repeats of a request.
	maxSubjects = 10
	maxText     = 256
)

func subjectAttrs(all []string) []slog.Attr {
	if len(all) == 0 {
		return nil
	}
	some := make([]string, min(len(all), maxSubjects))
	for i := range some {
		some[i] = cut(all[i])
	}
	return []slog.Attr{slog.Any("subjects", some), slog.Int("subject_count", len(all))}
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return s[:maxText] + "..."
}
