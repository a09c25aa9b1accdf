package feed_test

import (
	"context"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
)

const benchmarked = 100_000

func loaded() *feed.Feed {
	f := feed.New(time.Hour)
	f.Load("e", 1, func(yield func(assignment.CollectorID, *feed.Item) bool) {
		for i := range benchmarked {
			if !yield("c1", item(producer(i), assignment.Version(i))) {
				return
			}
		}
	}, nil)
	return f
}

// BenchmarkFeedApply changes one member of a set of 100,000 that one subscriber
// follows.
func BenchmarkFeedApply(b *testing.B) {
	f := loaded()
	ctx, cancel := context.WithCancel(b.Context())
	s := f.Subscribe(feed.Request{Collector: "c1", ID: "s"})
	defer s.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := s.Next(ctx); err != nil {
				return
			}
		}
	}()
	changes := make([]feed.Change, 1)
	r := assignment.Revision(1)
	b.ReportAllocs()
	for b.Loop() {
		r++
		changes[0] = put("c1", producer(int(r%benchmarked)), assignment.Version(r))
		f.Apply(r, changes)
	}
	cancel()
	<-done
}

// BenchmarkSubscribeAll gives a set of 100,000 to a subscriber that has nothing.
func BenchmarkSubscribeAll(b *testing.B) { benchmarkFirst(b, nil) }

// BenchmarkSubscribeEqual compares a set of 100,000 with the same one.
func BenchmarkSubscribeEqual(b *testing.B) {
	held := versions{}
	for i := range benchmarked {
		held[producer(i)] = assignment.Version(i)
	}
	benchmarkFirst(b, held.accepted(assignment.BucketBits(benchmarked)))
}

func benchmarkFirst(b *testing.B, accepted *assignment.Accepted) {
	f := loaded()
	b.ReportAllocs()
	for b.Loop() {
		s := f.Subscribe(feed.Request{Collector: "c1", ID: "s", Accepted: accepted})
		if _, err := s.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
