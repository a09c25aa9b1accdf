package scrape

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/proto"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// BenchmarkRead reads the same series in each format into a batch, without a
// network: a producer that was read before.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{200, 2000} {
		families := realisticFamilies(n)
		text, binary := encodeFamilies(b, families, expfmt.NewFormat(expfmt.TypeTextPlain)), encodeFamilies(b, families, expfmt.NewFormat(expfmt.TypeProtoDelim))
		b.Run(fmt.Sprintf("text/%d", n), func(b *testing.B) {
			benchRead(b, n, func(r *reading) *failure { return r.read(text, assignment.FormatPrometheusText) })
		})
		b.Run(fmt.Sprintf("protobuf/%d", n), func(b *testing.B) {
			benchRead(b, n, func(r *reading) *failure { return r.read(binary, assignment.FormatProtobuf) })
		})
		first, next := encodeColumns(b, families)
		b.Run(fmt.Sprintf("columns/%d", n), func(b *testing.B) {
			chunk := first
			benchRead(b, n, func(r *reading) *failure {
				cols := newBenchColumns(b, r, chunk)
				defer cols.release()
				chunk = next
				return r.columns([]byte("l"), &cols.answer)
			})
		})
		b.Run(fmt.Sprintf("columns with layout/%d", n), func(b *testing.B) {
			benchRead(b, n, func(r *reading) *failure {
				cols := newBenchColumns(b, r, first)
				defer cols.release()
				return r.columns([]byte("l"), &cols.answer)
			})
		})
	}
}

var benchScraper = New(Config{})

func newBenchColumns(b *testing.B, r *reading, chunk []byte) *columns {
	b.Helper()
	cols := benchScraper.newColumns(r.target)
	if f := cols.add(chunk); f != nil {
		b.Fatal(f.message)
	}
	return cols
}

func benchRead(b *testing.B, n int, read func(*reading) *failure) {
	b.Helper()
	s := benchScraper
	t, err := compile(&assignment.Assignment{
		ProducerID: "p1", Endpoint: "http://node1:9100/", Labels: []assignment.Label{{Name: "job", Value: "node"}},
	}, s.setup.Load())
	if err != nil {
		b.Fatal(err)
	}
	c := newCollection(s, t)
	once := func() {
		sc := s.scratch()
		c.cache.begin()
		f := read(c.reading(sc, t, time.Now()))
		if f != nil || len(sc.batch.Samples) != n {
			b.Fatalf("%v, %d samples", f, len(sc.batch.Samples))
		}
		c.families.accept(c.cache.pass, t.limits.Samples)
		c.cache.accept(sc)
		s.release(sc)
	}
	once()
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/sample")
}

// realisticFamilies are n counters as servers have them.
func realisticFamilies(n int) (families []*dto.MetricFamily) {
	methods := []string{"GET", "POST", "PUT", "DELETE"}
	for i := range n {
		if i%20 == 0 {
			families = append(families, &dto.MetricFamily{
				Name: new(fmt.Sprintf("http_server_requests_%d_total", i/20)),
				Help: new("Number of requests that were answered."), Type: dto.MetricType_COUNTER.Enum(),
			})
		}
		f := families[len(families)-1]
		f.Metric = append(f.Metric, &dto.Metric{
			Label: []*dto.LabelPair{
				{Name: new("method"), Value: new(methods[i%4])},
				{Name: new("route"), Value: new(fmt.Sprintf("/api/v1/things/{id}/%d", i%20))},
				{Name: new("status"), Value: new("200")},
			},
			Counter: &dto.Counter{Value: new(float64(i * 1234567))},
		})
	}
	return families
}

func encodeFamilies(tb testing.TB, families []*dto.MetricFamily, format expfmt.Format) []byte {
	tb.Helper()
	var out bytes.Buffer
	enc := expfmt.NewEncoder(&out, format)
	for _, f := range families {
		if err := enc.Encode(f); err != nil {
			tb.Fatal(err)
		}
	}
	// The text parser needs one byte of room.
	return slices.Grow(out.Bytes(), 1)
}

// encodeColumns encodes an answer with its layout, and one without.
func encodeColumns(tb testing.TB, families []*dto.MetricFamily) (first, next []byte) {
	tb.Helper()
	l, values := &producerv1.Layout{}, []float64{}
	known := map[string]uint32{}
	symbol := func(s string) uint32 {
		if known[s] == 0 {
			l.Symbols = append(l.Symbols, s)
			known[s] = uint32(len(l.Symbols))
		}
		return known[s]
	}
	for i, f := range families {
		l.FamilyNames, l.FamilyHelps = append(l.FamilyNames, symbol(f.GetName())), append(l.FamilyHelps, symbol(f.GetHelp()))
		l.FamilyTypes, l.FamilyUnits = append(l.FamilyTypes, producerv1.MetricType_METRIC_TYPE_COUNTER), append(l.FamilyUnits, 0)
		for _, m := range f.GetMetric() {
			l.SeriesFamilies, l.SeriesNames = append(l.SeriesFamilies, uint32(i)), append(l.SeriesNames, symbol(f.GetName()))
			l.SeriesLabelCounts = append(l.SeriesLabelCounts, uint32(len(m.GetLabel())))
			for _, pair := range m.GetLabel() {
				l.LabelSymbols = append(l.LabelSymbols, symbol(pair.GetName()), symbol(pair.GetValue()))
			}
			values = append(values, m.GetCounter().GetValue())
		}
	}
	m := &producerv1.CollectResponse{Values: values}
	next, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	m.Layout = l
	first, err = proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return first, next
}
