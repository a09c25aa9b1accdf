package simulation

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ups is a sink that notes the samples of up, and how often a time stamp came
// twice.
type ups struct {
	mu    sync.Mutex
	of    map[string][]string // by instance and path: time stamp and value
	at    map[string]bool
	twice int
}

// Write takes a batch.
func (u *ups) Write(_ context.Context, b *collector.Batch) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range b.Samples {
		key := fmt.Sprint(s.Series.Labels(), s.Time)
		if u.at[key] {
			u.twice++
		}
		u.at[key] = true
		if s.Series.Labels().Get("__name__") == "up" {
			id := s.Series.Labels().Get("id")
			u.of[id] = append(u.of[id], fmt.Sprintf("%d:%v", s.Time, s.Value))
		}
	}
	return nil
}

func (u *ups) count(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.of[id])
}

// cast gives all members of a roll a role, and a label by which to tell them.
func (r *roll) cast(role assignment.Role) *roll {
	for _, c := range r.chunks {
		for _, a := range c.Assignments {
			a.Role = role
			a.Labels = []assignment.Label{{Name: "id", Value: string(a.ProducerID)}}
		}
	}
	return r.reseal()
}

// handsOver is a stream that gives producers as a target, and as the owner some
// time later.
func handsOver(after time.Duration, ids ...string) script {
	return func(s *stage) error {
		given := callRoll(7, 2, ids...).cast(assignment.RoleHandoffTarget)
		if err := s.say(given.frames()...); err != nil {
			return err
		}
		for at := time.Duration(0); at < after; at += 5 * time.Second {
			s.sleep(5 * time.Second)
			if err := s.say(&assignment.Heartbeat{Epoch: given.end.Epoch, Revision: 7, SetCount: given.end.SetCount, SetDigest: given.end.SetDigest}); err != nil {
				return err
			}
		}
		r := callRoll(8, 2, ids...).cast(assignment.RoleOwner)
		r.begin.SnapshotID, r.begin.Scope, r.begin.BaseRevision, r.end.SnapshotID = 2, assignment.ScopeChanges, 7, 2
		for _, c := range r.chunks {
			c.SnapshotID = 2
		}
		if err := s.say(r.frames()...); err != nil {
			return err
		}
		return s.live(r.end)
	}
}

// TestTargetIsProbedAndTold: what a collector is handed it tries at once, tells of
// when it answers, and stores nothing of what does not; until it is the owner.
func TestTargetIsProbedAndTold(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(10)
		dead := all[7]
		w.fleet.die(dead)
		u := &ups{of: map[string][]string{}, at: map[string]bool{}}
		r := w.scriptedRegistry(handsOver(35*time.Second, all...))
		var mu sync.Mutex
		var made *registryv1.Collector
		r.welcome = func(m *registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			m.Collector.Generation = 1
			made = m.GetCollector()
			return &registryv1.RegisterCollectorResponse{Collector: m.GetCollector()}, nil
		}
		w.collector("c-1", func(c *collector.Config) { c.Sink, c.Capacity, c.Zone = u, 1e5, "eu-1" })
		tellings := func() (n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, a := range r.acks {
				ids := a.GetCollectedProducerIds()
				if slices.Contains(ids, dead) || len(ids) > 0 && !a.GetPersisted() {
					t.Errorf("told %v, persisted: %v", ids, a.GetPersisted())
				}
				if len(ids) == len(all)-1 {
					n++
				}
			}
			r.acks = nil
			return n
		}
		w.pass(time.Second)
		mu.Lock()
		if made.GetCapacitySamplesPerSecond() != 1e5 || made.GetZone() != "eu-1" {
			t.Errorf("registered as %v", made)
		}
		mu.Unlock()
		w.pass(29 * time.Second)
		if n := tellings(); n < 5 || n > 8 {
			t.Errorf("told %d times in half a minute", n)
		}
		if n := u.count(dead); n != 0 {
			t.Errorf("%d samples of up of one that never answered", n)
		}
		// Tried on the grid and every 5 s.
		if n := w.fleet.count(dead); n < 6 || n > 10 {
			t.Errorf("it was tried %d times", n)
		}
		for _, id := range all {
			if n := u.count(id); id != dead && (n < 3 || n > 4) {
				t.Errorf("%s: %d samples of up", id, n)
			}
		}
		w.checkTestimony(dead, len(all))
		w.pass(5 * time.Minute)
		if n := tellings(); n > 1 {
			t.Errorf("told %d times as the owner", n)
		}
		if n := u.count(dead); n < 28 || n > 31 {
			t.Errorf("%d samples of up of one that is owned and down", n)
		}
		if u.twice != 0 {
			t.Errorf("%d samples with a time stamp that was there", u.twice)
		}
	})
}

// checkTestimony asks c-1, which is a witness of one that fails and of the others.
func (w *world) checkTestimony(dead string, all int) {
	w.t.Helper()
	for _, failing := range []bool{false, true} {
		var resp *collectorv1.WitnessResponse
		err := w.client("c-1:7480", func(conn *grpc.ClientConn) (err error) {
			resp, err = collectorv1.NewCollectionServiceClient(conn).Witness(w.ctx, &collectorv1.WitnessRequest{Failing: failing})
			return err
		})
		if err != nil || resp.GetCollectorId() != "c-1" || resp.GetInstanceId() == "" || !failing && len(resp.GetTestimonies()) != all {
			w.fatalf("%v, %v", resp, err)
		}
		for _, m := range resp.GetTestimonies() {
			down := m.GetProducerId() == dead
			if down != (m.GetFailureCount() > 0) || down == m.GetCollected() || down != (m.GetFailingSince() != nil) ||
				down != (m.GetSamplesPerSecond() == 0) || failing && !down {
				w.t.Errorf("%v", m)
			}
		}
	}
}

// TestExpungedAtRegistration: the refusal of a registration is believed as that of
// a subscription is.
func TestExpungedAtRegistration(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(30)
		r := w.scriptedRegistry(callRoll(7, 2, all...).once)
		w.collector("c-1")
		w.pass(time.Second)
		start := time.Now()
		r.mu.Lock()
		r.welcome = func(*registryv1.RegisterCollectorRequest) (*registryv1.RegisterCollectorResponse, error) {
			refusal, err := status.New(codes.FailedPrecondition, "expunged").WithDetails(
				&errdetails.ErrorInfo{Domain: "rollcall", Reason: "EXPUNGED"})
			if err != nil {
				return nil, err
			}
			return nil, refusal.Err()
		}
		r.mu.Unlock()
		w.pass(time.Hour)
		w.collects("c-1", all...)
		if m := w.membership("c-1"); m.GetHeldCount() != 30 || m.GetAcceptedCount() != 0 {
			t.Errorf("%v", m)
		}
		w.noGap(start, time.Now(), all...)
	})
}
