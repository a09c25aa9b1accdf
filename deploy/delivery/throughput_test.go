package delivery_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

// The load of BenchmarkDelivery. The defaults keep make bench short.
var (
	loadCount   = flag.Int("producers", 200, "BenchmarkDelivery: how many producers there are")
	loadSamples = flag.Int("samples", 500, "BenchmarkDelivery: how many samples each has")
	loadPace    = flag.Duration("interval", 2*time.Second, "BenchmarkDelivery: how often they are collected")
	loadWatch   = flag.Duration("watch", 20*time.Second, "BenchmarkDelivery: for how long each part is measured")
)

// BenchmarkDelivery tells what an agent costs whose receiver takes all and
// forgets it: as it collects and sends; as it collects and has to keep, the
// receiver being away; and as it sends what it has kept, and collects nothing.
// Keeping and sending together are to be compared, not each: one agent encodes
// when it keeps, another when it sends.
func BenchmarkDelivery(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			k.skip(b)
			runtime.LockOSThread() // for child.Start
			defer runtime.UnlockOSThread()
			for b.Loop() {
				benchDelivery(b, k)
			}
			b.ReportMetric(0, "ns/op")
			b.Log("load average", loadAverage(b))
		})
	}
}

func benchDelivery(b *testing.B, k kind) {
	p := newProducers(b, *loadCount, *loadSamples)
	r := receiver.New(receiver.Config{Address: freePorts(b, 1)[0]})
	b.Cleanup(r.Down)
	up(b, r)
	s := &setup{dir: b.TempDir(), pace: *loadPace, targets: p, write: r.URL(), maxBytes: 4 << 30}
	plan := k.plan(b, s)
	agent := launch(b, plan)
	defer func() { agent.Kill() }()
	p.await(b, 3, 3*(*loadPace)+time.Minute)

	steady := measure(b, agent, p)
	t := r.Totals()
	b.ReportMetric(steady.cost(), "steady-cpu-s/Msample")
	b.ReportMetric(steady.memory, "steady-MiB")
	b.ReportMetric(float64(t.WireBytes)/float64(max(t.Samples, 1)), "wire-B/sample")

	before := child.DiskUsage(k.queue(s)) // of what is delivered, but not removed yet
	r.Down()
	kept := measure(b, agent, p)
	b.ReportMetric(kept.cost(), "keep-cpu-s/Msample")
	b.ReportMetric(kept.memory, "keep-MiB")
	if k.drained == nil {
		return // it forgets when it is started again
	}
	terminate(b, agent)
	disk := child.DiskUsage(k.queue(s)) - before
	drain(b, r, k.drained(b, s, plan), disk)
}

// A cost is what an agent has used for some samples of producers.
type cost struct {
	cpu     time.Duration
	samples int
	memory  float64 // resident at the end, MiB
}

// cost is the processor time for a million samples, in seconds.
func (c cost) cost() float64 { return c.cpu.Seconds() / (float64(max(c.samples, 1)) / 1e6) }

// measure watches an agent at work.
func measure(b *testing.B, agent *child.Child, p *producers) cost {
	b.Helper()
	answers, cpu := p.sent(), used(b, agent)
	time.Sleep(*loadWatch)
	c := cost{cpu: used(b, agent) - cpu, samples: (p.sent() - answers) * p.samples}
	now, _, err := child.Memory(agent.PID())
	if err != nil {
		b.Fatal(err)
	}
	c.memory = float64(now) / (1 << 20)
	return c
}

func used(b *testing.B, c *child.Child) time.Duration {
	b.Helper()
	cpu, err := child.CPU(c.PID())
	if err != nil {
		b.Fatal(err)
	}
	return cpu
}

// sent counts answers.
func (p *producers) sent() int {
	n := 0
	for _, answers := range p.all() {
		n += len(answers)
	}
	return n
}

// drain starts an agent that has no producers and a full queue, and takes off what
// its start costs when there is nothing to send.
func drain(b *testing.B, r *receiver.Receiver, plan *child.Service, disk int64) {
	b.Helper()
	up(b, r)
	before := r.Totals()
	agent := launch(b, plan)
	defer func() { agent.Kill() }()
	began := time.Now()
	var cpu time.Duration
	var last receiver.Totals
	for quiet := time.Now(); time.Since(quiet) < 5*time.Second; time.Sleep(10 * time.Millisecond) {
		if t := r.Totals(); t.Samples != last.Samples {
			last, cpu, quiet = t, used(b, agent), time.Now()
		}
	}
	terminate(b, agent)
	samples, wire := last.Samples-before.Samples, last.WireBytes-before.WireBytes
	if samples == 0 {
		b.Fatal("nothing was kept")
	}

	idle := launch(b, plan)
	defer idle.Kill()
	time.Sleep(max(time.Second, last.Last.Sub(began)))
	rest := used(b, idle)
	b.ReportMetric(cost{cpu: cpu - rest, samples: int(samples)}.cost(), "drain-cpu-s/Msample")
	b.ReportMetric(float64(samples)/last.Last.Sub(began).Seconds(), "drain-samples/s")
	b.ReportMetric(float64(wire)/float64(samples), "drain-wire-B/sample")
	b.ReportMetric(float64(disk)/float64(samples), "disk-B/sample")
	b.Logf("%d samples drained in %v: %v of processor time, and %v of a start", samples, last.Last.Sub(began).Round(time.Millisecond), cpu-rest, rest)
}

// withoutRegistry is a collector that has kept what it collected, and knows
// nobody whom to collect.
func withoutRegistry(t testing.TB, s *setup, plan *child.Service) *child.Service {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "collector", "state")); err != nil {
		t.Fatal(err)
	}
	alone := *plan
	alone.Args = slices.Clone(plan.Args)
	alone.Args[slices.Index(alone.Args, "--registry")+1] = freePorts(t, 1)[0]
	return &alone
}

// withoutTargets is vmagent without any.
func withoutTargets(t testing.TB, s *setup, plan *child.Service) *child.Service {
	t.Helper()
	write(t, filepath.Join(s.dir, "vmagent.yml"), "scrape_configs: []\n")
	return plan
}

func loadAverage(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return fmt.Sprint(err)
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
