package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var (
	collectWatch = flag.Duration("watch", 10*time.Second, "BenchmarkCollecting: for how long it is measured")
	profiles     = flag.String("profiles", "", "BenchmarkCollecting, BenchmarkIdle, BenchmarkRenewals: put the collector's or registry's profiles into this directory")
)

// BenchmarkCollecting tells what collecting costs: the processor time of a
// million samples, and memory. Rollcall and Prometheus store what they collect;
// vmagent sends it on, to one that forgets it.
func BenchmarkCollecting(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			for b.Loop() {
				benchCollecting(b, k)
			}
		})
	}
}

func benchCollecting(b *testing.B, k kind) {
	exposers := start(b, "exposers")
	defer exposers.stop()
	s := k.start(b, setting{interval: *fleetPace, refresh: time.Hour}, fleetOf(exposers, "fleet", *fleetSize, *fleetSamples, false))
	defer s.end()
	awaitAsked(b, exposers, *fleetSize, 2*(*fleetPace)+time.Minute)
	time.Sleep(2 * *fleetPace) // the series are known

	profiled := s.profileCPU(b, *collectWatch)
	cpu, theirs := s.cpu(b), exposers.cpu(b)
	_, asked := exposers.counts(b)
	began := time.Now()
	time.Sleep(*collectWatch)
	_, now := exposers.counts(b)
	used, took := s.cpu(b)-cpu, time.Since(began)
	profiled()
	millions := float64(now-asked) * float64(*fleetSamples) / 1e6
	if s.stores {
		if n := s.count(b, "sum(up{job=\"bench\"})"); n != float64(*fleetSize) {
			b.Errorf("%v producers are up, want %d", n, *fleetSize)
		}
		if n := s.count(b, "count(bench_alive)"); n != float64(*fleetSize) {
			b.Errorf("%v producers have a sample, want %d", n, *fleetSize)
		}
		b.ReportMetric(s.gauge(b, "prometheus_tsdb_head_series"), "series")
	}
	b.ReportMetric(used/millions, "cpu-s/Msample")
	b.ReportMetric((exposers.cpu(b)-theirs)/millions, "exposers-cpu-s/Msample")
	b.ReportMetric(millions*1e6/took.Seconds(), "samples/s")
	b.ReportMetric(s.memory(b), "MiB")
	b.ReportMetric(status(b, s.process.Process.Pid, "VmHWM:")/1024, "most-MiB")
	b.ReportMetric(s.gauge(b, "go_goroutines"), "goroutines")
	b.ReportMetric(0, "ns/op")
	s.keepProfiles(b)
	b.Log("load average", loadAverage(b))
}

// profileCPU begins to profile a collector if that is asked for; what it returns
// waits for the profile.
func (s *subject) profileCPU(b *testing.B, span time.Duration) (done func()) {
	b.Helper()
	if *profiles == "" || s.profile == "" {
		return func() {}
	}
	text := make(chan string, 1)
	go func() {
		text <- fetch(b, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.profile, int(span.Seconds())))
	}()
	return func() { s.keep(b, "cpu", <-text) }
}

// keepProfiles keeps the collector's heap if that is asked for.
func (s *subject) keepProfiles(b *testing.B) {
	b.Helper()
	if *profiles != "" && s.profile != "" {
		s.keep(b, "heap", fetch(b, "http://"+s.profile+"/debug/pprof/heap?gc=1"))
	}
}

func (s *subject) keep(b *testing.B, what, text string) {
	b.Helper()
	path := filepath.Join(*profiles, strings.ReplaceAll(b.Name(), "/", "-")+"."+what+".pprof")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}
