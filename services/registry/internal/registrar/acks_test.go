package registrar_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// acknowledgement is what a member says of its last snapshot.
func (m *member) acknowledgement(cmd registrar.Subscribe) registrar.Acknowledge {
	return registrar.Acknowledge{
		Ack:        roster.Ack{Collector: cmd.Collector, Instance: cmd.Instance, Epoch: m.epoch, Revision: m.at},
		Generation: cmd.Generation,
		Snapshot:   m.stream.ID() + "/1",
	}
}

// acknowledge must succeed.
func (r *replica) acknowledge(t *testing.T, a registrar.Acknowledge) []assignment.Removal {
	t.Helper()
	explained, err := r.Acknowledge(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return explained
}

// storedAck is a collector's acknowledgement as the store has it; nil for none.
func storedAck(t *testing.T, m *store.Memory, id assignment.CollectorID) *roster.Ack {
	t.Helper()
	var ack *roster.Ack
	if _, err := m.Open().Load(t.Context(), func(f roster.Found) error {
		if a, ok := f.Record.(*roster.Ack); ok && a.Collector == id {
			ack = a
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return ack
}

// TestAcksAreStoredNowAndThen: a busy collector acknowledges ten times a second;
// the store hears of it every 5 s.
func TestAcksAreStoredNowAndThen(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		ack := r.subscribe(t, cmd).acknowledgement(cmd)
		before := m.Revision()
		for i := range 600 {
			ack.Snapshot = fmt.Sprintf("s/%d", i)
			ack.Unrunnable = int64(i)
			r.acknowledge(t, ack)
			time.Sleep(100 * time.Millisecond)
		}
		if writes := m.Revision() - before; writes < 11 || writes > 13 {
			t.Errorf("%d writes in a minute", writes)
		}
		time.Sleep(5 * time.Second)
		if got := storedAck(t, m, "c1"); got == nil || got.Unrunnable != 599 {
			t.Errorf("the store has %+v", got)
		}
	})
}

// TestNackOfAnotherEpochIsVisible: a collector that refuses the first snapshot of
// a new epoch still holds a set of the old one, and must be heard.
func TestNackOfAnotherEpochIsVisible(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		nack := r.subscribe(t, cmd).acknowledgement(cmd)
		nack.Epoch = "an-older-one"
		nack.Refusal = &assignment.Refusal{Reason: "TOO_LARGE", Revision: 9}
		r.acknowledge(t, nack)
		c, _, err := r.Collector(t.Context(), "c1", 0)
		if err != nil || c.LastAck == nil || c.LastAck.Refusal == nil || c.LastAck.Refusal.Reason != "TOO_LARGE" {
			t.Errorf("%+v, %v", c, err)
		}
		if n := r.AcknowledgedRevision("c1"); n != 0 {
			t.Errorf("revision %d of another epoch counts", n)
		}
	})
}

// TestNackOfAnotherEpochIsNotExplained: what a store remembers that was set back
// says nothing of what a collector holds that has seen a later epoch, also when
// it refuses what it is sent.
func TestNackOfAnotherEpochIsNotExplained(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		member := r.subscribe(t, cmd)
		r.register(t, producers(0, 2)...)
		member.until(2)
		r.deregister(t, producerID(1))
		member.until(1)
		nack := member.acknowledgement(cmd)
		nack.Refusal = &assignment.Refusal{Reason: "OUTSIDE_SNAPSHOT"}
		nack.Held, nack.HeldIDs = 1, []assignment.ProducerID{producerID(1)}
		if got := r.acknowledge(t, nack); len(got) != 1 {
			t.Errorf("in this epoch: %+v", got)
		}
		nack.Epoch = "a-later-one"
		if got := r.acknowledge(t, nack); len(got) != 0 {
			t.Errorf("in another one: %+v", got)
		}
	})
}

// TestNackIsVisible at once, on every replica, until something is accepted; so
// is what is held.
func TestNackIsVisible(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		other := serve(t, m.Open(), "r2")
		cmd := r.enlist(t, "c1", "a")
		ack := r.subscribe(t, cmd).acknowledgement(cmd)
		seen := func(on *replica) *roster.Ack {
			c, _, err := on.Collector(t.Context(), "c1", m.Revision())
			if err != nil {
				t.Fatal(err)
			}
			return c.LastAck
		}
		if a := seen(r); a != nil {
			t.Errorf("%+v before any acknowledgement", a)
		}
		refusal := &assignment.Refusal{Reason: "DIGEST_MISMATCH", Message: "m", ProducerID: "p", Revision: 9}
		nack := ack
		nack.Refusal = refusal
		r.acknowledge(t, nack)
		for _, on := range []*replica{r, other} {
			a := seen(on)
			if a == nil {
				t.Fatalf("%s knows of no acknowledgement", on.Instance)
			}
			if diff := cmp.Diff(refusal, a.Refusal); diff != "" {
				t.Errorf("%s: refusal (-want +got):\n%s", on.Instance, diff)
			}
		}
		time.Sleep(time.Second)
		r.acknowledge(t, ack) // of the same set: nothing was accepted since
		if seen(r).Refusal == nil {
			t.Error("the refusal is forgotten before anything was accepted")
		}
		ack.Held = 3
		time.Sleep(time.Second)
		r.acknowledge(t, ack)
		for _, on := range []*replica{r, other} {
			if a := seen(on); a.Held != 3 || a.Refusal == nil {
				t.Errorf("%s: %+v", on.Instance, a)
			}
		}
		ack.Revision++
		ack.Snapshot += "0"
		time.Sleep(time.Second)
		r.acknowledge(t, ack)
		time.Sleep(6 * time.Second)
		for _, on := range []*replica{r, other} {
			if a := seen(on); a.Refusal != nil || a.Revision != ack.Revision {
				t.Errorf("%s: %+v after the next accepted snapshot", on.Instance, a)
			}
		}
	})
}

// TestAcksOutliveAFaultyStore: what could not be written is written later.
func TestAcksOutliveAFaultyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		cmd := r.enlist(t, "c1", "a")
		ack := r.subscribe(t, cmd).acknowledgement(cmd)
		ack.Refusal = &assignment.Refusal{Reason: "X"}
		d.fail(store.OpCommit)
		r.acknowledge(t, ack)
		if got := storedAck(t, m, "c1"); got != nil {
			t.Fatalf("the store has %+v: this test proves nothing", got)
		}
		d.fail()
		time.Sleep(6 * time.Second)
		if got := storedAck(t, m, "c1"); got == nil || got.Refusal == nil {
			t.Errorf("the store has %+v", got)
		}
	})
}

// TestASaveChasesNoRevision: an acknowledgement that comes while the one before
// is being written, and tells nothing new but its revision, is no reason for
// another write, which would move the revision again.
func TestASaveChasesNoRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory()
		s, d := faulty(t, m)
		r := serve(t, s, "r1")
		cmd := r.enlist(t, "c1", "a")
		ack := r.subscribe(t, cmd).acknowledgement(cmd)
		r.acknowledge(t, ack)
		before := m.Revision()
		d.close(store.OpCommit)
		time.Sleep(6 * time.Second)
		if d.waited() != 1 {
			t.Fatal("it is not being written: this test proves nothing")
		}
		ack.Revision++
		r.acknowledge(t, ack)
		d.open()
		time.Sleep(time.Minute)
		if writes := m.Revision() - before; writes != 1 {
			t.Errorf("%d writes", writes)
		}
		ack.Unrunnable++
		d.close(store.OpCommit)
		r.acknowledge(t, ack)
		time.Sleep(6 * time.Second)
		ack.Unrunnable++
		r.acknowledge(t, ack)
		d.open()
		time.Sleep(time.Minute)
		if got := storedAck(t, m, "c1"); got.Unrunnable != 2 {
			t.Errorf("the store has %+v", got)
		}
	})
}

// TestStaleAcknowledgements complete nothing.
func TestStaleAcknowledgements(t *testing.T) {
	bubble(t, func(t *testing.T, _ *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		ack := r.subscribe(t, cmd).acknowledgement(cmd)
		for name, change := range map[string]func(*registrar.Acknowledge){
			"another epoch":      func(a *registrar.Acknowledge) { a.Epoch = "another" },
			"another instance":   func(a *registrar.Acknowledge) { a.Instance = "b" },
			"another generation": func(a *registrar.Acknowledge) { a.Generation++ },
		} {
			stale := ack
			change(&stale)
			_, err := r.Acknowledge(t.Context(), stale)
			if err == nil {
				t.Errorf("%s: accepted", name)
				continue
			}
			refused(t, err, roster.FailedPrecondition, roster.ReasonStaleAcknowledgement)
		}
		unknown := ack
		unknown.Collector = "c9"
		_, err := r.Acknowledge(t.Context(), unknown)
		refused(t, err, roster.NotFound, roster.ReasonUnknownCollector)
		if n := r.AcknowledgedRevision("c1"); n != 0 {
			t.Errorf("revision %d is acknowledged", n)
		}
		r.enlist(t, "c1", "b")
		_, err = r.Acknowledge(t.Context(), ack)
		refused(t, err, roster.FailedPrecondition, roster.ReasonStaleAcknowledgement)
	})
}

// TestAcknowledgedRevisionIsOfThisEpoch: heartbeats tell it next to the epoch.
func TestAcknowledgedRevisionIsOfThisEpoch(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		member := r.subscribe(t, cmd)
		r.acknowledge(t, member.acknowledgement(cmd))
		if n := r.AcknowledgedRevision("c1"); n != member.at {
			t.Errorf("revision %d, acknowledged was %d", n, member.at)
		}
		newEpoch(t, m, "another")
		_ = member.end()
		if n := r.AcknowledgedRevision("c1"); n != 0 {
			t.Errorf("revision %d of another epoch", n)
		}
	})
}

// TestHeldAreExplained: a producer that is rightly gone, and was this
// collector's, is explained; others are not.
func TestHeldAreExplained(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		cmd := r.enlist(t, "c1", "a")
		member := r.subscribe(t, cmd)
		r.register(t, producers(0, 3)...)
		member.until(3)
		revision := r.deregister(t, producerID(1))
		member.until(2)
		ack := member.acknowledgement(cmd)
		ack.Held = 4
		ack.HeldIDs = []assignment.ProducerID{producerID(0), producerID(1), producerID(2), "never"}
		want := []assignment.Removal{{ProducerID: producerID(1), Cause: assignment.CauseDeregistered, Revision: revision}}
		if diff := cmp.Diff(want, r.acknowledge(t, ack)); diff != "" {
			t.Errorf("explained (-want +got):\n%s", diff)
		}
		newEpoch(t, m, "another")
		_ = member.end()
		member.stream.Close(t.Context())
		again := r.subscribe(t, cmd)
		ack = again.acknowledgement(cmd)
		ack.HeldIDs = []assignment.ProducerID{producerID(1)}
		if got := r.acknowledge(t, ack); len(got) > 0 {
			t.Errorf("%+v is explained by a removal of another epoch", got)
		}
	})
}

// TestIdleWritesNothing: collectors that hear heartbeats and acknowledge them,
// producers that renew: the store stays as it is, for hours.
func TestIdleWritesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, m *store.Memory, r *replica) {
		replicas := []*replica{r, serve(t, m.Open(), "r2")}
		for i, id := range []assignment.CollectorID{"c1", "c2"} {
			on := replicas[i]
			cmd := on.enlist(t, id, "a")
			member := on.subscribe(t, cmd)
			go func() {
				snapshots := 1
				for {
					ack := member.acknowledgement(cmd)
					ack.Snapshot = fmt.Sprint(snapshots)
					if _, err := on.Acknowledge(t.Context(), ack); err != nil {
						return
					}
					d, err := member.stream.Next(t.Context())
					if err != nil {
						return
					}
					member.take(d)
					if _, ok := d.(*feed.Snapshot); ok {
						snapshots++
					}
				}
			}()
		}
		cmds := producers(0, 20)
		for i := range cmds {
			cmds[i].Instance = "i"
		}
		r.register(t, cmds...)
		time.Sleep(15 * time.Second)
		settled := m.Revision()
		for range 6 * 60 {
			time.Sleep(time.Minute)
			replicas[1].register(t, cmds...)
		}
		if m.Revision() != settled {
			t.Errorf("the store went from revision %d to %d in six idle hours", settled, m.Revision())
		}
		if n := r.AcknowledgedRevision("c1"); n != settled {
			t.Errorf("revision %d is acknowledged, want %d", n, settled)
		}
		r.stop()
		replicas[1].stop()
	})
}
