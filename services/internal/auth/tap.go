package auth

import (
	"context"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// The bounds of calls by nobody: those without an identity, which are refused, and
// probes of health. gRPC takes a whole message before anybody may look at it.
const (
	strangerTime       = 10 * time.Second
	strangersPerOrigin = 4 // of one address, of IPv6 of one network
	strangersInAll     = 64
)

// Tap looks at a call before any message of it is read: those that nobody makes are
// few at a time, and end soon. It is for grpc.InTapHandle.
//
// It refuses only what is too many: a refusal here has no details, and the
// interceptors have all that there is to tell.
func (p *Porter) Tap() tap.ServerInHandle {
	s := &strangers{by: map[string]int{}}
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		if p.config.Open || p.proven(ctx, info) {
			return ctx, nil
		}
		origin := originOf(ctx)
		if !s.enter(origin) {
			if p.config.Metrics != nil {
				p.config.Metrics.Denied.WithLabelValues("grpc", exhausted, "TOO_MANY").Inc()
			}
			return nil, status.Error(codes.ResourceExhausted, "too many calls by callers that are not known; try again later")
		}
		ctx, cancel := context.WithTimeout(ctx, strangerTime)
		context.AfterFunc(ctx, func() { cancel(); s.leave(origin) })
		return ctx, nil
	}
}

// proven tells whether a call is somebody's. It is told of neither, and cheap: the
// connection waits for it.
func (p *Porter) proven(ctx context.Context, info *tap.Info) bool {
	given := credentialsOf(ctx)
	given.header = info.Header.Get("authorization")
	_, reason, _ := identify(p.rules(), given)
	return reason == ""
}

// strangers are the calls that nobody makes.
type strangers struct {
	mu  sync.Mutex // guards what follows
	all int
	by  map[string]int
}

// enter counts one in, if it is not too many. Those from this host are never: a
// flood from elsewhere must not fail the probes of a container.
func (s *strangers) enter(origin string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if origin != endpoint.Loopback {
		if s.all-s.by[endpoint.Loopback] >= strangersInAll || s.by[origin] >= strangersPerOrigin {
			return false
		}
	}
	s.all++
	s.by[origin]++
	return true
}

func (s *strangers) leave(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[origin]--; s.by[origin] == 0 {
		delete(s.by, origin)
	}
}

// originOf is where a call comes from.
func originOf(ctx context.Context) string {
	at, ok := peer.FromContext(ctx)
	if !ok || at.Addr == nil {
		return ""
	}
	return endpoint.Origin(at.Addr.String())
}
