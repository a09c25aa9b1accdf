package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

var shapes = flag.String("shapes", "200x200,50x2000,1000x20", "BenchmarkForward: the fleets, each so many producers of so many samples; collected every -interval, for -watch")

// BenchmarkForward tells what it costs to collect and to forward everything, at
// once, to a receiver that takes it and forgets it. No subject has a store.
func BenchmarkForward(b *testing.B) {
	for shape := range strings.SplitSeq(*shapes, ",") {
		var producers, samples int
		if _, err := fmt.Sscanf(shape, "%dx%d", &producers, &samples); err != nil {
			b.Fatalf("-shapes %q: %v", shape, err)
		}
		for _, k := range kinds {
			if k.name == "prometheus" {
				continue // it has a store
			}
			b.Run(shape+"/"+k.name, func(b *testing.B) {
				for b.Loop() {
					benchForward(b, k, producers, samples)
				}
			})
		}
	}
}

func benchForward(b *testing.B, k kind, producers, samples int) {
	exposers, taker := start(b, "exposers"), start(b, "receiver")
	defer exposers.stop()
	defer taker.stop()
	s := k.start(b, setting{interval: *fleetPace, refresh: time.Hour, forward: "http://" + taker.address + receiver.Path},
		fleetOf(exposers, "fleet", producers, samples, false))
	defer s.end()
	awaitAsked(b, exposers, producers, 2*(*fleetPace)+time.Minute)
	time.Sleep(2 * *fleetPace) // the series are known

	profiled := s.profileCPU(b, *collectWatch)
	fetch(b, "http://"+exposers.address+"/-/watch")
	sent, cpu := taker.totals(b), s.cpu(b)
	_, asked := exposers.counts(b)
	time.Sleep(*collectWatch)
	_, now := exposers.counts(b)
	used, got := s.cpu(b)-cpu, taker.totals(b)
	even := exposers.paces(b, *fleetPace)
	profiled()

	millions := float64((now-asked)*samples) / 1e6
	taken := got.Samples - sent.Samples
	if taken == 0 {
		b.Fatal("nothing was forwarded")
	}
	b.ReportMetric(used/millions, "cpu-s/Msample")
	b.ReportMetric(s.memory(b), "MiB")
	b.ReportMetric(status(b, s.process.Process.Pid, "VmHWM:")/1024, "most-MiB")
	b.ReportMetric(float64(even.Missed), "missed")
	b.ReportMetric(even.P99*1000, "error-p99-ms")
	b.ReportMetric(even.Most*1000, "error-max-ms")
	b.ReportMetric(float64(taken)/(*collectWatch).Seconds(), "taken/s")
	b.ReportMetric(float64(now-asked)*float64(samples)/(*collectWatch).Seconds(), "samples/s")
	b.ReportMetric(float64(got.WireBytes-sent.WireBytes)/float64(taken), "wire-B/sample")
	b.ReportMetric(0, "ns/op")
	s.keepProfiles(b)
	b.Log("load average", loadAverage(b), got.Protocols)
	if even.Producers != producers {
		b.Errorf("%d producers were asked, of %d", even.Producers, producers)
	}
}

// serveReceiver is a server of this binary: a receiver that forgets.
func serveReceiver(ctx context.Context, _ string) error {
	free, err := child.FreePorts(ctx, 1)
	if err != nil {
		return err
	}
	r := receiver.New(receiver.Config{Address: free[0]})
	if err := r.Up(ctx); err != nil {
		return err
	}
	fmt.Println(free[0])
	<-ctx.Done()
	r.Down()
	return nil
}

// totals is what a receiver has taken.
func (s *server) totals(b *testing.B) receiver.Totals {
	b.Helper()
	var t receiver.Totals
	if err := json.Unmarshal([]byte(fetch(b, "http://"+s.address+receiver.TotalsPath)), &t); err != nil {
		b.Fatal(err)
	}
	return t
}

// forwarding is the path of a collector's configuration with one sink.
func forwarding(b *testing.B, url string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "collector.yml")
	if err := os.WriteFile(path, fmt.Appendf(nil, "sinks: [{name: sink, remote_write: {url: %q}}]\n", url), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}
