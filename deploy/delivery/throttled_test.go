package delivery_test

import (
	"flag"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

var throttled = flag.Duration("throttled", 30*time.Second, "TestThrottled: for how long the receiver is slow")

const (
	// The load of TestThrottled, which is to be more than the queue can hold.
	slowCount, slowSamples = 80, 500

	// A sample takes some 8 bytes of the queue, which may have a third of what
	// comes while the receiver is slow, and the least that a queue may be.
	slowQueueShare = slowCount * slowSamples * 8 / 3
	leastQueue     = 4 << 20

	// stopLate is how long a busy machine may take to get an answer from the
	// producer's socket into the queue.
	stopLate = 5 * time.Second

	// One collection of so many may be missed where the machine stalls. All are
	// when collecting waits for the receiver.
	maxMissedShare = 100

	// slowMemory is how much more the collector may have resident while the
	// receiver is slow: what is read and not delivered yet, 640,000 samples of 40 B
	// and 160,000 series of some 500 B, and half as much garbage.
	slowMemory = 160 << 20
)

// TestThrottled has a receiver take a tenth of what comes: the queue overflows.
// Collecting goes on as if nothing were, memory and disk stay within their
// bounds, and what the collector says it has dropped is exactly what is missing.
func TestThrottled(t *testing.T) {
	if testing.Short() {
		t.Skipf("it takes %v", *throttled)
	}
	t.Parallel()
	k := kinds[0]
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	p := newProducers(t, slowCount, slowSamples)
	r, ledger := newReceiver(t)
	up(t, r)
	bound := max(leastQueue, int64(throttled.Seconds())*slowQueueShare) >> 20 << 20
	s := &setup{dir: t.TempDir(), pace: interval, targets: p, write: r.URL(), maxBytes: bound}
	agent := launch(t, k.plan(t, s))
	defer func() { agent.Kill() }()
	p.await(t, 5, time.Minute)

	before, _, err := child.Memory(agent.PID())
	if err != nil {
		t.Fatal(err)
	}
	early := metricsOf(t, agent)
	from, full := time.Now(), r.Totals()
	r.Throttle(slowCount * slowSamples / interval.Seconds() / 10)
	most := watchDisk(k.queue(s))
	time.Sleep(*throttled)
	after, peak, err := child.Memory(agent.PID())
	if err != nil {
		t.Fatal(err)
	}
	taken, lifted := r.Totals(), time.Now()
	r.Throttle(0)
	awaitCaughtUp(t, p, r, ledger)
	caught := time.Since(lifted)
	disk := most()
	// From here on nothing is dropped: so all that was is older than what is not
	// judged at the end.
	p.await(t, len(p.all()[p.names[0]])+int((stopLate+2*time.Second)/interval), time.Minute)
	late := metricsOf(t, agent)
	ended := stop(t, agent, false)
	ended.margin = stopLate // nothing is dropped at the end: what is missing then was not read yet
	t.Logf("resident %d MiB before, %d after, %d at most; on disk %d KiB of %d at most; slow, it took %d samples, and refused %d requests; all arrived %v after that; protocol %s",
		before>>20, after>>20, peak>>20, disk>>10, bound>>10, taken.Samples-full.Samples, taken.Refused, caught.Round(time.Millisecond), protocols(r.Totals()))
	if peak > before+slowMemory {
		t.Errorf("%d MiB were resident, of %d before", peak>>20, before>>20)
	}
	if disk > bound {
		t.Errorf("the queue had %d bytes on disk, its bound is %d", disk, bound)
	}
	const missed = "rollcall_collector_missed_ticks_total"
	failed := failures(t, late)
	excused := failed // one that timed out takes the next one's time
	if stalled := noted.within(from, ended.at); stalled > 0 {
		t.Logf("the machine stalled for %v", stalled.Round(time.Millisecond))
		excused += answersOf(p) / maxMissedShare
	}
	if n := sum(late, missed) - sum(early, missed); n > float64(excused) {
		t.Errorf("%.0f collections were missed by the collector's own count, and %d failed", n, failed)
	}
	checkPace(t, p, from)
	checkDropped(t, p, ledger, ended, sum(late, "rollcall_sink_dropped_samples_total"), failed)
}

// answersOf counts the answers of all producers.
func answersOf(p *producers) int {
	n := 0
	for _, answers := range p.all() {
		n += len(answers)
	}
	return n
}

func metricsOf(t *testing.T, agent *child.Child) map[string]float64 {
	t.Helper()
	metrics, err := child.Scrape(t.Context(), "http://"+agent.HTTP+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

// awaitCaughtUp waits until what has just been collected has arrived. It looks
// seldom: that takes time from the receiver, which is in this process.
func awaitCaughtUp(t *testing.T, p *producers, r *receiver.Receiver, ledger *receiver.Ledger) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	began, before := time.Now(), r.Totals().Samples
	for range 120 {
		<-tick.C
		now := time.Now()
		v := judge(p, ledger, func(a answer) bool { return now.Sub(a.sent) > interval && now.Sub(a.sent) < 3*interval })
		if v.answers > 0 && v.lost == 0 {
			return
		}
	}
	t.Fatalf("what was just collected does not arrive; the receiver took %d samples in %v", r.Totals().Samples-before, time.Since(began))
}

// watchDisk looks at a directory again and again until it is asked for the most
// that was there, in bytes.
func watchDisk(dir string) (most func() int64) {
	var largest atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			largest.Store(max(largest.Load(), child.DiskUsage(dir)))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return largest.Load()
	}
}

// checkPace fails when a producer was not asked at every one of its instants, but
// for those in which the machine stalled.
func checkPace(t *testing.T, p *producers, from time.Time) {
	t.Helper()
	var latest time.Duration
	for name, answers := range p.all() {
		for i := 1; i < len(answers); i++ {
			if answers[i].began.Before(from) {
				continue
			}
			gap := answers[i].began.Sub(answers[i-1].began)
			latest = max(latest, gap-interval)
			if stalled := noted.within(answers[i-1].began, answers[i].began); gap-stalled >= 2*interval {
				t.Errorf("%s was not asked for %v, and %v of them were stalls", name, gap, stalled)
			}
		}
	}
	t.Logf("the longest between two requests was an interval and %v", latest.Round(time.Millisecond))
}

// failures are the collections that failed by the collector's own count, one in a
// hundred at most: a producer on a machine that is busy is late at times.
func failures(t *testing.T, metrics map[string]float64) int {
	t.Helper()
	const collections = "rollcall_collector_collections_total"
	all := sum(metrics, collections)
	failed := all - metrics[collections+`{outcome="success"}`]
	if failed*100 > all {
		t.Errorf("%.0f of %.0f collections failed", failed, all)
	}
	return int(failed)
}

// checkDropped fails when what is said to be dropped is not what is missing, to
// the sample. With each answer the collector drops what it adds itself. The answer
// of a collection that failed, of which there are as many as told, is one that the
// collector had not.
func checkDropped(t *testing.T, p *producers, ledger *receiver.Ledger, ended end, dropped float64, failed int) {
	t.Helper()
	arrived, missing, last := 0, 0, 0
	for name, answers := range p.all() {
		for number, a := range answers {
			switch n, _ := ledger.Arrived(name, number, p.samples); {
			case n == p.samples:
				arrived++
			case n > 0:
				t.Errorf("of answer %d of %s, sent at %v, %d samples arrived, of %d", number, name, a.sent, n, p.samples)
			case ended.judges(a):
				missing++
				last = max(last, number)
			}
		}
	}
	auto := ledger.Auto()
	for name, n := range auto {
		if n < arrived || n > arrived+failed {
			t.Errorf("%d samples of %s arrived, with %d answers and %d failures", n, name, arrived, failed)
		}
	}
	if n := ledger.Downs(); n > failed {
		t.Errorf("%d collections failed by what arrived, %d by the collector's own count", n, failed)
	}
	want := missing * (p.samples + len(auto))
	t.Logf("%d answers arrived, %d did not, the last of them number %d: %d samples with those of %v; dropped by its own count: %.0f",
		arrived, missing, last, want, slices.Sorted(maps.Keys(auto)), dropped)
	if missing == 0 {
		t.Error("nothing was dropped: that was no test")
	}
	if least := want - failed*(p.samples+len(auto)); dropped < float64(least) || dropped > float64(want) {
		t.Errorf("%.0f samples were dropped by the collector's own count, %d to %d are missing", dropped, least, want)
	}
}

// sum adds up all series of a metric.
func sum(metrics map[string]float64, name string) float64 {
	var all float64
	for series, n := range metrics {
		if strings.HasPrefix(series, name+"{") || series == name {
			all += n
		}
	}
	return all
}
