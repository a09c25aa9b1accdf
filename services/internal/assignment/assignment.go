package assignment

import (
	"slices"
	"time"
)

// A Version identifies the content of one producer's assignment: the XXH64 of
// its stored bytes. (ProducerID, Version) means the same in every epoch.
type Version uint64

// A Role is the part that a collector plays for a producer. Values this
// version does not know are kept as they are and treated as Owner.
type Role uint8

// The roles, numbered as in the protocol: the number is part of the digest.
const (
	RoleUnspecified   Role = 0
	RoleOwner         Role = 1
	RoleHandoffSource Role = 2
	RoleHandoffTarget Role = 3
)

// A Format is how a producer writes its metrics, numbered as in the protocol.
type Format int32

// The formats.
const (
	FormatUnspecified    Format = 0
	FormatPrometheusText Format = 1
	FormatOpenMetrics    Format = 2
	FormatProtobuf       Format = 3
)

// A Label is one name with its value.
type Label struct{ Name, Value string }

// Limits bound one collection. Zero means the collector's default.
type Limits struct {
	MaxBodyBytes       int64
	MaxSamples         int32
	MaxLabels          int32
	MaxLabelValueBytes int32
}

// An Assignment is a producer given to a collector. It is immutable once it is
// a member of a set.
type Assignment struct {
	ProducerID ProducerID
	Version    Version
	Role       Role

	// Endpoint is a URL. An assignment from a newer registry may have one that
	// this collector cannot run.
	Endpoint string
	Interval time.Duration
	Timeout  time.Duration

	// Labels are sorted by name, without duplicates.
	Labels           []Label
	HonorLabels      bool
	IgnoreTimestamps bool
	Limits           Limits
	FallbackFormat   Format

	// Credential names one of the collector's own; empty is none.
	// TLSServerName is whom the endpoint's certificate has to be for; empty is
	// the endpoint's host.
	Credential    string
	TLSServerName string

	// Permanent says that the producer has no lease. It makes no difference to
	// collecting.
	Permanent bool
}

// ID is the producer's id. With Hash it makes *Assignment a Member.
func (a *Assignment) ID() ProducerID { return a.ProducerID }

// Hash is the assignment's part of the digest. It is computed anew at each
// call; a Set keeps it.
func (a *Assignment) Hash() Hash { return HashOf(a.ProducerID, a.Version, a.Role) }

// SameWork reports whether two assignments ask for the same collections, so
// that a running one need not be touched.
func (a *Assignment) SameWork(b *Assignment) bool {
	return a.ProducerID == b.ProducerID &&
		a.Endpoint == b.Endpoint &&
		a.Interval == b.Interval &&
		a.Timeout == b.Timeout &&
		a.HonorLabels == b.HonorLabels &&
		a.IgnoreTimestamps == b.IgnoreTimestamps &&
		a.Limits == b.Limits &&
		a.FallbackFormat == b.FallbackFormat &&
		a.Credential == b.Credential &&
		a.TLSServerName == b.TLSServerName &&
		a.Permanent == b.Permanent &&
		slices.Equal(a.Labels, b.Labels)
}
