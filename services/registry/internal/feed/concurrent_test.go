package feed_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"golang.org/x/sync/errgroup"
)

// history remembers what one collector's set was at each revision.
type history struct {
	mu sync.Mutex
	at map[assignment.Revision]seal
}

type seal struct {
	count  int
	digest assignment.Digest
}

func (h *history) record(r assignment.Revision, v versions) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at[r] = seal{len(v), v.digest()}
}

func (h *history) check(m *mirror) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if want := h.at[m.at]; want != (seal{len(m.set), m.set.digest()}) {
		return fmt.Errorf("revision %d is not what it was: %d members, want %d", m.at, len(m.set), want.count)
	}
	return nil
}

const changesToRace = 3000

// churn changes c1's set at each revision.
func churn(f *feed.Feed, h *history) {
	random := rand.New(rand.NewPCG(1, 2))
	set := versions{}
	for r := range assignment.Revision(changesToRace) {
		var changes []feed.Change
		for range random.IntN(4) {
			id := producer(random.IntN(50))
			if random.IntN(2) == 0 {
				set[id] = assignment.Version(random.Uint64())
				changes = append(changes, put("c1", id, set[id]))
			} else {
				delete(set, id)
				changes = append(changes, remove("c1", id, assignment.CauseDeregistered))
			}
		}
		h.record(r+2, set)
		f.Apply(r+2, changes)
	}
}

// keepUp follows until the last revision; it hangs up now and then, and resumes
// with what it holds.
func keepUp(ctx context.Context, f *feed.Feed, h *history, n int) error {
	random := rand.New(rand.NewPCG(uint64(n), 3))
	held := versions(nil)
	for {
		r := feed.Request{Collector: "c1", ID: fmt.Sprint(n), Observer: true}
		if held != nil {
			r.Accepted = held.accepted(3)
		}
		m := follow(f, r)
		if held != nil {
			m.set = maps.Clone(held)
		}
		for range 1 + random.IntN(100) {
			if _, err := m.step(ctx); err != nil {
				return err
			}
			if err := h.check(m); err != nil {
				return err
			}
			if m.at == changesToRace+1 {
				m.sub.Close()
				return nil
			}
		}
		m.sub.Close()
		held = m.set
	}
}

// TestHeartbeatNeverAheadOfPending lets subscribers race with changes: whatever
// they are given, snapshot or heartbeat, is the set as it was at that revision.
func TestHeartbeatNeverAheadOfPending(t *testing.T) {
	f := feed.New(20 * time.Microsecond)
	f.Load("e", 1, nothing, nil)
	h := &history{at: map[assignment.Revision]seal{1: {}}}
	group, ctx := errgroup.WithContext(t.Context())
	for n := range 8 {
		group.Go(func() error { return keepUp(ctx, f, h, n) })
	}
	group.Go(func() error { churn(f, h); return nil })
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if f.Subscribers() != 0 {
		t.Errorf("%d subscribers are left", f.Subscribers())
	}
}

// TestEverythingAtOnce calls all methods from many goroutines: nothing hangs,
// nothing is left. What each one does is told by the other tests.
func TestEverythingAtOnce(t *testing.T) {
	f := feed.New(50 * time.Microsecond)
	f.Load("e", 1, nothing, nil)
	var group errgroup.Group
	for n := range 8 {
		group.Go(func() error {
			for i := range 200 {
				s := f.Subscribe(feed.Request{Collector: collectors[i%2], ID: fmt.Sprint(n), Observer: n == 0})
				for range i % 5 {
					if _, err := s.Next(t.Context()); err != nil {
						break
					}
				}
				s.Close()
			}
			return nil
		})
	}
	group.Go(func() error {
		for i := range assignment.Revision(2000) {
			f.Apply(i, []feed.Change{put(collectors[i%2], producer(int(i%20)), assignment.Version(i)), remove("c1", producer(int(i%7)), 0)})
			switch i % 50 {
			case 10:
				f.Keep("c1", "3", errEnded)
			case 20:
				f.EndAll(errEnded)
			case 40:
				f.Load("e", i, nothing, errEnded)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	f.Load("e", 1, nothing, nil)
	if f.Subscribers() != 0 || f.Sets() != 0 {
		t.Errorf("%d subscribers of %d sets are left", f.Subscribers(), f.Sets())
	}
}
