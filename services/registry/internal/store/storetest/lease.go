package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

func session(id assignment.CollectorID) *roster.Session {
	return &roster.Session{Collector: id, SubscriptionID: "s1"}
}

func leased(record roster.Record) roster.Write {
	return roster.Write{Key: record.Key(), Record: record, Leased: true}
}

// A holding is a HoldLease in a goroutine of its own, which has its lease.
type holding struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func hold(t *testing.T, p Process, ttl time.Duration) *holding {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	h := &holding{t: t, cancel: cancel, ended: make(chan error, 1)}
	held := make(chan struct{})
	go func() { h.ended <- p.HoldLease(ctx, ttl, func() { close(held) }) }()
	select {
	case <-held:
	case err := <-h.ended:
		t.Fatalf("no lease: %v", err)
	case <-limited(t).Done():
		t.Fatal("no lease")
	}
	return h
}

func (h *holding) err() error {
	h.t.Helper()
	select {
	case err := <-h.ended:
		return err
	case <-limited(h.t).Done():
		h.t.Fatal("the lease did not end")
		return nil
	}
}

// goodbye is how long a HoldLease that ends may try to give its lease up.
const goodbye = time.Second

// leaseKeepsRecords outlives the lease's time, then gives it up.
func leaseKeepsRecords(t *testing.T, server Server) {
	p, other := server.Open(t), server.Open(t)
	h := hold(t, p, server.LeaseTTL)
	one := committed(t, p, leased(session("c1")))
	committed(t, p, leased(session("c2")), put(producer("a", "1"), 0))
	// A later write without the lease takes the record off it.
	committed(t, p, put(session("c1"), one))
	_, revision := load(t, other)
	w := watch(t, other, revision)
	w.started()
	time.Sleep(server.LeaseTTL + server.LeaseTTL/2)
	if all, _ := load(t, other); len(all) != 3 {
		t.Fatalf("%d records stand while the lease is held", len(all))
	}
	began := time.Now()
	h.cancel()
	if err := h.err(); !errors.Is(err, context.Canceled) {
		t.Errorf("the lease that was given up ended with %v", err)
	}
	// It is given up before HoldLease returns, or else runs out.
	if time.Since(began) >= goodbye {
		w.until(revision + 1)
	}
	all, gone := load(t, other)
	equal(t, "records after the lease", records(all), map[roster.Key]roster.Record{
		roster.SessionKey("c1"): session("c1"), roster.ProducerKey("a"): producer("a", "1"),
	})
	var events []roster.Event
	for _, batch := range w.until(gone) {
		events = append(events, batch.Events...)
	}
	equal(t, "events", events, []roster.Event{{Key: roster.SessionKey("c2")}})
	again := hold(t, p, server.LeaseTTL)
	committed(t, p, leased(session("c2")))
	again.cancel()
	_ = again.err()
}

func leaseDiesWithItsHolder(t *testing.T, server Server) {
	p, other := server.Open(t), server.Open(t)
	if p.Kill == nil {
		t.Skip("this process cannot be killed: the store would go with it")
	}
	h := hold(t, p, server.LeaseTTL)
	committed(t, p, leased(session("c1")), leased(session("c2")))
	_, revision := load(t, other)
	w := watch(t, other, revision)
	p.Kill()
	if err := h.err(); !errors.Is(err, registrar.ErrLeaseLost) {
		t.Errorf("the lease of a process that is cut off ended with %v", err)
	}
	if _, err := p.Commit(limited(t), []roster.Txn{{leased(session("c3"))}}); err == nil {
		t.Error("a leased write after the lease")
	}
	batches := w.until(revision + 1)
	checkOrder(t, batches, revision)
	if last := batches[len(batches)-1]; len(last.Events) != 2 {
		t.Errorf("the lease ended with %+v", last.Events)
	}
	if all, _ := load(t, other); len(all) != 0 {
		t.Errorf("records without a holder: %v", all)
	}
}

func noLeaseNoLeasedWrite(t *testing.T, server Server) {
	p := server.Open(t)
	_, err := p.Commit(limited(t), []roster.Txn{{put(producer("a", "1"), 0)}, {leased(session("c1"))}})
	if !errors.Is(err, registrar.ErrLeaseLost) {
		t.Errorf("before a lease: %v", err)
	}
	h := hold(t, p, server.LeaseTTL)
	h.cancel()
	_ = h.err()
	if _, err := p.Commit(limited(t), []roster.Txn{{leased(session("c1"))}}); !errors.Is(err, registrar.ErrLeaseLost) {
		t.Errorf("after a lease: %v", err)
	}
	if all, _ := load(t, p); len(all) != 0 {
		t.Errorf("written: %v", all)
	}
}

func oneLeaseAtATime(t *testing.T, server Server) {
	p, other := server.Open(t), server.Open(t)
	h := hold(t, p, server.LeaseTTL)
	if err := p.HoldLease(limited(t), server.LeaseTTL, func() { t.Error("held") }); err == nil {
		t.Error("two leases of one process")
	}
	committed(t, p, leased(session("c1")))
	hold(t, other, server.LeaseTTL)
	h.cancel()
	_ = h.err()
	committed(t, other, leased(session("c2")))
	all, _ := load(t, other)
	if _, stands := all[roster.SessionKey("c2")]; len(all) != 1 || !stands {
		t.Errorf("records: %v", all)
	}
}
