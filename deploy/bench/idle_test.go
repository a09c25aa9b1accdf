package bench

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	idlers    = flag.Int("idlers", 2000, "BenchmarkIdle: how many producers there are")
	idleWatch = flag.Duration("idle", 5*time.Second, "BenchmarkIdle: for how long nothing is collected")

	// A peer's first collections are spread over an interval.
	idleFirst = flag.Duration("first", 10*time.Second, "BenchmarkIdle: how often a peer collects until it has collected all")
)

const (
	// idlePace is how often the idle are collected: hardly ever.
	idlePace = time.Hour

	// settleLimit bounds the wait for a process to give back what it does not
	// need, settleStep how often that is looked at.
	settleLimit = 3 * time.Minute
	settleStep  = 10 * time.Second
)

// BenchmarkIdle has many producers collected once, and tells what they take when
// nothing is to be done: memory, goroutines, connections, processor time. Those
// that are together stand behind one address, those apart have one each.
//
// A peer collects more often until it has collected all, and then gets the
// interval of the others.
func BenchmarkIdle(b *testing.B) {
	for _, v := range []struct {
		name     string
		kind     kind
		discards bool
		samples  int
		apart    bool
	}{
		{"rollcall/discarding/10/together", kinds[0], true, 10, false},
		{"rollcall/discarding/10/apart", kinds[0], true, 10, true},
		{"rollcall/tsdb/1/together", kinds[0], false, 1, false},
		{"rollcall/tsdb/10/together", kinds[0], false, 10, false},
		{"rollcall/tsdb/10/apart", kinds[0], false, 10, true},
		{"prometheus/1/together", kinds[1], false, 1, false},
		{"prometheus/10/together", kinds[1], false, 10, false},
		{"vmagent/10/together", kinds[2], false, 10, false},
	} {
		b.Run(v.name, func(b *testing.B) {
			for b.Loop() {
				benchIdle(b, v.kind, v.discards, v.samples, v.apart)
			}
		})
	}
}

func benchIdle(b *testing.B, k kind, discards bool, samples int, apart bool) {
	if k.name == "vmagent" && uint64(*idlers) > openFiles(b)*9/10 {
		b.Skipf("vmagent keeps a connection for each target, and a process may have %d files open here", openFiles(b))
	}
	exposers := start(b, "exposers")
	defer exposers.stop()
	s := k.start(b, setting{interval: *idleFirst, idle: idlePace, refresh: idlePace, discards: discards},
		fleetOf(exposers, "idle", *idlers, samples, apart))
	defer s.end()
	began := time.Now()
	limit := 10 * time.Minute
	if s.reload != nil { // a peer that has not asked all by then never will
		limit = 3*(*idleFirst) + time.Minute
	}
	awaitAsked(b, exposers, *idlers, limit)
	collected := time.Since(began)
	if s.reload != nil {
		s.reload(b, idlePace)
	}
	settled := settle(b, s.server)
	cpu, watched := s.cpu(b), time.Now()
	_, asked := exposers.counts(b)
	time.Sleep(*idleWatch)
	_, more := exposers.counts(b)
	minutes := time.Since(watched).Minutes()
	if s.stores {
		if n := s.count(b, "count(bench_alive)"); n != float64(*idlers) && !staled(k, n) {
			b.Errorf("%v producers have a sample, want %d", n, *idlers)
		}
		b.ReportMetric(s.gauge(b, "prometheus_tsdb_head_series")/float64(*idlers), "series/producer")
	}
	b.ReportMetric((s.cpu(b)-cpu)/minutes, "idle-cpu-s/min")
	b.ReportMetric(float64(more-asked)/minutes, "idle-requests/min")
	b.ReportMetric(s.memory(b), "MiB")
	b.ReportMetric(status(b, s.process.Process.Pid, "VmHWM:")/1024, "most-MiB")
	b.ReportMetric(s.gauge(b, "go_memstats_heap_inuse_bytes")/(1<<20), "heap-MiB")
	b.ReportMetric(s.gauge(b, "go_memstats_heap_alloc_bytes")/(1<<20), "alloc-MiB")
	b.ReportMetric(s.gauge(b, "go_goroutines"), "goroutines")
	b.ReportMetric(float64(sockets(b, s.process.Process.Pid)), "sockets")
	b.ReportMetric(settled.Seconds(), "settled-s")
	b.ReportMetric(collected.Seconds(), "collected-s")
	b.ReportMetric(0, "ns/op")
	s.keepProfiles(b)
	b.Log("load average", loadAverage(b))
}

// staled tells that a peer has ended its series, as it may when the interval
// is longer than what a query looks back.
func staled(k kind, n float64) bool { return k.name != "rollcall" && n == 0 }

// settle waits until the resident memory of a server shrinks no more.
func settle(b *testing.B, s *server) time.Duration {
	b.Helper()
	began, step := time.Now(), min(settleStep, *idleWatch/2)
	for before := s.memory(b); time.Since(began) < settleLimit; {
		time.Sleep(step)
		now := s.memory(b)
		if now > 0.98*before && time.Since(began) > 3*step {
			break
		}
		before = now
	}
	return time.Since(began)
}

// openFiles is how many files a process may have open, by the hard limit, up to
// which Go programs raise theirs.
func openFiles(b *testing.B) uint64 {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	return limit.Max
}

// sockets is how many a process has open.
func sockets(b *testing.B, pid int) (n int) {
	b.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(dir + "/" + f.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}
