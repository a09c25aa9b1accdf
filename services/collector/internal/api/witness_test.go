package api_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// witnesses are producers with ids of that many bytes, every third failing.
type witnesses struct {
	n, size int

	mu    sync.Mutex
	asked []schedule.Question
}

func (w *witnesses) id(i int) assignment.ProducerID {
	id := fmt.Sprintf("p-%06d", i)
	return assignment.ProducerID(id + strings.Repeat("x", w.size-len(id)))
}

func (w *witnesses) testify(q schedule.Question) []schedule.Testimony {
	w.mu.Lock()
	w.asked = append(w.asked, q)
	w.mu.Unlock()
	var list []schedule.Testimony
	for i := range w.n {
		t := schedule.Testimony{
			ProducerID: w.id(i), Rate: math.MaxFloat64, Collected: true, Identified: true,
			FailingSince: time.Unix(math.MaxInt32, 999999999), Failures: math.MaxInt32, Reason: schedule.ReasonWrongProducer,
		}
		if t.ProducerID > q.After && len(list) < q.Limit && (!q.Failing || i%3 == 0) {
			list = append(list, t)
		}
	}
	return list
}

func (w *witnesses) last() schedule.Question {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[len(w.asked)-1]
}

func (w *witnesses) api() *api.API {
	return api.New(api.Config{Collector: "c-1", Instance: "i-1", Testify: w.testify})
}

// pages reads all pages of an answer, and how large each was.
func pages(t *testing.T, a *api.API, req *collectorv1.WitnessRequest) (all []*collectorv1.Testimony, sizes []int) {
	t.Helper()
	for {
		resp, err := a.Witness(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(resp); n > 2<<20 {
			t.Errorf("an answer of %d bytes", n)
		}
		if resp.GetCollectorId() != "c-1" || resp.GetInstanceId() != "i-1" {
			t.Errorf("from %s of %s", resp.GetInstanceId(), resp.GetCollectorId())
		}
		all = append(all, resp.GetTestimonies()...)
		sizes = append(sizes, len(resp.GetTestimonies()))
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all, sizes
		}
	}
}

func TestWitnessPages(t *testing.T) {
	for name, tc := range map[string]struct {
		producers, bytes int
		size             int32
		failing          bool
		pages            []int
	}{
		"nobody":              {0, 8, 0, false, []int{0}},
		"the default":         {2500, 8, 0, false, []int{1000, 1000, 500}},
		"just a page":         {1000, 8, 0, false, []int{1000}},
		"one more":            {1001, 8, 0, false, []int{1000, 1}},
		"one at a time":       {3, 8, 1, false, []int{1, 1, 1}},
		"the most":            {25_000, 8, 10_000, false, []int{10_000, 10_000, 5000}},
		"more than the most":  {12_000, 8, math.MaxInt32, false, []int{10_000, 2000}},
		"failing":             {6000, 8, 0, true, []int{1000, 1000}},
		"bounded by the size": {10_000, 128, 10_000, false, []int{6317, 3683}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &witnesses{n: tc.producers, size: tc.bytes}
			all, sizes := pages(t, w.api(), &collectorv1.WitnessRequest{PageSize: tc.size, Failing: tc.failing})
			if fmt.Sprint(sizes) != fmt.Sprint(tc.pages) {
				t.Errorf("pages of %v, want %v", sizes, tc.pages)
			}
			step := 1
			if tc.failing {
				step = 3
			}
			for i, m := range all {
				if m.GetProducerId() != string(w.id(i*step)) {
					t.Fatalf("%d is %s", i, m.GetProducerId())
				}
			}
		})
	}
}

func TestWitnessAsksAndTells(t *testing.T) {
	w := &witnesses{n: 2, size: 8}
	resp, err := w.api().Witness(t.Context(), &collectorv1.WitnessRequest{ProducerIds: []string{"b", "a"}, Failing: true, PageSize: 7})
	if err != nil {
		t.Fatal(err)
	}
	if q := w.last(); fmt.Sprint(q.Of) != "[b a]" || !q.Failing || q.Limit != 8 || q.After != "" {
		t.Errorf("asked %+v", q)
	}
	want := &collectorv1.Testimony{
		ProducerId: "p-000000", FailingSince: resp.GetTestimonies()[0].GetFailingSince(), FailureCount: math.MaxInt32,
		FailureReason: collectorv1.FailureReason_FAILURE_REASON_WRONG_PRODUCER, SamplesPerSecond: math.MaxFloat64, Collected: true, Identified: true,
	}
	if got := resp.GetTestimonies()[0]; !proto.Equal(got, want) || !got.GetFailingSince().AsTime().Equal(time.Unix(math.MaxInt32, 999999999)) {
		t.Errorf("%v", got)
	}
	a := api.New(api.Config{Testify: func(schedule.Question) []schedule.Testimony {
		return []schedule.Testimony{{ProducerID: "p"}}
	}})
	resp, err = a.Witness(t.Context(), &collectorv1.WitnessRequest{})
	if err != nil || !proto.Equal(resp.GetTestimonies()[0], &collectorv1.Testimony{ProducerId: "p"}) {
		t.Errorf("one of which nothing is known: %v, %v", resp, err)
	}
}

func TestWitnessRefuses(t *testing.T) {
	many := make([]string, 1001)
	for i := range many {
		many[i] = "p"
	}
	for name, c := range map[string]struct {
		req    *collectorv1.WitnessRequest
		fields []string
	}{
		"too many":        {&collectorv1.WitnessRequest{ProducerIds: many}, []string{"producer_ids"}},
		"malformed":       {&collectorv1.WitnessRequest{ProducerIds: []string{"p", "", "a b"}}, []string{"producer_ids[1]", "producer_ids[2]"}},
		"a negative size": {&collectorv1.WitnessRequest{PageSize: -1}, []string{"page_size"}},
		"a foreign token": {&collectorv1.WitnessRequest{PageToken: "%"}, []string{"page_token"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &witnesses{n: 1, size: 8}
			_, err := w.api().Witness(t.Context(), c.req)
			wantViolations(t, err, c.fields...)
			if len(w.asked) > 0 {
				t.Error("the schedule was asked")
			}
		})
	}
	if _, err := (&witnesses{size: 8}).api().Witness(t.Context(), &collectorv1.WitnessRequest{ProducerIds: many[:1000]}); status.Code(err) != codes.OK {
		t.Errorf("1,000 producers: %v", err)
	}
}
