package sink_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

func TestWriteStoresWhatItIsGiven(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	up, gone := series("__name__", "up", "instance", "a"), series("__name__", "gone")
	stale := math.Float64frombits(value.StaleNaN)
	now := nowMs()

	write(t, store, batch(at(up, now, 1), at(gone, now, 7)))
	ref := up.Ref.Load()
	write(t, store, batch(at(up, now+1, 0), at(gone, now+1, stale)))

	wantSamples(t, store, "up", map[string][]point{`{__name__="up", instance="a"}`: {pt(now, 1), pt(now+1, 0)}})
	wantSamples(t, store, "gone", map[string][]point{`{__name__="gone"}`: {pt(now, 7), pt(now+1, stale)}})
	if ref == 0 || up.Ref.Load() != ref {
		t.Errorf("the reference went from %d to %d; it is to be remembered", ref, up.Ref.Load())
	}
}

func TestEmptyBatchIsNoError(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	if got := write(t, store, batch()); got != (sink.Refused{}) {
		t.Errorf("refused %+v", got)
	}
}

func TestEqualLabelsAreOneSeries(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	one, other := series("__name__", "up", "instance", "a"), series("instance", "a", "__name__", "up")
	now := nowMs()
	write(t, store, batch(at(one, now, 1)))
	write(t, store, batch(at(other, now+1, 2)))
	write(t, store, batch(at(one, now+2, 3)))
	wantSamples(t, store, "up", map[string][]point{
		`{__name__="up", instance="a"}`: {pt(now, 1), pt(now+1, 2), pt(now+2, 3)},
	})
}

func TestRefusedSamplesAreCountedAndTheRestIsKept(t *testing.T) {
	const minute = int64(time.Minute / time.Millisecond)
	now := nowMs()
	tests := map[string]struct {
		window time.Duration
		give   func(s *sample.Series) []sample.Sample
		want   sink.Refused
		reason string
	}{
		"older than the newest": {
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now-1, 1)} },
			want:   sink.Refused{OutOfOrder: 1},
			reason: "out_of_order",
		},
		"older than the newest, inside the window": {
			window: time.Hour,
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now-minute, 1)} },
		},
		"a stale marker behind the newest, inside the window": {
			window: time.Hour,
			give: func(s *sample.Series) []sample.Sample {
				return []sample.Sample{at(s, now-minute, math.Float64frombits(value.StaleNaN))}
			},
			want:   sink.Refused{OutOfOrder: 1},
			reason: "out_of_order",
		},
		"same time, other value": {
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now, 5)} },
			want:   sink.Refused{Duplicate: 1},
			reason: "duplicate",
		},
		"same time, same value": {
			give: func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now, 1)} },
		},
		"twice in the batch, other value": {
			give: func(s *sample.Series) []sample.Sample {
				return []sample.Sample{at(s, now+5, 1), at(s, now+5, 2), at(s, now+6, 3), at(s, now+6, 3)}
			},
			want:   sink.Refused{Duplicate: 1},
			reason: "duplicate",
		},
		"twice in the batch, falling time": {
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now+6, 1), at(s, now+5, 2)} },
			want:   sink.Refused{OutOfOrder: 1},
			reason: "out_of_order",
		},
		"twice in the batch under another pointer": {
			give: func(s *sample.Series) []sample.Sample {
				twin := &sample.Series{Own: s.Own}
				return []sample.Sample{at(s, now+5, 1), at(twin, now+5, 2)}
			},
			want:   sink.Refused{Duplicate: 1},
			reason: "duplicate",
		},
		"before the head": {
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now-300*minute, 1)} },
			want:   sink.Refused{TooOld: 1},
			reason: "too_old",
		},
		"before the window": {
			window: time.Minute,
			give:   func(s *sample.Series) []sample.Sample { return []sample.Sample{at(s, now-2*minute, 1)} },
			want:   sink.Refused{TooOld: 1},
			reason: "too_old",
		},
		"in the future": {
			give: func(s *sample.Series) []sample.Sample {
				return []sample.Sample{at(s, now+30*minute, 1), at(s, math.MaxInt64, 1)}
			},
			want:   sink.Refused{TooNew: 2},
			reason: "too_new",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			reg := prometheus.NewRegistry()
			store := open(t, sink.TSDBConfig{OutOfOrderWindow: test.window, Registerer: reg})
			s, rest := series("__name__", "s"), series("__name__", "rest")
			write(t, store, batch(at(s, now, 1)))

			b := batch(append(test.give(s), at(rest, now, 9))...)
			if diff := cmp.Diff(test.want, write(t, store, b)); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			wantSamples(t, store, "rest", map[string][]point{`{__name__="rest"}`: {pt(now, 9)}})
			if test.reason != "" {
				got := metric(t, reg, "rollcall_sink_tsdb_samples_refused_total", test.reason)
				if want := float64(test.want.Samples()); got != want {
					t.Errorf("%s counted %v times, want %v", test.reason, got, want)
				}
			}
			stored := float64(1 + len(b.Samples) - test.want.Samples())
			if got := metric(t, reg, "rollcall_sink_tsdb_samples_total"); got != stored {
				t.Errorf("%v samples counted as stored, want %v", got, stored)
			}
		})
	}
}

// One sample from a producer with a broken clock must not make the store
// refuse everybody else's.
func TestASampleInTheFutureHurtsNobody(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	good, bad := series("__name__", "good"), series("__name__", "bad")
	now := nowMs()
	for i := range int64(3) {
		want := sink.Refused{TooNew: 1}
		got := write(t, store, batch(at(bad, now+i+int64(365*24*time.Hour/time.Millisecond), 1), at(good, now+i, 1)))
		if got != want {
			t.Errorf("refused %+v, want %+v", got, want)
		}
	}
	if got := read(t, store, "good"); len(got) != 1 {
		t.Errorf("the good series has %v", got)
	}
}

func TestABatchWithBrokenLabelsLeavesNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	store := open(t, sink.TSDBConfig{Registerer: reg})
	good := series("__name__", "good")
	now := nowMs()
	for name, broken := range map[string]*sample.Series{
		"a label twice": series("__name__", "broken", "a", "1", "a", "2"),
		"no label":      series(),
	} {
		err := store.Write(t.Context(), batch(at(good, now, 1), at(broken, now, 1), at(good, now+1, 1)))
		if err == nil || !strings.Contains(err.Error(), broken.Labels().String()) {
			t.Errorf("%s: error is %v, want one that names the series", name, err)
		}
	}
	wantSamples(t, store, "good", map[string][]point{})
	if got := metric(t, reg, "rollcall_sink_tsdb_batches_failed_total"); got != 2 {
		t.Errorf("%v failed batches counted, want 2", got)
	}

	write(t, store, batch(at(good, now, 1)))
	wantSamples(t, store, "good", map[string][]point{`{__name__="good"}`: {pt(now, 1)}})
}

func TestWriteWithEndedContextStoresNothing(t *testing.T) {
	store := open(t, sink.TSDBConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Write(ctx, batch(at(series("__name__", "up"), nowMs(), 1))); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
	wantSamples(t, store, "up", map[string][]point{})
}

func TestExemplars(t *testing.T) {
	reg := prometheus.NewRegistry()
	store := open(t, sink.TSDBConfig{Registerer: reg})
	s := series("__name__", "bucket")
	now := nowMs()
	trace := func(id string) labels.Labels { return labels.FromStrings("trace_id", id) }
	give := func(ms int64, e exemplar.Exemplar) sink.Refused {
		return write(t, store, batch(sample.Sample{Series: s, Time: ms, Value: 1, Extra: &sample.Extra{Exemplars: []exemplar.Exemplar{e}}}))
	}
	if got := give(now, exemplar.Exemplar{Labels: trace("one"), Value: 3, Ts: now - 5, HasTs: true}); got != (sink.Refused{}) {
		t.Errorf("refused %+v", got)
	}
	if got := give(now+1, exemplar.Exemplar{Labels: trace("two"), Value: 4}); got != (sink.Refused{}) {
		t.Errorf("refused %+v", got)
	}
	// The sample of a refused exemplar is kept.
	long := exemplar.Exemplar{Labels: trace(strings.Repeat("x", 200)), Value: 5}
	if got, want := give(now+2, long), (sink.Refused{Exemplars: 1}); got != want {
		t.Errorf("refused %+v, want %+v", got, want)
	}
	if got := metric(t, reg, "rollcall_sink_tsdb_exemplars_refused_total"); got != 1 {
		t.Errorf("%v refused exemplars counted, want 1", got)
	}
	wantSamples(t, store, "bucket", map[string][]point{`{__name__="bucket"}`: {pt(now, 1), pt(now+1, 1), pt(now+2, 1)}})

	q, err := store.ExemplarQuerier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := q.Select(0, math.MaxInt64, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "bucket")})
	if err != nil {
		t.Fatal(err)
	}
	want := []exemplar.Exemplar{
		{Labels: trace("one"), Value: 3, Ts: now - 5, HasTs: true},
		{Labels: trace("two"), Value: 4, Ts: now + 1},
	}
	if len(found) != 1 || !cmp.Equal(want, found[0].Exemplars, cmp.Comparer(labels.Equal)) {
		t.Errorf("exemplars are %+v, want %+v", found, want)
	}
}

// A reference is meant for the store that gave it. In another one it would be
// some other series.
func TestAForeignReferenceIsIgnored(t *testing.T) {
	now := nowMs()
	first, second := open(t, sink.TSDBConfig{}), open(t, sink.TSDBConfig{})
	wanderer, local := series("__name__", "wanderer"), series("__name__", "local")
	write(t, first, batch(at(wanderer, now, 1)))
	write(t, second, batch(at(local, now, 2)))

	write(t, second, batch(at(wanderer, now+1, 3)))
	wantSamples(t, second, "local", map[string][]point{`{__name__="local"}`: {pt(now, 2)}})
	wantSamples(t, second, "wanderer", map[string][]point{`{__name__="wanderer"}`: {pt(now+1, 3)}})
}

func TestConcurrentWriters(t *testing.T) {
	const writers, batches = 4, 50
	store := open(t, sink.TSDBConfig{})
	now := nowMs()
	shared := series("__name__", "shared")
	var wg sync.WaitGroup
	write := func(from, to int64) {
		for w := range writers {
			wg.Go(func() {
				own := series("__name__", "own", "writer", fmt.Sprint(w))
				for i := from; i < to; i++ {
					// The shared series gets the same sample from everyone.
					if err := store.Write(t.Context(), batch(at(own, now+i, float64(w)), at(shared, now, 1))); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	// Series that are made at one time are sorted by Prometheus's index in the list
	// that a reader may have: the race detector would find that.
	write(0, 1)
	wg.Wait()
	write(1, batches)
	wg.Go(func() {
		for range batches {
			for ls, points := range read(t, store, "own") {
				for i, p := range points {
					if p.Time != now+int64(i) {
						t.Errorf("%s: sample %d is of %d, want %d", ls, i, p.Time, now+int64(i))
					}
				}
			}
		}
	})
	wg.Wait()

	got := read(t, store, "own")
	if len(got) != writers {
		t.Errorf("%d series, want %d", len(got), writers)
	}
	for ls, points := range got {
		if len(points) != batches {
			t.Errorf("%s has %d samples, want %d", ls, len(points), batches)
		}
	}
	wantSamples(t, store, "shared", map[string][]point{`{__name__="shared"}`: {pt(now, 1)}})
}

// BenchmarkTSDBWrite is one producer's collection after the first: 200 series
// that the store knows.
func BenchmarkTSDBWrite(b *testing.B) {
	const size = 200
	store := open(b, sink.TSDBConfig{})
	collection := &sample.Batch{}
	for i := range size {
		s := series("__name__", "requests_total", "instance", "10.0.0.1:9090", "job", "api", "path", fmt.Sprintf("/%03d", i))
		collection.Samples = append(collection.Samples, sample.Sample{Series: s})
	}
	// A second apart, and beginning so long ago that no run reaches the future.
	now := nowMs() - int64(365*24*time.Hour/time.Millisecond)
	b.ReportAllocs()
	for b.Loop() {
		now += 1000
		for j := range collection.Samples {
			collection.Samples[j].Time = now
			collection.Samples[j].Value = float64(now % 977 * int64(j))
		}
		refused, err := store.Append(b.Context(), collection)
		if err != nil || refused != (sink.Refused{}) {
			b.Fatal(refused, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/sample")
}
