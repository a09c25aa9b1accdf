package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

func emptyStore(t *testing.T, server Server) {
	p := server.Open(t)
	all, revision := load(t, p)
	if len(all) != 0 || revision <= 0 {
		t.Fatalf("an empty store has %d records at revision %d", len(all), revision)
	}
	synced, err := p.Sync(limited(t))
	if err != nil || synced != revision {
		t.Fatalf("sync: %d, %v; loaded at %d", synced, err, revision)
	}
	if outcome := commit(t, p, remove("nobody", 0)); !outcome.Committed || outcome.Revision != revision {
		t.Errorf("deleting nothing: %+v", outcome)
	}
}

// samples are records of every kind with every field filled, and others with as
// few as may be.
func samples() []roster.Record {
	at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	full := producer("http://team.a/b:80", "assignment bytes")
	full.ID = "team.a/b:80/c-d_e" // slashes belong to the id
	full.Instances = roster.InstancesOf("i/1", "i:2")
	full.Collector = "c1"
	full.AssignTime, full.CreateTime, full.UpdateTime = at, at.Add(time.Hour), at.Add(time.Nanosecond)
	full.AssignReason = roster.PlacementHint
	return []roster.Record{
		&roster.Epoch{Epoch: "0198-epoch", CreateTime: at},
		full,
		producer("b", "\x00"),
		producer("producers/b", "looks like a key"),
		&roster.Collector{
			ID:                    "c1",
			Instances:             []roster.Instance{{ID: "i1", Generation: 4}, {ID: "i2", Generation: 9}},
			IntrospectionEndpoint: "host:7480",
			Labels:                []assignment.Label{{Name: "zone", Value: "a"}, {Name: "empty"}},
			SoftwareVersion:       "v1.2.3",
			CreateTime:            at,
		},
		&roster.Collector{ID: "c2"},
		&roster.Session{
			Collector: "c1", SubscriptionID: "s1", Instance: "i1", Generation: 9, Registry: "r1", ConnectTime: at,
		},
		&roster.Session{Collector: "c2"},
		&roster.Ack{
			Collector: "c1", Instance: "i1", Epoch: "0198-epoch", Revision: 77, Held: 3, Unrunnable: 2,
			Refusal:     &assignment.Refusal{Reason: "DIGEST_MISMATCH", Message: "it differs", ProducerID: "a/b", Revision: 76},
			ReceiveTime: at,
		},
		&roster.Ack{Collector: "c2"},
		&roster.Removed{
			ID: "a/b", Cause: assignment.CauseExpired, Instances: roster.InstancesOf("i1"),
			Collector: "c1", RemoveTime: at,
		},
		&roster.Removed{ID: "b"},
	}
}

// everyKindOfRecord writes, loads and watches them.
func everyKindOfRecord(t *testing.T, server Server) {
	p := server.Open(t)
	_, begin := load(t, p)
	want := map[roster.Key]roster.Record{}
	var txn roster.Txn
	for _, record := range samples() {
		want[record.Key()] = record
		txn = append(txn, put(record, 0))
	}
	revision := committed(t, p, txn...)
	all, loaded := load(t, p)
	equal(t, "loaded", records(all), want)
	for key, found := range all {
		if found.Revision != revision {
			t.Errorf("%v stands at revision %d, written at %d", key, found.Revision, revision)
		}
	}
	if loaded != revision {
		t.Errorf("loaded at revision %d, written at %d", loaded, revision)
	}
	seen := map[roster.Key]roster.Found{}
	fold(seen, watch(t, p, begin).until(revision))
	equal(t, "watched", seen, all)
	for i := range txn {
		txn[i].Expect, txn[i].Record = revision, nil
	}
	revision = committed(t, p, txn...)
	fold(seen, watch(t, p, loaded).until(revision))
	equal(t, "watched after the delete", seen, map[roster.Key]roster.Found{})
	all, _ = load(t, p)
	equal(t, "loaded after the delete", all, map[roster.Key]roster.Found{})
}

// fill writes producers, enough of them for a load of more than one page.
func fill(t *testing.T, p Process, count int, text string) {
	t.Helper()
	txns := make([]roster.Txn, count)
	for i := range txns {
		txns[i] = roster.Txn{put(producer(fmt.Sprintf("p%05d", i), text), 0)}
	}
	outcomes, err := p.Commit(limited(t), txns)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	for _, outcome := range outcomes {
		if !outcome.Committed {
			t.Fatal("not committed")
		}
	}
}

const pages = 1500 // records, more than one page of a load

// loadIsOfOneRevision writes while it loads. Each write changes the first and
// the last key, which come in different pages.
func loadIsOfOneRevision(t *testing.T, server Server) {
	p := server.Open(t)
	fill(t, p, pages, "filler")
	last := committed(t, p, put(producer("a", "0"), 0), put(producer("z", "0"), 0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		for i := 1; ctx.Err() == nil; i++ {
			text := fmt.Sprint(i)
			outcomes, err := p.Commit(ctx, []roster.Txn{{put(producer("a", text), last), put(producer("z", text), last)}})
			if ctx.Err() != nil {
				return
			}
			if err != nil || !outcomes[0].Committed {
				t.Errorf("commit: %v, %+v", err, outcomes)
				return
			}
			last = outcomes[0].Revision
		}
	})
	changed := false
	for range 3 {
		var one []string
		revision, err := p.Load(limited(t), func(found roster.Found) error {
			if found.Record.Key().ID == "p00000" {
				// Let the writer come in between the pages.
				before, err := p.Sync(ctx)
				for now := before; err == nil && now == before; {
					now, err = p.Sync(ctx)
				}
				changed = true
				return err
			}
			if id := found.Record.Key().ID; id == "a" || id == "z" {
				one = append(one, string(found.Record.(*roster.Producer).Stored)) //nolint:errcheck // a panic says it
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(one) != 2 || one[0] != one[1] {
			t.Fatalf("the load at revision %d is a mixture: %v", revision, one)
		}
	}
	cancel()
	group.Wait()
	if !changed {
		t.Fatal("nothing was written between the pages")
	}
}

func loadEndsByAdd(t *testing.T, server Server) {
	p := server.Open(t)
	fill(t, p, 3, "x")
	calls := 0
	_, err := p.Load(limited(t), func(roster.Found) error {
		calls++
		return errStop
	})
	if !errors.Is(err, errStop) || calls != 1 {
		t.Fatalf("add was called %d times, the load gave %v", calls, err)
	}
}

// loadOfCompactedRevision compacts in the midst of a load.
func loadOfCompactedRevision(t *testing.T, server Server) {
	p := server.Open(t)
	fill(t, p, pages, "filler")
	once := false
	_, err := p.Load(limited(t), func(roster.Found) error {
		if !once {
			once = true
			revision := committed(t, p, put(producer("a", "0"), 0))
			server.Compact(t, revision)
		}
		return nil
	})
	if !errors.Is(err, registrar.ErrCompacted) {
		t.Fatalf("the load gave %v", err)
	}
	if all, _ := load(t, p); len(all) != pages+1 {
		t.Fatalf("the next load gave %d records", len(all))
	}
}

func restartKeepsEverything(t *testing.T, server Server) {
	p := server.Open(t)
	committed(t, p, put(producer("gone", "1"), 0))
	want := map[roster.Key]roster.Found{}
	for _, record := range samples() {
		want[record.Key()] = roster.Found{Record: record, Revision: committed(t, p, put(record, 0))}
	}
	all, before := load(t, p)
	last := committed(t, p, remove("gone", all[roster.ProducerKey("gone")].Revision))
	if last <= before {
		t.Fatalf("revision %d after %d", last, before)
	}
	if err := p.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	server.Restart(t)
	p = server.Open(t)
	all, revision := load(t, p)
	equal(t, "loaded after the restart", all, want)
	if revision != last {
		t.Errorf("revision %d after the restart, %d before", revision, last)
	}
	next := committed(t, p, put(producer("next", "1"), 0))
	if next <= last {
		t.Errorf("revision %d after the restart, %d before", next, last)
	}
	// The history of before the restart is kept, too.
	checkOrder(t, watch(t, p, before).until(next), before)
}

func closedStore(t *testing.T, server Server) {
	p := server.Open(t)
	_, revision := load(t, p)
	w := watch(t, p, revision)
	w.started()
	if err := p.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := w.err(); err == nil {
		t.Error("the watch ended without an error")
	}
	if err := p.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	ctx := limited(t)
	_, loadErr := p.Load(ctx, func(roster.Found) error { return nil })
	_, commitErr := p.Commit(ctx, []roster.Txn{{put(producer("a", "1"), 0)}})
	_, syncErr := p.Sync(ctx)
	for name, err := range map[string]error{
		"load": loadErr, "commit": commitErr, "sync": syncErr,
		"watch": p.Watch(ctx, revision, func(roster.Batch) error { return nil }),
		"lease": p.HoldLease(ctx, server.LeaseTTL, func() {}),
	} {
		if err == nil {
			t.Errorf("%s on a closed store: no error", name)
		}
	}
}

func canceledContext(t *testing.T, server Server) {
	p := server.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, loadErr := p.Load(ctx, func(roster.Found) error { return nil })
	_, commitErr := p.Commit(ctx, []roster.Txn{{put(producer("a", "1"), 0)}})
	_, syncErr := p.Sync(ctx)
	for name, err := range map[string]error{
		"load": loadErr, "commit": commitErr, "sync": syncErr,
		"watch": p.Watch(ctx, 1, func(roster.Batch) error { return nil }),
		"lease": p.HoldLease(ctx, server.LeaseTTL, func() {}),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
