package queue_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// fleet are producers as they are: half of the values are counters, some of them
// fractions.
func fleet(producers, series int) []*sample.Batch {
	all := make([]*sample.Batch, producers)
	for i := range all {
		b := &sample.Batch{Source: fmt.Sprintf("producer-%d", i)}
		for k := range series {
			ls := labels.FromStrings("__name__", fmt.Sprintf("http_requests_%d_total", k/10), "instance", fmt.Sprintf("10.0.%d.%d:9100", i/250, i%250),
				"job", "node", "path", fmt.Sprintf("/v1/%d", k%10))
			b.Samples = append(b.Samples, sample.Sample{Series: &sample.Series{Own: ls}})
		}
		all[i] = b
	}
	return all
}

// cpu is what the process has used: on a busy machine, time says little.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func turn(b *sample.Batch, round int) {
	for k := range b.Samples {
		b.Samples[k].Time = 1.7e12 + int64(round)*10000
		b.Samples[k].Value = float64(round*k*37 + k)
		if k%5 == 0 {
			b.Samples[k].Value = float64(round) / float64(k+3)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 8} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			q := mustOpen(b, queue.Config{Dir: b.TempDir()})
			r := mustReader(b, q, "sink")
			all := fleet(2000, 200)
			n, spent := 0, time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				// One round of all producers.
				n++
				b.StopTimer()
				for _, batch := range all {
					turn(batch, n)
				}
				b.StartTimer()
				before := cpu()
				done := make(chan struct{})
				for w := range writers {
					go func() {
						for i := w; i < len(all); i += writers {
							if err := q.Write(context.Background(), all[i]); err != nil {
								b.Error(err)
							}
						}
						done <- struct{}{}
					}()
				}
				for range writers {
					<-done
				}
				spent += cpu() - before
			}
			samples := float64(n) * 2000 * 200
			b.ReportMetric(float64(spent)/samples, "cpu-ns/sample")
			b.ReportMetric(float64(r.Lag().Bytes)/samples, "B/sample")
			r.Close()
			mustClose(b, q)
		})
	}
}

// BenchmarkOpen opens a full queue of the default size.
func BenchmarkOpen(b *testing.B) {
	cfg := queue.Config{Dir: b.TempDir()}
	q := mustOpen(b, cfg)
	r := mustReader(b, q, "sink")
	all := fleet(2000, 200)
	for round := 0; q.Status().DiskBytes < 850<<20; round++ {
		for _, batch := range all {
			turn(batch, round)
			mustWrite(b, q, batch)
		}
	}
	r.Close()
	mustClose(b, q)
	for b.Loop() {
		q = mustOpen(b, cfg)
		b.StopTimer()
		mustClose(b, q)
		b.StartTimer()
	}
}

func BenchmarkNext(b *testing.B) {
	for _, old := range []bool{false, true} {
		b.Run(fmt.Sprintf("old=%t", old), func(b *testing.B) {
			cfg := queue.Config{Dir: b.TempDir()}
			q := mustOpen(b, cfg)
			r := mustReader(b, q, "sink")
			all := fleet(2000, 200)
			for round := range 10 {
				for _, batch := range all {
					turn(batch, round)
					mustWrite(b, q, batch)
				}
			}
			b.ReportAllocs()
			samples := 0
			for b.Loop() {
				b.StopTimer()
				r.Close()
				if old {
					mustClose(b, q)
					q = mustOpen(b, cfg)
				}
				r = mustReader(b, q, "sink")
				b.StartTimer()
				var record sample.Record
				for range 20000 {
					if err := r.Next(context.Background(), &record); err != nil {
						b.Fatal(err)
					}
					samples += len(record.Points)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(samples), "ns/sample")
			r.Close()
			mustClose(b, q)
		})
	}
}
