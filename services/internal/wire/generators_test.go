package wire_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func producerIDs() *rapid.Generator[assignment.ProducerID] {
	return rapid.Map(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}`),
		func(s string) assignment.ProducerID { return assignment.ProducerID(s) })
}

func collectorIDs() *rapid.Generator[assignment.CollectorID] {
	return rapid.Map(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,127}`),
		func(s string) assignment.CollectorID { return assignment.CollectorID(s) })
}

func instanceIDs() *rapid.Generator[assignment.InstanceID] {
	return rapid.Map(producerIDs(), func(id assignment.ProducerID) assignment.InstanceID { return assignment.InstanceID(id) })
}

func epochs() *rapid.Generator[assignment.Epoch] {
	return rapid.Map(rapid.StringMatching(`[0-9a-f-]{1,36}`), func(s string) assignment.Epoch { return assignment.Epoch(s) })
}

func revisions() *rapid.Generator[assignment.Revision] {
	return rapid.Map(rapid.Int64(), func(n int64) assignment.Revision { return assignment.Revision(n) })
}

func digests() *rapid.Generator[assignment.Digest] {
	return rapid.Map(rapid.Uint64(), func(n uint64) assignment.Digest { return assignment.Digest(n) })
}

func spans() *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64(), func(n int64) time.Duration { return time.Duration(n) })
}

// shortTexts are texts that pass uncut.
func shortTexts() *rapid.Generator[string] {
	return rapid.Map(rapid.String(), func(s string) string {
		for len(s) > 128 {
			s = strings.ToValidUTF8(s[:128], "")
		}
		return s
	})
}

func assignments() *rapid.Generator[*assignment.Assignment] {
	return rapid.Custom(func(t *rapid.T) *assignment.Assignment {
		a := &assignment.Assignment{
			ProducerID:       producerIDs().Draw(t, "producer"),
			Version:          assignment.Version(rapid.Uint64().Draw(t, "version")),
			Role:             assignment.Role(rapid.Uint8Range(0, 127).Draw(t, "role")),
			Endpoint:         rapid.String().Draw(t, "endpoint"),
			Interval:         spans().Draw(t, "interval"),
			Timeout:          spans().Draw(t, "timeout"),
			HonorLabels:      rapid.Bool().Draw(t, "honor"),
			IgnoreTimestamps: rapid.Bool().Draw(t, "ignore"),
			FallbackFormat:   assignment.Format(rapid.Int32().Draw(t, "format")),
			Credential:       rapid.String().Draw(t, "credential"),
			TLSServerName:    rapid.String().Draw(t, "server name"),
			Permanent:        rapid.Bool().Draw(t, "permanent"),
		}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zA-Z_][a-zA-Z0-9_]{0,8}`), 0, 5, rapid.ID[string]).Draw(t, "names")
		slices.Sort(names)
		for _, name := range names {
			a.Labels = append(a.Labels, assignment.Label{Name: name, Value: rapid.String().Draw(t, "value")})
		}
		if rapid.Bool().Draw(t, "limited") {
			a.Limits = assignment.Limits{
				MaxBodyBytes: rapid.Int64().Draw(t, "body"), MaxSamples: rapid.Int32().Draw(t, "samples"),
				MaxLabels: rapid.Int32().Draw(t, "labels"), MaxLabelValueBytes: rapid.Int32().Draw(t, "bytes"),
			}
		}
		return a
	})
}

func removals() *rapid.Generator[assignment.Removal] {
	return rapid.Custom(func(t *rapid.T) assignment.Removal {
		return assignment.Removal{
			ProducerID: producerIDs().Draw(t, "producer"),
			Cause:      assignment.Cause(rapid.Int32().Draw(t, "cause")),
			Revision:   revisions().Draw(t, "revision"),
		}
	})
}

func begins() *rapid.Generator[assignment.Frame] {
	return rapid.Custom(func(t *rapid.T) assignment.Frame {
		return &assignment.Begin{
			SnapshotID:         rapid.Uint64().Draw(t, "snapshot"),
			SubscriptionID:     rapid.String().Draw(t, "subscription"),
			Epoch:              epochs().Draw(t, "epoch"),
			Revision:           revisions().Draw(t, "revision"),
			BaseRevision:       revisions().Draw(t, "base"),
			Scope:              assignment.Scope(rapid.Int32().Draw(t, "scope")),
			BucketBits:         rapid.Uint8Range(0, assignment.MaxBucketBits).Draw(t, "bits"),
			ReplacedBuckets:    rapid.SliceOfN(rapid.Uint32(), 0, 5).Draw(t, "buckets"),
			Reason:             rapid.Int32().Draw(t, "reason"),
			ExpectedUpserts:    rapid.Int64().Draw(t, "upserts"),
			HeartbeatInterval:  spans().Draw(t, "heartbeat"),
			AssignmentFormat:   rapid.Int32().Draw(t, "format"),
			RegistryInstanceID: instanceIDs().Draw(t, "registry"),
		}
	})
}

func chunks() *rapid.Generator[assignment.Frame] {
	return rapid.Custom(func(t *rapid.T) assignment.Frame {
		return &assignment.Chunk{
			SnapshotID:  rapid.Uint64().Draw(t, "snapshot"),
			Sequence:    rapid.Uint64().Draw(t, "sequence"),
			Assignments: rapid.SliceOfN(assignments(), 0, 3).Draw(t, "assignments"),
			Removals:    rapid.SliceOfN(removals(), 0, 3).Draw(t, "removals"),
		}
	})
}

func otherFrames() *rapid.Generator[assignment.Frame] {
	return rapid.Custom(func(t *rapid.T) assignment.Frame {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return &assignment.End{
				SnapshotID: rapid.Uint64().Draw(t, "snapshot"),
				Epoch:      epochs().Draw(t, "epoch"),
				Revision:   revisions().Draw(t, "revision"),
				Chunks:     rapid.Uint64().Draw(t, "chunks"),
				Upserts:    rapid.Int64().Draw(t, "upserts"),
				Removals:   rapid.Int64().Draw(t, "removals"),
				SetCount:   rapid.Int64().Draw(t, "count"),
				SetDigest:  digests().Draw(t, "digest"),
			}
		case 1:
			return &assignment.Heartbeat{
				Epoch:                epochs().Draw(t, "epoch"),
				Revision:             revisions().Draw(t, "revision"),
				SetCount:             rapid.Int64().Draw(t, "count"),
				SetDigest:            digests().Draw(t, "digest"),
				AcknowledgedRevision: revisions().Draw(t, "acknowledged"),
				ServerTime:           time.UnixMicro(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "time")),
			}
		case 2:
			return &assignment.GoAway{
				Reason:        rapid.Int32().Draw(t, "reason"),
				Message:       rapid.String().Draw(t, "message"),
				RetryAfterMin: spans().Draw(t, "min"),
				RetryAfterMax: spans().Draw(t, "max"),
			}
		default:
			return &assignment.Unknown{}
		}
	})
}

func frames() *rapid.Generator[assignment.Frame] {
	return rapid.OneOf(begins(), chunks(), otherFrames())
}

func acceptedSets() *rapid.Generator[*assignment.Accepted] {
	return rapid.Custom(func(t *rapid.T) *assignment.Accepted {
		a := &assignment.Accepted{
			Epoch:            epochs().Draw(t, "epoch"),
			Revision:         assignment.Revision(rapid.Int64Min(0).Draw(t, "revision")),
			SetCount:         rapid.Int64Range(0, 1<<31-1).Draw(t, "count"),
			BucketBits:       rapid.Uint8Range(0, 6).Draw(t, "bits"),
			AssignmentFormat: rapid.Int32().Draw(t, "format"),
		}
		a.BucketDigests = rapid.SliceOfN(digests(), 1<<a.BucketBits, 1<<a.BucketBits).Draw(t, "digests")
		for _, d := range a.BucketDigests {
			a.SetDigest += d
		}
		return a
	})
}

func checkSame(t rapid.TB, got, want any) {
	t.Helper()
	if !checkEqual(t, got, want) {
		t.FailNow()
	}
}

// checkEqual is checkSame for a goroutine that is not the test's own.
func checkEqual(t rapid.TB, got, want any) bool {
	t.Helper()
	diff := cmp.Diff(want, got, cmpopts.EquateEmpty())
	if diff != "" {
		t.Errorf("not the same (-want +got):\n%s", diff)
	}
	return diff == ""
}

// overTheWire is what a peer reads of a message.
func overTheWire[M proto.Message](t rapid.TB, m, empty M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("cannot be encoded: %v", err)
	}
	if err := proto.Unmarshal(b, empty); err != nil {
		t.Fatalf("cannot be decoded: %v", err)
	}
	return empty
}

// checkViolations checks that an error is of the type that names the fields,
// and names exactly these.
func checkViolations(t testing.TB, err error, fields ...string) {
	t.Helper()
	if err == nil {
		if len(fields) > 0 {
			t.Errorf("accepted, want %v refused", fields)
		}
		return
	}
	violations, ok := err.(wire.Violations) //nolint:errorlint // the documentation promises this very type
	if !ok {
		t.Fatalf("the error is a %T: %v", err, err)
	}
	var got []string
	for _, v := range violations {
		got = append(got, v.Field)
		if v.Description == "" {
			t.Errorf("%s: nothing is said about it", v.Field)
		}
		if !strings.Contains(err.Error(), v.Field+": "+v.Description) {
			t.Errorf("the error %q lacks %q", err, v.Field)
		}
	}
	if !slices.Equal(got, fields) {
		t.Errorf("fields %q, want %q (%v)", got, fields, err)
	}
}
