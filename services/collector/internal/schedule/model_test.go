package schedule_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A move is one step of a random history.
type move struct {
	change     schedule.Change
	collectNow assignment.ProducerID
	pass       time.Duration

	// refresh says that banned are the endpoints that cannot be run from then on.
	refresh bool
	banned  []string
}

var (
	modelIDs       = []assignment.ProducerID{"a", "b", "c", "d", "e", "f"}
	modelEndpoints = []string{"http://one", "http://two", "http://three", "bad-open", "bad-update"}
	modelIntervals = []time.Duration{100 * time.Millisecond, 700 * time.Millisecond, 5 * time.Second, 0}
)

func drawMove(t *rapid.T) move {
	m := move{pass: time.Duration(rapid.IntRange(0, 3000).Draw(t, "pass")) * time.Millisecond}
	if rapid.IntRange(0, 2).Draw(t, "at once") == 0 {
		m.pass = 0
	}
	if rapid.IntRange(0, 4).Draw(t, "now") == 0 {
		m.collectNow = rapid.SampledFrom(modelIDs).Draw(t, "whom")
	}
	if rapid.IntRange(0, 3).Draw(t, "refresh") == 0 {
		m.refresh = true
		m.banned = rapid.SliceOfN(rapid.SampledFrom(modelEndpoints[:3]), 0, 2).Draw(t, "banned")
	}
	for range rapid.IntRange(0, 4).Draw(t, "upserts") {
		a := newAssignment(rapid.SampledFrom(modelIDs).Draw(t, "id"), rapid.SampledFrom(modelIntervals).Draw(t, "interval"))
		a.Endpoint = rapid.SampledFrom(modelEndpoints).Draw(t, "endpoint")
		a.Role = assignment.Role(rapid.IntRange(0, 3).Draw(t, "role"))
		a.Timeout /= time.Duration(rapid.IntRange(1, 2).Draw(t, "timeout"))
		a.Version = assignment.Version(rapid.IntRange(0, 3).Draw(t, "version"))
		m.change.Upserts = append(m.change.Upserts, a)
	}
	for range rapid.IntRange(0, 2).Draw(t, "removals") {
		m.change.Removals = append(m.change.Removals, schedule.Removal{
			ProducerID: rapid.SampledFrom(modelIDs).Draw(t, "id"),
			Stale:      rapid.Bool().Draw(t, "stale"),
		})
	}
	return m
}

// TestRandomHistories compares 10,000 random histories of changes, collections
// and faults with the simplest model: a map. There are fewer in short tests and
// with the race detector, which makes them ten times as slow.
func TestRandomHistories(t *testing.T) {
	histories := "10000"
	if testing.Short() || raceDetector {
		histories = "500"
	}
	checks := flag.Lookup("rapid.checks")
	if before := checks.Value.String(); before == checks.DefValue {
		if err := checks.Value.Set(histories); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = checks.Value.Set(before) }()
	}
	rapid.Check(t, func(rt *rapid.T) {
		concurrency := rapid.IntRange(1, 4).Draw(rt, "concurrency")
		stubborn := rapid.Bool().Draw(rt, "stubborn")
		lasts := rapid.SliceOfN(rapid.IntRange(0, 2500), 1, 5).Draw(rt, "lasts")
		moves := make([]move, rapid.IntRange(1, 12).Draw(rt, "moves"))
		for i := range moves {
			moves[i] = drawMove(rt)
		}
		var err error
		synctest.Test(t, func(t *testing.T) { err = history(t.Context(), concurrency, stubborn, lasts, moves) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func history(ctx context.Context, concurrency int, stubborn bool, lasts []int, moves []move) error {
	n := 0
	f := &fleet{}
	var banned atomic.Pointer[[]string]
	banned.Store(&[]string{})
	f.open = func(a *assignment.Assignment) error {
		if slices.Contains(*banned.Load(), a.Endpoint) {
			return errors.New("banned")
		}
		return refused(a, "bad-open")
	}
	f.update = func(a *assignment.Assignment) error { return errors.Join(f.open(a), refused(a, "bad-update")) }
	f.collect = func(ctx context.Context, _ *pull, _ time.Time) schedule.Result {
		f.mu.Lock()
		n++
		last := time.Duration(lasts[n%len(lasts)]) * time.Millisecond
		f.mu.Unlock()
		if stubborn {
			ctx = context.WithoutCancel(ctx)
		}
		return pass(ctx, last)
	}
	s := schedule.New(schedule.Config{Opener: f, Concurrency: concurrency, StartRate: 5})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	synctest.Wait()
	model := map[assignment.ProducerID]*assignment.Assignment{}
	for i, m := range moves {
		for _, a := range m.change.Upserts {
			model[a.ProducerID] = a
		}
		for _, r := range m.change.Removals {
			delete(model, r.ProducerID)
		}
		s.Apply(m.change)
		if err := equalsModel(s, model); err != nil {
			return fmt.Errorf("after Apply of move %d: %w", i, err)
		}
		if m.refresh {
			banned.Store(&m.banned)
			s.Refresh()
			if err := equalsModel(s, model); err != nil {
				return fmt.Errorf("after Refresh in move %d: %w", i, err)
			}
		}
		if m.collectNow != "" {
			soon, cancel := context.WithTimeout(ctx, time.Second)
			_, err := s.CollectNow(soon, m.collectNow)
			cancel()
			if errors.Is(err, schedule.ErrUnknown) != (model[m.collectNow] == nil) || errors.Is(err, schedule.ErrStopped) {
				return fmt.Errorf("CollectNow in move %d: %w", i, err)
			}
		}
		time.Sleep(m.pass)
	}
	// Whatever runs has ended by then, and every End has had its room.
	time.Sleep(time.Minute)
	synctest.Wait()
	if err := errors.Join(equalsModel(s, model), f.settled(s, model, *banned.Load())); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	cancel()
	if err := <-ran; err != nil {
		return err
	}
	return f.finished()
}

func refused(a *assignment.Assignment, endpoint string) error {
	if a.Endpoint == endpoint {
		return errors.New(endpoint)
	}
	return nil
}

func equalsModel(s *schedule.Schedule, model map[assignment.ProducerID]*assignment.Assignment) error {
	list := s.List("", 100, nil)
	var got, want []*assignment.Assignment
	for _, status := range list {
		got = append(got, status.Assignment)
	}
	for _, id := range slices.Sorted(maps.Keys(model)) {
		want = append(want, model[id])
	}
	if !slices.Equal(got, want) || s.Len() != len(want) {
		return fmt.Errorf("%d applied, %v, want %v", s.Len(), got, want)
	}
	for _, id := range modelIDs {
		status, ok := s.Find(id)
		if ok != (model[id] != nil) || status.Assignment != model[id] {
			return fmt.Errorf("Find(%s) = %v, %v, want %v", id, status.Assignment, ok, model[id])
		}
	}
	return nil
}

// settled checks that each applied producer has the one collection that it
// should, with the work that it should do, and that all others have ended.
func (f *fleet) settled(s *schedule.Schedule, model map[assignment.ProducerID]*assignment.Assignment, banned []string) error {
	f.mu.Lock()
	live := map[assignment.ProducerID]*pull{}
	for _, p := range f.pulls {
		if len(p.ends) == 0 {
			if live[p.id] != nil {
				f.breaches = append(f.breaches, fmt.Sprintf("%s has two collections", p.id))
			}
			live[p.id] = p
		}
	}
	f.mu.Unlock()
	for _, id := range modelIDs {
		a, p := model[id], live[id]
		status, _ := s.Find(id)
		switch {
		case a == nil && p != nil:
			return fmt.Errorf("%s was removed and has not ended", id)
		case a == nil:
		case status.UnrunnableReason == "" && (p == nil || !p.work.SameWork(a)):
			return fmt.Errorf("%s does not run what was applied", id)
		case p != nil && slices.Contains(banned, p.work.Endpoint):
			return fmt.Errorf("%s runs what is banned", id)
		case p == nil && !status.Next.IsZero() || p != nil && status.Next.IsZero():
			return fmt.Errorf("%s is next at %v", id, status.Next)
		case p != nil && len(p.log()) == 0:
			return fmt.Errorf("%s was never collected", id)
		}
	}
	ids, _ := s.Collected(0, 100)
	for _, id := range ids {
		if a := model[id]; a == nil || a.Role != assignment.RoleHandoffTarget {
			return fmt.Errorf("%s is told to be a collected target: %+v", id, a)
		}
	}
	for id, a := range model {
		status, _ := s.Find(id)
		if a.Role == assignment.RoleHandoffTarget && status.Last.Reason == schedule.ReasonNone && status.Successes > 0 && live[id] != nil && !slices.Contains(ids, id) {
			return fmt.Errorf("%s is a target that was collected, and is not told", id)
		}
	}
	count, _ := s.Unrunnable()
	for _, status := range s.List("", 100, nil) {
		bad := status.Assignment.Endpoint == "bad-open" || status.Assignment.Interval == 0 ||
			slices.Contains(banned, status.Assignment.Endpoint)
		if status.UnrunnableReason != "" {
			if count--; !bad && status.Assignment.Endpoint != "bad-update" {
				return fmt.Errorf("%s is said not to be run: %s", status.Assignment.ProducerID, status.UnrunnableReason)
			}
		} else if bad {
			return fmt.Errorf("%s is said to be run", status.Assignment.ProducerID)
		}
	}
	if count != 0 {
		return fmt.Errorf("%d more unrunnable than listed", count)
	}
	return nil
}

// finished checks that no contract was broken and that every End was called
// once.
func (f *fleet) finished() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.pulls {
		if len(p.ends) != 1 {
			return fmt.Errorf("%s: End was called %d times, want once", p.id, len(p.ends))
		}
	}
	if len(f.breaches) > 0 {
		return errors.New(strings.Join(f.breaches, "; "))
	}
	return nil
}
