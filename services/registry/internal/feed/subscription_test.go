package feed_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
)

var errEnded = errors.New("ended")

// ended fails unless the subscription has ended with errEnded.
func ended(t *testing.T, s *feed.Subscription) {
	t.Helper()
	if d, err := s.Next(t.Context()); !errors.Is(err, errEnded) {
		t.Errorf("%+v, %v, want the end", d, err)
	}
}

// stands fails unless the subscription goes on.
func stands(t *testing.T, s *feed.Subscription) {
	t.Helper()
	if _, err := s.Next(t.Context()); err != nil {
		t.Errorf("ended: %v", err)
	}
}

func subscribe(t *testing.T, f *feed.Feed, r feed.Request) *feed.Subscription {
	s := f.Subscribe(r)
	t.Cleanup(s.Close)
	return s
}

func TestHeartbeatsComeAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(5 * time.Second)
		f.Load("e", 3, nothing, nil)
		s := subscribe(t, f, feed.Request{Collector: "c1", ID: "s"})
		begin := time.Now()
		next[*feed.Snapshot](t, s)
		if took := time.Since(begin); took != 0 {
			t.Errorf("the first snapshot took %v", took)
		}
		for i := range 3 {
			b := next[*feed.Beat](t, s)
			if want := time.Duration(i+1) * 5 * time.Second; time.Since(begin) != want {
				t.Errorf("heartbeat %d after %v, want %v", i, time.Since(begin), want)
			}
			if diff := cmp.Diff(&feed.Beat{Epoch: "e", Revision: 3}, b); diff != "" {
				t.Errorf("heartbeat (-want +got):\n%s", diff)
			}
		}
		// Changes that this subscriber is not concerned with do not put it off.
		go func() {
			for i := range 4 {
				time.Sleep(2 * time.Second)
				f.Apply(assignment.Revision(4+i), []feed.Change{put("c2", "p", 1)})
			}
		}()
		if b := next[*feed.Beat](t, s); b.Revision != 5 || time.Since(begin) != 20*time.Second {
			t.Errorf("heartbeat %+v after %v", b, time.Since(begin))
		}
		time.Sleep(time.Minute)
	})
}

// TestHeartbeatAtTheMomentOfAChange: when both are due, the heartbeat must not
// tell what the subscriber does not have yet.
func TestHeartbeatAtTheMomentOfAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(5 * time.Second)
		f.Load("e", 1, nothing, nil)
		m := follow(f, feed.Request{Collector: "c1", ID: "s"})
		defer m.sub.Close()
		if _, err := m.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			go func() {
				time.Sleep(5 * time.Second)
				f.Apply(assignment.Revision(2+i), []feed.Change{put("c1", producer(i), 1)})
			}()
			for len(m.set) <= i {
				if _, err := m.step(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestAChangeWakesItsSubscribersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(time.Hour)
		f.Load("e", 1, nothing, nil)
		s := subscribe(t, f, feed.Request{Collector: "c1", ID: "s"})
		next[*feed.Snapshot](t, s)
		begin := time.Now()
		go func() {
			time.Sleep(time.Second)
			f.Apply(2, []feed.Change{put("c1", "p", 1)})
		}()
		d := next[*feed.Snapshot](t, s)
		if time.Since(begin) != time.Second || d.Revision != 2 || d.Base != 1 || d.Scope != assignment.ScopeChanges {
			t.Errorf("%+v after %v", d, time.Since(begin))
		}
	})
}

func TestNextEndsWithTheContextsCause(t *testing.T) {
	f := feed.New(time.Hour)
	f.Load("e", 1, nothing, nil)
	s := subscribe(t, f, feed.Request{Collector: "c1", ID: "s"})
	next[*feed.Snapshot](t, s)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnded)
	if _, err := s.Next(ctx); !errors.Is(err, errEnded) {
		t.Errorf("error %v, want the cause", err)
	}
}

func TestKeepEndsTheOthersOfOneCollector(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	old := subscribe(t, f, feed.Request{Collector: "c1", ID: "old"})
	kept := subscribe(t, f, feed.Request{Collector: "c1", ID: "kept"})
	observer := subscribe(t, f, feed.Request{Collector: "c1", ID: "observer", Observer: true})
	other := subscribe(t, f, feed.Request{Collector: "c2", ID: "other"})
	f.Keep("c1", "kept", errEnded)
	f.Keep("c3", "kept", errEnded)
	ended(t, old)
	for _, s := range []*feed.Subscription{kept, observer, other} {
		stands(t, s)
	}
	f.Keep("c1", "", errEnded)
	ended(t, kept)
	stands(t, observer)
}

// TestTheFirstReasonStands: who is ended twice is told why it was first.
func TestTheFirstReasonStands(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	s := subscribe(t, f, feed.Request{Collector: "c1", ID: "s"})
	f.EndAll(errEnded)
	f.EndAll(errors.New("again"))
	ended(t, s)
	ended(t, s)
}

func TestAnEndDropsWhatIsPending(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	s := subscribe(t, f, feed.Request{Collector: "c1", ID: "s"})
	next[*feed.Snapshot](t, s)
	f.Apply(2, []feed.Change{put("c1", "p", 1)})
	f.EndAll(errEnded)
	f.Apply(3, []feed.Change{put("c1", "q", 1)})
	if n := s.Pending(); n > 0 {
		t.Errorf("%d changes wait for nobody", n)
	}
	ended(t, s)
}

func TestDismissGivesAGoAwayFirst(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	begun := subscribe(t, f, feed.Request{Collector: "c1", ID: "begun"})
	next[*feed.Snapshot](t, begun)
	fresh := subscribe(t, f, feed.Request{Collector: "c2", ID: "fresh", Observer: true})
	away := assignment.GoAway{Reason: 1, Message: "m", RetryAfterMax: time.Second}
	f.Dismiss(away, errEnded)
	for _, s := range []*feed.Subscription{begun, fresh} {
		if diff := cmp.Diff(away, next[*feed.GoAway](t, s).GoAway); diff != "" {
			t.Errorf("go away (-want +got):\n%s", diff)
		}
		ended(t, s)
	}
}

// TestDismissedFeedTakesNobody: who comes after the roll was dismissed would
// stand in the way of the stop.
func TestDismissedFeedTakesNobody(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	f.Dismiss(assignment.GoAway{Message: "m"}, errEnded)
	s := subscribe(t, f, feed.Request{Collector: "c1", ID: "late"})
	next[*feed.GoAway](t, s)
	ended(t, s)
}

func TestLoadBeginsAnew(t *testing.T) {
	f := feed.New(0)
	f.Load("e1", 9, nothing, nil)
	f.Apply(10, []feed.Change{put("c1", "p", 1), put("c2", "q", 1)})
	before := subscribe(t, f, feed.Request{Collector: "c1", ID: "before"})
	f.Load("e2", 3, func(yield func(assignment.CollectorID, *feed.Item) bool) {
		yield("c1", item("r", 2))
	}, errEnded)
	ended(t, before)
	after := subscribe(t, f, feed.Request{Collector: "c1", ID: "after"})
	d := next[*feed.Snapshot](t, after)
	if d.Epoch != "e2" || d.Revision != 3 || d.SetCount != 1 || d.Items[0].ProducerID != "r" || f.Revision() != 3 {
		t.Errorf("%+v", d)
	}
	before.Close()
	after.Close()
	if f.Sets() != 1 || f.Subscribers() != 0 {
		t.Errorf("%d sets and %d subscribers are left", f.Sets(), f.Subscribers())
	}
}

func TestCloseForgets(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	a := f.Subscribe(feed.Request{Collector: "c1", ID: "a"})
	b := f.Subscribe(feed.Request{Collector: "c1", ID: "b", Observer: true})
	next[*feed.Snapshot](t, a)
	f.EndAll(errEnded)
	if f.Subscribers() != 2 || f.Sets() != 1 {
		t.Errorf("%d subscribers of %d sets", f.Subscribers(), f.Sets())
	}
	for range 2 {
		a.Close()
		b.Close()
	}
	if f.Subscribers() != 0 || f.Sets() != 0 {
		t.Errorf("%d subscribers of %d sets after their close", f.Subscribers(), f.Sets())
	}
}

// TestNextAfterClose: the one who sends may still be at it.
func TestNextAfterClose(t *testing.T) {
	f := feed.New(time.Hour)
	f.Load("e", 1, nothing, nil)
	for _, begun := range []bool{false, true} {
		s := f.Subscribe(feed.Request{Collector: "c1", ID: "s"})
		if begun {
			next[*feed.Snapshot](t, s)
		}
		s.Close()
		if d, err := s.Next(t.Context()); !errors.Is(err, feed.ErrClosed) {
			t.Errorf("begun %v: %+v, %v", begun, d, err)
		}
		if f.Sets() != 0 {
			t.Errorf("begun %v: %d sets are kept for nobody", begun, f.Sets())
		}
	}
}

// TestCloseWakesNext: a close ends a Next that waits.
func TestCloseWakesNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := feed.New(time.Hour)
		f.Load("e", 1, nothing, nil)
		s := f.Subscribe(feed.Request{Collector: "c1", ID: "s"})
		next[*feed.Snapshot](t, s)
		go func() {
			time.Sleep(time.Second)
			s.Close()
		}()
		begin := time.Now()
		if d, err := s.Next(t.Context()); !errors.Is(err, feed.ErrClosed) || time.Since(begin) != time.Second {
			t.Errorf("%+v, %v after %v", d, err, time.Since(begin))
		}
	})
}
