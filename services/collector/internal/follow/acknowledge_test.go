package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc"
)

// holder holds producers, and is its own runner and registry.
type holder struct {
	registryv1.AssignmentServiceClient

	mu    sync.Mutex // guards all below
	held  []assignment.ProducerID
	holds int64
	fail  bool
	told  [][]string

	persisted bool
	collected []assignment.ProducerID
	acks      []ack
}

// ack is what an acknowledgement told of collected targets, and when.
type ack struct {
	at        time.Time
	collected []string
}

func (h *holder) Status() membership.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return membership.Status{HeldCount: len(h.held), Holds: h.holds, Persisted: h.persisted}
}

func (h *holder) HeldIDs(after assignment.ProducerID, limit int) []assignment.ProducerID {
	h.mu.Lock()
	defer h.mu.Unlock()
	from, found := slices.BinarySearch(h.held, after)
	if found {
		from++
	}
	return h.held[from:min(from+limit, len(h.held))]
}

func (*holder) Explained(context.Context, []assignment.Removal) {}

func (h *holder) Accepted(ids []assignment.ProducerID) []assignment.ProducerID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id assignment.ProducerID) bool { return slices.Contains(h.held, id) })
}

func (h *holder) Collected(after uint64, limit int) ([]assignment.ProducerID, uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := min(int(after), len(h.collected))
	to := min(from+limit, len(h.collected))
	return slices.Clone(h.collected[from:to]), uint64(to)
}

func (*holder) Unrunnable() (int, []Unrunnable) { return 0, nil }

func (h *holder) Acknowledge(_ context.Context, m *registryv1.AcknowledgeRequest, _ ...grpc.CallOption) (*registryv1.AcknowledgeResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail {
		h.fail = false
		return nil, errors.New("lost")
	}
	h.told = append(h.told, m.GetHeldProducerIds())
	h.acks = append(h.acks, ack{time.Now(), m.GetCollectedProducerIds()})
	return &registryv1.AcknowledgeResponse{}, nil
}

// hold holds so many more.
func (h *holder) hold(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for range n {
		h.holds++
		h.held = append(h.held, assignment.ProducerID(fmt.Sprintf("p-%06d", h.holds)))
	}
}

// counts is how many each acknowledgement told of since the last call.
func (h *holder) counts() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var counts []int
	for _, ids := range h.told {
		counts = append(counts, len(ids))
	}
	h.told = nil
	return counts
}

// last is the last producer that was told of.
func (h *holder) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := h.told[len(h.told)-1]
	return ids[len(ids)-1]
}

func (h *holder) change(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
}

// TestHeldAreToldInRounds: all of them, 1,000 at a time, one acknowledgement after
// the other; then once a minute, and at once when there are new ones.
func TestHeldAreToldInRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holder{}
		a, stop := answering(t, h)
		wait := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		want := func(what string, counts ...int) {
			t.Helper()
			if got := h.counts(); !slices.Equal(got, counts) {
				t.Errorf("%s: told of %v, want %v", what, got, counts)
			}
		}
		a.notify()
		wait(time.Second)
		want("nobody held", 0)
		h.hold(2500)
		a.notify()
		wait(time.Second)
		if last := h.last(); last != "p-002500" {
			t.Errorf("the last one told was %s", last)
		}
		want("a round", 1000, 1000, 500)
		a.notify() // a seal that held nobody
		wait(time.Second)
		want("all told", 0)
		h.hold(10)
		h.change(func() { h.fail = true })
		a.notify()
		wait(3 * time.Second)
		want("new ones, and a call that is lost", 1000, 1000, 510)
		wait(time.Minute)
		want("once a minute", 1000, 1000, 510)
		h.change(func() { h.held = nil })
		wait(10 * time.Minute)
		want("nobody held any more")
		stop()
	})
}
