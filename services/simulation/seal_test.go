package simulation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestNoRemovalWithoutSeal: a roll of fewer producers is cut off at each frame,
// in each way that a stream can end. Nobody is struck off, and nobody missed.
func TestNoRemovalWithoutSeal(t *testing.T) {
	all := names(60)
	fewer := callRoll(20, 3, all[:5]...)
	ways := map[string]func(w *world, s *stage) error{
		"error":     func(*world, *stage) error { return status.Error(codes.Internal, "cut") },
		"clean_eof": func(*world, *stage) error { return nil },
		"stall":     func(_ *world, s *stage) error { return s.wait() },
		"reset": func(w *world, s *stage) error {
			s.sleep(time.Second) // what was said is on its way
			w.network.reset(registryAddress)
			return s.wait()
		},
		"silence": func(w *world, s *stage) error {
			s.sleep(time.Second)
			w.network.silence(registryAddress)
			return s.wait()
		},
	}
	for way, end := range ways {
		for cut := range len(fewer.frames()) {
			t.Run(fmt.Sprintf("%s_at_%d", way, cut), func(t *testing.T) {
				simulate(t, func(w *world) {
					r := w.scriptedRegistry(
						callRoll(10, 3, all...).once,
						func(s *stage) error {
							if err := s.say(fewer.frames()[:cut]...); err != nil {
								return err
							}
							return end(w, s)
						})
					start := time.Now()
					w.collector("c-1")
					w.pass(90 * time.Second)
					if r.subscriptions() < 3 {
						t.Fatalf("subscribed %d times: the cut was not seen", r.subscriptions())
					}
					w.collects("c-1", all...)
					w.noGap(start, time.Now(), all...)
					if m := w.membership("c-1"); m.GetRevision() != 10 || m.GetAcceptedCount() != 60 {
						t.Errorf("the accepted set moved: %v", m)
					}
				})
			})
		}
	}
}

// refused plays a good roll and then a bad one, and checks that the bad one
// leaves no trace but its refusal; a good one after that is taken.
func refused(t *testing.T, reason string, bad ...assignment.Frame) {
	t.Helper()
	simulate(t, func(w *world) {
		all := names(30)
		after := callRoll(30, 2, append(slices.Clone(all), "late")...)
		r := w.scriptedRegistry(
			callRoll(10, 2, all...).once,
			func(s *stage) error {
				if err := s.say(bad...); err != nil {
					return err
				}
				return s.wait()
			},
			func(s *stage) error {
				s.sleep(12 * time.Second)
				return after.stands(s)
			})
		start := time.Now()
		w.collector("c-1")
		w.pass(25 * time.Second)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetRevision() != 10 || m.GetLastRefusal().GetReason() != reason {
			t.Errorf("after the bad roll: %v, want a refusal for %s", m, reason)
		}
		nack := r.lastAck(func(a *registryv1.AcknowledgeRequest) bool {
			return a.GetOutcome() == registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED
		})
		if nack.GetRefusal().GetReason() != reason || nack.GetRevision() != 10 || nack.GetAcceptedCount() != 30 {
			t.Errorf("the registry was told %v", nack)
		}
		w.pass(time.Minute)
		w.collects("c-1", append(all, "late")...)
		w.noGap(start, time.Now(), all...)
		if m := w.membership("c-1"); m.GetLastRefusal() != nil || !m.GetSubscribed() {
			t.Errorf("after the good roll: %v", m)
		}
	})
}

// TestSealExact: an end frame that does not agree with everything before it
// seals nothing.
func TestSealExact(t *testing.T) {
	few := names(5)
	for name, c := range map[string]struct {
		reason string
		spoil  func(r *roll)
	}{
		"digest":       {"DIGEST_MISMATCH", func(r *roll) { r.end.SetDigest++ }},
		"set_count":    {"COUNT_MISMATCH", func(r *roll) { r.end.SetCount-- }},
		"upsert_count": {"COUNT_MISMATCH", func(r *roll) { r.end.Upserts++ }},
		"chunk_count":  {"COUNT_MISMATCH", func(r *roll) { r.end.Chunks++ }},
		"lost_chunk":   {"SEQUENCE", func(r *roll) { r.chunks = r.chunks[1:] }},
		"lost_last":    {"COUNT_MISMATCH", func(r *roll) { r.chunks = r.chunks[:1] }},
		"epoch":        {"EPOCH_MISMATCH", func(r *roll) { r.end.Epoch = "other" }},
		"revision":     {"REVISION", func(r *roll) { r.end.Revision++ }},
		"snapshot_id":  {"SNAPSHOT_ID", func(r *roll) { r.end.SnapshotID++ }},
		"lost_item":    {"COUNT_MISMATCH", func(r *roll) { r.chunks[0].Assignments = r.chunks[0].Assignments[1:] }},
		"other_item":   {"DIGEST_MISMATCH", func(r *roll) { r.chunks[0].Assignments[0].Version++ }},
	} {
		t.Run(name, func(t *testing.T) {
			r := callRoll(20, 2, few...)
			c.spoil(r)
			refused(t, c.reason, r.frames()...)
		})
	}
}

// TestOneBadItemRefusesAll: a member that cannot be decoded is not left out.
func TestOneBadItemRefusesAll(t *testing.T) {
	r := callRoll(20, 2, names(40)...)
	r.chunks[1].Assignments[3].ProducerID = "not an id"
	refused(t, "MALFORMED_FRAME", r.frames()...)
}

// TestNestedBeginRefused: a begin inside an open snapshot ends it.
func TestNestedBeginRefused(t *testing.T) {
	r := callRoll(20, 2, names(5)...)
	refused(t, "NESTED_BEGIN", append([]assignment.Frame{r.begin, r.chunks[0]}, r.frames()...)...)
}

// TestNoImplicitEnd: neither a heartbeat nor the next begin ends a snapshot.
func TestNoImplicitEnd(t *testing.T) {
	r := callRoll(20, 2, names(5)...)
	refused(t, "HEARTBEAT_INSIDE", r.begin, r.chunks[0], r.chunks[1],
		&assignment.Heartbeat{Epoch: scriptedEpoch, Revision: 20, SetCount: 5, SetDigest: r.end.SetDigest})
}

// TestUnique: a producer that stands twice refuses the roll.
func TestUnique(t *testing.T) {
	r := callRoll(20, 2, names(5)...)
	r.chunks[1].Assignments[0] = r.chunks[0].Assignments[0]
	refused(t, "REPEATED_PRODUCER", r.frames()...)
}

// TestOrdered: chunks out of order refuse the roll.
func TestOrdered(t *testing.T) {
	r := callRoll(20, 2, names(6)...)
	r.chunks[0], r.chunks[1] = r.chunks[1], r.chunks[0]
	refused(t, "SEQUENCE", r.frames()...)
}

// TestNoTimeTravel: a roll older than the accepted one of its epoch is refused.
func TestNoTimeTravel(t *testing.T) {
	refused(t, "REVISION", callRoll(9, 2, names(5)...).frames()...)
}

// TestPoisonDoesNotFreeze: two refusals in a row make the collector ask for
// everything; and an assignment that cannot be run here keeps nobody else from
// being collected.
func TestPoisonDoesNotFreeze(t *testing.T) {
	t.Run("refusals", func(t *testing.T) {
		simulate(t, func(w *world) {
			all := names(30)
			bad := callRoll(20, 2, all[:5]...)
			bad.end.SetDigest++
			spoil := func(s *stage) error {
				if err := s.say(bad.frames()...); err != nil {
					return err
				}
				return s.wait()
			}
			r := w.scriptedRegistry(callRoll(10, 2, all...).once, spoil, spoil, callRoll(30, 2, append(slices.Clone(all), "late")...).stands)
			w.collector("c-1")
			w.pass(time.Minute)
			for n, whole := range []bool{true, false, false, true} {
				if got := r.request(n).GetAccepted() == nil; got != whole {
					t.Errorf("subscription %d asks for everything: %v, want %v", n, got, whole)
				}
			}
			w.collects("c-1", append(all, "late")...)
		})
	})
	t.Run("unrunnable", func(t *testing.T) {
		simulate(t, func(w *world) {
			all := names(10)
			odd := callRoll(10, 2, all...)
			odd.chunks[0].Assignments[2].Endpoint = "teleport://elsewhere/metrics"
			r := w.scriptedRegistry(odd.stands)
			start := time.Now()
			w.collector("c-1")
			w.pass(time.Minute)
			w.collects("c-1", all...)
			w.noGap(start, time.Now(), append(slices.Clone(all[:2]), all[3:]...)...)
			ack := r.lastAck(func(a *registryv1.AcknowledgeRequest) bool { return a.GetUnrunnableCount() == 1 })
			if len(ack.GetUnrunnable()) != 1 || ack.GetUnrunnable()[0].GetProducerId() != all[2] || ack.GetAcceptedCount() != 10 {
				t.Errorf("the registry was told %v", ack)
			}
		})
	})
}

// TestAtomicApply: while a roll is being called, the old set is collected; with
// its seal, the new one, whole.
func TestAtomicApply(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(30)
		next := callRoll(20, 3, names(90)...)
		w.scriptedRegistry(callRoll(10, 2, all...).once, func(s *stage) error {
			for _, f := range next.frames() {
				if err := s.say(f); err != nil {
					return err
				}
				s.sleep(10 * time.Second)
			}
			return s.live(next.end)
		})
		w.collector("c-1")
		w.pass(21 * time.Second)
		for range 3 {
			w.collects("c-1", all...)
			if m := w.membership("c-1"); m.GetAcceptedCount() != 30 || m.GetAppliedCount() != 30 {
				t.Errorf("before the seal: %v", m)
			}
			w.pass(10 * time.Second)
		}
		w.pass(20 * time.Second)
		w.collects("c-1", names(90)...)
	})
}

// TestUnknownFramesAreHarmless: what only a newer registry says is passed over.
func TestUnknownFramesAreHarmless(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(6)
		r := callRoll(10, 2, all...)
		w.scriptedRegistry(func(s *stage) error {
			for _, f := range r.frames() {
				if err := s.Send(&registryv1.SubscribeResponse{}); err != nil {
					return err
				}
				if err := s.say(f); err != nil {
					return err
				}
			}
			return s.live(r.end)
		})
		w.collector("c-1")
		w.pass(time.Minute)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); !m.GetSubscribed() {
			t.Errorf("not subscribed: %v", m)
		}
	})
}

// TestReconnectStormBounded: against a registry that ends each stream at once, a
// collector's tries get rarer, up to its longest backoff.
func TestReconnectStormBounded(t *testing.T) {
	simulate(t, func(w *world) {
		r := w.scriptedRegistry(func(*stage) error { return status.Error(codes.Unavailable, "no") })
		w.collector("c-1")
		w.pass(10 * time.Minute)
		early := r.subscriptions()
		w.pass(time.Hour)
		// Full jitter below 30 s: 15 s on average.
		if n := r.subscriptions() - early; n < 120 || n > 500 {
			t.Errorf("%d tries in an hour", n)
		}
		if early > 120 {
			t.Errorf("%d tries in the first ten minutes", early)
		}
	})
}
