package wire

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The bounds of a registration.
const (
	MinInterval     = 100 * time.Millisecond
	MaxInterval     = 24 * time.Hour
	MinTimeout      = 10 * time.Millisecond
	DefaultInterval = 15 * time.Second
	DefaultTimeout  = 10 * time.Second
	MaxLabels       = 64
	MaxLabelBytes   = 8 << 10
	maxTextBytes    = 128

	MinLease      = 10 * time.Second
	MaxLease      = 24 * time.Hour
	DefaultLease  = 10 * time.Minute
	MaxExpiry     = 30 * 24 * time.Hour
	DefaultExpiry = time.Hour
	MaxRate       = 10_000_000 // samples per second, of a producer
	MaxCapacity   = 1e12       // samples per second, of a collector
	MaxZoneBytes  = maxTextBytes
)

// A Registration is a producer that asks to be collected.
type Registration struct {
	// Assignment is what a collector needs; Version and Role are not set.
	Assignment *assignment.Assignment

	// URL is the assignment's endpoint, parsed.
	URL *url.URL

	// Instance is empty for a registration by hand.
	Instance assignment.InstanceID

	// Hint is the collector of the producer's last answer, or empty.
	Hint assignment.CollectorID

	// Lease is how long the registration lives without being renewed, and
	// ExpireAfter how long the producer must be silent before it is struck off.
	// Both are zero for a permanent one.
	Lease       time.Duration
	ExpireAfter time.Duration

	// Zone may be empty. Rate is about how many samples a second it yields; zero
	// when that is not told.
	Zone string
	Rate float64
}

// DecodeProducer checks a registration. field is the path of the message; the
// error is Violations.
func DecodeProducer(m *registryv1.Producer, field string) (*Registration, error) {
	var v Violations
	if m == nil {
		v.add(field, "is required")
		return nil, v
	}
	a := &assignment.Assignment{
		Endpoint:         m.GetEndpoint(),
		HonorLabels:      m.GetHonorLabels(),
		IgnoreTimestamps: m.GetIgnoreTimestamps(),
		FallbackFormat:   assignment.Format(m.GetFallbackFormat()),
	}
	r := &Registration{Assignment: a}
	var err error
	a.ProducerID, err = assignment.ParseProducerID(m.GetProducerId())
	v.check(field+".producer_id", err)
	r.URL, err = endpoint.Parse(m.GetEndpoint())
	v.check(field+".endpoint", err)
	decodeTimes(m, field, a, &v)
	a.Labels = decodeRequestLabels(m.GetLabels(), field+".labels", &v)
	a.Limits = decodeLimits(m.GetLimits(), field+".limits", &v)
	if f := m.GetFallbackFormat(); f < 0 || f > registryv1.ExpositionFormat_EXPOSITION_FORMAT_PROMETHEUS_PROTOBUF {
		v.add(field+".fallback_format", "%d is not known", f)
	}
	decodeAccess(m, field, a, &v)
	if s := m.GetInstanceId(); s != "" {
		r.Instance, err = assignment.ParseInstanceID(s)
		v.check(field+".instance_id", err)
	}
	if s := m.GetLastCollectorId(); s != "" {
		r.Hint, err = assignment.ParseCollectorID(s)
		v.check(field+".last_collector_id", err)
	}
	decodeLife(m, field, r, &v)
	r.Zone = decodeZone(m.GetZone(), field+".zone", &v)
	r.Rate = decodeRate(m.GetExpectedSamplesPerSecond(), MaxRate, field+".expected_samples_per_second", &v)
	return r, v.err()
}

// decodeAccess checks what is needed to be answered by an endpoint.
func decodeAccess(m *registryv1.Producer, field string, a *assignment.Assignment, v *Violations) {
	if a.Credential = m.GetCredential(); a.Credential != "" {
		v.check(field+".credential", assignment.CheckCredential(a.Credential))
	}
	if a.TLSServerName = m.GetTlsServerName(); a.TLSServerName != "" && !endpoint.ServerName(a.TLSServerName) {
		v.add(field+".tls_server_name", "%q: want a host name or an address, at most %d bytes", clip(a.TLSServerName), endpoint.MaxServerName)
	}
}

// decodeLife decides whether a producer has a lease, and which.
func decodeLife(m *registryv1.Producer, field string, r *Registration, v *Violations) {
	r.Assignment.Permanent = m.GetInstanceId() == ""
	if m.Permanent != nil {
		r.Assignment.Permanent = m.GetPermanent()
	}
	if r.Assignment.Permanent {
		if m.GetLeaseDuration() != nil {
			v.add(field+".lease_duration", "is not for a permanent producer; one without an instance_id is permanent unless permanent is false")
		}
		if m.GetExpireAfter() != nil {
			v.add(field+".expire_after", "is not for a permanent producer; one without an instance_id is permanent unless permanent is false")
		}
		return
	}
	before := len(*v)
	r.Lease = decodeSpan(m.GetLeaseDuration(), field+".lease_duration", DefaultLease, MinLease, MaxLease, v)
	least := r.Lease
	if len(*v) > before {
		least = MinLease // the lease's fault is not the expiry's too
	}
	r.ExpireAfter = decodeSpan(m.GetExpireAfter(), field+".expire_after", max(DefaultExpiry, r.Lease), least, MaxExpiry, v)
}

func decodeZone(s, field string, v *Violations) string {
	switch {
	case len(s) > MaxZoneBytes:
		v.add(field, "%d bytes, at most %d are allowed", len(s), MaxZoneBytes)
	case !utf8.ValidString(s):
		v.add(field, "is not valid UTF-8")
	default:
		return s
	}
	return ""
}

func decodeRate(rate, most float64, field string, v *Violations) float64 {
	if !(rate >= 0 && rate <= most) { // NaN is neither
		v.add(field, "%v, want 0 to %v", rate, most)
		return 0
	}
	return rate
}

func decodeTimes(m *registryv1.Producer, field string, a *assignment.Assignment, v *Violations) {
	before := len(*v)
	a.Interval = decodeSpan(m.GetInterval(), field+".interval", DefaultInterval, MinInterval, MaxInterval, v)
	longest := a.Interval
	if len(*v) > before {
		longest = MaxInterval // the interval's fault is not the timeout's too
	}
	a.Timeout = decodeSpan(m.GetTimeout(), field+".timeout", min(DefaultTimeout, a.Interval), MinTimeout, longest, v)
}

func decodeSpan(m *durationpb.Duration, field string, missing, least, most time.Duration, v *Violations) time.Duration {
	if m == nil {
		return missing
	}
	if err := m.CheckValid(); err != nil {
		v.add(field, "is not a duration")
		return missing
	}
	d := m.AsDuration()
	switch {
	case d < least || d > most:
		v.add(field, "%v, want %v to %v", d, least, most)
		return missing
	case !millis(d):
		v.add(field, "%v is not a whole number of milliseconds", d)
		return missing
	}
	return d
}

func decodeLimits(m *registryv1.CollectionLimits, field string, v *Violations) assignment.Limits {
	v.checkNotNegative(field+".max_body_bytes", m.GetMaxBodyBytes())
	v.checkNotNegative(field+".max_sample_count", int64(m.GetMaxSampleCount()))
	v.checkNotNegative(field+".max_label_count", int64(m.GetMaxLabelCount()))
	v.checkNotNegative(field+".max_label_value_bytes", int64(m.GetMaxLabelValueBytes()))
	return assignment.Limits{
		MaxBodyBytes:       m.GetMaxBodyBytes(),
		MaxSamples:         m.GetMaxSampleCount(),
		MaxLabels:          m.GetMaxLabelCount(),
		MaxLabelValueBytes: m.GetMaxLabelValueBytes(),
	}
}

func decodeRequestLabels(ms []*registryv1.Label, field string, v *Violations) []assignment.Label {
	if len(ms) > MaxLabels {
		v.add(field, "%d labels, at most %d are allowed", len(ms), MaxLabels)
		return nil
	}
	labels := make([]assignment.Label, 0, len(ms))
	bytes := 0
	for i, m := range ms {
		name, value := m.GetName(), m.GetValue()
		bytes += len(name) + len(value)
		if err := checkLabelName(name); err != nil {
			v.add(field+"["+strconv.Itoa(i)+"].name", "%v", err)
		}
		if !utf8.ValidString(value) {
			v.add(field+"["+strconv.Itoa(i)+"].value", "is not valid UTF-8")
		}
		if value != "" {
			labels = append(labels, assignment.Label{Name: name, Value: value})
		}
	}
	if bytes > MaxLabelBytes {
		v.add(field, "%d bytes, at most %d are allowed", bytes, MaxLabelBytes)
		return nil
	}
	sortLabels(labels)
	for i := 1; i < len(labels); i++ {
		if labels[i].Name == labels[i-1].Name {
			v.add(field, "name %q stands twice", labels[i].Name)
		}
	}
	if len(labels) == 0 {
		return nil
	}
	return labels
}

func checkLabelName(s string) error {
	if s == "" {
		return fmt.Errorf("is required")
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return fmt.Errorf("%q is not a label name: [a-zA-Z_][a-zA-Z0-9_]*", clip(s))
		}
	}
	if len(s) >= 2 && s[:2] == "__" {
		return fmt.Errorf("%q is reserved", clip(s))
	}
	return nil
}

// clip bounds what is kept or quoted from a request. It cuts between two
// characters: half a one would make every answer that quotes it fail.
func clip(s string) string {
	if len(s) > maxTextBytes {
		return strings.ToValidUTF8(s[:maxTextBytes], "") + "..."
	}
	return s
}

// EncodeProducer makes the message of a producer's assignment; the caller adds
// the output-only fields.
func EncodeProducer(a *assignment.Assignment) *registryv1.Producer {
	m := assignmentMessage(a)
	return &registryv1.Producer{
		ProducerId:       m.ProducerId,
		Endpoint:         m.Endpoint,
		Interval:         m.Interval,
		Timeout:          m.Timeout,
		Labels:           m.Labels,
		HonorLabels:      m.HonorLabels,
		IgnoreTimestamps: m.IgnoreTimestamps,
		Limits:           m.Limits,
		FallbackFormat:   m.FallbackFormat,
		Credential:       m.Credential,
		TlsServerName:    m.TlsServerName,
		Permanent:        new(a.Permanent),
		Version:          uint64(a.Version),
	}
}

// CollectorInfo is a collector that makes itself known.
type CollectorInfo struct {
	ID                    assignment.CollectorID
	Instance              assignment.InstanceID
	IntrospectionEndpoint string
	Labels                []assignment.Label
	SoftwareVersion       string

	// Capacity is how many samples a second it is made for; zero when it does
	// not tell.
	Capacity float64
	Zone     string
}

// DecodeCollector checks the registration of a collector; the error is
// Violations.
func DecodeCollector(m *registryv1.Collector) (*CollectorInfo, error) {
	var v Violations
	if m == nil {
		v.add("collector", "is required")
		return nil, v
	}
	c := &CollectorInfo{
		IntrospectionEndpoint: m.GetIntrospectionEndpoint(),
		SoftwareVersion:       m.GetSoftwareVersion(),
	}
	var err error
	c.ID, err = assignment.ParseCollectorID(m.GetCollectorId())
	v.check("collector.collector_id", err)
	c.Instance, err = assignment.ParseInstanceID(m.GetInstanceId())
	v.check("collector.instance_id", err)
	if s := m.GetIntrospectionEndpoint(); s != "" {
		u, err := endpoint.Parse("http://" + s)
		if err != nil || u.Host != s || u.Port() == "" || len(s) > 2*maxTextBytes {
			v.add("collector.introspection_endpoint", "%q, want host:port", clip(s))
		}
	}
	if n := len(m.GetSoftwareVersion()); n > maxTextBytes {
		v.add("collector.software_version", "%d bytes, at most %d are allowed", n, maxTextBytes)
	}
	c.Labels = decodeRequestLabels(m.GetLabels(), "collector.labels", &v)
	c.Capacity = decodeRate(m.GetCapacitySamplesPerSecond(), MaxCapacity, "collector.capacity_samples_per_second", &v)
	c.Zone = decodeZone(m.GetZone(), "collector.zone", &v)
	return c, v.err()
}

// EncodeCollector is the reverse of DecodeCollector.
func EncodeCollector(c *CollectorInfo) *registryv1.Collector {
	return &registryv1.Collector{
		CollectorId:           string(c.ID),
		InstanceId:            string(c.Instance),
		IntrospectionEndpoint: c.IntrospectionEndpoint,
		Labels:                EncodeLabels(c.Labels),
		SoftwareVersion:       c.SoftwareVersion,

		CapacitySamplesPerSecond: c.Capacity,
		Zone:                     c.Zone,
	}
}

// A Subscription is a request for a collector's assignments.
type Subscription struct {
	Collector   assignment.CollectorID
	Instance    assignment.InstanceID
	Generation  assignment.Generation
	MinRevision assignment.Revision

	// Accepted is nil when everything is wanted.
	Accepted *assignment.Accepted
	Observe  bool
}

// DecodeSubscribe checks a request; the error is Violations.
func DecodeSubscribe(m *registryv1.SubscribeRequest) (*Subscription, error) {
	var v Violations
	s := &Subscription{
		Generation:  assignment.Generation(m.GetGeneration()),
		MinRevision: assignment.Revision(m.GetMinRevision()),
		Observe:     m.GetObserve(),
	}
	var err error
	s.Collector, err = assignment.ParseCollectorID(m.GetCollectorId())
	v.check("collector_id", err)
	if !s.Observe {
		s.Instance, err = assignment.ParseInstanceID(m.GetInstanceId())
		v.check("instance_id", err)
		if s.Generation <= 0 {
			v.add("generation", "%d, want what RegisterCollector answered", s.Generation)
		}
	}
	v.checkNotNegative("min_revision", m.GetMinRevision())
	s.Accepted = decodeAccepted(m.GetAccepted(), &v)
	return s, v.err()
}

// EncodeSubscribe is the reverse of DecodeSubscribe.
func EncodeSubscribe(s *Subscription) *registryv1.SubscribeRequest {
	return &registryv1.SubscribeRequest{
		CollectorId: string(s.Collector),
		InstanceId:  string(s.Instance),
		Generation:  int64(s.Generation),
		MinRevision: int64(s.MinRevision),
		Accepted:    EncodeAccepted(s.Accepted),
		Observe:     s.Observe,
	}
}
