package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// watchSeesEachRevisionWhole has 10,000 writes of several processes watched as
// they come, and again from the begin. Each transaction writes the same text
// under two keys, or deletes both.
func watchSeesEachRevisionWhole(t *testing.T, server Server) {
	const processes, calls, perCall = 5, 20, 50
	watcher := server.Open(t)
	_, begin := load(t, watcher)
	live := watch(t, watcher, begin)
	var group sync.WaitGroup
	for n := range processes {
		p := server.Open(t)
		group.Go(func() { writePairs(t, p, n, calls, perCall) })
	}
	group.Wait()
	want, end := load(t, watcher)
	for name, w := range map[string]*watching{"live": live, "late": watch(t, watcher, begin)} {
		if _, err := watcher.Sync(limited(t)); err != nil {
			t.Fatal(err)
		}
		batches := w.until(end)
		checkOrder(t, batches, begin)
		writes := 0
		for _, batch := range batches {
			writes += len(batch.Events)
			checkPairs(t, batch)
		}
		if writes != processes*calls*perCall*2 {
			t.Errorf("%s: %d events", name, writes)
		}
		seen := map[roster.Key]roster.Found{}
		fold(seen, batches)
		equal(t, name, seen, want)
	}
}

// writePairs writes pairs x/left and x/right; no other process writes these.
func writePairs(t *testing.T, p Process, process, calls, perCall int) {
	random := rand.New(rand.NewPCG(uint64(process), 1))
	stands := map[string]assignment.Revision{}
	for call := range calls {
		txns := make([]roster.Txn, perCall)
		names := make([]string, perCall)
		for i := range txns {
			name := fmt.Sprintf("%d.%d", process, i)
			left, right := name+"/left", name+"/right"
			text := fmt.Sprintf("%s in call %d", name, call)
			names[i] = name
			if stands[name] != 0 && random.IntN(4) == 0 {
				txns[i] = roster.Txn{remove(right, stands[name]), remove(left, stands[name])}
			} else {
				txns[i] = roster.Txn{put(producer(left, text), stands[name]), put(producer(right, text), stands[name])}
			}
		}
		outcomes, err := p.Commit(t.Context(), txns)
		if err != nil {
			t.Errorf("commit: %v", err)
			return
		}
		for i, outcome := range outcomes {
			if !outcome.Committed {
				t.Errorf("%s was not committed", names[i])
				return
			}
			stands[names[i]] = outcome.Revision
			if txns[i][0].Record == nil {
				stands[names[i]] = 0
			}
		}
	}
}

// checkPairs checks that a batch holds both halves of each transaction.
func checkPairs(t *testing.T, batch roster.Batch) {
	t.Helper()
	texts := map[string]string{}
	for _, event := range batch.Events {
		text := "deleted"
		if record, ok := event.Record.(*roster.Producer); ok {
			text = string(record.Stored)
		}
		texts[event.Key.ID] = text
	}
	for id, text := range texts {
		name, half := id[:len(id)-len("/left")], "/right"
		if id[len(id)-1] != 't' || id[len(id)-5:] == "right" {
			name, half = id[:len(id)-len("/right")], "/left"
		}
		if other, ok := texts[name+half]; !ok || other != text {
			t.Fatalf("revision %d is torn: %s is %q, %s is %q", batch.Revision, id, text, name+half, other)
		}
	}
}

// largeRevisionsStayWhole writes revisions of nearly 1 MiB, which a store may
// send in parts or several at a time.
func largeRevisionsStayWhole(t *testing.T, server Server) {
	const txns, writes = 4, 60
	p := server.Open(t)
	_, begin := load(t, p)
	live := watch(t, p, begin)
	var end assignment.Revision
	for n := range txns {
		var txn roster.Txn
		for i := range writes {
			txn = append(txn, put(producer(fmt.Sprintf("%d.%d", n, i), strings.Repeat("x", 16_000)), 0))
		}
		end = committed(t, p, txn...)
	}
	for name, w := range map[string]*watching{"live": live, "late": watch(t, p, begin)} {
		batches := w.until(end)
		checkOrder(t, batches, begin)
		for _, batch := range batches {
			if n := len(batch.Events); n != 0 && n != writes {
				t.Errorf("%s: revision %d has %d of %d events", name, batch.Revision, n, writes)
			}
		}
	}
}

func watchFromCompactedRevision(t *testing.T, server Server) {
	p := server.Open(t)
	_, begin := load(t, p)
	revision := committed(t, p, put(producer("a", "0"), 0))
	for i := range 5 {
		revision = committed(t, p, put(producer("a", fmt.Sprint(i)), revision))
	}
	server.Compact(t, revision)
	if err := watch(t, p, begin).err(); !errors.Is(err, registrar.ErrCompacted) {
		t.Errorf("a watch of compacted revisions ended with %v", err)
	}
	w := watch(t, p, revision)
	next := committed(t, p, put(producer("b", "0"), 0))
	checkOrder(t, w.until(next), revision)
}

// watchAfterTheFuture is what is left of a store that was set back.
func watchAfterTheFuture(t *testing.T, server Server) {
	p := server.Open(t)
	_, revision := load(t, p)
	if err := watch(t, p, revision+1000).err(); err == nil {
		t.Error("a watch of revisions that the store never had ended without an error")
	}
}

// watchEnds ends a watch by its context and by apply.
func watchEnds(t *testing.T, server Server) {
	p := server.Open(t)
	_, revision := load(t, p)
	w := watch(t, p, revision)
	w.started()
	w.cancel()
	if err := w.err(); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	committed(t, p, put(producer("a", "0"), 0))
	calls := 0
	err := p.Watch(limited(t), revision, func(roster.Batch) error {
		calls++
		return errStop
	})
	if !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("apply was called %d times, the watch ended with %v", calls, err)
	}
}

// syncOfIdleStore waits for a batch although nothing is ever written, with
// watches that have just begun and that have brought everything.
func syncOfIdleStore(t *testing.T, server Server) {
	p := server.Open(t)
	begin := committed(t, p, put(producer("a", "0"), 0))
	first, second := watch(t, p, begin), watch(t, p, begin-1)
	first.started()
	second.started()
	for range 3 {
		before, _ := first.so()
		revision, err := p.Sync(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		if revision != begin {
			t.Fatalf("sync gave revision %d, the last write was at %d", revision, begin)
		}
		for _, w := range []*watching{first, second} {
			checkOrder(t, w.until(revision), begin-1)
		}
		_, more := first.so()
		if after, _ := first.so(); len(after) > len(before) {
			continue
		}
		select {
		case <-more:
		case <-limited(t).Done():
			t.Fatal("sync did not have an idle watch bring a batch")
		}
	}
}

// syncBringsRevisionsWithoutRecords has revisions pass that are nobody's here.
func syncBringsRevisionsWithoutRecords(t *testing.T, server Server) {
	p, other := server.Open(t), server.Open(t)
	_, begin := load(t, p)
	w := watch(t, p, begin)
	for i := range 3 {
		server.Put(t, "/elsewhere/key", []byte(fmt.Sprint(i)))
		revision, err := p.Sync(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		if revision <= begin {
			t.Fatalf("sync gave revision %d, loaded at %d", revision, begin)
		}
		checkOrder(t, w.until(revision), begin)
		written := committed(t, other, put(producer(fmt.Sprintf("p%d", i), "0"), 0))
		if synced, err := p.Sync(limited(t)); err != nil || synced < written {
			t.Fatalf("sync gave %d, %v after a write of another process at %d", synced, err, written)
		}
		checkOrder(t, w.until(written), begin)
	}
}
