package process

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// A reason is why a connection was refused, or ended.
type reason string

// The reasons.
const (
	refusedExpired    reason = "expired"
	refusedNotYet     reason = "not_yet_valid"
	refusedUnknown    reason = "unknown_authority"
	refusedSelfSigned reason = "self_signed"
	refusedUsage      reason = "wrong_usage"
	refusedInvalid    reason = "invalid"
	refusedVersion    reason = "version"     // no version of TLS in common
	refusedPlain      reason = "plain_text"  // to a port with TLS
	refusedTLS        reason = "tls"         // to a port without
	refusedFull       reason = "connections" // as many as there may be
	refusedShare      reason = "address"     // as many as one address may have
	refusedEnded      reason = "ended"       // a certificate, while its connection stood
)

// Refusals count the connections that are refused, and tell of some: whoever
// reaches a port can have as many as he likes.
type Refusals struct {
	logger  *slog.Logger
	lines   *rate.Limiter
	untold  atomic.Int64
	refused *prometheus.CounterVec
}

// The lines of Refusals, in a second and at once.
const (
	refusalRate  = 2
	refusalBurst = 10
)

// NewRefusals makes the counter of a process.
func NewRefusals(logger *slog.Logger, r prometheus.Registerer) *Refusals {
	f := &Refusals{
		logger: logger,
		lines:  rate.NewLimiter(refusalRate, refusalBurst),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_tls_refused_total",
			Help: "Connections that were refused before anything was asked, and those that were closed because the peer's certificate ended (ended), by reason.",
		}, []string{"reason"}),
	}
	for _, known := range []reason{
		refusedExpired, refusedNotYet, refusedUnknown, refusedSelfSigned, refusedUsage, refusedInvalid,
		refusedVersion, refusedPlain, refusedTLS, refusedFull, refusedShare, refusedEnded,
	} {
		f.refused.WithLabelValues(string(known))
	}
	r.MustRegister(f.refused)
	return f
}

// note counts a refusal, and tells of it unless there are too many. The
// certificate is the peer's, or nil.
func (f *Refusals) note(from net.Addr, why reason, shown *x509.Certificate) {
	f.refused.WithLabelValues(string(why)).Inc()
	if !f.lines.Allow() {
		f.untold.Add(1)
		return
	}
	attrs := []slog.Attr{slog.String("reason", string(why)), slog.String("address", from.String())}
	if shown != nil {
		attrs = append(attrs, slog.String("subject", clip(shown.Subject.String())), slog.String("names", names(shown)),
			slog.Time("not_before", shown.NotBefore), slog.Time("not_after", shown.NotAfter))
	}
	if untold := f.untold.Swap(0); untold > 0 {
		attrs = append(attrs, slog.Int64("untold", untold))
	}
	if why == refusedEnded { // as it must to everybody who renews
		f.logger.LogAttrs(context.Background(), slog.LevelInfo, "a connection ended with the peer's certificate", attrs...)
		return
	}
	f.logger.LogAttrs(context.Background(), slog.LevelWarn, "a connection was refused", attrs...)
}
