package bench

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// The size of the benchmarks of collecting. The defaults keep make bench short.
var (
	fleetSize    = flag.Int("fleet", 200, "BenchmarkFirstSample, BenchmarkCollecting: how many producers there are")
	fleetSamples = flag.Int("samples", 200, "BenchmarkFirstSample, BenchmarkCollecting: how many samples each has")
	lateSize     = flag.Int("late", 10, "BenchmarkFirstSample: how many come late")
	fleetPace    = flag.Duration("interval", 5*time.Second, "BenchmarkFirstSample, BenchmarkCollecting: how often they are collected")
)

const (
	// latePause is how far apart those who come late are on average.
	latePause = 700 * time.Millisecond

	// lateLimit is when one that is not collected counts as lost.
	lateLimit = time.Minute

	// peerRefresh is how often a peer reads its list: Prometheus looks at what
	// it has read every 5 s at most.
	peerRefresh = 5 * time.Second
)

// BenchmarkFirstSample registers producers late, one at a time at random
// instants, with a collector that has others already, and tells how long after
// the registration's answer each is first asked, and its first sample is found
// by a query. A peer reads its members from a list; for it the registration is
// the change of that list.
func BenchmarkFirstSample(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			for b.Loop() {
				benchFirstSample(b, k)
			}
		})
	}
}

func benchFirstSample(b *testing.B, k kind) {
	exposers := start(b, "exposers")
	defer exposers.stop()
	s := k.start(b, setting{interval: *fleetPace, refresh: peerRefresh}, fleetOf(exposers, "fleet", *fleetSize, *fleetSamples, false))
	defer s.end()
	awaitAsked(b, exposers, *fleetSize, 2*(*fleetPace)+time.Minute)
	time.Sleep(*fleetPace)

	var waiting sync.WaitGroup
	var mu sync.Mutex
	var asked, found, called latencies // since the answer; since the call
	for _, m := range fleetOf(exposers, "late", *lateSize, *fleetSamples, false) {
		time.Sleep(rand.N(2 * latePause))
		call := time.Now()
		s.add(b, []target{m})
		ok := time.Now()
		waiting.Go(func() {
			first, seen := awaitFirst(b, exposers, s, m.name)
			mu.Lock()
			defer mu.Unlock()
			asked, found, called = append(asked, first.Sub(ok)), append(found, seen.Sub(ok)), append(called, seen.Sub(call))
		})
	}
	waiting.Wait()
	if b.Failed() {
		return
	}
	asked.tell(b, "answer-to-request")
	if s.stores {
		found.tell(b, "answer-to-query")
		called.tell(b, "call-to-query")
	}
	b.ReportMetric(0, "ns/op")
	b.Log("load average", loadAverage(b))
}

// awaitFirst waits until a producer was asked, and until its sample is found
// where the subject answers queries; when that was.
func awaitFirst(b *testing.B, exposers *server, s *subject, name string) (first, seen time.Time) {
	const step = 10 * time.Millisecond
	query := fmt.Sprintf("count(bench_alive{host=%q})", name)
	for deadline := time.Now().Add(lateLimit); time.Now().Before(deadline); time.Sleep(step) {
		if first.IsZero() {
			at, known := exposers.firstAsked(b, name)
			if !known {
				continue
			}
			first = at
		}
		if !s.stores || s.count(b, query) == 1 {
			return first, time.Now()
		}
	}
	b.Errorf("%s was not collected within %v", name, lateLimit)
	return first, seen
}

// tell reports the median, the 99th percentile and the most.
func (l latencies) tell(b *testing.B, name string) {
	b.Helper()
	slices.Sort(l)
	b.ReportMetric(l.p50(), name+"-p50-ms")
	b.ReportMetric(l.p99(), name+"-p99-ms")
	b.ReportMetric(milliseconds(l[len(l)-1]), name+"-max-ms")
}

// end stops a subject.
func (s *subject) end() {
	s.stop()
	if s.registry != nil {
		s.registry.stop()
	}
}
