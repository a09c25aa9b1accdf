package wire_test

import (
	"math"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/types/known/durationpb"
)

func byHand(m *registryv1.Producer)    { m.InstanceId = "" }
func permanent(m *registryv1.Producer) { m.Permanent = new(true) }
func leased(m *registryv1.Producer)    { m.Permanent = new(false) }

func lease(d time.Duration) func(*registryv1.Producer) {
	return func(m *registryv1.Producer) { m.LeaseDuration = span(d) }
}

func expiry(d time.Duration) func(*registryv1.Producer) {
	return func(m *registryv1.Producer) { m.ExpireAfter = span(d) }
}

func all(changes ...func(*registryv1.Producer)) func(*registryv1.Producer) {
	return func(m *registryv1.Producer) {
		for _, change := range changes {
			change(m)
		}
	}
}

// A producer with an instance has a lease, one without is permanent, and either
// may say otherwise.
func TestDecodeLife(t *testing.T) {
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		change        func(*registryv1.Producer)
		permanent     bool
		lease, expiry time.Duration
		fields        []string
	}{
		"an instance":                      {change: all(), lease: 10 * time.Minute, expiry: time.Hour},
		"by hand":                          {change: byHand, permanent: true},
		"an instance, permanent":           {change: permanent, permanent: true},
		"by hand, leased":                  {change: all(byHand, leased), lease: 10 * time.Minute, expiry: time.Hour},
		"a lease":                          {change: lease(time.Minute), lease: time.Minute, expiry: time.Hour},
		"a lease over the default expiry":  {change: lease(2 * time.Hour), lease: 2 * time.Hour, expiry: 2 * time.Hour},
		"an expiry":                        {change: expiry(day), lease: 10 * time.Minute, expiry: day},
		"an expiry as long as the lease":   {change: all(lease(time.Minute), expiry(time.Minute)), lease: time.Minute, expiry: time.Minute},
		"an expiry under the lease":        {change: all(lease(time.Minute), expiry(59*time.Second)), fields: []string{"p.expire_after"}},
		"an expiry under the default":      {change: expiry(9 * time.Minute), fields: []string{"p.expire_after"}},
		"the shortest lease":               {change: lease(10 * time.Second), lease: 10 * time.Second, expiry: time.Hour},
		"a shorter lease":                  {change: lease(9999 * time.Millisecond), fields: []string{"p.lease_duration"}},
		"the longest lease":                {change: lease(day), lease: day, expiry: day},
		"a longer lease":                   {change: lease(day + time.Millisecond), fields: []string{"p.lease_duration"}},
		"the longest expiry":               {change: expiry(30 * day), lease: 10 * time.Minute, expiry: 30 * day},
		"a longer expiry":                  {change: expiry(30*day + time.Millisecond), fields: []string{"p.expire_after"}},
		"a bad lease, an expiry that fits": {change: all(lease(time.Second), expiry(time.Minute)), fields: []string{"p.lease_duration"}},
		"a lease of nothing":               {change: lease(0), fields: []string{"p.lease_duration"}},
		"a negative lease":                 {change: lease(-time.Minute), fields: []string{"p.lease_duration"}},
		"a negative expiry":                {change: expiry(-time.Hour), fields: []string{"p.expire_after"}},
		"a lease not in milliseconds":      {change: lease(time.Minute + 1), fields: []string{"p.lease_duration"}},
		"a lease of most seconds": {
			change: func(m *registryv1.Producer) { m.LeaseDuration = &durationpb.Duration{Seconds: math.MaxInt64} },
			fields: []string{"p.lease_duration"},
		},
		"an expiry of most seconds": {
			change: func(m *registryv1.Producer) { m.ExpireAfter = &durationpb.Duration{Seconds: math.MaxInt64} },
			fields: []string{"p.expire_after"},
		},
		"a lease for a permanent one":   {change: all(permanent, lease(time.Minute)), fields: []string{"p.lease_duration"}},
		"an expiry for a permanent one": {change: all(permanent, expiry(time.Hour)), fields: []string{"p.expire_after"}},
		"a lease by hand":               {change: all(byHand, lease(time.Minute), expiry(time.Hour)), fields: []string{"p.lease_duration", "p.expire_after"}},
		"a lease by hand, leased":       {change: all(byHand, leased, lease(time.Minute)), lease: time.Minute, expiry: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := wire.DecodeProducer(producer(tc.change), "p")
			checkViolations(t, err, tc.fields...)
			if err == nil && (r.Assignment.Permanent != tc.permanent || r.Lease != tc.lease || r.ExpireAfter != tc.expiry) {
				t.Errorf("permanent %v, lease %v, expiry %v", r.Assignment.Permanent, r.Lease, r.ExpireAfter)
			}
		})
	}
}

// rates are numbers of samples per second, and whether a producer or a collector
// may have them.
var rates = []struct {
	rate                float64
	producer, collector bool
}{
	{0, true, true},
	{math.Copysign(0, -1), true, true},
	{0.01, true, true},
	{10_000_000, true, true},
	{10_000_000.1, false, true},
	{1e12, false, true},
	{1.1e12, false, false},
	{math.MaxFloat64, false, false},
	{-0.01, false, false},
	{-math.MaxFloat64, false, false},
	{math.Inf(1), false, false},
	{math.Inf(-1), false, false},
	{math.NaN(), false, false},
}

func TestDecodeRates(t *testing.T) {
	for _, tc := range rates {
		r, err := wire.DecodeProducer(producer(func(m *registryv1.Producer) { m.ExpectedSamplesPerSecond = tc.rate }), "p")
		if tc.producer {
			checkViolations(t, err)
			if err == nil && r.Rate != tc.rate {
				t.Errorf("%v became %v", tc.rate, r.Rate)
			}
		} else {
			checkViolations(t, err, "p.expected_samples_per_second")
		}
		m := wholeCollector()
		m.CapacitySamplesPerSecond = tc.rate
		c, err := wire.DecodeCollector(m)
		if tc.collector {
			checkViolations(t, err)
			if err == nil && c.Capacity != tc.rate {
				t.Errorf("%v became %v", tc.rate, c.Capacity)
			}
		} else {
			checkViolations(t, err, "collector.capacity_samples_per_second")
		}
	}
}

func TestDecodeZones(t *testing.T) {
	for zone, good := range map[string]bool{
		"": true, "eu-1a": true, "zürich": true, strings.Repeat("z", 128): true,
		strings.Repeat("z", 129): false, strings.Repeat("ü", 65): false, "\xff": false, strings.Repeat("z", 1<<20): false,
	} {
		r, err := wire.DecodeProducer(producer(func(m *registryv1.Producer) { m.Zone = zone }), "p")
		m := wholeCollector()
		m.Zone = zone
		c, cerr := wire.DecodeCollector(m)
		if !good {
			checkViolations(t, err, "p.zone")
			checkViolations(t, cerr, "collector.zone")
			continue
		}
		checkViolations(t, err)
		checkViolations(t, cerr)
		if err == nil && cerr == nil && (r.Zone != zone || c.Zone != zone) {
			t.Errorf("%q became %q and %q", zone, r.Zone, c.Zone)
		}
	}
}
