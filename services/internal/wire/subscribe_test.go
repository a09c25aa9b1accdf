package wire_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"pgregory.net/rapid"
)

func TestSubscribeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &wire.Subscription{
			Collector:   collectorIDs().Draw(t, "collector"),
			Instance:    instanceIDs().Draw(t, "instance"),
			Generation:  assignment.Generation(rapid.Int64Min(1).Draw(t, "generation")),
			MinRevision: assignment.Revision(rapid.Int64Min(0).Draw(t, "revision")),
		}
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			want.Accepted = acceptedSets().Draw(t, "accepted")
		case 1:
			want.Observe, want.Instance = true, ""
		}
		got, err := wire.DecodeSubscribe(overTheWire(t, wire.EncodeSubscribe(want), &registryv1.SubscribeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, got, want)
		if (got.Accepted == nil) != (want.Accepted == nil) {
			t.Fatalf("accepted is %v, want %v", got.Accepted, want.Accepted)
		}
	})
}

// Each case is one request with one fault, or with something odd that is none.
var subscriptions = []struct {
	name   string
	change func(*registryv1.SubscribeRequest)
	fields []string
}{
	{"nothing odd", func(*registryv1.SubscribeRequest) {}, nil},
	{"nothing accepted", func(m *registryv1.SubscribeRequest) { m.Accepted = nil }, nil},
	{"no collector", func(m *registryv1.SubscribeRequest) { m.CollectorId = "" }, []string{"collector_id"}},
	{"a bad collector", func(m *registryv1.SubscribeRequest) { m.CollectorId = "a/b" }, []string{"collector_id"}},
	{"no instance", func(m *registryv1.SubscribeRequest) { m.InstanceId = "" }, []string{"instance_id"}},
	{"a bad instance", func(m *registryv1.SubscribeRequest) { m.InstanceId = " " }, []string{"instance_id"}},
	{"no generation", func(m *registryv1.SubscribeRequest) { m.Generation = 0 }, []string{"generation"}},
	{"a negative generation", func(m *registryv1.SubscribeRequest) { m.Generation = -1 }, []string{"generation"}},
	{"a negative min_revision", func(m *registryv1.SubscribeRequest) { m.MinRevision = -1 }, []string{"min_revision"}},
	{"an observer", func(m *registryv1.SubscribeRequest) { m.Observe, m.InstanceId, m.Generation = true, "", 0 }, nil},
	{"an observer without a collector", func(m *registryv1.SubscribeRequest) { m.Observe, m.CollectorId = true, "" }, []string{"collector_id"}},

	{"no epoch", func(m *registryv1.SubscribeRequest) { m.Accepted.Epoch = "" }, []string{"accepted.epoch"}},
	{"an epoch of 128 bytes", func(m *registryv1.SubscribeRequest) { m.Accepted.Epoch = strings.Repeat("e", 128) }, nil},
	{"an epoch of 129 bytes", func(m *registryv1.SubscribeRequest) { m.Accepted.Epoch = strings.Repeat("e", 129) }, []string{"accepted.epoch"}},
	{"a negative revision", func(m *registryv1.SubscribeRequest) { m.Accepted.Revision = -1 }, []string{"accepted.revision"}},
	{"a negative count", func(m *registryv1.SubscribeRequest) { m.Accepted.SetCount = -1 }, []string{"accepted.set_count"}},
	{"most members", func(m *registryv1.SubscribeRequest) { m.Accepted.SetCount = math.MaxInt32 }, nil},
	{"more members than that", func(m *registryv1.SubscribeRequest) { m.Accepted.SetCount = math.MaxInt32 + 1 }, []string{"accepted.set_count"}},
	{"17 bits", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketBits = 17 }, []string{"accepted.bucket_bits"}},
	{"2 bits in eight", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketBits = 258 }, []string{"accepted.bucket_bits"}},
	{"64 bits", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketBits = 64 }, []string{"accepted.bucket_bits"}},
	{"most bits", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketBits = math.MaxUint32 }, []string{"accepted.bucket_bits"}},
	{"a digest too few", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketDigests = []uint64{1, 2, 3} }, []string{"accepted.bucket_digests"}},
	{"a digest too many", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketDigests = make([]uint64, 5) }, []string{"accepted.bucket_digests"}},
	{"no digests", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketDigests = nil }, []string{"accepted.bucket_digests"}},
	{"16 bits", func(m *registryv1.SubscribeRequest) {
		m.Accepted.BucketBits, m.Accepted.BucketDigests = 16, slices.Repeat([]uint64{1 << 60}, 1<<16)
		m.Accepted.SetDigest = 0 // modulo 2^64
	}, nil},
	{"a digest that is not the sum", func(m *registryv1.SubscribeRequest) { m.Accepted.SetDigest++ }, []string{"accepted.set_digest"}},
	{"buckets that are not the sum", func(m *registryv1.SubscribeRequest) { m.Accepted.BucketDigests[3]++ }, []string{"accepted.set_digest"}},
	{"an empty set", func(m *registryv1.SubscribeRequest) {
		m.Accepted = &registryv1.AcceptedSet{Epoch: "e", BucketDigests: []uint64{0}}
	}, nil},
	{"everything wrong", func(m *registryv1.SubscribeRequest) {
		*m = registryv1.SubscribeRequest{MinRevision: -1, Accepted: &registryv1.AcceptedSet{
			Revision: -1, SetCount: -1, SetDigest: 1, BucketDigests: []uint64{0},
		}}
	}, []string{"collector_id", "instance_id", "generation", "min_revision", "accepted.epoch", "accepted.revision", "accepted.set_count", "accepted.set_digest"}},
}

func TestDecodeSubscribe(t *testing.T) {
	for _, tc := range subscriptions {
		t.Run(tc.name, func(t *testing.T) {
			m := &registryv1.SubscribeRequest{
				CollectorId: "c", InstanceId: "i", Generation: 1, MinRevision: 0,
				Accepted: &registryv1.AcceptedSet{
					Epoch: "e", Revision: 7, SetCount: 3, SetDigest: 10, BucketBits: 2, BucketDigests: []uint64{1, 2, 3, 4}, AssignmentFormat: 1,
				},
			}
			tc.change(m)
			_, err := wire.DecodeSubscribe(m)
			checkViolations(t, err, tc.fields...)
		})
	}
	_, err := wire.DecodeSubscribe(nil)
	checkViolations(t, err, "collector_id", "instance_id", "generation")
}

func TestDecodeCollector(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*registryv1.Collector)
		fields []string
	}{
		{"nothing odd", func(*registryv1.Collector) {}, nil},
		{"only what is required", func(m *registryv1.Collector) {
			m.IntrospectionEndpoint, m.SoftwareVersion, m.Labels = "", "", nil
		}, nil},
		{"no id", func(m *registryv1.Collector) { m.CollectorId = "" }, []string{"collector.collector_id"}},
		{"a bad id", func(m *registryv1.Collector) { m.CollectorId = "a:b" }, []string{"collector.collector_id"}},
		{"no instance", func(m *registryv1.Collector) { m.InstanceId = "" }, []string{"collector.instance_id"}},
		{"a bad instance", func(m *registryv1.Collector) { m.InstanceId = "ä" }, []string{"collector.instance_id"}},
		{"a long version", func(m *registryv1.Collector) { m.SoftwareVersion = strings.Repeat("1", 129) }, []string{"collector.software_version"}},
		{"a label without a name", func(m *registryv1.Collector) { m.Labels[1].Name = "" }, []string{"collector.labels[1].name"}},
		{"a reserved label", func(m *registryv1.Collector) { m.Labels[0].Name = "__x" }, []string{"collector.labels[0].name"}},
		{"a label twice", func(m *registryv1.Collector) { m.Labels[1].Name = m.Labels[0].Name }, []string{"collector.labels"}},
		{"65 labels", func(m *registryv1.Collector) { m.Labels = slices.Repeat(m.Labels[:1], 65) }, []string{"collector.labels"}},
		{"everything wrong", func(m *registryv1.Collector) {
			m.CollectorId, m.InstanceId, m.IntrospectionEndpoint, m.SoftwareVersion = "", "", "x", strings.Repeat("x", 200)
			m.Labels[0].Name, m.CapacitySamplesPerSecond, m.Zone = "", -1, strings.Repeat("x", 200)
		}, []string{
			"collector.collector_id", "collector.instance_id", "collector.introspection_endpoint", "collector.software_version",
			"collector.labels[0].name", "collector.capacity_samples_per_second", "collector.zone",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := wholeCollector()
			tc.change(m)
			_, err := wire.DecodeCollector(m)
			checkViolations(t, err, tc.fields...)
		})
	}
	_, err := wire.DecodeCollector(nil)
	checkViolations(t, err, "collector")

	got, err := wire.DecodeCollector(wholeCollector())
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, got, &wire.CollectorInfo{
		ID: "c-1", Instance: "i-1", IntrospectionEndpoint: "c-1.example:7480", SoftwareVersion: "v1.2.3",
		Labels:   []assignment.Label{{Name: "rack", Value: "2"}, {Name: "zone", Value: "x"}},
		Capacity: 250_000, Zone: "eu-1",
	})
}

func TestCollectorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &wire.CollectorInfo{
			ID:                    collectorIDs().Draw(t, "collector"),
			Instance:              instanceIDs().Draw(t, "instance"),
			IntrospectionEndpoint: rapid.SampledFrom([]string{"", "h:1", "[::1]:7480"}).Draw(t, "endpoint"),
			SoftwareVersion:       shortTexts().Draw(t, "version"),
			Labels:                registrable().Draw(t, "labelled").Labels,
			Capacity:              rapid.Float64Range(0, wire.MaxCapacity).Draw(t, "capacity"),
			Zone:                  shortTexts().Draw(t, "zone"),
		}
		got, err := wire.DecodeCollector(overTheWire(t, wire.EncodeCollector(want), &registryv1.Collector{}))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, got, want)
	})
}

func wholeCollector() *registryv1.Collector {
	return &registryv1.Collector{
		CollectorId: "c-1", InstanceId: "i-1", IntrospectionEndpoint: "c-1.example:7480", SoftwareVersion: "v1.2.3",
		Labels:                   []*registryv1.Label{{Name: "zone", Value: "x"}, {Name: "rack", Value: "2"}},
		CapacitySamplesPerSecond: 250_000, Zone: "eu-1",
	}
}

func TestIntrospectionEndpoint(t *testing.T) {
	for endpoint, good := range map[string]bool{
		"h:7480": true, "10.0.0.1:1": true, "[::1]:65535": true, "[fe80::1%eth0]:7480": false, "[fe80::1%25eth0]:7480": false, "h.example.:7480": true,
		"h": false, "h:": false, ":": false, ":7480": false, "h:0": false, "h:65536": false, "h:-1": false, "h:+1": false, "h:x": false,
		"::1:7480": false, "[::1]": false, "[::1]7480": false, "[]:7480": false, "http://h:7480": false, "http://h": false, "u@h:7480": false,
		"h h:7480": false, " h:7480": false, "h\n:7480": false, "h:7480\n": false, "h\x00:7480": false, "h/x:7480": false, "<h>:7480": false,
		`"h":7480`: false, "h\u00a0:7480": false, "\xff:7480": false, "h:7480/x": false, "h?x:7480": false, "h#x:7480": false,
		strings.Repeat("h", 251) + ":7480": true, strings.Repeat("h", 252) + ":7480": false, strings.Repeat("h", 1<<20) + ":7480": false,
	} {
		m := wholeCollector()
		m.IntrospectionEndpoint = endpoint
		_, err := wire.DecodeCollector(m)
		if (err == nil) != good {
			t.Errorf("%.300q: %v, want it accepted: %v", endpoint, err, good)
		}
		if err != nil {
			checkViolations(t, err, "collector.introspection_endpoint")
		}
	}
}
