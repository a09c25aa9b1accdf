package api_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"google.golang.org/grpc/codes"
)

func TestErrorsOverTheWire(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		for _, instance := range []string{"a", "b"} {
			r.register(t, with("p", func(p *registryv1.Producer) { p.InstanceId = instance }))
			r.enlist(t, "c1", instance)
		}
		r.register(t, with("q", func(p *registryv1.Producer) { p.InstanceId = "a" }))
		if err := deregistering("q", "a")(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		r.enlist(t, "away", "a")
		r.enlist(t, "gone", "a")
		if err := expunging("gone", false)(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		stream, err := r.Subscribe(t.Context(), &registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "b", Generation: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := newVerifier().untilSeal(stream); err != nil {
			t.Fatal(err)
		}
		for name, test := range failures {
			got := faultOf(t, test.call(t.Context(), r))
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(fault{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// TestOurOwnFaultsAreNotTold: the text of an unexpected error is for the log.
func TestOurOwnFaultsAreNotTold(t *testing.T) {
	bubble(t, setup{prepare: func(_ testing.TB, m *store.Memory) {
		m.Put("/rollcall/v1/producers/broken", []byte("\x0a\x01\xff"))
	}}, func(t *testing.T, r *rig) {
		err := getting("broken", 0)(t.Context(), r)
		if err == nil || strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "malformed") {
			t.Errorf("told is %v", err)
		}
	})
}

// TestSupersededMidStream: the stream that stood is told that it does not.
func TestSupersededMidStream(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		old, err := r.Subscribe(t.Context(), r.enlist(t, "c1", "a"))
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier()
		if err := v.untilSeal(old); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Subscribe(t.Context(), r.enlist(t, "c1", "b")); err != nil {
			t.Fatal(err)
		}
		if got := faultOf(t, v.untilEnd(old)); got.code != codes.Aborted || got.reason != "SUPERSEDED" {
			t.Errorf("%+v", got)
		}
	})
}

// TestNothingIsAnsweredBeforeTheRollIsKnown, but for UNAVAILABLE with the time
// to try again.
func TestNothingIsAnsweredBeforeTheRollIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, setup{prepare: func(_ testing.TB, m *store.Memory) {
			m.Fail(func(string) error { return registrar.ErrLeaseLost })
		}})
		want := fault{code: codes.Unavailable, reason: "NOT_SERVING", retry: time.Second}
		for name, c := range map[string]call{
			"register": registering(producer("p")), "deregister": deregistering("p", ""), "get": getting("p", 0),
			"list": listing(nil), "collector": enlisting(&registryv1.Collector{CollectorId: "c1", InstanceId: "a"}),
			"get collector": gettingCollector("c1", 0), "list collectors": listingCollectors(nil),
			"subscribe":   subscribing(&registryv1.SubscribeRequest{CollectorId: "c1", InstanceId: "b", Generation: 2}),
			"acknowledge": acknowledging(applied(func(*registryv1.AcknowledgeRequest) {})),
			"drain":       draining("c1", false), "dry drain": draining("c1", true), "undrain": undraining("c1"), "expunge": expunging("c1", true),
			"preview": previewing, "rebalance": rebalancing(0), "move": moving("p", "c1"),
			"confirm": confirming(registryv1.ExpiryMode_EXPIRY_MODE_HOLD, nil), "adopt": adopting("c1"),
		} {
			if diff := cmp.Diff(want, faultOf(t, c(t.Context(), r)), cmp.AllowUnexported(fault{})); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	})
}

// TestFullStore: nothing is written, and reads and streams go on.
func TestFullStore(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.register(t, producer("p"))
		stream, err := r.Subscribe(t.Context(), r.enlist(t, "c1", "a"))
		if err != nil {
			t.Fatal(err)
		}
		v := newVerifier()
		for len(v.set) == 0 {
			if err := v.untilSeal(stream); err != nil {
				t.Fatal(err)
			}
		}
		r.memory.Fail(func(op string) error {
			if op == store.OpCommit {
				return registrar.ErrFull
			}
			return nil
		})
		want := fault{code: codes.ResourceExhausted, reason: "STORE_FULL"}
		for _, c := range []call{registering(producer("q")), deregistering("p", ""), enlisting(&registryv1.Collector{CollectorId: "c2", InstanceId: "a"})} {
			if diff := cmp.Diff(want, faultOf(t, c(t.Context(), r)), cmp.AllowUnexported(fault{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		if err := getting("p", 0)(t.Context(), r); err != nil {
			t.Error(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.take(m); err != nil || v.beat == nil {
			t.Errorf("%v, %v", m, err)
		}
		r.memory.Fail(nil)
	})
}
