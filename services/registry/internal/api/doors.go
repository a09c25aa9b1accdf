package api

import (
	"fmt"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// DefaultMaxSubscriptions is how many subscriptions may be open at a time.
const DefaultMaxSubscriptions = 8192

const (
	// maxObservers bounds the subscriptions that only look.
	maxObservers = 64

	// maxOwn bounds the subscriptions of one collector: the one that stands, the
	// one that takes its place, and as many of a process that was replaced and
	// does not know it yet.
	maxOwn = 4
)

// doors bound the subscriptions that are open, from the request to the end of
// the stream: each of them costs memory, and what is being opened may wait for
// the store.
type doors struct {
	max     int
	metrics *Metrics

	mu        sync.Mutex // guards all below
	inside    int
	observers int
	own       map[assignment.CollectorID]int
}

func newDoors(most int, metrics *Metrics) *doors {
	return &doors{max: most, metrics: metrics, own: map[assignment.CollectorID]int{}}
}

// An exhausted error says which bound is reached, and when to try again.
type exhausted struct {
	reason  string
	message string
	retry   time.Duration
}

// Error tells it.
func (e *exhausted) Error() string { return e.message }

func tooMany(reason string, most int, retry time.Duration) *exhausted {
	return &exhausted{reason, fmt.Sprintf("%s: at most %d at a time; try again later", reason, most), retry}
}

// enter lets a subscription in until leave is called, or refuses it with an
// *exhausted.
func (d *doors) enter(id assignment.CollectorID, observe bool) (leave func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var full *exhausted
	switch {
	case d.inside >= d.max:
		full = tooMany("TOO_MANY_SUBSCRIPTIONS", d.max, retryDelay)
	case observe && d.observers >= maxObservers:
		full = tooMany("TOO_MANY_OBSERVERS", maxObservers, retryDelay)
	case !observe && d.own[id] >= maxOwn:
		full = tooMany("TOO_MANY_OF_ONE_COLLECTOR", maxOwn, retryDelay)
	}
	if full != nil {
		d.metrics.Turned.WithLabelValues(full.reason).Inc()
		return nil, full
	}
	d.count(id, observe, 1)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.count(id, observe, -1)
	}, nil
}

// count counts one in or out. The caller holds mu.
func (d *doors) count(id assignment.CollectorID, observe bool, by int) {
	d.inside += by
	if observe {
		d.observers += by
		return
	}
	if d.own[id] += by; d.own[id] == 0 {
		delete(d.own, id)
	}
}
