package storetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// patience is how long anything may take that is waited for.
const patience = time.Minute

// limited is the context of one step.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// producer makes a record that carries a text.
func producer(id, text string) *roster.Producer {
	stored := []byte(text)
	return &roster.Producer{
		ID:      assignment.ProducerID(id),
		Stored:  stored,
		Version: assignment.VersionOf(stored),
		Life:    roster.Life{Permanent: true},
	}
}

func put(record roster.Record, expect assignment.Revision) roster.Write {
	return roster.Write{Key: record.Key(), Expect: expect, Record: record}
}

func remove(id string, expect assignment.Revision) roster.Write {
	return roster.Write{Key: roster.ProducerKey(assignment.ProducerID(id)), Expect: expect}
}

// commit carries out one Txn.
func commit(t *testing.T, p Process, writes ...roster.Write) roster.Outcome {
	t.Helper()
	outcomes, err := p.Commit(limited(t), []roster.Txn{writes})
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	if len(outcomes) != 1 {
		t.Fatalf("commit of one transaction gave %d outcomes", len(outcomes))
	}
	return outcomes[0]
}

// committed carries out one Txn that has to succeed.
func committed(t *testing.T, p Process, writes ...roster.Write) assignment.Revision {
	t.Helper()
	outcome := commit(t, p, writes...)
	if !outcome.Committed {
		t.Fatalf("not committed; found %+v", outcome.Found)
	}
	if outcome.Revision <= 0 {
		t.Fatalf("committed at revision %d", outcome.Revision)
	}
	return outcome.Revision
}

// load is everything, and its revision.
func load(t *testing.T, p Process) (map[roster.Key]roster.Found, assignment.Revision) {
	t.Helper()
	all := map[roster.Key]roster.Found{}
	revision, err := p.Load(limited(t), func(found roster.Found) error {
		if _, twice := all[found.Record.Key()]; twice {
			return fmt.Errorf("%v came twice", found.Record.Key())
		}
		all[found.Record.Key()] = found
		return nil
	})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return all, revision
}

func records(all map[roster.Key]roster.Found) map[roster.Key]roster.Record {
	plain := map[roster.Key]roster.Record{}
	for key, found := range all {
		plain[key] = found.Record
	}
	return plain
}

// A watching is a Watch in a goroutine of its own; what it brings is gathered.
type watching struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	batches []roster.Batch
	more    chan struct{} // closed and made anew at each batch
}

func watch(t *testing.T, p Process, after assignment.Revision) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{t: t, cancel: cancel, ended: make(chan error, 1), more: make(chan struct{})}
	go func() {
		w.ended <- p.Watch(ctx, after, func(batch roster.Batch) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.batches = append(w.batches, batch)
			close(w.more)
			w.more = make(chan struct{})
			return nil
		})
	}()
	t.Cleanup(cancel)
	return w
}

func (w *watching) so() (batches []roster.Batch, more <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.batches), w.more
}

// until waits for a batch of at least a revision, and returns all so far.
func (w *watching) until(revision assignment.Revision) []roster.Batch {
	w.t.Helper()
	ctx := limited(w.t)
	for {
		batches, more := w.so()
		if len(batches) > 0 && batches[len(batches)-1].Revision >= revision {
			return batches
		}
		select {
		case <-more:
		case err := <-w.ended:
			w.t.Fatalf("the watch ended before revision %d: %v", revision, err)
		case <-ctx.Done():
			w.t.Fatalf("the watch did not bring revision %d", revision)
		}
	}
}

// started waits until the watch runs: it begins with a batch.
func (w *watching) started() {
	w.t.Helper()
	w.until(0)
}

// err waits for the watch's end.
func (w *watching) err() error {
	w.t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-limited(w.t).Done():
		w.t.Fatal("the watch did not end")
		return nil
	}
}

// checkOrder checks what Watch promises of any batches after a revision.
func checkOrder(t *testing.T, batches []roster.Batch, after assignment.Revision) {
	t.Helper()
	last := after
	for _, batch := range batches {
		if batch.Revision < last || batch.Revision == last && len(batch.Events) > 0 {
			t.Fatalf("a batch with %d events of revision %d after one of %d", len(batch.Events), batch.Revision, last)
		}
		last = batch.Revision
		keys := map[roster.Key]bool{}
		for _, event := range batch.Events {
			if keys[event.Key] {
				t.Fatalf("revision %d changes %v twice", batch.Revision, event.Key)
			}
			keys[event.Key] = true
			if event.Record != nil && event.Record.Key() != event.Key {
				t.Fatalf("the event of %v has the record of %v", event.Key, event.Record.Key())
			}
		}
	}
}

// fold applies batches to what stands.
func fold(to map[roster.Key]roster.Found, batches []roster.Batch) {
	for _, batch := range batches {
		for _, event := range batch.Events {
			if event.Record == nil {
				delete(to, event.Key)
			} else {
				to[event.Key] = roster.Found{Record: event.Record, Revision: batch.Revision}
			}
		}
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}
