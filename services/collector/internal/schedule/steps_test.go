package schedule_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A large change is opened by several goroutines: of what it says of a producer
// the last counts all the same, and each is opened once.
func TestLargeChangesOpenEachProducerOnce(t *testing.T) {
	const producers = 5000
	f := &fleet{}
	s := schedule.New(schedule.Config{Opener: f})
	var change schedule.Change
	want := map[assignment.ProducerID]*assignment.Assignment{}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(2 * producers) {
		a := newAssignment(assignment.ProducerID(fmt.Sprintf("p%04d", i%producers)), time.Duration(1+i%7)*time.Minute)
		change.Upserts = append(change.Upserts, a)
		want[a.ProducerID] = a
	}
	for i := 0; i < producers; i += 10 {
		id := assignment.ProducerID(fmt.Sprintf("p%04d", i))
		change.Removals = append(change.Removals, schedule.Removal{ProducerID: id})
		delete(want, id)
	}
	s.Apply(change)
	list := s.List("", producers, nil)
	if len(list) != len(want) {
		t.Fatalf("%d applied, want %d", len(list), len(want))
	}
	for i, status := range list {
		id := status.Assignment.ProducerID
		if i > 0 && id <= list[i-1].Assignment.ProducerID {
			t.Fatalf("%s is behind %s", id, list[i-1].Assignment.ProducerID)
		}
		if status.Assignment != want[id] {
			t.Errorf("%s: not the last assignment was applied", id)
		}
		if work := f.only(t, id).work; work != want[id] {
			t.Errorf("%s: not the last assignment was opened", id)
		}
	}
}

// BenchmarkApplyFirst applies a first set of 100,000, in no order.
func BenchmarkApplyFirst(b *testing.B) {
	list := assignments(100_000, time.Hour)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	b.ReportAllocs()
	for b.Loop() {
		schedule.New(schedule.Config{Opener: &counter{}}).Apply(schedule.Change{Upserts: list})
	}
}
