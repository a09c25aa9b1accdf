package api_test

import (
	"fmt"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc/codes"
)

// conflicts are those of all producers, by GetProducer; ListProducers must tell
// the same.
func (r *rig) conflicts(t *testing.T) map[string]string {
	t.Helper()
	list, err := r.ListProducers(t.Context(), &registryv1.ListProducersRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, p := range list.GetProducers() {
		got, err := r.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: p.GetProducerId()})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetProducer().GetConflict() != p.GetConflict() {
			t.Errorf("%s: got %q, listed %q", p.GetProducerId(), got.GetProducer().GetConflict(), p.GetConflict())
		}
		if p.GetConflict() != "" {
			all[p.GetProducerId()] = p.GetConflict()
		}
	}
	return all
}

func (r *rig) expectConflicts(t *testing.T, want map[string]string) {
	t.Helper()
	got := r.conflicts(t)
	for id, text := range want {
		if got[id] != text {
			t.Errorf("%s: %q, want %q", id, got[id], text)
		}
	}
	if len(got) != len(want) {
		t.Errorf("in conflict are %v, want %v", got, want)
	}
}

// TestSameLabelsAreAConflict: when they are the same in the end, however they come
// about; each names the others, until they differ.
func TestSameLabelsAreAConflict(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		labelled := func(id, endpoint string, pairs ...string) *registryv1.Producer {
			p := &registryv1.Producer{ProducerId: id, Endpoint: endpoint}
			for i := 0; i < len(pairs); i += 2 {
				p.Labels = append(p.Labels, &registryv1.Label{Name: pairs[i], Value: pairs[i+1]})
			}
			return p
		}
		r.register(t, labelled("implied", "http://h.example:9100/metrics"))
		r.register(t, labelled("another-port", "http://h.example:9101/metrics"))
		r.register(t, labelled("another-job", "http://h.example:9100/metrics", "job", "x"))
		r.register(t, labelled("more-labels", "http://h.example:9100/metrics", "zone", "a"))
		r.expectConflicts(t, nil)

		resp := r.register(t, labelled("spelled-out", "http://elsewhere.example/", "job", "rollcall", "instance", "h.example:9100"))
		if got := resp.GetProducer().GetConflict(); got != "has the same labels as implied" {
			t.Errorf("the registration is answered with %q", got)
		}
		would, err := r.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
			ValidateOnly: true, Producer: labelled("would-be", "http://h.example:9100/other", "zone", "a"),
		})
		if err != nil || would.GetProducer().GetConflict() != "has the same labels as more-labels" {
			t.Errorf("one that is only checked: %v, %v", would, err)
		}
		r.expectConflicts(t, map[string]string{
			"implied": "has the same labels as spelled-out", "spelled-out": "has the same labels as implied",
		})
		for i := range 3 {
			r.register(t, labelled(fmt.Sprint("z", i), "http://h.example:9100/metrics"))
		}
		got := r.conflicts(t)
		if got["implied"] != "has the same labels as spelled-out, z0, z1 and others" || got["z2"] != "has the same labels as implied, spelled-out, z0 and others" {
			t.Errorf("%v", got)
		}
		for i := range 3 {
			if err := deregistering(fmt.Sprint("z", i), "")(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		r.register(t, labelled("spelled-out", "http://elsewhere.example/", "job", "rollcall", "instance", "h.example:9102"))
		r.expectConflicts(t, nil)
	})
}

// TestRivalsAreAConflict: an instance that was replaced and registers again and
// again, not one that does so once; for as long as it goes on.
func TestRivalsAreAConflict(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		as := func(instance string) error {
			p := producer("p")
			p.InstanceId = instance
			_, err := r.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: p})
			return err
		}
		for _, instance := range []string{"a", "b"} {
			if err := as(instance); err != nil {
				t.Fatal(err)
			}
		}
		refused := func() {
			t.Helper()
			if f := faultOf(t, as("a")); f.code != codes.Aborted || f.reason != "INSTANCE_REPLACED" {
				t.Fatalf("%+v", f)
			}
		}
		refused()
		r.expectConflicts(t, nil)
		time.Sleep(11 * time.Minute) // more than a lease
		refused()
		r.expectConflicts(t, nil)
		time.Sleep(9 * time.Minute)
		refused()
		said := map[string]string{"p": "instance a was replaced and goes on registering it"}
		r.expectConflicts(t, said)
		if err := as("b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		r.expectConflicts(t, said)
		time.Sleep(2 * time.Minute)
		r.expectConflicts(t, nil)
	})
}
