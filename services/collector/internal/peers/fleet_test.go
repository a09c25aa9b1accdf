package peers_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
	"google.golang.org/grpc"
)

// second begins a real second collector, and returns its store.
func (r *rig) second(id string) (store *sink.TSDB, stop func()) {
	r.t.Helper()
	store = r.open(r.t.TempDir())
	return store, r.play(id, peers.NewServer(peers.ServerConfig{Self: "c-2", Store: store}).Select)
}

// TestOneStore: two stores are one to every question.
func TestOneStore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other, stop := r.second("c-2")
		write(t, r.store, "both", 10, 20, 30)
		write(t, other, "both", 30, 40, 50)
		write(t, r.store, "here", 10)
		write(t, other, "there", 20)
		want := map[string][]int64{"both": {10, 20, 30, 40, 50}, "here": {10}, "there": {20}}

		got, warnings, err := r.query()
		if diff := cmp.Diff(want, got); diff != "" || len(warnings) > 0 || err != nil {
			t.Errorf("%v, %v (-want +got):\n%s", warnings, err, diff)
		}
		got, _, _ = r.query(everyM, labels.MustNewMatcher(labels.MatchRegexp, "s", "th.*"), labels.MustNewMatcher(labels.MatchNotEqual, "s", "x"),
			labels.MustNewMatcher(labels.MatchNotRegexp, "s", "here|both"))
		if diff := cmp.Diff(map[string][]int64{"there": {20}}, got); diff != "" {
			t.Errorf("one series (-want +got):\n%s", diff)
		}
		r.chunks(want)
		r.labels()
		r.exemplars()

		r.scope.Local = true
		got, warnings, err = r.query()
		if diff := cmp.Diff(map[string][]int64{"both": {10, 20, 30}, "here": {10}}, got); diff != "" || len(warnings) > 0 || err != nil {
			t.Errorf("local: %v, %v (-want +got):\n%s", warnings, err, diff)
		}
		r.scope.Local = false

		stop()
		got, warnings, err = r.query()
		if len(got["both"]) != 3 || !warned(warnings, `"c-2"`, "partial", "Unavailable") || err != nil {
			t.Errorf("without c-2: %v, %v, %v", got, warnings, err)
		}
		r.scope.Whole = true
		if got, _, err := r.query(); err == nil || !strings.Contains(err.Error(), `"c-2"`) {
			t.Errorf("without c-2, and nothing may be missing: %v, %v", got, err)
		}
	})
}

// chunks asks for encoded chunks.
func (r *rig) chunks(want map[string][]int64) {
	r.t.Helper()
	q, err := r.fleet.ChunkQuerier(between[0], between[1])
	if err != nil {
		r.t.Fatal(err)
	}
	defer q.Close()
	got, warnings, err := read(r.t, storage.NewSeriesSetFromChunkSeriesSet(q.Select(r.t.Context(), true, nil, everyM)))
	if diff := cmp.Diff(want, got); diff != "" || len(warnings) > 0 || err != nil {
		r.t.Errorf("chunks: %v, %v (-want +got):\n%s", warnings, err, diff)
	}
}

// labels asks for names, values, and series, all and some.
func (r *rig) labels() {
	t, ctx := r.t, r.t.Context()
	t.Helper()
	q, err := r.fleet.Querier(between[0], between[1])
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	names, _, err := q.LabelNames(ctx, nil)
	if !slices.Equal(names, []string{"__name__", "s"}) || err != nil {
		t.Errorf("names: %v, %v", names, err)
	}
	values, _, err := q.LabelValues(ctx, "s", &storage.LabelHints{Limit: 2}, everyM)
	if !slices.Equal(values, []string{"both", "here"}) || err != nil {
		t.Errorf("values: %v, %v", values, err)
	}
	for limit, want := range map[int][]string{0: {"both", "here", "there"}, 2: {"both", "here"}} {
		got, _, err := read(t, q.Select(ctx, true, &storage.SelectHints{Start: between[0], End: between[1], Func: "series", Limit: limit}, everyM))
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) || len(got["both"]) > 0 || err != nil {
			t.Errorf("series, limit %d: %v, %v", limit, got, err)
		}
	}
}

func (r *rig) exemplars() {
	r.t.Helper()
	q, err := r.fleet.ExemplarQuerier(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	got, err := q.Select(between[0], between[1], []*labels.Matcher{everyM})
	if err != nil || len(got) != 3 || len(got[0].Exemplars) != 5 || got[2].SeriesLabels.Get("s") != "there" {
		r.t.Errorf("exemplars: %v, %v", got, err)
	}
}

// TestWhoFailsOnceIsLeftOutOfAll: a query has two selectors, and another
// collector fails the second of them.
func TestWhoFailsOnceIsLeftOutOfAll(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		store := r.open(t.TempDir())
		write(t, store, "there", 10)
		write(t, r.store, "here", 10)
		server := peers.NewServer(peers.ServerConfig{Self: "c-2", Store: store})
		r.play("c-2", func(m *collectorv1.SelectRequest, s grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
			if len(m.GetSelectors()[0].GetMatchers()) > 1 {
				return context.DeadlineExceeded
			}
			return server.Select(m, s)
		})
		q, err := r.fleet.Querier(between[0], between[1])
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		one := q.Select(t.Context(), true, nil, everyM)
		two := q.Select(t.Context(), true, nil, everyM, labels.MustNewMatcher(labels.MatchNotEqual, "s", "x"))
		for name, set := range map[string]storage.SeriesSet{"one": one, "two": two} {
			got, warnings, err := read(t, set)
			if diff := cmp.Diff(map[string][]int64{"here": {10}}, got); diff != "" || !warned(warnings, `"c-2"`) || err != nil {
				t.Errorf("%s: %v, %v (-want +got):\n%s", name, warnings, err, diff)
			}
		}
	})
}

// TestPatience: others that hang cost a query ten seconds, or half of the time
// that it has, and one second each when they did not answer the last time.
func TestPatience(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		hang := func(_ *collectorv1.SelectRequest, s grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
			<-s.Context().Done()
			return s.Context().Err()
		}
		write(t, r.store, "here", 10)
		for _, id := range []string{"c-2", "c-3", "c-4"} {
			r.play(id, hang)
		}
		for i, want := range []time.Duration{10 * time.Second, time.Second} {
			begin := time.Now()
			got, warnings, err := r.query()
			if took := time.Since(begin); took != want || len(got) != 1 || len(warnings) != 3 || err != nil {
				t.Errorf("%d: %v after %v, %v, %v", i, got, took, warnings, err)
			}
			synctest.Wait() // until it is noted who did not answer
		}
		r.play("c-5", hang)
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		begin := time.Now()
		q, err := r.fleet.Querier(between[0], between[1])
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if _, warnings, err := q.LabelNames(ctx, nil); time.Since(begin) != 4*time.Second || len(warnings) != 4 || err != nil {
			t.Errorf("with a deadline: after %v, %v, %v", time.Since(begin), warnings, err)
		}
	})
}

// TestClosedQuerierAsksNoMore: nobody waits for the answer, so nobody is asked.
func TestClosedQuerierAsksNoMore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ended := make(chan time.Time, 1)
		r.play("c-2", func(_ *collectorv1.SelectRequest, s grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
			<-s.Context().Done()
			ended <- time.Now()
			return nil
		})
		q, err := r.fleet.Querier(between[0], between[1])
		if err != nil {
			t.Fatal(err)
		}
		q.Select(t.Context(), true, nil, everyM)
		time.Sleep(time.Second)
		begin := time.Now()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		if at := <-ended; at.Sub(begin) > time.Millisecond {
			t.Errorf("asked for another %v", at.Sub(begin))
		}
	})
}
