// Package follow keeps a collector subscribed to a registry: one subscription at
// a time, with a watchdog, a backoff, and acknowledgements.
//
// Its invariant: no end of a stream, however it comes about, changes the set;
// only what Members makes of a frame does.
package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Members is what frames are for. Begin, Take and Malformed are called by one
// goroutine at a time.
type Members interface {
	// Begin prepares for a new stream and tells what to subscribe with.
	Begin() *assignment.Accepted

	// Take takes the next frame. An error ends the stream.
	Take(ctx context.Context, frame assignment.Frame) (membership.Event, error)

	// Malformed refuses a frame that could not be decoded.
	Malformed(ctx context.Context, err error)

	// Expunged takes it that the registry wants this collector no more. It may
	// be called again and again.
	Expunged(ctx context.Context) error
}

// Holder is what acknowledgements are about. It is safe for concurrent use.
type Holder interface {
	Status() membership.Status

	// HeldIDs returns up to limit held producers behind an id, in the order of
	// the ids.
	HeldIDs(after assignment.ProducerID, limit int) []assignment.ProducerID

	// Accepted returns those of some producers that are in the accepted set.
	Accepted(ids []assignment.ProducerID) []assignment.ProducerID

	// Explained takes what the registry says of held producers.
	Explained(ctx context.Context, named []assignment.Removal)
}

// Runner knows how assignments are run. It is safe for concurrent use.
type Runner interface {
	// Unrunnable returns the number of those that cannot be run, and some of
	// them.
	Unrunnable() (int, []Unrunnable)

	// Collected returns targets of handoffs that have been collected here: up
	// to limit behind a position, which is 0 at the beginning, and the position
	// to go on from.
	Collected(after uint64, limit int) ([]assignment.ProducerID, uint64)
}

// An Unrunnable assignment is accepted and not run.
type Unrunnable struct {
	ProducerID assignment.ProducerID
	Reason     string
}

// Config is what a Follower needs.
type Config struct {
	// Addresses are the registry's, host:port; each try takes the next one.
	Addresses []string

	// Dial makes connections; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Credentials are those of the connections; nil: plain text.
	Credentials credentials.TransportCredentials

	// Collector is how this collector makes itself known.
	Collector wire.CollectorInfo

	Members Members
	Holder  Holder
	Runner  Runner
	Logger  *slog.Logger
	Metrics *Metrics
}

// The times of a Follower.
const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 30 * time.Second
	silentBeats = 3
	callTimeout = 10 * time.Second
	maxAway     = time.Minute

	// steady is how long a stream must stand after its first seal to show that
	// all is well again: one that is sealed and ended at once, over and over,
	// must not be asked for ever faster.
	steady = 10 * time.Second

	// proveWithin bounds how long a stream may go without a proof: a seal, or an
	// equal heartbeat after one. The watchdog only notices silence; frames that
	// come to nothing, such as a snapshot without end, feed it. A set of a
	// million is sealed within this time at 2 Mbit/s.
	proveWithin = 10 * time.Minute
)

// maxFrame bounds one frame: a chunk with room to spare.
const maxFrame = 4 * assignment.MaxChunkBytes

// maxHeaders bounds headers and trailers, and so the text of an error.
const maxHeaders = 64 << 10

// Errors that end a stream from this side.
var (
	errSilent   = errors.New("no frame for three heartbeat intervals")
	errDiverged = errors.New("diverged from the registry")
	errAway     = errors.New("the registry asked to go elsewhere")
	errUnproven = errors.New("nothing was sealed or confirmed for ten minutes")
)

// A Follower follows the registry.
type Follower struct {
	Config

	// registered is closed, by known, when a registry knows this collector.
	registered chan struct{}
	known      sync.Once

	// collected holds one token when there may be a target of a handoff to tell
	// of that has been collected.
	collected chan struct{}

	// closing are connections that say goodbye, which a silent peer delays.
	closing sync.WaitGroup

	mu     sync.Mutex // guards status
	status Status
}

// Status is how the subscription is doing.
type Status struct {
	Subscribed bool
	Address    string
	Generation assignment.Generation

	// LastError is why the last subscription ended or could not be had.
	LastError string
}

// New makes a Follower.
func New(c Config) *Follower {
	return &Follower{Config: c, registered: make(chan struct{}), collected: make(chan struct{}, 1)}
}

// TargetCollected says that the Runner's Collected has more. It does not wait.
func (f *Follower) TargetCollected() {
	select {
	case f.collected <- struct{}{}:
	default:
	}
}

// Registered is closed once a registry has taken this process's registration.
func (f *Follower) Registered() <-chan struct{} { return f.registered }

// Status tells how the subscription is doing.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *Follower) update(change func(*Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
	f.Metrics.Subscribed.Set(0)
	if f.status.Subscribed {
		f.Metrics.Subscribed.Set(1)
	}
}

// Run subscribes again and again until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	defer f.closing.Wait()
	pace := pacer{}
	for n := 0; ; n++ {
		address := f.Addresses[n%len(f.Addresses)]
		s := &session{Follower: f, address: address}
		err := s.run(ctx)
		if expunged(err) {
			err = errors.Join(err, f.Members.Expunged(ctx))
		}
		f.update(func(st *Status) {
			st.Subscribed = false
			st.LastError = clip(err.Error())
		})
		if ctx.Err() != nil {
			return nil
		}
		wait := pace.next(err, s, f.Addresses[(n+1)%len(f.Addresses)])
		f.Metrics.Ended.WithLabelValues(reasonOf(err, s)).Inc()
		f.Logger.WarnContext(ctx, "the subscription ended; collecting goes on", "address", address,
			"error", err, "sealed", s.sealed, "retry_in", wait)
		if wait <= 0 {
			continue
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// clip bounds what is kept of an error, whose text may be the registry's.
func clip(s string) string {
	const most = 512
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// reasonOf is a label for the end of a stream, one of a closed set.
func reasonOf(err error, s *session) string {
	switch {
	case !s.awayUntil.IsZero():
		return "go_away"
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, errDiverged):
		return "diverged"
	case errors.Is(err, errUnproven):
		return "unproven"
	case errors.Is(err, errRefused):
		return "refused"
	case status.Code(err) == codes.Aborted:
		return "superseded"
	case expunged(err):
		return "expunged"
	case status.Code(err) == codes.Unavailable:
		return "unavailable"
	case status.Code(err) == codes.ResourceExhausted:
		return "exhausted" // a bound of the registry's, or a frame over ours
	default:
		return "error"
	}
}

// expunged tells whether the registry refused this collector because it was
// expunged.
func expunged(err error) bool {
	s, ok := status.FromError(err)
	if !ok || s.Code() != codes.FailedPrecondition {
		return false
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "rollcall" && info.GetReason() == "EXPUNGED" {
			return true
		}
	}
	return false
}

// connect makes a connection of its own for one try, so that no backoff but the
// Follower's is at work.
func (f *Follower) connect(address string) (*grpc.ClientConn, error) {
	creds := f.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithInitialWindowSize(4 << 20),
		grpc.WithInitialConnWindowSize(8 << 20),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
	}
	if f.Dial != nil {
		options = append(options, grpc.WithContextDialer(f.Dial))
	}
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn, nil
}
