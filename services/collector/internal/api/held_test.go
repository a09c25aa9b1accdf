package api_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var since = time.Unix(1e9, 0)

// members holds producers p-0000 and on, in order.
type members struct {
	api.Members
	held      []assignment.ProducerID
	persisted bool
}

func (m *members) Held(after assignment.ProducerID, limit int) []guard.Held {
	var held []guard.Held
	for _, id := range m.held {
		if id > after && len(held) < limit {
			held = append(held, guard.Held{
				Assignment: &assignment.Assignment{ProducerID: id}, Epoch: "e", Since: since, Confirmed: time.Hour, Cause: assignment.CauseExpired,
			})
		}
	}
	return held
}

func (m *members) Release(_ context.Context, ids []assignment.ProducerID) membership.Released {
	r := membership.Released{Persisted: m.persisted}
	for _, id := range ids {
		if slices.Contains(m.held, id) {
			r.Count++
		} else {
			r.NotHeld = append(r.NotHeld, id)
		}
	}
	return r
}

func (m *members) ReleaseAll(context.Context) membership.Released {
	return membership.Released{Count: len(m.held), Persisted: m.persisted}
}

// collections has p-0001 failing and all others answering.
type collections struct{ api.Collections }

func (collections) Find(id assignment.ProducerID) (schedule.Status, bool) {
	if id == "p-0001" {
		return schedule.Status{Last: schedule.Result{Start: since, Reason: schedule.ReasonTimeout}, FailingSince: since}, true
	}
	return schedule.Status{Last: schedule.Result{Start: since}}, true
}

func newAPI(n int) *api.API {
	m := &members{persisted: true}
	for i := range n {
		m.held = append(m.held, assignment.ProducerID(fmt.Sprintf("p-%04d", i)))
	}
	return api.New(api.Config{Members: m, Collections: collections{}})
}

func TestListHeld(t *testing.T) {
	a := newAPI(2500)
	var all []*collectorv1.HeldProducer
	pages := 0
	for req := (&collectorv1.ListHeldRequest{PageSize: 1 << 20}); ; pages++ {
		resp, err := a.ListHeld(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, resp.GetHeld()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if len(all) != 2500 || pages != 2 || all[2499].GetAssignment().GetProducerId() != "p-2499" {
		t.Fatalf("%d held after %d pages", len(all), pages)
	}
	h := all[1]
	if h.GetAnswers() || !h.GetFailingSince().AsTime().Equal(since) || h.GetConfirmedDuration().AsDuration() != time.Hour ||
		!h.GetHoldTime().AsTime().Equal(since) || h.GetEpoch() != "e" || h.GetCause().String() != "REMOVAL_CAUSE_EXPIRED" {
		t.Errorf("one that fails: %v", h)
	}
	if h = all[2]; !h.GetAnswers() || h.GetFailingSince() != nil {
		t.Errorf("one that answers: %v", h)
	}
}

func TestListHeldRefuses(t *testing.T) {
	for field, req := range map[string]*collectorv1.ListHeldRequest{
		"page_size":  {PageSize: -1},
		"page_token": {PageToken: "not mine"},
	} {
		_, err := newAPI(1).ListHeld(t.Context(), req)
		wantViolations(t, err, field)
	}
}

func TestReleaseHeld(t *testing.T) {
	a := newAPI(3)
	resp, err := a.ReleaseHeld(t.Context(), &collectorv1.ReleaseHeldRequest{ProducerIds: []string{"p-0001", "x"}})
	if err != nil || resp.GetReleasedCount() != 1 || !resp.GetPersisted() || !slices.Equal(resp.GetNotHeldProducerIds(), []string{"x"}) {
		t.Errorf("%v, %v", resp, err)
	}
	resp, err = a.ReleaseHeld(t.Context(), &collectorv1.ReleaseHeldRequest{All: true})
	if err != nil || resp.GetReleasedCount() != 3 {
		t.Errorf("all: %v, %v", resp, err)
	}
}

func TestReleaseHeldRefuses(t *testing.T) {
	many := make([]string, 1001)
	for i := range many {
		many[i] = "p"
	}
	for name, c := range map[string]struct {
		req    *collectorv1.ReleaseHeldRequest
		fields []string
	}{
		"neither":   {&collectorv1.ReleaseHeldRequest{}, []string{"producer_ids"}},
		"both":      {&collectorv1.ReleaseHeldRequest{ProducerIds: []string{"p"}, All: true}, []string{"all"}},
		"too many":  {&collectorv1.ReleaseHeldRequest{ProducerIds: many}, []string{"producer_ids"}},
		"malformed": {&collectorv1.ReleaseHeldRequest{ProducerIds: []string{"p", "", "a b"}}, []string{"producer_ids[1]", "producer_ids[2]"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newAPI(1).ReleaseHeld(t.Context(), c.req)
			wantViolations(t, err, c.fields...)
		})
	}
}

func wantViolations(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField())
			}
		}
	}
	if status.Code(err) != codes.InvalidArgument || !slices.Equal(got, want) {
		t.Errorf("%v with %v at fault, want %v", err, got, want)
	}
}
