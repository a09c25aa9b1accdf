package remotewrite

import (
	"net/http"
	"sync"
	"time"
)

// again is how long a receiver that was found to know only 1.0 is left alone
// before 2.0 is tried with one request.
const again = 30 * time.Minute

// talk is which protocol is spoken with a receiver. It is safe for concurrent
// use.
type talk struct {
	forced Protocol // Auto when it is negotiated

	mu sync.Mutex

	// spoken is what the receiver is known to understand, Auto at first.
	spoken Protocol // guarded by mu

	// counts says that the receiver has once told how much it wrote.
	counts bool // guarded by mu

	// silent says that a receiver of 2.0 gives no counts, although it refuses 1.0.
	silent bool // guarded by mu

	// next is when 2.0 is tried again, while 1.0 is spoken.
	next time.Time // guarded by mu
}

func newTalk(p Protocol) *talk { return &talk{forced: p, spoken: p} }

// name is empty when nothing is known yet.
func (t *talk) name() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spoken == Auto {
		return ""
	}
	return t.spoken.String()
}

// choose says what a request is sent as.
func (t *talk) choose(now time.Time) Protocol {
	if t.forced != Auto {
		return t.forced
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spoken != V1 {
		return V2
	}
	if now.Before(t.next) {
		return V1
	}
	t.next = now.Add(again) // for one request: the others go on
	return V2
}

// doubts reports whether an answer leaves open that the receiver does not
// understand the protocol, so that the request is to be sent as the other one.
func (t *talk) doubts(p Protocol, a *answer) bool {
	if t.forced != Auto || a.err != nil {
		return false
	}
	if p == V1 {
		return a.status == http.StatusUnsupportedMediaType
	}
	if a.counted {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case a.success():
		return !t.silent
	case a.status == http.StatusInternalServerError || a.status == http.StatusNotImplemented:
		// A receiver that cannot parse may say so, too; one that has spoken 2.0
		// is ill.
		return t.spoken != V2
	case a.status == http.StatusBadRequest || a.status == http.StatusNotAcceptable ||
		a.status == http.StatusUnsupportedMediaType || a.status == http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// settle draws the conclusion of an answer without a doubt, and says whether
// another protocol is spoken now.
func (t *talk) settle(p Protocol, a *answer) bool {
	if p == V2 && a.counted {
		return t.speak(V2, false, time.Time{})
	}
	// 1.0 is spoken alone where it is known to be understood: that it is says
	// nothing new, and may be said after 2.0 was found to be.
	return false
}

// decide draws the conclusion of two answers to a request, the first of which
// left a doubt: which of them counts, and whether another protocol is spoken now.
func (t *talk) decide(p Protocol, first, second *answer, now time.Time) (*answer, bool) {
	refused := second.err == nil && second.status == http.StatusUnsupportedMediaType
	switch {
	case p == V1 && (second.counted || second.success()):
		return second, t.speak(V2, !second.counted, time.Time{})
	case p == V1:
		return first, false
	case refused && first.success() && t.tells():
		return second, false // two receivers behind one address: the first may have nothing
	case refused && first.success():
		// One that refuses 1.0 by its type has read the type of 2.0.
		return first, t.speak(V2, true, time.Time{})
	case refused:
		return first, false
	case !first.success() && second.judged() && !second.success() && t.knows(V2):
		return second, false // the request is at fault, however it is said
	case second.judged():
		return second, t.speak(V1, false, now.Add(again))
	default:
		return second, false
	}
}

// tells reports whether the receiver tells how much it writes.
func (t *talk) tells() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts
}

// knows reports whether the receiver is known to understand a protocol.
func (t *talk) knows(p Protocol) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spoken == p
}

func (t *talk) speak(p Protocol, silent bool, next time.Time) bool {
	if t.forced != Auto {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := t.spoken != p
	t.spoken, t.silent = p, silent
	t.counts = t.counts || p == V2 && !silent
	if !next.IsZero() {
		t.next = next
	}
	return changed
}
