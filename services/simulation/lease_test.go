package simulation

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestLeaseEnds: a producer with a lease that died is told as `up 0` until it is
// struck off, which is within a minute of its time, and then its series end. A
// permanent one stays as it is.
func TestLeaseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		up := newLedger("up")
		w.collector("c-1", func(c *collector.Config) { c.Sink = up })
		w.pass(time.Second)
		all := names(20)
		const expire = 20 * time.Minute
		leased := func(p *registryv1.Producer) {
			p.InstanceId = p.GetProducerId() + "-1"
			p.LeaseDuration, p.ExpireAfter = durationpb.New(time.Minute), durationpb.New(expire)
		}
		w.labelled(interval, all[:19], leased)
		w.labelled(interval, all[19:], func(*registryv1.Producer) {})
		dead, permanent := all[0], all[19]
		w.pass(time.Minute)
		w.fleet.die(dead, permanent)
		died := time.Now()
		for time.Since(died) < expire+2*time.Minute {
			w.labelled(interval, all[1:19], leased)
			w.pass(20 * time.Second)
		}
		w.collects("c-1", all[1:]...)
		stamps := up.stamps(dead)
		last := time.UnixMilli(stamps[len(stamps)-1])
		if took := last.Sub(died); took < expire || took > expire+time.Minute {
			t.Errorf("its series ended %v after its death, want %v and at most a minute", took, expire)
		}
		if v := up.at(dead, stamps[len(stamps)-1]); !value.IsStaleNaN(v[len(v)-1]) {
			t.Errorf("its series ends with %v, want a stale marker", v)
		}
		for _, ms := range stamps[:len(stamps)-1] {
			want := 1.0
			if time.UnixMilli(ms).After(died) {
				want = 0
			}
			if v := up.at(dead, ms); v[0] != want {
				t.Errorf("up is %v %v after its death, want %v", v, time.UnixMilli(ms).Sub(died), want)
			}
		}
		w.pass(3 * time.Hour)
		w.collects("c-1", all[1:]...)
		stamps = up.stamps(permanent)
		if v := up.at(permanent, stamps[len(stamps)-1]); v[0] != 0 || math.IsNaN(v[0]) {
			t.Errorf("the permanent one is told as %v", v)
		}
	})
}

// TestRegistryDownForTwoLeases: nobody could renew, and nobody is struck off for
// that, whether it answers or not.
func TestRegistryDownForTwoLeases(t *testing.T) {
	simulate(t, func(w *world) {
		store := registry.NewMemoryStore()
		r := w.registry(store)
		w.collector("c-1")
		w.pass(time.Second)
		all := names(100)
		const lease = 10 * time.Minute
		leased := func(p *registryv1.Producer) {
			p.InstanceId = p.GetProducerId() + "-1"
			p.LeaseDuration, p.ExpireAfter = durationpb.New(lease), durationpb.New(lease)
		}
		w.labelled(interval, all, leased)
		start := time.Now()
		w.pass(time.Minute)
		w.fleet.die(all[:10]...)
		w.pass(lease - 2*time.Minute)
		w.labelled(interval, all, leased) // all renew, also those that do not answer
		w.pass(time.Minute)
		w.crash(r, registryAddress)
		w.pass(2 * lease)
		w.registry(store)
		w.pass(lease / 3)
		w.labelled(interval, all, leased)
		w.pass(lease - time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetHeldCount() != 0 || m.GetAcceptedCount() != 100 {
			t.Errorf("%v", m)
		}
		w.noGap(start.Add(interval), time.Now(), all...)
	})
}
