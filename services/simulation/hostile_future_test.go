package simulation

import (
	"math"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// TestHostileRegistryFromTheFuture: a liar in the registry's place seals, or
// confirms by a heartbeat, the last revision there can be, in the real epoch. No
// revision of that epoch is ever new to the collector again. The real registry
// finds that somebody has seen more than its store has, which is what a rewound
// store looks like, and begins a new epoch: the pair is together again, soon, and
// nobody was struck off or missed.
func TestHostileRegistryFromTheFuture(t *testing.T) {
	for name, beat := range map[string]bool{"sealed": false, "confirmed": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				store := registry.NewMemoryStore()
				genuine := w.registry(store)
				w.collector("c-1")
				w.pass(time.Second)
				all := names(30)
				w.register(all...)
				w.pass(15 * time.Second)
				start := time.Now()
				w.collects("c-1", all...)
				epoch := w.membership("c-1").GetEpoch()
				genuine.terminate(t)

				w.scriptedRegistry(func(s *stage) error { return fromTheFuture(s, assignment.Epoch(epoch), beat, all) })
				w.pass(time.Minute)
				if m := w.membership("c-1"); m.GetRevision() != math.MaxInt64 || m.GetEpoch() != epoch {
					t.Fatalf("the lie was not believed: %v", m)
				}
				w.network.reset(registryAddress)
				w.registry(store)
				w.pass(time.Minute)
				w.register("late")
				w.pass(time.Second)
				m := w.membership("c-1")
				if !m.GetSubscribed() || m.GetEpoch() == epoch || m.GetRevision() == math.MaxInt64 {
					t.Errorf("they are not together again: %v", m)
				}
				w.pass(30 * time.Second)
				w.collects("c-1", append(all, "late")...)
				w.noGap(start, time.Now(), all...)
			})
		})
	}
}

// fromTheFuture calls the roll of all, as the real registry has it up to its
// versions, at the last revision.
func fromTheFuture(s *stage, epoch assignment.Epoch, beat bool, ids []string) error {
	at := assignment.Revision(math.MaxInt64)
	if beat {
		at = 1 << 40
	}
	r := callRoll(at, 2, ids...)
	r.begin.Epoch, r.end.Epoch = epoch, epoch
	if err := s.say(r.frames()...); err != nil {
		return err
	}
	r.end.Revision = math.MaxInt64
	return s.live(r.end)
}
