package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// createOnce lets many processes create each of some records; one of them does.
func createOnce(t *testing.T, server Server) {
	const processes, ids = 4, 10
	var (
		created [ids]atomic.Int32
		group   sync.WaitGroup
	)
	for i := range processes {
		p := server.Open(t)
		group.Go(func() {
			for id := range ids {
				record := producer(fmt.Sprintf("p%d", id), fmt.Sprintf("of process %d", i))
				outcomes, err := p.Commit(t.Context(), []roster.Txn{{put(record, 0)}})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				if outcomes[0].Committed {
					created[id].Add(1)
				} else if outcomes[0].Found[0].Record == nil {
					t.Errorf("%s was not created and is not there", record.ID)
				}
			}
		})
	}
	group.Wait()
	for id := range created {
		if n := created[id].Load(); n != 1 {
			t.Errorf("p%d was created %d times", id, n)
		}
	}
}

func epochIsCreatedOnce(t *testing.T, server Server) {
	const processes = 5
	var (
		mu    sync.Mutex
		won   []assignment.Epoch
		lost  []assignment.Epoch
		group sync.WaitGroup
	)
	for i := range processes {
		p := server.Open(t)
		group.Go(func() {
			mine := &roster.Epoch{Epoch: assignment.Epoch(fmt.Sprintf("epoch-of-%d", i))}
			outcomes, err := p.Commit(t.Context(), []roster.Txn{{put(mine, 0)}})
			if err != nil {
				t.Errorf("commit: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if outcomes[0].Committed {
				won = append(won, mine.Epoch)
				return
			}
			found, ok := outcomes[0].Found[0].Record.(*roster.Epoch)
			if !ok {
				t.Errorf("the loser found %+v", outcomes[0].Found)
				return
			}
			lost = append(lost, found.Epoch)
		})
	}
	group.Wait()
	if len(won) != 1 || len(lost) != processes-1 {
		t.Fatalf("%d processes made the epoch, %d found one", len(won), len(lost))
	}
	for _, found := range lost {
		if found != won[0] {
			t.Errorf("a loser found %q, the winner wrote %q", found, won[0])
		}
	}
}

// noLostUpdate has several goroutines of two processes increment one number.
func noLostUpdate(t *testing.T, server Server) {
	const workers, increments = 6, 15
	processes := []Process{server.Open(t), server.Open(t)}
	first := committed(t, processes[0], put(producer("counter", "x"), 0))
	var group sync.WaitGroup
	for i := range workers {
		p := processes[i%len(processes)]
		group.Go(func() {
			length, expect := 1, first
			for done := 0; done < increments; {
				next := producer("counter", strings.Repeat("x", length+1))
				outcomes, err := p.Commit(t.Context(), []roster.Txn{{put(next, expect)}})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				if outcomes[0].Committed {
					done++
					length, expect = length+1, outcomes[0].Revision
					continue
				}
				found := outcomes[0].Found[0]
				length, expect = len(found.Record.(*roster.Producer).Stored), found.Revision //nolint:errcheck // a panic says it
			}
		})
	}
	group.Wait()
	all, _ := load(t, processes[0])
	counter, ok := all[roster.ProducerKey("counter")].Record.(*roster.Producer)
	if !ok || len(counter.Stored) != 1+workers*increments {
		t.Fatalf("%d increments were lost", 1+workers*increments-len(counter.Stored))
	}
}

// noResurrection races deletes with updates of what both have read: one of the
// two happens, and after the delete the update never does.
func noResurrection(t *testing.T, server Server) {
	const rounds = 25
	processes := []Process{server.Open(t), server.Open(t)}
	for i := range rounds {
		id := fmt.Sprintf("p%d", i)
		read := committed(t, processes[0], put(producer(id, "first"), 0))
		var (
			outcomes [2]roster.Outcome
			group    sync.WaitGroup
		)
		for n, write := range []roster.Write{remove(id, read), put(producer(id, "second"), read)} {
			group.Go(func() {
				one, err := processes[n].Commit(t.Context(), []roster.Txn{{write}})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				outcomes[n] = one[0]
			})
		}
		group.Wait()
		deleted, updated := outcomes[0].Committed, outcomes[1].Committed
		if deleted == updated {
			t.Fatalf("round %d: deleted %t, updated %t", i, deleted, updated)
		}
		if !deleted {
			continue
		}
		if found := outcomes[1].Found[0]; found.Record != nil || found.Revision != 0 {
			t.Fatalf("round %d: the update found %+v after the delete", i, found)
		}
		if again := commit(t, processes[1], put(producer(id, "third"), read)); again.Committed {
			t.Fatalf("round %d: an update brought back what was deleted", i)
		}
	}
}

// allOrNothing tries transactions of which one part cannot be.
func allOrNothing(t *testing.T, server Server) {
	p := server.Open(t)
	a := committed(t, p, put(producer("a", "1"), 0))
	b := committed(t, p, put(producer("b", "1"), 0))
	before, _ := load(t, p)
	for name, txn := range map[string]roster.Txn{
		"one is new, not changed": {put(producer("a", "2"), a), put(producer("c", "1"), 1)},
		"one is there, not new":   {put(producer("c", "1"), 0), put(producer("b", "2"), 0)},
		"one has changed":         {remove("a", a), put(producer("b", "2"), b-1)},
		"one is gone":             {put(producer("a", "2"), a), remove("d", b)},
	} {
		if outcome := commit(t, p, txn...); outcome.Committed {
			t.Errorf("%s: committed", name)
		}
	}
	after, _ := load(t, p)
	equal(t, "after transactions that failed", after, before)
	both := committed(t, p, remove("a", a), put(producer("b", "2"), b), put(producer("c", "1"), 0))
	after, _ = load(t, p)
	equal(t, "after one that did not", after, map[roster.Key]roster.Found{
		roster.ProducerKey("b"): {Record: producer("b", "2"), Revision: both},
		roster.ProducerKey("c"): {Record: producer("c", "1"), Revision: both},
	})
}

func foundTellsWhatStands(t *testing.T, server Server) {
	p := server.Open(t)
	a := committed(t, p, put(producer("a", "1"), 0))
	c := committed(t, p, put(producer("dir/c", "1"), 0))
	outcome := commit(t, p,
		put(producer("dir/c", "2"), c), put(producer("b", "1"), c), remove("a", 0))
	if outcome.Committed {
		t.Fatal("committed")
	}
	if outcome.Revision < c {
		t.Errorf("found at revision %d, the last write was at %d", outcome.Revision, c)
	}
	equal(t, "found", outcome.Found, []roster.Found{
		{Record: producer("dir/c", "1"), Revision: c}, {}, {Record: producer("a", "1"), Revision: a},
	})
}

// sameKeyTwiceInOneCall has transactions of one call depend on each other.
func sameKeyTwiceInOneCall(t *testing.T, server Server) {
	p := server.Open(t)
	outcomes, err := p.Commit(limited(t), []roster.Txn{
		{put(producer("a", "1"), 0)},
		{put(producer("a", "2"), 0), put(producer("b", "1"), 0)},
		{put(producer("b", "2"), 0)},
		{put(producer("c", "1"), 0)},
		{remove("c", 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var happened []bool
	for _, outcome := range outcomes {
		happened = append(happened, outcome.Committed)
	}
	equal(t, "committed", happened, []bool{true, false, true, true, false})
	equal(t, "found by the second", outcomes[1].Found, []roster.Found{
		{Record: producer("a", "1"), Revision: outcomes[0].Revision}, {},
	})
	all, _ := load(t, p)
	equal(t, "records", records(all), map[roster.Key]roster.Record{
		roster.ProducerKey("a"): producer("a", "1"),
		roster.ProducerKey("b"): producer("b", "2"),
		roster.ProducerKey("c"): producer("c", "1"),
	})
}

// oneFailureDoesNotSpreadInAPack has some of many transactions fail.
func oneFailureDoesNotSpreadInAPack(t *testing.T, server Server) {
	const count = 500
	p := server.Open(t)
	committed(t, p, put(producer("p7", "before"), 0), put(producer("p300", "before"), 0))
	txns := make([]roster.Txn, count)
	for i := range txns {
		txns[i] = roster.Txn{put(producer(fmt.Sprintf("p%d", i), "new"), 0)}
	}
	outcomes, err := p.Commit(limited(t), txns)
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range outcomes {
		stood := i == 7 || i == 300
		if outcome.Committed == stood {
			t.Errorf("p%d: committed %t", i, outcome.Committed)
		}
		if stood && (len(outcome.Found) != 1 || outcome.Found[0].Record == nil) {
			t.Errorf("p%d: found %+v", i, outcome.Found)
		}
	}
	all, _ := load(t, p)
	if len(all) != count {
		t.Errorf("%d records stand, want %d", len(all), count)
	}
	for i, outcome := range outcomes {
		key := roster.ProducerKey(assignment.ProducerID(fmt.Sprintf("p%d", i)))
		if outcome.Committed && all[key].Revision != outcome.Revision {
			t.Errorf("p%d was committed at %d and stands at %d", i, outcome.Revision, all[key].Revision)
		}
	}
}

// limits tries the largest transactions that are allowed, alone and many in one
// call, and the smallest that are not.
func limits(t *testing.T, server Server) {
	p := server.Open(t)
	wide := func(writes int, name string) roster.Txn {
		var txn roster.Txn
		for i := range writes {
			txn = append(txn, put(producer(fmt.Sprintf("%s%d", name, i), "1"), 0))
		}
		return txn
	}
	heavy := func(bytes int, name string) roster.Txn {
		return roster.Txn{put(producer(name, strings.Repeat("x", bytes)), 0)}
	}
	const nearly = 1<<20 - 1<<10
	txns := []roster.Txn{
		append(wide(119, "checked"), check("nobody", 0)), append(wide(1, "too"), check("nobody", 0)),
		wide(120, "wide"), wide(119, "less"), wide(1, "one"), wide(2, "two"), wide(120, "again"),
		heavy(nearly, "heavy"), heavy(nearly/2, "half"), heavy(nearly/2, "otherhalf"), heavy(nearly, "heaviest"),
	}
	outcomes, err := p.Commit(limited(t), txns)
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range outcomes {
		if !outcome.Committed {
			t.Errorf("transaction %d was not committed", i)
		}
	}
	all, _ := load(t, p)
	if want := 119 + 1 + 120 + 119 + 1 + 2 + 120 + 4; len(all) != want {
		t.Errorf("%d records stand, want %d", len(all), want)
	}
	for name, txn := range map[string]roster.Txn{
		"wide": wide(121, "x"), "with a check": append(wide(120, "x"), check("nobody", 0)), "heavy": heavy(1<<20, "x"), "empty": {},
	} {
		if _, err := p.Commit(limited(t), []roster.Txn{{put(producer("beside", "1"), 0)}, txn}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if now, _ := load(t, p); len(now) != len(all) {
		t.Errorf("%d records stand after the refusals, %d before", len(now), len(all))
	}
}

// invalidWritesNothing tries what no store could write.
func invalidWritesNothing(t *testing.T, server Server) {
	p := server.Open(t)
	good := put(producer("a", "1"), 0)
	for name, txn := range map[string]roster.Txn{
		"key twice":          {put(producer("b", "1"), 0), remove("b", 0)},
		"checked too":        {put(producer("b", "1"), 0), check("b", 0)},
		"checked twice":      {good, check("b", 0), check("b", 0)},
		"only checks":        {check("b", 0), check("c", 0)},
		"check with record":  {good, {Key: roster.ProducerKey("b"), Record: producer("b", "1"), Check: true}},
		"check with a lease": {good, {Key: roster.ProducerKey("b"), Check: true, Leased: true}},
		"negative check":     {good, check("b", -1)},
		"other key":          {{Key: roster.ProducerKey("b"), Record: producer("c", "1")}},
		"other kind":         {{Key: roster.RemovedKey("b"), Record: producer("b", "1")}},
		"no kind":            {{Key: roster.Key{ID: "b"}}},
		"empty id":           {put(producer("", "1"), 0)},
		"malformed id":       {put(producer("b c", "1"), 0)},
		"slash in collector": {put(&roster.Collector{ID: "b/c"}, 0)},
		"epoch with id":      {{Key: roster.Key{Kind: roster.KindEpoch, ID: "b"}}},
		"negative revision":  {put(producer("b", "1"), -1)},
		"empty epoch":        {put(&roster.Epoch{}, 0)},
		"empty assignment":   {put(producer("b", ""), 0)},
		"malformed extra":    {put(&roster.Ack{Collector: "b", Extra: roster.Extra{0xff}}, 0)},
		"extra of known":     {put(&roster.Ack{Collector: "b", Extra: roster.Extra{0x18, 1}}, 0)},
		"not UTF-8":          {put(&roster.Collector{ID: "b", SoftwareVersion: "\xff"}, 0)},
	} {
		if _, err := p.Commit(limited(t), []roster.Txn{{good}, txn}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if all, _ := load(t, p); len(all) != 0 {
		t.Errorf("written: %v", all)
	}
	if outcomes, err := p.Commit(limited(t), nil); err != nil || len(outcomes) != 0 {
		t.Errorf("commit of nothing: %v, %v", outcomes, err)
	}
}

var errStop = errors.New("enough")
