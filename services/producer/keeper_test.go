package producer_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

const (
	id  = "shop/checkout-1"
	app = "app:9100"
)

var registration = producer.Registration{ID: id, Endpoint: "http://" + app + "/metrics"}

// start starts a keeper that the test ends with Close, if it does not before.
func start(t *testing.T, c producer.Config, r producer.Registration) *producer.Keeper {
	t.Helper()
	k, err := producer.Start(c, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// It registers when the endpoint answers and not before, renews in time, and
// leaves the roll when it is told to.
func TestKeeperLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Hour)
		if r.count("register") != 0 || k.Ready() == nil || !strings.Contains(k.Ready().Error(), "does not answer") {
			t.Fatalf("%d registrations without an endpoint, ready: %v", r.count("register"), k.Ready())
		}

		n.endpoint(t, app, metrics)
		time.Sleep(time.Minute)
		if k.Ready() != nil || r.stands(id) == "" {
			t.Fatalf("ready: %v, on the roll %q", k.Ready(), r.stands(id))
		}
		time.Sleep(time.Hour)
		times := r.times()
		for i := 1; i < len(times); i++ {
			if d := times[i].Sub(times[i-1]); d < 180*time.Second || d > 200*time.Second {
				t.Errorf("renewed after %v", d)
			}
		}
		if len(times) < 18 || r.latest().GetLastCollectorId() != "c1" {
			t.Errorf("%d registrations in an hour, the last names the collector %q", len(times), r.latest().GetLastCollectorId())
		}

		if err := k.Deregister(time.Second); err != nil || r.stands(id) != "" {
			t.Errorf("deregistered with %v, on the roll is %q", err, r.stands(id))
		}
		if k.Ready() == nil || k.Err() != nil {
			t.Errorf("after the end: ready %v, error %v", k.Ready(), k.Err())
		}
		if err := k.Deregister(time.Second); err != nil || r.count("deregister") != 1 {
			t.Errorf("once more: %v, %d calls", err, r.count("deregister"))
		}
	})
}

// The renewal of an endpoint that answers nobody would keep it on the roll for as
// long as its keeper lives.
func TestKeeperDoesNotRenewForTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		stop := n.endpoint(t, app, metrics)
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Minute)
		stop()
		time.Sleep(time.Hour)
		if r.count("register") != 1 || k.Ready() != nil {
			t.Errorf("%d registrations, ready: %v", r.count("register"), k.Ready())
		}
		n.endpoint(t, app, metrics)
		time.Sleep(time.Minute)
		if r.count("register") != 2 {
			t.Errorf("%d registrations after it came back", r.count("register"))
		}
	})
}

func TestKeeperThatDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		c := n.config("r1")
		c.NoWait = true
		k := start(t, c, registration)
		time.Sleep(time.Hour)
		if k.Ready() != nil || r.count("register") < 18 {
			t.Errorf("ready: %v, %d registrations", k.Ready(), r.count("register"))
		}
	})
}

// A process that closes and comes again is on the roll all the time, and its
// second life is another instance.
func TestCloseLeavesItOnTheRoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		first := r.stands(id)
		k.Close()
		if first == "" || r.stands(id) != first || r.count("deregister") != 0 {
			t.Errorf("on the roll is %q, was %q", r.stands(id), first)
		}
		start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		if second := r.stands(id); second == "" || second == first {
			t.Errorf("the second life is %q, the first was %q", second, first)
		}
	})
}

// Who was replaced says so, ends, and takes nothing from who replaced it.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		old := start(t, n.config("r1"), registration)
		hasty := start(t, n.config("r1"), registration) // replaces it, and is replaced
		time.Sleep(time.Second)
		newer := start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		stands := r.stands(id)
		if err := hasty.Deregister(time.Second); err != nil || r.stands(id) != stands {
			t.Errorf("deregistered %v, on the roll is %q", err, r.stands(id))
		}
		<-old.Done()
		if err := old.Err(); !errors.Is(err, producer.ErrRefused) || !errors.Is(err, producer.ErrReplaced) || old.Ready() == nil {
			t.Errorf("the old one ended with %v, ready: %v", err, old.Ready())
		}
		if err := old.Deregister(time.Second); err != nil || r.stands(id) != stands || newer.Ready() != nil {
			t.Errorf("deregistered %v, on the roll is %q, the newer is ready: %v", err, r.stands(id), newer.Ready())
		}
	})
}

// Who was taken off the roll by somebody else stays off.
func TestDeregisteredByAnOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		if _, err := r.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: id}); err != nil {
			t.Fatal(err)
		}
		<-k.Done()
		if err := k.Err(); !errors.Is(err, producer.ErrDeregistered) || !errors.Is(err, producer.ErrRefused) {
			t.Error(err)
		}
	})
}

// What proxies answer while there is no registry, what a registry answers that has
// no store, and others who write the same: none of it ends a keeper.
func TestOutagesAreWaitedOut(t *testing.T) {
	for name, outage := range map[string]error{
		"unavailable":   status.Error(codes.Unavailable, "no store"),
		"proxy 404":     status.Error(codes.Unimplemented, "404"),
		"proxy 403":     status.Error(codes.PermissionDenied, "403"),
		"proxy 401":     status.Error(codes.Unauthenticated, "401"),
		"contended":     fault(codes.Aborted, "CONTENDED"),
		"precondition":  status.Error(codes.FailedPrecondition, "who knows"),
		"unknown codes": status.Error(999, "what is this"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				r := n.registry(t, "r1")
				n.endpoint(t, app, metrics)
				r.set(func() { r.register = func(context.Context) error { return outage } })
				k := start(t, n.config("r0", "r1"), registration)
				time.Sleep(2 * time.Hour)
				if k.Ready() == nil {
					t.Error("ready without a registration")
				}
				r.set(func() { r.register = nil })
				time.Sleep(2 * time.Minute)
				if err := k.Ready(); err != nil {
					t.Error(err)
				}
				r.set(func() { r.register = func(context.Context) error { return outage } })
				time.Sleep(time.Hour)
				if err := k.Ready(); err != nil {
					t.Errorf("an outage made it unready: %v", err)
				}
			})
		})
	}
}

func TestStartRefuses(t *testing.T) {
	for name, change := range map[string]func(*producer.Registration){
		"id":         func(r *producer.Registration) { r.ID = "-" },
		"endpoint":   func(r *producer.Registration) { r.Endpoint = "ftp://x" },
		"interval":   func(r *producer.Registration) { r.Interval = time.Microsecond },
		"timeout":    func(r *producer.Registration) { r.Timeout = time.Minute },
		"label":      func(r *producer.Registration) { r.Labels = map[string]string{"__x": "y"} },
		"credential": func(r *producer.Registration) { r.Credential = "../secret" },
		"tls":        func(r *producer.Registration) { r.TLSServerName = "a b" },
		"instance":   func(r *producer.Registration) { r.Instance = " " },
		"lease":      func(r *producer.Registration) { r.Lease = -1 },
		"permanent":  func(r *producer.Registration) { r.Permanent, r.ExpireAfter = true, time.Hour },
		"limits":     func(r *producer.Registration) { r.Limits.Samples = -1 },
		"format":     func(r *producer.Registration) { r.FallbackFormat = 77 },
		"rate":       func(r *producer.Registration) { r.SamplesPerSecond = -1 },
		"zone":       func(r *producer.Registration) { r.Zone = strings.Repeat("z", 200) },
	} {
		r := registration
		change(&r)
		if _, err := producer.Start(producer.Config{Registries: []string{"r1"}}, r); !errors.Is(err, producer.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := producer.Start(producer.Config{}, registration); err == nil {
		t.Error("it started without a registry")
	}
	if err := producer.Keep(t.Context(), producer.Config{}, registration); err == nil {
		t.Error("it kept without a registry")
	}
}

// Everything that a Registration tells arrives.
func TestRegistrationIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		c := n.config("r1")
		c.NoWait = true
		start(t, c, producer.Registration{
			ID: id, Endpoint: "https://app:9100/m?x=1", Interval: 5 * time.Second, Timeout: time.Second,
			Labels: map[string]string{"b": "2", "a": "1"}, HonorLabels: true, IgnoreTimestamps: true,
			Limits:         producer.Limits{BodyBytes: 1, Samples: 2, Labels: 3, LabelValueBytes: 4},
			FallbackFormat: producer.FormatOpenMetrics, Credential: "team-a", TLSServerName: "app.example",
			Instance: "i1", Lease: time.Minute, ExpireAfter: time.Hour, Zone: "z1", SamplesPerSecond: 7,
		})
		time.Sleep(time.Second)
		want := &registryv1.Producer{
			ProducerId: id, Endpoint: "https://app:9100/m?x=1", Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second),
			Labels:      []*registryv1.Label{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}},
			HonorLabels: true, IgnoreTimestamps: true,
			Limits:         &registryv1.CollectionLimits{MaxBodyBytes: 1, MaxSampleCount: 2, MaxLabelCount: 3, MaxLabelValueBytes: 4},
			FallbackFormat: registryv1.ExpositionFormat_EXPOSITION_FORMAT_OPENMETRICS_TEXT,
			Credential:     "team-a", TlsServerName: "app.example", InstanceId: "i1", Permanent: new(false),
			LeaseDuration: durationpb.New(time.Minute), ExpireAfter: durationpb.New(time.Hour), Zone: "z1", ExpectedSamplesPerSecond: 7,
		}
		if !proto.Equal(r.latest(), want) {
			t.Errorf("got  %v\nwant %v", r.latest(), want)
		}
	})
}

// Keep has no instance of its own, asks no endpoint and takes nothing off.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := producer.Keep(ctx, n.config("r0", "r1"), registration); err != nil {
			t.Error(err)
		}
		if r.count("register") < 18 || r.latest().GetInstanceId() != "" || r.latest().Permanent != nil || r.count("deregister") != 0 {
			t.Errorf("calls %v, the last %v", r.asked(), r.latest())
		}
		r.set(func() { r.register = func(context.Context) error { return status.Error(codes.InvalidArgument, "bad") } })
		if err := producer.Keep(t.Context(), n.config("r1"), registration); !errors.Is(err, producer.ErrRefused) {
			t.Error(err)
		}
	})
}

// All that is tried is told.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		got := map[producer.Step]int{}
		c := n.config("r0", "r1")
		c.Observe = func(step producer.Step, err error) {
			if err == nil {
				got[step]++
			} else {
				got[step] += 100
			}
		}
		k := start(t, c, registration)
		time.Sleep(time.Minute)
		if err := k.Deregister(time.Second); err != nil {
			t.Error(err)
		}
		want := map[producer.Step]int{producer.StepProbe: 1, producer.StepRegister: 1, producer.StepDeregister: 1}
		if got[producer.StepProbe] == 2 { // it began with the one that is not there
			want[producer.StepProbe], want[producer.StepRegister] = 2, 101
		}
		if !maps.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	})
}
