package api_test

import (
	"fmt"
	"slices"
	"testing"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// filled is a store with so many producers of one collector, which is known by
// its instance a.
func filled(count int) setup {
	return setup{prepare: func(t testing.TB, m *store.Memory) {
		t.Helper()
		opened := m.Open()
		c := &roster.Collector{ID: "c1", Instances: []roster.Instance{{ID: "a", Generation: 1}}}
		txns := []roster.Txn{{{Key: c.Key(), Record: c}}}
		for i := range count {
			stored := wire.EncodeStored(&assignment.Assignment{
				ProducerID: assignment.ProducerID(fmt.Sprintf("p%06d", i)), Endpoint: fmt.Sprintf("http://h%d.example:9100/metrics", i),
				Interval: wire.DefaultInterval, Timeout: wire.DefaultTimeout,
				Labels: []assignment.Label{
					{Name: "description", Value: "this one is here to take its part of the space, as labels in the field do"},
					{Name: "parity", Value: []string{"even", "odd"}[i%2]},
				},
			})
			p := &roster.Producer{
				ID: assignment.ProducerID(fmt.Sprintf("p%06d", i)), Stored: stored, Version: assignment.VersionOf(stored), Collector: "c1",
			}
			txns = append(txns, roster.Txn{{Key: p.Key(), Record: p}})
		}
		if _, err := opened.Commit(t.Context(), txns); err != nil {
			t.Fatal(err)
		}
		if err := opened.Close(); err != nil {
			t.Fatal(err)
		}
	}}
}

// pages reads all pages of a list.
func (r *rig) pages(t *testing.T, m *registryv1.ListProducersRequest) (pages [][]string) {
	t.Helper()
	for {
		resp, err := r.ListProducers(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, p := range resp.GetProducers() {
			ids = append(ids, p.GetProducerId())
		}
		pages = append(pages, ids)
		if resp.GetEpoch() == "" || resp.GetRevision() == 0 {
			t.Errorf("a page without its revision: %s %d", resp.GetEpoch(), resp.GetRevision())
		}
		if m.PageToken = resp.GetNextPageToken(); m.GetPageToken() == "" {
			return pages
		}
	}
}

func TestPages(t *testing.T) {
	bubble(t, filled(2500), func(t *testing.T, r *rig) {
		for _, test := range []struct {
			size        int32
			pages, last int
		}{{0, 25, 100}, {1000, 3, 500}, {1 << 30, 3, 500}, {500, 5, 500}, {999, 3, 502}} {
			pages := r.pages(t, &registryv1.ListProducersRequest{PageSize: test.size})
			if len(pages) != test.pages || len(pages[len(pages)-1]) != test.last {
				t.Errorf("page_size %d: %d pages, the last with %d", test.size, len(pages), len(pages[len(pages)-1]))
			}
			all := slices.Concat(pages...)
			if len(all) != 2500 || !slices.IsSorted(all) || len(slices.Compact(all)) != 2500 {
				t.Errorf("page_size %d: %d producers, sorted %v", test.size, len(all), slices.IsSorted(all))
			}
		}
	})
}

// TestPagesWhileTheRollChanges: none is seen twice, and none of those that stay
// is left out.
func TestPagesWhileTheRollChanges(t *testing.T) {
	bubble(t, filled(300), func(t *testing.T, r *rig) {
		m := &registryv1.ListProducersRequest{PageSize: 10}
		var seen []string
		for i := 0; ; i++ {
			resp, err := r.ListProducers(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range resp.GetProducers() {
				seen = append(seen, p.GetProducerId())
			}
			// The last one of the page goes, one comes in front of it and one behind.
			if n := len(seen); n > 0 {
				if err := deregistering(seen[n-1], "")(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			r.register(t, producer(fmt.Sprintf("a%d", i)))
			r.register(t, producer(fmt.Sprintf("z%d", i)))
			if m.PageToken = resp.GetNextPageToken(); m.GetPageToken() == "" || i > 1000 {
				break
			}
			if i == 20 {
				break
			}
		}
		if !slices.IsSorted(seen) || len(slices.Compact(slices.Clone(seen))) != len(seen) {
			t.Errorf("seen twice or out of order: %v", seen)
		}
		for i := range 200 {
			if !slices.Contains(seen, fmt.Sprintf("p%06d", i)) {
				t.Errorf("p%06d was left out", i)
			}
		}
	})
}

func TestFilters(t *testing.T) {
	bubble(t, filled(10), func(t *testing.T, r *rig) {
		r.register(t, with("x1", func(p *registryv1.Producer) {
			p.Labels = []*registryv1.Label{{Name: "job", Value: "api"}, {Name: "parity", Value: "odd"}}
		}))
		r.register(t, with("x2", func(p *registryv1.Producer) { p.Endpoint = "https://h.example/metrics" }))
		for name, test := range map[string]struct {
			m    *registryv1.ListProducersRequest
			want int
		}{
			"all":                 {&registryv1.ListProducersRequest{}, 12},
			"assigned":            {&registryv1.ListProducersRequest{State: registryv1.ProducerState_PRODUCER_STATE_ASSIGNED}, 10},
			"unassigned":          {&registryv1.ListProducersRequest{State: registryv1.ProducerState_PRODUCER_STATE_UNASSIGNED}, 2},
			"collector":           {&registryv1.ListProducersRequest{CollectorId: "c1"}, 10},
			"another collector":   {&registryv1.ListProducersRequest{CollectorId: "c2"}, 0},
			"label":               {&registryv1.ListProducersRequest{Selector: `{parity="odd"}`}, 6},
			"label and collector": {&registryv1.ListProducersRequest{CollectorId: "c1", Selector: `{parity="odd"}`}, 5},
			"not":                 {&registryv1.ListProducersRequest{Selector: `{parity!="odd"}`}, 6},
			"without the label":   {&registryv1.ListProducersRequest{Selector: `{parity=""}`}, 1},
			"regexp":              {&registryv1.ListProducersRequest{Selector: `{parity=~"o.*",job!~"a.*"}`}, 5},
			"default job":         {&registryv1.ListProducersRequest{Selector: `{job="rollcall"}`}, 11},
			"own job":             {&registryv1.ListProducersRequest{Selector: `{job="api"}`}, 1},
			"instance":            {&registryv1.ListProducersRequest{Selector: `{instance="h.example:443"}`}, 1},
			"instances":           {&registryv1.ListProducersRequest{Selector: `{instance=~"h[0-9]\\.example:9100"}`}, 10},
		} {
			if got := slices.Concat(r.pages(t, test.m)...); len(got) != test.want {
				t.Errorf("%s: %d producers, want %d: %v", name, len(got), test.want, got)
			}
		}
	})
}

// TestAPageIsBounded by what it looks at, not only by what it finds.
func TestAPageIsBounded(t *testing.T) {
	bubble(t, filled(50_010), func(t *testing.T, r *rig) {
		pages := r.pages(t, &registryv1.ListProducersRequest{CollectorId: "c2"})
		if len(pages) != 2 || len(pages[0]) > 0 || len(pages[1]) > 0 {
			t.Errorf("%d pages", len(pages))
		}
	})
}

func TestCollectors(t *testing.T) {
	bubble(t, filled(3), func(t *testing.T, r *rig) {
		for i := range 12 {
			r.enlist(t, fmt.Sprintf("d%02d", i), "a")
		}
		live, err := r.Subscribe(t.Context(), r.enlist(t, "d05", "a"))
		if err != nil {
			t.Fatal(err)
		}
		if err := newVerifier().untilSeal(live); err != nil {
			t.Fatal(err)
		}
		list := func(m *registryv1.ListCollectorsRequest) (ids []string, pages int) {
			for {
				resp, err := r.ListCollectors(t.Context(), m)
				if err != nil {
					t.Fatal(err)
				}
				pages++
				for _, c := range resp.GetCollectors() {
					ids = append(ids, c.GetCollectorId())
				}
				if m.PageToken = resp.GetNextPageToken(); m.GetPageToken() == "" {
					return ids, pages
				}
			}
		}
		if ids, pages := list(&registryv1.ListCollectorsRequest{PageSize: 5}); len(ids) != 13 || pages != 3 || !slices.IsSorted(ids) {
			t.Errorf("%d pages: %v", pages, ids)
		}
		if ids, _ := list(&registryv1.ListCollectorsRequest{State: registryv1.CollectorState_COLLECTOR_STATE_LIVE}); !slices.Equal(ids, []string{"d05"}) {
			t.Errorf("live are %v", ids)
		}
		if ids, pages := list(&registryv1.ListCollectorsRequest{PageSize: 6, State: registryv1.CollectorState_COLLECTOR_STATE_AWAY}); len(ids) != 12 || pages != 2 {
			t.Errorf("%d pages of those away: %v", pages, ids)
		}
		got, err := r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "c1"})
		if c := got.GetCollector(); err != nil || c.GetAssignedCount() != 3 || c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_AWAY || c.GetGeneration() != 1 {
			t.Errorf("%v, %v", got, err)
		}
		got, err = r.GetCollector(t.Context(), &registryv1.GetCollectorRequest{CollectorId: "d05"})
		if c := got.GetCollector(); err != nil || c.GetState() != registryv1.CollectorState_COLLECTOR_STATE_LIVE || c.GetConnectTime() == nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}
