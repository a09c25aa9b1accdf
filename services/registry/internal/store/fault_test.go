package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

var errFault = errors.New("injected")

func create(id string) roster.Txn {
	r := record(id, id)
	return roster.Txn{{Key: r.Key(), Record: r}}
}

// failing makes a hook that fails one operation while it is set.
func failing(op string) (fail func(string) error, set *atomic.Bool) {
	set = new(atomic.Bool)
	return func(o string) error {
		if o == op && set.Load() {
			return errFault
		}
		return nil
	}, set
}

func openMemory(t *testing.T, memory *store.Memory) *store.Store {
	t.Helper()
	s := memory.Open()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func count(t *testing.T, s *store.Store) int {
	t.Helper()
	n := 0
	if _, err := s.Load(t.Context(), func(roster.Found) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLeaseSurvivesShortFaults has the store unreachable for less than the
// lease's time, again and again, and then for good. The holder knows that its
// lease is lost no later than the others see its records go.
func TestLeaseSurvivesShortFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		memory := store.NewMemory()
		s, other := openMemory(t, memory), openMemory(t, memory)
		fail, down := failing(store.OpKeepAlive)
		memory.Fail(fail)
		held, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- s.HoldLease(t.Context(), ttl, func() { close(held) }) }()
		<-held
		session := &roster.Session{Collector: "c"}
		if _, err := s.Commit(t.Context(), []roster.Txn{{{Key: session.Key(), Record: session, Leased: true}}}); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			down.Store(true)
			time.Sleep(ttl / 2)
			down.Store(false)
			time.Sleep(ttl * 4 / 10)
		}
		if count(t, other) != 1 {
			t.Fatal("the lease was lost to faults shorter than it")
		}
		down.Store(true)
		began := time.Now()
		if err := <-ended; !errors.Is(err, registrar.ErrLeaseLost) {
			t.Fatalf("ended with %v", err)
		}
		if took := time.Since(began); took > ttl || took < ttl*6/10 {
			t.Errorf("the lease was lost after %s", took)
		}
		time.Sleep(ttl)
		if count(t, other) != 0 {
			t.Error("the record stands without its lease")
		}
	})
}

// TestHungStoreLosesLease has the store not answer at all.
func TestHungStoreLosesLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 15 * time.Second
		memory := store.NewMemory()
		var hung atomic.Bool
		release := make(chan struct{})
		memory.Fail(func(string) error {
			if hung.Load() {
				<-release
			}
			return nil
		})
		s := openMemory(t, memory)
		began := time.Now()
		err := s.HoldLease(t.Context(), ttl, func() { hung.Store(true) })
		if !errors.Is(err, registrar.ErrLeaseLost) {
			t.Errorf("ended with %v", err)
		}
		// The goodbye hangs, too, for a second.
		if took := time.Since(began); took != ttl+time.Second {
			t.Errorf("the lease was lost after %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Commit(ctx, []roster.Txn{create("a")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("commit: %v", err)
		}
		close(release)
	})
}

// TestCommitFaults fails before and after the write. An error says nothing of
// whether it was written.
func TestCommitFaults(t *testing.T) {
	memory := store.NewMemory()
	s := openMemory(t, memory)
	for op, written := range map[string]int{store.OpCommit: 0, store.OpCommitted: 1} {
		memory.Fail(func(o string) error {
			if o == op {
				return fmt.Errorf("%w: %w", registrar.ErrFull, errFault)
			}
			return nil
		})
		before := count(t, s)
		outcomes, err := s.Commit(t.Context(), []roster.Txn{create(op)})
		if !errors.Is(err, registrar.ErrFull) || !errors.Is(err, errFault) || outcomes != nil {
			t.Errorf("%s: %v, %v", op, outcomes, err)
		}
		if got := count(t, s) - before; got != written {
			t.Errorf("%s: %d records written, want %d", op, got, written)
		}
	}
}

// TestCommitPipelines has each transaction take a second. Four thousand make
// 34 packs, 32 of which are under way at once.
func TestCommitPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		s := openMemory(t, memory)
		var calls atomic.Int32
		memory.Fail(func(op string) error {
			if op == store.OpCommit {
				calls.Add(1)
				time.Sleep(time.Second)
			}
			return nil
		})
		txns := make([]roster.Txn, 4000)
		for i := range txns {
			txns[i] = create(fmt.Sprint(i))
		}
		began := time.Now()
		if _, err := s.Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 2*time.Second || calls.Load() != 34 {
			t.Errorf("%d transactions took %s", calls.Load(), took)
		}
	})
}

// TestSharedChecksShareATransaction has as many transactions in one as without
// the check that all of them have, which counts once.
func TestSharedChecksShareATransaction(t *testing.T) {
	memory := store.NewMemory()
	s := openMemory(t, memory)
	var calls atomic.Int32
	memory.Fail(func(op string) error {
		if op == store.OpCommit {
			calls.Add(1)
		}
		return nil
	})
	txns := make([]roster.Txn, 2*119)
	for i := range txns {
		txns[i] = append(create(fmt.Sprint(i)), roster.Write{Key: roster.ProducerKey("leader"), Check: true})
	}
	if _, err := s.Commit(t.Context(), txns); err != nil || calls.Load() != 2 {
		t.Errorf("%d transactions, %v", calls.Load(), err)
	}
}

// TestCloseIsBounded closes a Store of which one call does not return.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMemory().Open()
		stuck, release := make(chan struct{}), make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- s.Watch(t.Context(), 0, func(roster.Batch) error {
				close(stuck)
				<-release
				return nil
			})
		}()
		<-stuck
		began := time.Now()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("closed after %s", took)
		}
		close(release)
		if err := <-ended; !errors.Is(err, store.ErrClosed) {
			t.Errorf("the watch ended with %v", err)
		}
	})
}

// TestSlowWatchSlowsNobody blocks one watch while another one and the writers
// go on.
func TestSlowWatchSlowsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMemory(t, store.NewMemory())
		release := make(chan struct{})
		var slow, quick []assignment.Revision
		var group sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		group.Go(func() {
			_ = s.Watch(ctx, 1, func(b roster.Batch) error {
				<-release
				slow = append(slow, b.Revision)
				return nil
			})
		})
		group.Go(func() {
			_ = s.Watch(ctx, 1, func(b roster.Batch) error {
				quick = append(quick, b.Revision)
				return nil
			})
		})
		synctest.Wait()
		for i := range 100 {
			if _, err := s.Commit(ctx, []roster.Txn{create(fmt.Sprint(i))}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := len(quick); n != 101 {
			t.Errorf("the quick watch has brought %d batches", n)
		}
		if len(slow) != 0 {
			t.Errorf("the slow watch has brought %d batches", len(slow))
		}
		close(release)
		synctest.Wait()
		if n := len(slow); n != 101 {
			t.Errorf("the slow watch has brought %d batches in the end", n)
		}
		cancel()
		group.Wait()
	})
}

// TestBrokenWatchGoesOn breaks watches at random deliveries; begun again after
// the last batch they bring each revision once.
func TestBrokenWatchGoesOn(t *testing.T) {
	memory := store.NewMemory()
	s := openMemory(t, memory)
	const writes = 200
	for i := range writes {
		if _, err := s.Commit(t.Context(), []roster.Txn{create(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	var deliveries atomic.Int32
	memory.Fail(func(op string) error {
		if op == store.OpDeliver && deliveries.Add(1)%7 == 0 {
			return errFault
		}
		return nil
	})
	errDone := errors.New("done")
	last, events, breaks := assignment.Revision(1), 0, 0
	for {
		err := s.Watch(t.Context(), last, func(b roster.Batch) error {
			if len(b.Events) > 0 && b.Revision != last+1 {
				t.Errorf("revision %d after %d", b.Revision, last)
			}
			last, events = b.Revision, events+len(b.Events)
			if events == writes {
				return errDone
			}
			return nil
		})
		if errors.Is(err, errDone) {
			break
		}
		if !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		breaks++
	}
	if breaks < 20 {
		t.Errorf("only %d breaks", breaks)
	}
}

// TestRestoreIsNoticed sets the store back under a running watch.
func TestRestoreIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		s := openMemory(t, memory)
		held := make(chan struct{})
		go func() { _ = s.HoldLease(t.Context(), time.Minute, func() { close(held) }) }()
		<-held
		session := &roster.Session{Collector: "c"}
		txns := []roster.Txn{create("old"), {{Key: session.Key(), Record: session, Leased: true}}}
		if _, err := s.Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		backup := memory.Snapshot()
		if _, err := s.Commit(t.Context(), []roster.Txn{create("new")}); err != nil {
			t.Fatal(err)
		}
		after := memory.Revision()
		ended := make(chan error, 1)
		go func() { ended <- s.Watch(t.Context(), after, func(roster.Batch) error { return nil }) }()
		synctest.Wait()
		memory.Restore(backup)
		if err := <-ended; err == nil || errors.Is(err, registrar.ErrCompacted) {
			t.Errorf("the watch ended with %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		nothing := func(roster.Batch) error { return nil }
		if err := s.Watch(ctx, after, nothing); !errors.Is(err, store.ErrSetBack) {
			t.Errorf("a watch after a revision that is no more: %v", err)
		}
		if now, err := s.Sync(t.Context()); err != nil || now >= after {
			t.Errorf("the revision is %d, %v; it was %d", now, err, after)
		}
		if n := count(t, s); n != 2 {
			t.Errorf("%d records are restored", n)
		}
		// The restored lease is the one that is still held.
		time.Sleep(time.Hour)
		if n := count(t, s); n != 2 {
			t.Errorf("%d records stand an hour later", n)
		}
		// A snapshot is not changed by what came after.
		memory.Restore(backup)
		if n := count(t, s); n != 2 {
			t.Errorf("%d records are restored again", n)
		}
	})
}
