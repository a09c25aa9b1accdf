package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

func check(id string, expect assignment.Revision) roster.Write {
	return roster.Write{Key: roster.ProducerKey(assignment.ProducerID(id)), Expect: expect, Check: true}
}

// checkWritesNothing has checks that hold, of what is there and of what is not.
func checkWritesNothing(t *testing.T, server Server) {
	p := server.Open(t)
	a := committed(t, p, put(producer("a", "1"), 0))
	w := watch(t, p, a)
	w.started()
	b := committed(t, p, check("a", a), put(producer("b", "1"), 0), check("nobody", 0))
	gone := committed(t, p, check("a", a), remove("b", b))
	all, _ := load(t, p)
	equal(t, "stands", all, map[roster.Key]roster.Found{
		roster.ProducerKey("a"): {Record: producer("a", "1"), Revision: a},
	})
	var events []roster.Event
	for _, batch := range w.until(gone) {
		events = append(events, batch.Events...)
	}
	equal(t, "events", events, []roster.Event{
		{Key: roster.ProducerKey("b"), Record: producer("b", "1")}, {Key: roster.ProducerKey("b")},
	})
}

// failedCheckFails has one check of each kind that does not hold.
func failedCheckFails(t *testing.T, server Server) {
	p := server.Open(t)
	a := committed(t, p, put(producer("a", "1"), 0))
	b := committed(t, p, put(producer("b", "1"), 0))
	before, _ := load(t, p)
	for name, failing := range map[string]roster.Write{
		"it is there":    check("b", 0),
		"it has changed": check("b", a),
		"it is gone":     check("c", b),
	} {
		outcome := commit(t, p, put(producer("a", "2"), a), failing, put(producer("d", "1"), 0))
		if outcome.Committed {
			t.Errorf("%s: committed", name)
		}
		want := []roster.Found{before[roster.ProducerKey("a")], before[failing.Key], {}}
		equal(t, name+": found", outcome.Found, want)
	}
	after, _ := load(t, p)
	equal(t, "after transactions that failed", after, before)
}

// manyCheckTheSame has all transactions of one call check one key, for what is
// so, and in a second call half of them for what is not.
func manyCheckTheSame(t *testing.T, server Server) {
	const count = 150
	p := server.Open(t)
	shared := committed(t, p, put(producer("shared", "1"), 0))
	txns := make([]roster.Txn, count)
	for i := range txns {
		txns[i] = roster.Txn{check("shared", shared), put(producer(fmt.Sprintf("p%d", i), "1"), 0)}
	}
	outcomes, err := p.Commit(limited(t), txns)
	if err != nil {
		t.Fatal(err)
	}
	for i, outcome := range outcomes {
		if !outcome.Committed {
			t.Fatalf("transaction %d: found %+v", i, outcome.Found)
		}
		txns[i] = roster.Txn{put(producer(fmt.Sprintf("p%d", i), "2"), outcome.Revision), check("shared", shared)}
	}
	again := committed(t, p, put(producer("shared", "2"), shared))
	for i := range txns {
		if i%2 == 0 {
			txns[i][1] = check("shared", again)
		}
	}
	before := outcomes
	if outcomes, err = p.Commit(limited(t), txns); err != nil {
		t.Fatal(err)
	}
	for i, outcome := range outcomes {
		if outcome.Committed != (i%2 == 0) {
			t.Errorf("transaction %d: committed %t", i, outcome.Committed)
		}
		if i%2 == 1 {
			equal(t, "found", outcome.Found, []roster.Found{
				{Record: producer(fmt.Sprintf("p%d", i), "1"), Revision: before[i].Revision},
				{Record: producer("shared", "2"), Revision: again},
			})
		}
	}
}

// checksKeepTheirOrder has transactions of one call check what others write.
func checksKeepTheirOrder(t *testing.T, server Server) {
	p := server.Open(t)
	outcomes, err := p.Commit(limited(t), []roster.Txn{
		{check("k", 0), put(producer("a", "1"), 0)},
		{check("k", 0), put(producer("b", "1"), 0)},
		{put(producer("k", "1"), 0)},
		{check("k", 0), put(producer("c", "1"), 0)},
		{check("k", 0), put(producer("d", "1"), 0)},
		{put(producer("k", "2"), 0), check("a", 0)},
		{put(producer("e", "1"), 0), check("nobody", 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var happened []bool
	for _, outcome := range outcomes {
		happened = append(happened, outcome.Committed)
	}
	equal(t, "committed", happened, []bool{true, true, true, false, false, false, true})
	k := roster.Found{Record: producer("k", "1"), Revision: outcomes[2].Revision}
	equal(t, "found by the fourth", outcomes[3].Found, []roster.Found{k, {}})
	equal(t, "found by the fifth", outcomes[4].Found, []roster.Found{k, {}})
	equal(t, "found by the sixth", outcomes[5].Found, []roster.Found{
		k, {Record: producer("a", "1"), Revision: outcomes[0].Revision},
	})
}

// noWriteSkew races two transactions, each of which checks what the other
// writes: one of them happens.
func noWriteSkew(t *testing.T, server Server) {
	const rounds = 25
	processes := []Process{server.Open(t), server.Open(t)}
	for i := range rounds {
		here, there := fmt.Sprintf("here%d", i), fmt.Sprintf("there%d", i)
		read := committed(t, processes[0], put(producer(here, "1"), 0))
		var (
			happened [2]bool
			group    sync.WaitGroup
		)
		for n, txn := range []roster.Txn{
			{check(here, read), put(producer(there, "1"), 0)},
			{check(there, 0), remove(here, read)},
		} {
			group.Go(func() {
				one, err := processes[n].Commit(t.Context(), []roster.Txn{txn})
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				happened[n] = one[0].Committed
			})
		}
		group.Wait()
		if happened[0] == happened[1] {
			t.Fatalf("round %d: both %t", i, happened[0])
		}
	}
}
