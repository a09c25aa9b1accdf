// Package api answers the registry's gRPC services.
//
// Its invariant: a request reaches the registrar only as a checked domain type,
// and every error leaves through one map to a status.
package api

import (
	"encoding/base64"
	"log/slog"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Config is what the API needs.
type Config struct {
	Registrar *registrar.Registrar

	// Instance names this registry process.
	Instance assignment.InstanceID

	// Endpoints says which endpoints may be registered.
	Endpoints endpoint.Policy

	// RenewAfter is what the registration of a permanent producer is told to wait
	// before the next. One with a lease is told a third of that.
	RenewAfter time.Duration

	// Heartbeat is the interval that subscribers are told.
	Heartbeat time.Duration

	// MaxSubscriptions bounds the subscriptions that are being opened or stand,
	// observers included; 0: DefaultMaxSubscriptions.
	MaxSubscriptions int

	// MaxSnapshots bounds the first snapshots that are being sent; 0:
	// DefaultMaxSnapshots.
	MaxSnapshots int

	// RegistrationRate is how many registrations a second are taken from one peer;
	// 0: as many as come.
	RegistrationRate int

	// MaxProducers is how many producers may count for an identity whose rule does
	// not say; 0: as many as come.
	MaxProducers int

	// MaxLabelBytes is how many bytes all names and values of a producer's labels
	// may have; 0: wire.MaxLabelBytes.
	MaxLabelBytes int

	Logger  *slog.Logger
	Metrics *Metrics
}

// API holds the services.
type API struct {
	Config
	doors *doors
	gate  *gate
	pace  *pace
}

// New makes the API.
func New(c Config) *API {
	if c.MaxSubscriptions == 0 {
		c.MaxSubscriptions = DefaultMaxSubscriptions
	}
	if c.MaxSnapshots == 0 {
		c.MaxSnapshots = DefaultMaxSnapshots
	}
	return &API{
		Config: c,
		doors:  newDoors(c.MaxSubscriptions, c.Metrics),
		gate:   newGate(c.MaxSnapshots, c.Metrics),
		pace:   newPace(c.RegistrationRate, c.Metrics),
	}
}

// Register adds the services to a server. It must use wire.Codec.
func (a *API) Register(s grpc.ServiceRegistrar) {
	registryv1.RegisterAssignmentServiceServer(s, assignmentService{API: a})
	registryv1.RegisterProducerServiceServer(s, producerService{API: a})
	registryv1.RegisterCollectorServiceServer(s, collectorService{API: a})
	registryv1.RegisterPlacementServiceServer(s, placementService{API: a})
}

type (
	assignmentService struct {
		registryv1.UnsafeAssignmentServiceServer
		*API
	}
	producerService struct {
		registryv1.UnsafeProducerServiceServer
		*API
	}
	collectorService struct {
		registryv1.UnsafeCollectorServiceServer
		*API
	}
	placementService struct {
		registryv1.UnsafePlacementServiceServer
		*API
	}
)

// The bounds of pages.
const (
	defaultPage = 100
	maxPage     = 1000
)

// page is a checked request for a page: so many items after an id.
type page struct {
	size  int
	after string
}

// decodePage checks the size and token of a page. parse checks the id inside
// the token.
func decodePage(size int32, token string, parse func(string) error) (page, error) {
	p := page{size: int(size)}
	switch {
	case size < 0:
		return p, violation("page_size", "is negative")
	case size == 0:
		p.size = defaultPage
	case size > maxPage:
		p.size = maxPage
	}
	if token == "" {
		return p, nil
	}
	after, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || parse(string(after)) != nil {
		return p, violation("page_token", "is not one that this service gave")
	}
	p.after = string(after)
	return p, nil
}

func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func violation(field, description string) error {
	return wire.Violations{{Field: field, Description: description}}
}

// stale tells whether a read may be old: it was answered from the view, and the
// store is away.
func (a *API) stale() bool { return !a.Registrar.Serving() }

func checkMinRevision(n int64) error {
	if n < 0 {
		return violation("min_revision", "is negative")
	}
	return nil
}

// timestamp is nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
