package remotewrite_test

import (
	"fmt"
	"log/slog"
	"math"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// prometheusOf starts the handler of Prometheus over a database of its own.
func prometheusOf(t *testing.T, accepts ...remoteapi.WriteMessageType) (*tsdb.DB, string) {
	t.Helper()
	options := tsdb.DefaultOptions()
	options.EnableExemplarStorage, options.MaxExemplars = true, 1000
	db, err := tsdb.Open(t.TempDir(), slog.New(slog.DiscardHandler), nil, options, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	handler := remote.NewWriteHandler(slog.New(slog.DiscardHandler), prometheus.NewRegistry(), db, accepts, false, false, false)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return db, server.URL
}

// dump is all that a database has, a line a sample, floats as bits.
func dump(t *testing.T, db *tsdb.DB) []string {
	t.Helper()
	q, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = q.Close() }()
	var all []string
	set := q.Select(t.Context(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		ls := set.At().Labels()
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			switch kind {
			case chunkenc.ValFloat:
				at, v := it.At()
				all = append(all, fmt.Sprintf("%v %d %x", ls, at, math.Float64bits(v)))
			case chunkenc.ValHistogram:
				at, h := it.AtHistogram(nil)
				all = append(all, fmt.Sprintf("%v %d int %v", ls, at, h))
			case chunkenc.ValFloatHistogram:
				at, h := it.AtFloatHistogram(nil)
				all = append(all, fmt.Sprintf("%v %d float %v", ls, at, h))
			default:
				t.Fatalf("a value of the kind %v", kind)
			}
		}
	}
	if err := set.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// stored is what dump should find of samples.
func stored(samples []one, v2 bool) []string {
	var all []string
	for _, s := range samples {
		p := s.point
		switch {
		case p.Extra == nil:
			all = append(all, fmt.Sprintf("%v %d %x", s.labels, p.Time, math.Float64bits(p.Value)))
		case p.Extra.Histogram != nil:
			if v2 || p.Extra.Histogram.Schema != -53 {
				all = append(all, fmt.Sprintf("%v %d int %v", s.labels, p.Time, p.Extra.Histogram))
			}
		default:
			if v2 || p.Extra.FloatHistogram.Schema != -53 {
				all = append(all, fmt.Sprintf("%v %d float %v", s.labels, p.Time, p.Extra.FloatHistogram))
			}
		}
	}
	slices.Sort(all)
	return all
}

// life is what a producer has in some minutes: values, odd ones, a stale marker
// and histograms.
func life() []one {
	all := histograms()
	begin := all[0].point.Time
	for minute := range 5 {
		for i := range 20 {
			v := float64(minute * i)
			switch {
			case i == 3:
				v = math.Float64frombits(0x7ff8000000000001)
			case i == 4:
				v = math.Inf(-1)
			case i == 5:
				v = math.Copysign(0, -1)
			case minute == 4:
				v = math.Float64frombits(value.StaleNaN)
			}
			all = append(all, one{
				labels: labels.FromStrings("__name__", "requests_total", "n", strconv.Itoa(i), "pfad", "/ü/\u65e5"),
				point:  sample.Point{Time: begin + int64(minute)*60000 - 300000, Start: begin - 900000, Value: v},
			})
		}
	}
	return all
}

// TestPrometheusStoresIt writes into Prometheus's own handler and looks into its
// database.
func TestPrometheusStoresIt(t *testing.T) {
	for _, test := range []struct {
		name    string
		accepts remoteapi.MessageTypes
		speak   string
	}{
		{"2.0", remoteapi.MessageTypes{remoteapi.WriteV2MessageType}, name2},
		{"both", remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}, name2},
		{"1.0", remoteapi.MessageTypes{remoteapi.WriteV1MessageType}, name1},
	} {
		t.Run(test.name, func(t *testing.T) {
			db, url := prometheusOf(t, test.accepts...)
			c := newClient(t, url, nil)
			samples := life()
			expected := stored(samples, test.speak == name2)
			o := c.Send(t.Context(), request(c, samples...))
			if o.Result != deliver.Delivered || o.Refused != len(samples)-len(expected) || o.Err != nil || c.Protocol() != test.speak {
				t.Fatalf("%+v as %s", o, c.Protocol())
			}
			if diff := cmp.Diff(expected, dump(t, db)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if test.speak == name1 {
				// Its handler of 1.0 takes exemplars before histograms, and none of a
				// series that it does not know yet.
				if o := c.Send(t.Context(), request(c, samples[:6]...)); o.Result != deliver.Delivered {
					t.Errorf("%+v", o)
				}
			}
			q, err := db.ExemplarQuerier(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			found, err := q.Select(0, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "latency_seconds")})
			want := 6
			if test.speak == name1 {
				want = 4 // custom buckets are left out
			}
			if err != nil || len(found) != want {
				t.Fatalf("%d series have exemplars, want %d: %v", len(found), want, err)
			}
			e := exemplar.Exemplar{Labels: labels.FromStrings("trace_id", "abc", "span_id", "float"), Value: 0.5, Ts: samples[0].point.Time, HasTs: true}
			if got := found[0].Exemplars[0]; !got.Equals(e) {
				t.Errorf("exemplar %+v, want %+v", got, e)
			}
		})
	}
}

// TestPrometheusRefusesSome sends what Prometheus does not take all of.
func TestPrometheusRefusesSome(t *testing.T) {
	now := time.Now().UnixMilli()
	at := func(name string, t int64, v float64) one {
		return one{labels: labels.FromStrings("__name__", name), point: sample.Point{Time: t, Value: v}}
	}
	seed := []one{at("a", now, 1), at("b", now, 1)}
	for _, test := range []struct {
		name    string
		samples []one
		refused int
		reason  string
	}{
		{"same again", seed, 0, ""},
		{"duplicate", []one{at("a", now, 2), at("c", now, 1)}, 1, deliver.ReasonDuplicate},
		{"out of order", []one{at("a", now-1000, 2), at("c", now, 1)}, 1, deliver.ReasonOutOfOrder},
		{"too old", []one{at("d", now-48*3600*1000, 2), at("c", now, 1)}, 1, deliver.ReasonTooOld},
		{"too new", []one{at("d", now+3600*1000, 2), at("c", now, 1)}, 1, deliver.ReasonTooNew},
	} {
		for _, p := range []remotewrite.Protocol{remotewrite.V2, remotewrite.V1} {
			db, url := prometheusOf(t, remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType)
			c := newClient(t, url, func(c *remotewrite.Config) { c.Protocol = p })
			if o := c.Send(t.Context(), request(c, seed...)); o.Result != deliver.Delivered {
				t.Fatalf("%+v", o)
			}
			o := c.Send(t.Context(), request(c, test.samples...))
			has := strings.Contains(strings.Join(dump(t, db), "\n"), `"c"`)
			switch {
			case o.Reason != test.reason:
				t.Errorf("%s, %v: %+v", test.name, p, o)
			case p == remotewrite.V2 && (o.Result != deliver.Delivered || o.Refused != test.refused || test.refused > 0 && !has):
				t.Errorf("%s, %v: %+v", test.name, p, o)
			case p == remotewrite.V1 && test.refused > 0 && (o.Result != deliver.Rejected || !o.Divisible || has):
				t.Errorf("%s, %v: %+v, has the other %v", test.name, p, o, has)
			case p == remotewrite.V1 && test.refused == 0 && o.Result != deliver.Delivered:
				t.Errorf("%s, %v: %+v", test.name, p, o)
			}
		}
	}
}
