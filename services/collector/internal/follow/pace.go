package follow

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pacer says how long to wait before the next try: full jitter below a bound
// that doubles with each failure and is reset by a stream that stood, and not
// before the time that the registry to be tried has told.
type pacer struct {
	failures     int
	lastDiverged time.Time

	// notBefore is when a registry that was busy, or had no view of its store,
	// wants to be asked again. It says nothing of another one.
	notBefore map[string]time.Time
}

// next is the wait between the end of a session and the try of an address.
func (p *pacer) next(err error, s *session, address string) time.Duration {
	p.heed(s.address, wire.RetryDelay(err))
	return max(p.backoff(err, s), time.Until(p.notBefore[address]))
}

// heed notes how long a registry wants to be left alone, as long as that is no
// longer than a backoff may be. Those whom it told the same do not all come back
// at once.
func (p *pacer) heed(address string, delay time.Duration) {
	delete(p.notBefore, address)
	if delay <= 0 {
		return
	}
	if p.notBefore == nil {
		p.notBefore = map[string]time.Time{}
	}
	delay = min(delay, maxBackoff)
	p.notBefore[address] = time.Now().Add(delay + rand.N(max(delay/4, minBackoff)))
}

// backoff is the wait for a reason of one's own.
func (p *pacer) backoff(err error, s *session) time.Duration {
	if s.sealed && time.Since(s.sealedAt) >= steady {
		p.failures = 0
	}
	if !s.awayUntil.IsZero() {
		return p.away(s.awayUntil)
	}
	if errors.Is(err, errDiverged) && time.Since(p.lastDiverged) > time.Minute {
		p.lastDiverged = time.Now()
		return 0
	}
	bound := min(minBackoff<<min(p.failures, 20), maxBackoff)
	p.failures++
	if status.Code(err) == codes.Aborted {
		// Another instance has taken this one's place: go on, but do not fight.
		return maxBackoff/2 + rand.N(maxBackoff/2)
	}
	return rand.N(bound)
}

// away is the wait after a go_away: until the time that was drawn, and longer
// for a registry that does nothing but send its subscribers away.
func (p *pacer) away(until time.Time) time.Duration {
	wait := max(minBackoff, time.Until(until))
	if p.failures > 0 {
		wait += rand.N(min(minBackoff<<min(p.failures, 20), maxBackoff))
	}
	p.failures++
	return wait
}
