package wire_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func acknowledgements() *rapid.Generator[*wire.Acknowledgement] {
	return rapid.Custom(func(t *rapid.T) *wire.Acknowledgement {
		a := &wire.Acknowledgement{
			Collector:       collectorIDs().Draw(t, "collector"),
			Instance:        instanceIDs().Draw(t, "instance"),
			Generation:      assignment.Generation(rapid.Int64().Draw(t, "generation")),
			SubscriptionID:  shortTexts().Draw(t, "subscription"),
			SnapshotID:      rapid.Uint64().Draw(t, "snapshot"),
			Epoch:           epochs().Draw(t, "epoch"),
			Revision:        assignment.Revision(rapid.Int64Min(0).Draw(t, "revision")),
			Count:           rapid.Int64Min(0).Draw(t, "count"),
			Digest:          digests().Draw(t, "digest"),
			Persisted:       rapid.Bool().Draw(t, "persisted"),
			HeldCount:       rapid.Int64Min(0).Draw(t, "held count"),
			Held:            rapid.SliceOfN(producerIDs(), 0, 3).Draw(t, "held"),
			Collected:       rapid.SliceOfN(producerIDs(), 0, 3).Draw(t, "collected"),
			UnrunnableCount: rapid.Int64Min(0).Draw(t, "unrunnable count"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "unrunnable") {
			a.Unrunnable = append(a.Unrunnable, wire.Unrunnable{
				ProducerID: producerIDs().Draw(t, "producer"), Reason: shortTexts().Draw(t, "why"),
			})
		}
		if rapid.Bool().Draw(t, "refused") {
			a.Refusal = &assignment.Refusal{
				Reason: shortTexts().Draw(t, "reason"), Message: shortTexts().Draw(t, "message"), Revision: revisions().Draw(t, "of"),
			}
			if rapid.Bool().Draw(t, "about one") {
				a.Refusal.ProducerID = producerIDs().Draw(t, "about")
			}
		}
		return a
	})
}

func TestAcknowledgeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := acknowledgements().Draw(t, "acknowledgement")
		got, err := wire.DecodeAcknowledge(overTheWire(t, wire.EncodeAcknowledge(want), &registryv1.AcknowledgeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		checkSame(t, got, want)
	})
}

// A collector's text is cut, but it stays text: the registry answers it to
// others, and what is not UTF-8 would fail their whole list.
func TestAcknowledgeTextStaysText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Repeat("a", rapid.IntRange(100, 140).Draw(t, "ascii")) + strings.Repeat(rapid.SampledFrom([]string{"ä", "€", "😀"}).Draw(t, "rune"), 20)
		a, err := wire.DecodeAcknowledge(overTheWire(t, &registryv1.AcknowledgeRequest{
			CollectorId: "c", InstanceId: "i", Outcome: registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED,
			SubscriptionId: text, Epoch: text, Refusal: &registryv1.Refusal{Reason: text, Message: text},
			Unrunnable: []*registryv1.UnrunnableAssignment{{ProducerId: "p", Reason: text}},
		}, &registryv1.AcknowledgeRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{a.SubscriptionID, string(a.Epoch), a.Refusal.Reason, a.Refusal.Message, a.Unrunnable[0].Reason} {
			if !utf8.ValidString(s) || len(s) > 131 || !strings.HasPrefix(text, strings.TrimSuffix(s, "...")) {
				t.Fatalf("%q became %q", text, s)
			}
		}
		if _, err := proto.Marshal(&registryv1.Collector{LastRefusal: wire.EncodeRefusal(a.Refusal)}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDecodeAcknowledge(t *testing.T) {
	ids := func(n int) []string { return slices.Repeat([]string{"p"}, n) }
	unrunnable := func(n int) []*registryv1.UnrunnableAssignment {
		return slices.Repeat([]*registryv1.UnrunnableAssignment{{ProducerId: "p"}}, n)
	}
	refused := registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_REFUSED
	for _, tc := range []struct {
		name   string
		change func(*registryv1.AcknowledgeRequest)
		fields []string
	}{
		{"nothing odd", func(*registryv1.AcknowledgeRequest) {}, nil},
		{"no collector", func(m *registryv1.AcknowledgeRequest) { m.CollectorId = "" }, []string{"collector_id"}},
		{"a bad collector", func(m *registryv1.AcknowledgeRequest) { m.CollectorId = "a:b" }, []string{"collector_id"}},
		{"no instance", func(m *registryv1.AcknowledgeRequest) { m.InstanceId = "" }, []string{"instance_id"}},
		{"a bad instance", func(m *registryv1.AcknowledgeRequest) { m.InstanceId = "a\n" }, []string{"instance_id"}},
		{"a negative revision", func(m *registryv1.AcknowledgeRequest) { m.Revision = -1 }, []string{"revision"}},
		{"a negative count", func(m *registryv1.AcknowledgeRequest) { m.AcceptedCount = math.MinInt64 }, []string{"accepted_count"}},
		{"negative held", func(m *registryv1.AcknowledgeRequest) { m.HeldCount = -1 }, []string{"held_count"}},
		{"negative unrunnable", func(m *registryv1.AcknowledgeRequest) { m.UnrunnableCount = -1 }, []string{"unrunnable_count"}},
		{"no outcome", func(m *registryv1.AcknowledgeRequest) { m.Outcome = 0 }, []string{"outcome"}},
		{"an unknown outcome", func(m *registryv1.AcknowledgeRequest) { m.Outcome = 3 }, []string{"outcome"}},
		{"a refusal without a word", func(m *registryv1.AcknowledgeRequest) { m.Outcome = refused }, nil},
		{"a refusal about an odd producer", func(m *registryv1.AcknowledgeRequest) {
			m.Outcome, m.Refusal = refused, &registryv1.Refusal{ProducerId: "a b"}
		}, []string{"refusal.producer_id"}},
		{"1,000 held", func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = ids(1000) }, nil},
		{"1,001 held", func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = ids(1001) }, []string{"held_producer_ids"}},
		{"a bad one held", func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = append(ids(3), "") }, []string{"held_producer_ids[3]"}},
		{"1,000 collected", func(m *registryv1.AcknowledgeRequest) { m.CollectedProducerIds = ids(1000) }, nil},
		{"1,001 collected", func(m *registryv1.AcknowledgeRequest) { m.CollectedProducerIds = ids(1001) }, []string{"collected_producer_ids"}},
		{"a bad one collected", func(m *registryv1.AcknowledgeRequest) { m.CollectedProducerIds = append(ids(3), "a b") }, []string{"collected_producer_ids[3]"}},
		{"all held are bad", func(m *registryv1.AcknowledgeRequest) { m.HeldProducerIds = make([]string, 1000) }, []string{"held_producer_ids[0]"}},
		{"1,000 unrunnable", func(m *registryv1.AcknowledgeRequest) { m.Unrunnable = unrunnable(1000) }, nil},
		{"1,001 unrunnable", func(m *registryv1.AcknowledgeRequest) { m.Unrunnable = unrunnable(1001) }, []string{"unrunnable"}},
		{"a bad one unrunnable", func(m *registryv1.AcknowledgeRequest) {
			m.Unrunnable = append(unrunnable(2), &registryv1.UnrunnableAssignment{ProducerId: "a b"})
		}, []string{"unrunnable[2].producer_id"}},
		{"an unrunnable that is nil", func(m *registryv1.AcknowledgeRequest) {
			m.Unrunnable = []*registryv1.UnrunnableAssignment{nil, nil}
		}, []string{"unrunnable[0].producer_id"}},
		{"everything wrong", func(m *registryv1.AcknowledgeRequest) {
			m.CollectorId, m.InstanceId, m.Outcome = "", "", 9
			m.Revision, m.AcceptedCount, m.HeldCount, m.UnrunnableCount = -1, -1, -1, -1
			m.HeldProducerIds, m.CollectedProducerIds, m.Unrunnable = []string{"-"}, []string{"-"}, unrunnable(1001)
		}, []string{
			"collector_id", "instance_id", "revision", "accepted_count", "held_count", "unrunnable_count", "outcome",
			"held_producer_ids[0]", "collected_producer_ids[0]", "unrunnable",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := &registryv1.AcknowledgeRequest{
				CollectorId: "c", InstanceId: "i", Generation: 1, Epoch: "e", Revision: 3,
				Outcome: registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED,
			}
			tc.change(m)
			_, err := wire.DecodeAcknowledge(m)
			checkViolations(t, err, tc.fields...)
		})
	}
	_, err := wire.DecodeAcknowledge(nil)
	checkViolations(t, err, "collector_id", "instance_id", "outcome")
}
