package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

// stands is the mode of expiry that the registry goes by.
func (r *rig) stands(t *testing.T) registryv1.ExpiryMode {
	t.Helper()
	var mode roster.ExpiryMode
	if err := r.registrar.Look(func(v *roster.View) { mode = v.Expiry().Stands(time.Now()) }); err != nil {
		t.Fatal(err)
	}
	return registryv1.ExpiryMode(mode)
}

// TestLeases: a registration is told how long it lives and when to come back, a
// permanent one only the latter.
func TestLeases(t *testing.T) {
	for name, c := range map[string]struct {
		change                       func(p *registryv1.Producer)
		permanent                    bool
		lease, expireAfter, comeBack time.Duration
	}{
		"by hand":      {func(*registryv1.Producer) {}, true, 0, 0, renewAfter},
		"by a process": {func(p *registryv1.Producer) { p.InstanceId = "a" }, false, 10 * time.Minute, time.Hour, 200 * time.Second},
		"permanent process": {func(p *registryv1.Producer) {
			p.InstanceId, p.Permanent = "a", new(true)
		}, true, 0, 0, renewAfter},
		"by hand, with a lease": {func(p *registryv1.Producer) {
			p.Permanent, p.LeaseDuration = new(false), durationpb.New(30*time.Second)
		}, false, 30 * time.Second, time.Hour, 10 * time.Second},
		"long": {func(p *registryv1.Producer) {
			p.InstanceId, p.LeaseDuration = "a", durationpb.New(3*time.Hour)
		}, false, 3 * time.Hour, 3 * time.Hour, time.Hour},
		"expiry": {func(p *registryv1.Producer) {
			p.InstanceId, p.ExpireAfter = "a", durationpb.New(48*time.Hour)
		}, false, 10 * time.Minute, 48 * time.Hour, 200 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, setup{}, func(t *testing.T, r *rig) {
				resp := r.register(t, with("p", c.change))
				if resp.GetLeaseDuration().AsDuration() != c.lease || (resp.LeaseDuration == nil) != c.permanent ||
					resp.GetRenewAfter().AsDuration() != c.comeBack {
					t.Errorf("%v", resp)
				}
				p := r.producer(t, "p")
				if p.Permanent == nil || p.GetPermanent() != c.permanent || p.GetLeaseDuration().AsDuration() != c.lease ||
					p.GetExpireAfter().AsDuration() != c.expireAfter {
					t.Errorf("%v", p)
				}
			})
		})
	}
}

// TestZoneAndRate are told as they were registered.
func TestZoneAndRate(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		in := with("p", func(p *registryv1.Producer) { p.Zone, p.ExpectedSamplesPerSecond = "eu-1", 12.5 })
		resp := r.register(t, in)
		if p := r.producer(t, "p"); p.GetZone() != "eu-1" || p.GetExpectedSamplesPerSecond() != 12.5 {
			t.Errorf("%v", p)
		}
		in.Zone = "eu-2"
		if again := r.register(t, in); !again.GetChanged() || again.GetProducer().GetVersion() != resp.GetProducer().GetVersion() {
			t.Errorf("another zone is a change, and none of the assignment: %v", again)
		}
	})
}

// suspect has the registry know that a producer fails at its collector.
func (r *rig) suspect(t *testing.T, id assignment.ProducerID) {
	t.Helper()
	var txn roster.Txn
	if err := r.registrar.Look(func(v *roster.View) { txn = v.Suspected(v.Producer(id), "c1", "it times out", time.Now()) }); err != nil {
		t.Fatal(err)
	}
	if n, err := r.registrar.Write(t.Context(), []roster.Txn{txn}); err != nil || n != 1 {
		t.Fatalf("%d written, %v", n, err)
	}
}

// TestSuspects tell since when they fail, when they last renewed, and when they
// will be struck off if they do neither better; the same in all answers.
func TestSuspects(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.join(t, "c1")
		in := with("p", func(p *registryv1.Producer) { p.InstanceId, p.ExpireAfter = "a", durationpb.New(20*time.Minute) })
		r.register(t, in)
		if p := r.producer(t, "p"); p.SuspectTime != nil || p.RenewTime != nil || p.ExpireTime != nil {
			t.Errorf("above suspicion: %v", p)
		}
		r.suspect(t, "p")
		since := time.Now()
		time.Sleep(5 * time.Minute)
		p := r.producer(t, "p")
		if !p.GetSuspectTime().AsTime().Equal(since) || p.RenewTime != nil || !p.GetExpireTime().AsTime().Equal(since.Add(20*time.Minute)) {
			t.Errorf("%v", p)
		}
		resp := r.register(t, in)
		p = r.producer(t, "p")
		if resp.GetChanged() || !p.GetSuspectTime().AsTime().Equal(since) || !p.GetRenewTime().AsTime().Equal(time.Now()) ||
			!p.GetExpireTime().AsTime().Equal(time.Now().Add(20*time.Minute)) {
			t.Errorf("renewed: %v, the answer %v", p, resp)
		}
		list, err := r.ListProducers(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]*registryv1.Producer{"listed": list.GetProducers()[0], "answered": resp.GetProducer()} {
			if diff := cmp.Diff(p, got, protocmp.Transform()); diff != "" {
				t.Errorf("read and %s differ (-read +%s):\n%s", name, name, diff)
			}
		}
	})
}

// TestStale: what is read while the store is away says so.
func TestStale(t *testing.T) {
	bubble(t, setup{}, func(t *testing.T, r *rig) {
		r.register(t, producer("p"))
		r.enlist(t, "c1", "a")
		reads := func(want bool) {
			t.Helper()
			p, err1 := r.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: "p"})
			ps, err2 := r.ListProducers(t.Context(), nil)
			c, err3 := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
			cs, err4 := r.ListCollectors(t.Context(), nil)
			for i, err := range []error{err1, err2, err3, err4} {
				if err != nil {
					t.Fatalf("read %d: %v", i, err)
				}
			}
			got := []bool{p.GetStale(), ps.GetStale(), c.GetStale(), cs.GetStale()}
			if diff := cmp.Diff([]bool{want, want, want, want}, got); diff != "" {
				t.Errorf("stale (-want +got):\n%s", diff)
			}
		}
		reads(false)
		r.memory.Fail(func(op string) error {
			if op == store.OpDeliver {
				return nil
			}
			return registrar.ErrLeaseLost
		})
		time.Sleep(time.Minute)
		reads(true)
		r.memory.Fail(nil)
		time.Sleep(time.Minute)
		reads(false)
	})
}
