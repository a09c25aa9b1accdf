package wire_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"
)

func producer(change func(*registryv1.Producer)) *registryv1.Producer {
	m := &registryv1.Producer{
		ProducerId: "host:9100", Endpoint: "http://host:9100/metrics",
		Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(20 * time.Second),
		Labels:         []*registryv1.Label{{Name: "zone", Value: "x"}, {Name: "job", Value: "api"}},
		InstanceId:     "instance-1",
		FallbackFormat: registryv1.ExpositionFormat_EXPOSITION_FORMAT_PROMETHEUS_TEXT,
		Limits:         &registryv1.CollectionLimits{MaxSampleCount: 7},
	}
	change(m)
	return m
}

func span(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func labelled(labels ...*registryv1.Label) func(*registryv1.Producer) {
	return func(m *registryv1.Producer) { m.Labels = labels }
}

func numbered(n int, value string) func(*registryv1.Producer) {
	return func(m *registryv1.Producer) {
		m.Labels = nil
		for i := range n {
			m.Labels = append(m.Labels, &registryv1.Label{Name: fmt.Sprintf("l%03d", i), Value: value})
		}
	}
}

// Each case is one producer with one fault, or with something odd that is none.
var producers = []struct {
	name   string
	change func(*registryv1.Producer)
	fields []string
}{
	{"nothing odd", func(*registryv1.Producer) {}, nil},
	{"no id", func(m *registryv1.Producer) { m.ProducerId = "" }, []string{"p.producer_id"}},
	{"id with a space", func(m *registryv1.Producer) { m.ProducerId = "a b" }, []string{"p.producer_id"}},
	{"id of 129 bytes", func(m *registryv1.Producer) { m.ProducerId = strings.Repeat("a", 129) }, []string{"p.producer_id"}},
	{"id of 128 bytes", func(m *registryv1.Producer) { m.ProducerId = strings.Repeat("a", 128) }, nil},
	{"no endpoint", func(m *registryv1.Producer) { m.Endpoint = "" }, []string{"p.endpoint"}},
	{"endpoint with user info", func(m *registryv1.Producer) { m.Endpoint = "http://u:p@h/" }, []string{"p.endpoint"}},
	{"endpoint that is not UTF-8", func(m *registryv1.Producer) { m.Endpoint = "http://h/\xff" }, []string{"p.endpoint"}},
	{"endpoint that hides what is not UTF-8", func(m *registryv1.Producer) { m.Endpoint = "http://%ff/" }, []string{"p.endpoint"}},

	{"no interval, no timeout", func(m *registryv1.Producer) { m.Interval, m.Timeout = nil, nil }, nil},
	{"interval 100 ms", func(m *registryv1.Producer) { m.Interval, m.Timeout = span(100*time.Millisecond), nil }, nil},
	{"interval 99 ms", func(m *registryv1.Producer) { m.Interval = span(99 * time.Millisecond) }, []string{"p.interval"}},
	{"interval 24 h", func(m *registryv1.Producer) { m.Interval = span(24 * time.Hour) }, nil},
	{"interval 24 h 1 ms", func(m *registryv1.Producer) { m.Interval = span(24*time.Hour + time.Millisecond) }, []string{"p.interval"}},
	{"interval not in milliseconds", func(m *registryv1.Producer) { m.Interval = span(30*time.Second + 1) }, []string{"p.interval"}},
	{"interval zero", func(m *registryv1.Producer) { m.Interval = &durationpb.Duration{} }, []string{"p.interval"}},
	{"interval negative", func(m *registryv1.Producer) { m.Interval = span(-30 * time.Second) }, []string{"p.interval"}},
	{"interval most seconds", func(m *registryv1.Producer) { m.Interval = &durationpb.Duration{Seconds: math.MaxInt64} }, []string{"p.interval"}},
	{"interval least seconds", func(m *registryv1.Producer) { m.Interval = &durationpb.Duration{Seconds: math.MinInt64} }, []string{"p.interval"}},
	{"interval that overflows to 30 s", func(m *registryv1.Producer) {
		m.Interval = &durationpb.Duration{Seconds: 1<<64/1_000_000_000 + 30}
	}, []string{"p.interval"}},
	{"interval nanos out of range", func(m *registryv1.Producer) { m.Interval = &durationpb.Duration{Seconds: 30, Nanos: 1e9} }, []string{"p.interval"}},
	{"interval nanos of the other sign", func(m *registryv1.Producer) { m.Interval = &durationpb.Duration{Seconds: 30, Nanos: -1e6} }, []string{"p.interval"}},
	{"timeout as long as the interval", func(m *registryv1.Producer) { m.Timeout = span(30 * time.Second) }, nil},
	{"timeout over the interval", func(m *registryv1.Producer) { m.Timeout = span(30001 * time.Millisecond) }, []string{"p.timeout"}},
	{"timeout over the default interval", func(m *registryv1.Producer) { m.Interval = nil }, []string{"p.timeout"}},
	{"timeout 10 ms", func(m *registryv1.Producer) { m.Timeout = span(10 * time.Millisecond) }, nil},
	{"timeout 9 ms", func(m *registryv1.Producer) { m.Timeout = span(9 * time.Millisecond) }, []string{"p.timeout"}},
	{"timeout not in milliseconds", func(m *registryv1.Producer) { m.Timeout = span(time.Second + 1) }, []string{"p.timeout"}},
	{"timeout negative", func(m *registryv1.Producer) { m.Timeout = span(-1) }, []string{"p.timeout"}},
	{"timeout invalid", func(m *registryv1.Producer) { m.Timeout = &durationpb.Duration{Nanos: math.MaxInt32} }, []string{"p.timeout"}},

	{"no labels", labelled(), nil},
	{"a label that is nil", labelled(nil), []string{"p.labels[0].name"}},
	{"a label without a name", labelled(&registryv1.Label{Value: "v"}), []string{"p.labels[0].name"}},
	{"a label without a value", labelled(&registryv1.Label{Name: "a"}), nil},
	{"a label name with a dash", labelled(&registryv1.Label{Name: "a", Value: "v"}, &registryv1.Label{Name: "b-c", Value: "v"}), []string{"p.labels[1].name"}},
	{"a label name that begins with a digit", labelled(&registryv1.Label{Name: "0a", Value: "v"}), []string{"p.labels[0].name"}},
	{"a label name that is not ASCII", labelled(&registryv1.Label{Name: "ä", Value: "v"}), []string{"p.labels[0].name"}},
	{"a reserved label name", labelled(&registryv1.Label{Name: "__address__", Value: "v"}), []string{"p.labels[0].name"}},
	{"the shortest reserved label name", labelled(&registryv1.Label{Name: "__", Value: "v"}), []string{"p.labels[0].name"}},
	{"a reserved label name without a value", labelled(&registryv1.Label{Name: "__name__"}), []string{"p.labels[0].name"}},
	{"a label name that begins with one underscore", labelled(&registryv1.Label{Name: "_", Value: "v"}, &registryv1.Label{Name: "_a9", Value: "v"}), nil},
	{"a label value that is not UTF-8", labelled(&registryv1.Label{Name: "a", Value: "\xff"}), []string{"p.labels[0].value"}},
	{"a label name twice", labelled(&registryv1.Label{Name: "a", Value: "1"}, &registryv1.Label{Name: "b", Value: "1"}, &registryv1.Label{Name: "a", Value: "1"}), []string{"p.labels"}},
	{"64 labels", numbered(64, "v"), nil},
	{"65 labels", numbered(65, "v"), []string{"p.labels"}},
	{"65 labels, all empty", numbered(65, ""), []string{"p.labels"}},
	{"8 KiB of labels", numbered(2, strings.Repeat("v", 4<<10-4)), nil},
	{"8 KiB and two bytes of labels", numbered(2, strings.Repeat("v", 4<<10-3)), []string{"p.labels"}},
	{"8 KiB of a label's name", labelled(&registryv1.Label{Name: strings.Repeat("a", 8<<10)}), nil},

	{"no limits", func(m *registryv1.Producer) { m.Limits = nil }, nil},
	{"zero limits", func(m *registryv1.Producer) { m.Limits = &registryv1.CollectionLimits{} }, nil},
	{"negative bytes", func(m *registryv1.Producer) { m.Limits.MaxBodyBytes = -1 }, []string{"p.limits.max_body_bytes"}},
	{"negative samples", func(m *registryv1.Producer) { m.Limits.MaxSampleCount = -1 }, []string{"p.limits.max_sample_count"}},
	{"negative labels", func(m *registryv1.Producer) { m.Limits.MaxLabelCount = -1 }, []string{"p.limits.max_label_count"}},
	{"negative value bytes", func(m *registryv1.Producer) { m.Limits.MaxLabelValueBytes = math.MinInt32 }, []string{"p.limits.max_label_value_bytes"}},
	{"a format not told", func(m *registryv1.Producer) { m.FallbackFormat = 0 }, nil},
	{"an unknown format", func(m *registryv1.Producer) { m.FallbackFormat = 4 }, []string{"p.fallback_format"}},
	{"a credential", func(m *registryv1.Producer) { m.Credential = "team-a" }, nil},
	{"a file for a credential", func(m *registryv1.Producer) { m.Credential = "/etc/token" }, []string{"p.credential"}},
	{"a long credential", func(m *registryv1.Producer) { m.Credential = strings.Repeat("c", 129) }, []string{"p.credential"}},
	{"a server name", func(m *registryv1.Producer) { m.TlsServerName = "node_1.example.org" }, nil},
	{"an address for a server name", func(m *registryv1.Producer) { m.TlsServerName = "2001:db8::1" }, nil},
	{"a server name with a port", func(m *registryv1.Producer) { m.TlsServerName = "h:443" }, []string{"p.tls_server_name"}},
	{"a server name with a dot at its end", func(m *registryv1.Producer) { m.TlsServerName = "h." }, []string{"p.tls_server_name"}},
	{"a long server name", func(m *registryv1.Producer) { m.TlsServerName = strings.Repeat("h.", 127) }, []string{"p.tls_server_name"}},
	{"a negative format", func(m *registryv1.Producer) { m.FallbackFormat = -1 }, []string{"p.fallback_format"}},

	{"no instance", func(m *registryv1.Producer) { m.InstanceId = "" }, nil},
	{"a bad instance", func(m *registryv1.Producer) { m.InstanceId = "\xff" }, []string{"p.instance_id"}},
	{"a hint", func(m *registryv1.Producer) { m.LastCollectorId = "c" }, nil},
	{"a bad hint", func(m *registryv1.Producer) { m.LastCollectorId = "a:b" }, []string{"p.last_collector_id"}},
}

func TestDecodeProducer(t *testing.T) {
	for _, tc := range producers {
		t.Run(tc.name, func(t *testing.T) {
			m := producer(tc.change)
			r, err := wire.DecodeProducer(m, "p")
			checkViolations(t, err, tc.fields...)
			if err == nil {
				checkRegistration(t, r)
			}
		})
	}
	r, err := wire.DecodeProducer(nil, "requests[3].producer")
	checkViolations(t, err, "requests[3].producer")
	if r != nil {
		t.Errorf("a missing producer is %v", r)
	}
}

// checkRegistration checks what a registration promises.
func checkRegistration(t rapid.TB, r *wire.Registration) {
	t.Helper()
	a := r.Assignment
	if a.Version != 0 || a.Role != 0 || r.URL == nil {
		t.Errorf("version %d, role %d, URL %v", a.Version, a.Role, r.URL)
	}
	if _, err := assignment.ParseProducerID(string(a.ProducerID)); err != nil {
		t.Error(err)
	}
	if a.Interval < 100*time.Millisecond || a.Interval > 24*time.Hour || a.Timeout < 10*time.Millisecond || a.Timeout > a.Interval ||
		a.Interval%time.Millisecond != 0 || a.Timeout%time.Millisecond != 0 {
		t.Errorf("interval %v, timeout %v", a.Interval, a.Timeout)
	}
	for i, l := range a.Labels {
		if l.Value == "" || strings.HasPrefix(l.Name, "__") || i > 0 && l.Name <= a.Labels[i-1].Name {
			t.Errorf("labels %v", a.Labels)
		}
	}
	if a.Permanent != (r.Lease == 0) || a.Permanent != (r.ExpireAfter == 0) || r.ExpireAfter < r.Lease || r.Lease > wire.MaxLease ||
		!(r.Rate >= 0 && r.Rate <= wire.MaxRate) || len(r.Zone) > 128 {
		t.Errorf("permanent %v, lease %v, expiry %v, rate %v, zone %q", a.Permanent, r.Lease, r.ExpireAfter, r.Rate, r.Zone)
	}
	again, err := wire.DecodeStored(wire.EncodeStored(a))
	if err != nil || !again.SameWork(a) {
		t.Errorf("stored and read again: %v, %v", again, err)
	}
}

func TestDecodeProducerTakesEverything(t *testing.T) {
	r, err := wire.DecodeProducer(producer(func(m *registryv1.Producer) {
		m.LastCollectorId, m.HonorLabels, m.IgnoreTimestamps = "c-1", true, true
		m.Permanent, m.Zone, m.ExpectedSamplesPerSecond = new(true), "eu-1", 12.5
		m.Labels = append(m.Labels, &registryv1.Label{Name: "none"}, &registryv1.Label{Name: "job"})
	}), "producer")
	if err != nil {
		t.Fatal(err)
	}
	checkSame(t, r.Assignment, &assignment.Assignment{
		ProducerID: "host:9100", Endpoint: "http://host:9100/metrics", Interval: 30 * time.Second, Timeout: 20 * time.Second,
		Labels:         []assignment.Label{{Name: "job", Value: "api"}, {Name: "zone", Value: "x"}},
		FallbackFormat: assignment.FormatPrometheusText, Limits: assignment.Limits{MaxSamples: 7},
		HonorLabels: true, IgnoreTimestamps: true, Permanent: true,
	})
	if r.Zone != "eu-1" || r.Rate != 12.5 {
		t.Errorf("zone %q, rate %v", r.Zone, r.Rate)
	}
	if r.Instance != "instance-1" || r.Hint != "c-1" || r.URL.Host != "host:9100" {
		t.Errorf("instance %q, hint %q, URL %v", r.Instance, r.Hint, r.URL)
	}
}

func TestDecodeProducerDefaults(t *testing.T) {
	for _, tc := range []struct {
		interval, timeout         *durationpb.Duration
		wantInterval, wantTimeout time.Duration
	}{
		{nil, nil, 15 * time.Second, 10 * time.Second},
		{span(time.Minute), nil, time.Minute, 10 * time.Second},
		{span(10 * time.Second), nil, 10 * time.Second, 10 * time.Second},
		{span(100 * time.Millisecond), nil, 100 * time.Millisecond, 100 * time.Millisecond},
		{nil, span(15 * time.Second), 15 * time.Second, 15 * time.Second},
	} {
		r, err := wire.DecodeProducer(producer(func(m *registryv1.Producer) { m.Interval, m.Timeout = tc.interval, tc.timeout }), "p")
		if err != nil {
			t.Errorf("%v, %v: %v", tc.interval, tc.timeout, err)
			continue
		}
		if a := r.Assignment; a.Interval != tc.wantInterval || a.Timeout != tc.wantTimeout {
			t.Errorf("%v, %v: %v, %v", tc.interval, tc.timeout, a.Interval, a.Timeout)
		}
	}
}

// All faults are told at once, and no more than twenty of them.
func TestDecodeProducerTellsAllFaults(t *testing.T) {
	m := &registryv1.Producer{
		ProducerId: "a b", Endpoint: "h", Interval: &durationpb.Duration{Seconds: -1}, Timeout: &durationpb.Duration{Nanos: -1},
		Labels:     []*registryv1.Label{{}, {Name: "__x", Value: "\xff"}},
		InstanceId: "-", LastCollectorId: "-", FallbackFormat: 9,
		Limits:        &registryv1.CollectionLimits{MaxBodyBytes: -1, MaxSampleCount: -1, MaxLabelCount: -1, MaxLabelValueBytes: -1},
		LeaseDuration: span(1), ExpireAfter: span(1), Zone: "\xff", ExpectedSamplesPerSecond: -1,
	}
	_, err := wire.DecodeProducer(m, "producer")
	checkViolations(t, err, "producer.producer_id", "producer.endpoint", "producer.interval", "producer.timeout",
		"producer.labels[0].name", "producer.labels[1].name", "producer.labels[1].value",
		"producer.limits.max_body_bytes", "producer.limits.max_sample_count", "producer.limits.max_label_count",
		"producer.limits.max_label_value_bytes", "producer.fallback_format", "producer.instance_id", "producer.last_collector_id",
		"producer.lease_duration", "producer.expire_after", "producer.zone", "producer.expected_samples_per_second")

	_, err = wire.DecodeProducer(producer(func(m *registryv1.Producer) {
		m.Labels = nil
		for range 64 {
			m.Labels = append(m.Labels, &registryv1.Label{Name: strings.Repeat("ä", 40), Value: "\xff"})
		}
	}), "p")
	violations, ok := err.(wire.Violations) //nolint:errorlint // the documentation promises this very type
	if !ok || len(violations) != 20 {
		t.Errorf("%d violations", len(violations))
	}
	if len(err.Error()) > 10_000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// What is quoted from a request is bounded, and is text: a message with it can
// be encoded.
func TestViolationsAreFitForAMessage(t *testing.T) {
	for _, odd := range []string{strings.Repeat("ä", 3000), strings.Repeat("\xff", 3000), "x" + strings.Repeat("€", 1000), "\x00\x1b[31m"} {
		_, err := wire.DecodeProducer(&registryv1.Producer{
			ProducerId: odd, Endpoint: odd, InstanceId: odd, LastCollectorId: odd, Labels: []*registryv1.Label{{Name: odd, Value: odd}},
		}, "p")
		checkText(t, err)
		_, err = wire.DecodeProducer(&registryv1.Producer{Endpoint: "http://h:" + odd}, "p")
		checkText(t, err)
		_, err = wire.DecodeCollector(&registryv1.Collector{
			CollectorId: odd, InstanceId: odd, IntrospectionEndpoint: odd, SoftwareVersion: odd, Labels: []*registryv1.Label{{Name: odd}},
		})
		checkText(t, err)
		_, err = wire.DecodeSubscribe(&registryv1.SubscribeRequest{
			CollectorId: odd, InstanceId: odd, Accepted: &registryv1.AcceptedSet{Epoch: odd},
		})
		checkText(t, err)
		_, err = wire.DecodeAcknowledge(&registryv1.AcknowledgeRequest{
			CollectorId: odd, InstanceId: odd, HeldProducerIds: []string{odd},
			Unrunnable: []*registryv1.UnrunnableAssignment{{ProducerId: odd, Reason: odd}},
			Outcome:    2, Refusal: &registryv1.Refusal{ProducerId: odd},
		})
		checkText(t, err)
	}
}

func checkText(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("accepted")
		return
	}
	if len(err.Error()) > 10_000 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	if _, merr := proto.Marshal(&registryv1.FieldViolation{Description: err.Error()}); merr != nil {
		t.Errorf("%q: %v", err, merr)
	}
}

// The decoders need not look for invalid UTF-8 wherever they read text: the
// encoding carries none.
func TestInvalidUTF8IsNotCarried(t *testing.T) {
	if b, err := proto.Marshal(&registryv1.Producer{Endpoint: "\xff"}); err == nil {
		t.Errorf("it was encoded: %x", b)
	}
	if err := proto.Unmarshal([]byte{0x12, 0x01, 0xff}, &registryv1.Producer{}); err == nil {
		t.Error("it was decoded")
	}
}

func TestProducerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := registrable().Draw(t, "assignment")
		m := overTheWire(t, wire.EncodeProducer(want), &registryv1.Producer{})
		if m.GetVersion() != uint64(want.Version) {
			t.Fatalf("version %d", m.GetVersion())
		}
		got, err := wire.DecodeProducer(m, "p")
		if err != nil {
			t.Fatal(err)
		}
		checkRegistration(t, got)
		want.Version, want.Role = 0, 0
		checkSame(t, got.Assignment, want)
	})
}

// registrable are assignments as a producer may ask for them.
func registrable() *rapid.Generator[*assignment.Assignment] {
	return rapid.Map(assignments(), func(a *assignment.Assignment) *assignment.Assignment {
		a.Endpoint = fmt.Sprintf("https://h-%d/metrics", uint16(a.Version))
		a.Interval = (wire.MinInterval + a.Interval.Abs()%(wire.MaxInterval-wire.MinInterval)).Truncate(time.Millisecond)
		a.Timeout = (wire.MinTimeout + a.Timeout.Abs()%(a.Interval-wire.MinTimeout)).Truncate(time.Millisecond)
		a.FallbackFormat = assignment.Format(uint32(a.FallbackFormat) % 4)
		a.Credential = fmt.Sprintf("c-%d", uint16(a.Version))
		a.TLSServerName = fmt.Sprintf("h-%d.example", uint16(a.Version))
		a.Limits.MaxBodyBytes &= math.MaxInt64
		a.Limits.MaxSamples &= math.MaxInt32
		a.Limits.MaxLabels &= math.MaxInt32
		a.Limits.MaxLabelValueBytes &= math.MaxInt32
		labels := a.Labels[:0]
		for _, l := range a.Labels {
			if l.Value != "" && !strings.HasPrefix(l.Name, "__") {
				labels = append(labels, l)
			}
		}
		a.Labels = labels
		return a
	})
}
