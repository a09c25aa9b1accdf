package simulation

import (
	"slices"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestOmicronStory is the failure that Rollcall exists for
// (https://github.com/oxidecomputer/omicron/issues/7124): a collector asks whom
// it collects from, and the answer is a refused connection, half a list, an
// empty list, or that of a registry which has forgotten everybody. Each of them
// strikes nobody off, and none keeps a real deregistration from working.
func TestOmicronStory(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.registry(registry.NewMemoryStore())
		w.collector("c-1")
		w.pass(time.Second)
		all := names(30)
		w.register(all...)
		start := time.Now()
		w.pass(time.Minute)
		act := func(name string, seen func() bool) {
			t.Helper()
			if !seen() {
				w.fatalf("%s: the collector has not come to see it: %v", name, w.membership("c-1"))
			}
			w.collects("c-1", all...)
			w.noGap(start, time.Now(), all...)
			if t.Failed() {
				w.fatalf("%s: the story ends here", name)
			}
		}

		w.crash(r, registryAddress)
		w.network.refuse(registryAddress, true)
		w.pass(5 * time.Minute)
		act("the connection is refused", func() bool { return !w.membership("c-1").GetSubscribed() })

		// Not even the half that it tells is the old roll's: it is shorter.
		half := callRoll(20, 2, all[:10]...).frames()[:2]
		lies := w.scriptedRegistry(
			func(s *stage) error { return s.say(half...) },
			func(s *stage) error {
				_ = s.say(half...)
				return status.Error(codes.Internal, "half of it is enough")
			},
			func(s *stage) error {
				_ = s.say(half...)
				s.sleep(time.Second)
				w.network.reset(registryAddress)
				return s.wait()
			},
			callRoll(20, 1).stands)
		w.network.refuse(registryAddress, false)
		for lies.subscriptions() < 4 {
			w.pass(time.Second)
			act("half an answer", func() bool {
				return w.membership("c-1").GetAcceptedCount() == int64(len(all)) || lies.subscriptions() == 4
			})
		}
		w.pass(5 * time.Minute)
		act("an empty answer", func() bool {
			m := w.membership("c-1")
			return m.GetSubscribed() && m.GetAcceptedCount() == 0 && m.GetHeldCount() == int64(len(all))
		})

		r = w.registry(registry.NewMemoryStore())
		w.network.reset(registryAddress)
		w.pass(5 * time.Minute)
		act("a registry that has lost its store", func() bool {
			return r.metric(t, "rollcall_registry_subscriptions") == 1 && w.membership("c-1").GetHeldCount() == int64(len(all))
		})

		w.register(all...)
		w.pass(time.Minute)
		act("everybody has registered again", func() bool {
			m := w.membership("c-1")
			return m.GetAcceptedCount() == int64(len(all)) && m.GetHeldCount() == 0
		})
		w.deregister(all[3])
		w.pass(100 * time.Millisecond)
		w.collects("c-1", slices.Delete(slices.Clone(all), 3, 4)...)
	})
}
