package deliver_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A fleetLog gives the same producers' records, round after round, up to an
// end.
type fleetLog struct {
	records []sample.Record
	samples int // to be given
	given   int
	next    int
	done    atomic.Int64 // offset committed
}

func newFleetLog(producers, series int) *fleetLog {
	l := &fleetLog{}
	table := &sample.Table{}
	for p := range producers {
		r := sample.Record{Source: uint64(p) * 0x9e3779b97f4a7c15, Table: table, Bytes: series * 6}
		for i := range series {
			ls := labels.FromStrings("__name__", fmt.Sprintf("metric_%d", i), "producer", fmt.Sprintf("p%d", p), "job", "bench")
			r.Numbers = append(r.Numbers, table.Add(&sample.Series{Own: ls}))
			r.Points = append(r.Points, sample.Point{Time: 1, Value: float64(i)})
		}
		l.records = append(l.records, r)
	}
	return l
}

func (l *fleetLog) Next(ctx context.Context, r *sample.Record) error {
	if l.given >= l.samples {
		<-ctx.Done()
		return ctx.Err()
	}
	from := &l.records[l.next%len(l.records)]
	l.next++
	l.given += len(from.Points)
	r.Source, r.Table, r.Bytes = from.Source, from.Table, from.Bytes
	r.End = sample.Position{Offset: int64(l.next)}
	r.Numbers = append(r.Numbers[:0], from.Numbers...)
	r.Points = append(r.Points[:0], from.Points...)
	return nil
}

func (l *fleetLog) Commit(p sample.Position) { l.done.Store(p.Offset) }
func (l *fleetLog) Lag() sample.Lag          { return sample.Lag{} }

// A discarder takes all.
type discarder struct {
	want  int64
	taken atomic.Int64
	all   chan struct{}
}

type noSeries struct{}

func (noSeries) Add(labels.Labels, *metadata.Metadata) {}

func (*discarder) NewSeries() deliver.Series { return noSeries{} }
func (*discarder) Protocol() string          { return "none" }
func (*discarder) Close()                    {}

func (d *discarder) Send(_ context.Context, r *deliver.Request) deliver.Outcome {
	if d.taken.Add(int64(len(r.Items))) == d.want {
		close(d.all)
	}
	return deliver.Outcome{Code: "200", Bytes: len(r.Items)}
}

// BenchmarkDeliver is the engine alone, 2,000 producers of 200 series: what a
// sample costs between the log and the transport.
func BenchmarkDeliver(b *testing.B) {
	const producers, series = 2000, 200
	l := newFleetLog(producers, series)
	const round = producers * series
	d := &discarder{}
	deliverTo := func(n int) {
		l.samples, l.given = n, 0
		d.want, d.all = d.taken.Load()+int64(n), make(chan struct{})
	}
	rounds := (b.N + round - 1) / round
	deliverTo(rounds * round)
	s := deliver.New(deliver.Config{Name: "bench", Log: l, Transport: d, BatchDeadline: time.Millisecond})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	b.ReportAllocs()
	b.ResetTimer()
	go func() { ended <- s.Run(ctx) }()
	<-d.all
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rounds*round), "ns/sample")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
