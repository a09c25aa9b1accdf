package schedule_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A counter opens collections that cost nothing: all are itself.
type counter struct {
	collected atomic.Int64
	result    schedule.Result
}

func (c *counter) Open(*assignment.Assignment) (schedule.Collection, error) { return c, nil }

func (c *counter) Update(*assignment.Assignment) error { return nil }

func (c *counter) Collect(context.Context, time.Time) schedule.Result {
	c.collected.Add(1)
	return c.result
}

func (c *counter) Probe(ctx context.Context, at time.Time) schedule.Result { return c.Collect(ctx, at) }

func (c *counter) End(time.Time, bool) {}

func (c *counter) await(n int64) {
	for c.collected.Load() < n {
		time.Sleep(time.Millisecond)
	}
}

func assignments(n int, interval time.Duration) []*assignment.Assignment {
	list := make([]*assignment.Assignment, n)
	for i := range list {
		list[i] = newAssignment(assignment.ProducerID(fmt.Sprintf("rack-%03d/host-%06d", i%500, i)), interval)
	}
	return list
}

// BenchmarkIdle tells what 100,000 producers take that are collected once an
// hour, after the first collection. Their assignments are not counted.
func BenchmarkIdle(b *testing.B) {
	b.Run("Answering", func(b *testing.B) { benchIdle(b, schedule.Result{}) })
	b.Run("Failing", func(b *testing.B) {
		benchIdle(b, schedule.Result{Reason: schedule.ReasonTimeout, Message: "one for all"})
	})
}

func benchIdle(b *testing.B, result schedule.Result) {
	const producers = 100_000
	list := assignments(producers, time.Hour)
	for b.Loop() {
		heap, goroutines := heapInUse(), runtime.NumGoroutine()
		c := &counter{result: result}
		s := schedule.New(schedule.Config{Opener: c, StartRate: 1_000_000})
		stop := startForReal(b, s)
		s.Apply(schedule.Change{Upserts: list})
		c.await(producers)
		for i := range 100 { // as sets grow: in small changes, too
			s.Apply(upserts(with(list[i*997], func(a *assignment.Assignment) { a.Version = 2 })))
		}
		b.ReportMetric(float64(heapInUse()-heap)/producers, "B/producer")
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
		stop()
	}
	runtime.KeepAlive(list)
}

func heapInUse() uint64 {
	var stats runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// BenchmarkDispatch tells the processor time for one scheduled collection of
// 10,000 producers at 1 s, in real time.
func BenchmarkDispatch(b *testing.B) {
	const producers = 10_000
	c := &counter{}
	s := schedule.New(schedule.Config{Opener: c, StartRate: 1_000_000})
	stop := startForReal(b, s)
	s.Apply(schedule.Change{Upserts: assignments(producers, time.Second)})
	c.await(producers)
	missed := func() (n int64) {
		s.List("", producers, func(status *schedule.Status) bool { n += status.Missed; return false })
		return n
	}
	missedBefore := missed() // by first collections that ran at a due time
	used, before := processorTime(b), c.collected.Load()
	b.ResetTimer()
	c.await(before + int64(b.N))
	b.StopTimer()
	n := c.collected.Load() - before
	b.ReportMetric(float64(processorTime(b)-used)/float64(n), "cpu-ns/collection")
	b.ReportMetric(float64(missed()-missedBefore), "missed")
	stop()
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkCollectNow is one collection after the other, among 100,000.
func BenchmarkCollectNow(b *testing.B) {
	c := &counter{}
	s := schedule.New(schedule.Config{Opener: c, StartRate: 1_000_000})
	stop := startForReal(b, s)
	list := assignments(100_000, time.Hour)
	s.Apply(schedule.Change{Upserts: list})
	c.await(int64(len(list)))
	for len(s.List("", 1, func(status *schedule.Status) bool { return status.Successes == 0 })) > 0 {
		time.Sleep(time.Millisecond) // the last ones are on their way out
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % len(list)
		if _, err := s.CollectNow(b.Context(), list[i].ProducerID); err != nil {
			b.Fatal(err)
		}
	}
	stop()
}

// BenchmarkApply is changes of a set of 100,000.
func BenchmarkApply(b *testing.B) {
	list := assignments(100_000, time.Hour)
	b.Run("First", func(b *testing.B) {
		for b.Loop() {
			schedule.New(schedule.Config{Opener: &counter{}}).Apply(schedule.Change{Upserts: list})
		}
	})
	s := schedule.New(schedule.Config{Opener: &counter{}})
	s.Apply(schedule.Change{Upserts: list})
	versions := [2][]*assignment.Assignment{make([]*assignment.Assignment, len(list)), make([]*assignment.Assignment, len(list))}
	for i, a := range list {
		versions[0][i] = with(a, func(a *assignment.Assignment) { a.Version = 2 })
		versions[1][i] = with(a, at("http://elsewhere"))
	}
	b.Run("AllUnchanged", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.Apply(schedule.Change{Upserts: [][]*assignment.Assignment{list, versions[0]}[i%2]})
		}
	})
	b.Run("AllChanged", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s.Apply(schedule.Change{Upserts: [][]*assignment.Assignment{versions[1], list}[i%2]})
		}
	})
	b.Run("OneAddedAndRemoved", func(b *testing.B) {
		a := newAssignment("rack-250/new", time.Hour)
		stop := startForReal(b, s)
		for b.Loop() {
			s.Apply(upserts(a))
			s.Apply(removal(a.ProducerID, false))
		}
		stop()
	})
}

// BenchmarkList is reading all of 100,000, a page at a time.
func BenchmarkList(b *testing.B) {
	s := schedule.New(schedule.Config{Opener: &counter{}})
	s.Apply(schedule.Change{Upserts: assignments(100_000, time.Hour)})
	for b.Loop() {
		after, n := assignment.ProducerID(""), 0
		for {
			page := s.List(after, 1000, nil)
			n += len(page)
			if len(page) < 1000 {
				break
			}
			after = page[len(page)-1].Assignment.ProducerID
		}
		if n != 100_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkRefresh tells what it costs to ask 100,000 collections.
func BenchmarkRefresh(b *testing.B) {
	s := schedule.New(schedule.Config{Opener: &counter{}})
	s.Apply(schedule.Change{Upserts: assignments(100_000, time.Hour)})
	for b.Loop() {
		s.Refresh()
	}
}
