package api_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// told is a schedule of one producer.
type told struct {
	api.Collections
	status schedule.Status
}

func (d told) Find(assignment.ProducerID) (schedule.Status, bool) { return d.status, true }

func (d told) List(assignment.ProducerID, int, func(*schedule.Status) bool) []schedule.Status {
	return []schedule.Status{d.status}
}

type nobodyHeld struct{ api.Members }

func (nobodyHeld) Holds(assignment.ProducerID) bool { return false }

func TestDetails(t *testing.T) {
	success := schedule.Result{Start: since, Duration: time.Second, Samples: 7, BodyBytes: 70}
	failure := schedule.Result{
		Start: since.Add(time.Minute), Duration: 2 * time.Second, Samples: 3, BodyBytes: 30,
		Reason: schedule.ReasonTooLarge, Message: "too large",
	}
	succeeded := &collectorv1.CollectionResult{
		StartTime: timestamppb.New(since), Duration: durationpb.New(time.Second), SampleCount: 7, BodyBytes: 70,
	}
	failed := &collectorv1.CollectionResult{
		StartTime: timestamppb.New(since.Add(time.Minute)), Duration: durationpb.New(2 * time.Second), SampleCount: 3, BodyBytes: 30,
		FailureReason: collectorv1.FailureReason_FAILURE_REASON_TOO_LARGE, FailureMessage: "too large",
	}
	for name, tc := range map[string]struct {
		status schedule.Status
		want   *collectorv1.Collection
	}{
		"new": {schedule.Status{}, &collectorv1.Collection{}},
		"failing": {
			schedule.Status{
				Next: since.Add(time.Hour), Last: failure, Success: success, Failure: failure,
				LastSuccess: since.Add(time.Second), LastFailure: since.Add(62 * time.Second),
				Successes: 11, Failures: 12, Missed: 7, MissedOverlap: 4, MissedBudget: 3,
			},
			&collectorv1.Collection{
				NextTime: timestamppb.New(since.Add(time.Hour)), LastResult: failed, LastSuccess: succeeded, LastFailure: failed,
				LastSuccessTime: timestamppb.New(since.Add(time.Second)), LastFailureTime: timestamppb.New(since.Add(62 * time.Second)),
				SuccessCount: 11, FailureCount: 12, MissedCount: 7, MissedOverlapCount: 4, MissedBudgetCount: 3,
			},
		},
		"answering again": {
			schedule.Status{Last: success, Success: success, Failure: failure},
			&collectorv1.Collection{LastResult: succeeded, LastSuccess: succeeded, LastFailure: failed},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.status.Assignment = &assignment.Assignment{ProducerID: "p"}
			a := api.New(api.Config{Members: nobodyHeld{}, Collections: told{status: tc.status}})
			one, err := a.GetCollection(t.Context(), &collectorv1.GetCollectionRequest{ProducerId: "p"})
			if err != nil {
				t.Fatal(err)
			}
			all, err := a.ListCollections(t.Context(), &collectorv1.ListCollectionsRequest{})
			if err != nil || len(all.GetCollections()) != 1 {
				t.Fatal(all, err)
			}
			but := protocmp.IgnoreFields(&collectorv1.Collection{}, "assignment")
			for _, got := range []*collectorv1.Collection{one.GetCollection(), all.GetCollections()[0]} {
				if diff := cmp.Diff(tc.want, got, protocmp.Transform(), but); diff != "" {
					t.Errorf("collection (-want +got):\n%s", diff)
				}
			}
		})
	}
}
