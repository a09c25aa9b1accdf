package leader_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// suspects are the ids of those that are suspected.
func (r *replica) suspects() map[assignment.ProducerID]string {
	r.t.Helper()
	all := map[assignment.ProducerID]string{}
	if err := r.Look(func(v *roster.View) {
		for s := range v.Suspects {
			all[s.ID] = s.Reason
		}
	}); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestOvertaken: what answers at the address of a producer is no sign of its life
// once another one was registered there later. It is struck off after its time,
// unless it renews, has no lease, or its answers name it.
func TestOvertaken(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.join("c2")
		r.register(permanent, 0, 40) // so that one is no mass
		r.at("h:1", mortal, "older")
		r.at("h:2", mortal, "renewing")
		r.at("h:3", permanent, "for-good")
		r.at("h:4", mortal, "identified")
		r.at("h:5", mortal, "alone")
		r.witnesses.mu.Lock()
		r.identified["identified"] = true
		r.witnesses.mu.Unlock()
		pass(2 * time.Minute)
		if all := r.suspects(); len(all) > 0 {
			t.Fatalf("suspected before there is another one: %v", all)
		}
		if len(r.asked) > 0 {
			t.Errorf("asked by name: %v", r.asked)
		}
		for i := 1; i <= 4; i++ {
			r.at(fmt.Sprintf("h:%d", i), mortal, assignment.ProducerID(fmt.Sprint("newer-", i)))
		}
		began, renewer := time.Now(), r.producer("renewing").Collector
		for r.producer("older") != nil && time.Since(began) < time.Hour {
			r.at("h:2", mortal, "renewing")
			pass(20 * time.Second)
		}
		if took := time.Since(began); r.producer("older") != nil || took < mortal.ExpireAfter || took > mortal.ExpireAfter+time.Minute {
			t.Errorf("struck off after %v", took)
		}
		for range 3 * 60 * 2 {
			r.at("h:2", mortal, "renewing")
			pass(10 * time.Second)
		}
		if r.named["for-good"] || r.named["alone"] || r.named["newer-1"] {
			t.Errorf("asked about are %v", r.named)
		}
		if n := r.count(); n != 40+4+4 {
			t.Errorf("%d are left", n)
		}
		if e := r.producer("renewing"); e.Collector != renewer {
			t.Errorf("it was moved to %s, where it answers no better", e.Collector)
		}
		if all := r.suspects(); len(all) != 1 || all["renewing"] != "another producer was registered at its address" {
			t.Errorf("suspected are %v", all)
		}
		if _, _, _, err := r.DeregisterProducer(t.Context(), "newer-2", ""); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if all := r.suspects(); len(all) > 0 {
			t.Errorf("the other one is gone, and suspected are %v", all)
		}
	})
}

// TestOvertakenAndUnheard: a collector that cannot be asked is no witness of that
// either.
func TestOvertakenAndUnheard(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(permanent, 0, 40)
		r.at("h:1", mortal, "older")
		pass(time.Second)
		r.at("h:1", mortal, "newer")
		r.silence("c1", true)
		pass(2 * mortal.ExpireAfter)
		if r.producer("older") == nil {
			t.Error("it was struck off")
		}
		r.silence("c1", false)
		pass(mortal.ExpireAfter - time.Minute)
		if r.producer("older") == nil {
			t.Error("it was struck off before its time")
		}
		pass(2 * time.Minute)
		if r.producer("older") != nil || r.producer("newer") == nil {
			t.Error("it is there still, or the other one is not")
		}
	})
}

// TestOvertakenAndHalfHeard: a collector that answers some of its questions is not
// heard: what it was not asked about would seem to have recovered.
func TestOvertakenAndHalfHeard(t *testing.T) {
	bubble(t, leader.Times{}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		r.register(permanent, 0, 40)
		r.at("h:1", mortal, "older")
		pass(time.Second)
		r.at("h:1", mortal, "newer")
		pass(time.Minute)
		if len(r.suspects()) != 1 {
			t.Fatalf("suspected are %v", r.suspects())
		}
		r.mu.Lock()
		r.partly = true
		r.mu.Unlock()
		pass(2 * mortal.ExpireAfter)
		if r.producer("older") == nil || len(r.suspects()) != 1 {
			t.Errorf("half heard, it is %v, suspected are %v", r.producer("older"), r.suspects())
		}
	})
}

// TestHostileAddresses: a flood of producers at one address, and of pairs, is asked
// about so many at a time.
func TestHostileAddresses(t *testing.T) {
	bubble(t, leader.Times{Ask: 15 * time.Second, Weigh: time.Hour}, func(t *testing.T, _ *store.Memory, r *replica) {
		r.join("c1")
		flood := func(name string, address func(i int) string) {
			t.Helper()
			cmds := make([]registrar.RegisterProducer, 1000)
			for part := range 6 {
				for i := range cmds {
					cmds[i] = registrar.RegisterProducer{
						ID: assignment.ProducerID(fmt.Sprintf("%s-%d-%d", name, part, i)), Stored: []byte(address(i)), Life: roster.Life{Lease: time.Hour, ExpireAfter: 24 * time.Hour}, Instance: "i",
					}
				}
				for _, result := range r.RegisterProducers(t.Context(), cmds) {
					if result.Err != nil {
						t.Fatal(result.Err)
					}
				}
				pass(time.Millisecond)
			}
		}
		flood("one", func(int) string { return "h:1" })
		flood("many", func(i int) string { return fmt.Sprint("h", i) })
		pass(16 * time.Second)
		asked := 0
		for _, n := range r.asked {
			if asked += n; n > 1000 {
				t.Errorf("asked about %d at once", n)
			}
		}
		// Of six at each address the newest is not asked about, of the large party
		// the first thousand are looked at.
		if asked < 5000 || asked > 6000 {
			t.Errorf("asked about %d", asked)
		}
	})
}
