package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

func draws() (producerID, collectorID, instanceID *rapid.Generator[string]) {
	producerID = rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}`)
	collectorID = rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._-]{0,127}`)
	return producerID, collectorID, producerID
}

func drawTime(t *rapid.T, name string) time.Time {
	if rapid.Bool().Draw(t, name+" is not set") {
		return time.Time{}
	}
	return time.Unix(rapid.Int64Range(-1e9, 1e11).Draw(t, name), rapid.Int64Range(0, 999_999_999).Draw(t, name)).UTC()
}

func drawExtra(t *rapid.T) roster.Extra {
	var extra roster.Extra
	for range rapid.IntRange(0, 2).Draw(t, "extra fields") {
		number := protowire.Number(rapid.Int32Range(100, 1<<29-1).Draw(t, "number"))
		extra = protowire.AppendTag(extra, number, protowire.BytesType)
		extra = protowire.AppendBytes(extra, rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	}
	return extra
}

func drawInstances(t *rapid.T) []assignment.InstanceID {
	_, _, id := draws()
	var ids []assignment.InstanceID
	for _, s := range rapid.SliceOfN(id, 0, roster.MaxInstances).Draw(t, "instances") {
		ids = append(ids, assignment.InstanceID(s))
	}
	return ids
}

// drawLife draws what a record of this version has.
func drawLife(t *rapid.T) roster.Life {
	if rapid.Bool().Draw(t, "permanent") {
		return roster.Life{Permanent: true}
	}
	return roster.Life{
		Lease:       time.Duration(rapid.Int64Range(1, 1<<60).Draw(t, "lease")),
		ExpireAfter: time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, "expire")),
	}
}

func drawRate(t *rapid.T, label string) float64 {
	return rapid.Float64Range(0, 1e300).Draw(t, label)
}

func drawRecord(t *rapid.T) roster.Record {
	producer, collector, instance := draws()
	natural := rapid.Int64Range(0, 1<<62)
	switch rapid.IntRange(0, 8).Draw(t, "kind") {
	case 0:
		return &roster.Epoch{
			Epoch:      assignment.Epoch(rapid.StringN(1, 40, -1).Draw(t, "epoch")),
			CreateTime: drawTime(t, "create"), Extra: drawExtra(t),
		}
	case 1:
		stored := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "stored")
		return &roster.Producer{
			ID: assignment.ProducerID(producer.Draw(t, "id")), Stored: stored, Version: assignment.VersionOf(stored),
			Instances: roster.InstancesOf(drawInstances(t)...), Collector: assignment.CollectorID(collector.Draw(t, "collector")),
			AssignTime: drawTime(t, "assign"), AssignReason: roster.PlacementReason(rapid.Int32().Draw(t, "reason")),
			HandoffFrom: assignment.CollectorID(collector.Draw(t, "handoff from")),
			MovedFrom:   assignment.CollectorID(collector.Draw(t, "moved from")),
			Life:        drawLife(t), Zone: rapid.String().Draw(t, "zone"), Rate: drawRate(t, "rate"),
			Owner:      roster.Owner(rapid.Uint64().Draw(t, "owner")),
			CreateTime: drawTime(t, "create"), UpdateTime: drawTime(t, "update"), Extra: drawExtra(t),
		}
	case 2:
		return &roster.Collector{
			ID:                    assignment.CollectorID(collector.Draw(t, "id")),
			Instances:             []roster.Instance{{ID: assignment.InstanceID(instance.Draw(t, "instance")), Generation: assignment.Generation(natural.Draw(t, "generation"))}},
			IntrospectionEndpoint: rapid.String().Draw(t, "endpoint"),
			Labels:                []assignment.Label{{Name: rapid.String().Draw(t, "name"), Value: rapid.String().Draw(t, "value")}},
			SoftwareVersion:       rapid.String().Draw(t, "version"), CreateTime: drawTime(t, "create"), Extra: drawExtra(t),
			Capacity: drawRate(t, "capacity"), Zone: rapid.String().Draw(t, "zone"),
			DrainTime: drawTime(t, "drain"), ExpungeTime: drawTime(t, "expunge"),
			DrainInstance: assignment.InstanceID(instance.Draw(t, "drain instance")),
			GoneTimes:     rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Time { return time.Unix(rapid.Int64Range(1, 1<<34).Draw(t, "gone"), 0).UTC() }), 1, 2).Draw(t, "gone times"),
		}
	case 6:
		return &roster.Suspect{
			ID: assignment.ProducerID(producer.Draw(t, "id")), Collector: assignment.CollectorID(collector.Draw(t, "collector")),
			SuspectTime: drawTime(t, "suspect"), RenewTime: drawTime(t, "renew"),
			Reason: rapid.String().Draw(t, "reason"), Extra: drawExtra(t),
		}
	case 7:
		return &roster.Leader{
			Registry:  assignment.InstanceID(instance.Draw(t, "registry")),
			ElectTime: drawTime(t, "elect"), Extra: drawExtra(t),
		}
	case 8:
		return &roster.Expiry{
			Mode: roster.ExpiryMode(rapid.Int32().Draw(t, "mode")), Until: drawTime(t, "until"), Extra: drawExtra(t),
		}
	case 3:
		return &roster.Session{
			Collector:      assignment.CollectorID(collector.Draw(t, "id")),
			SubscriptionID: rapid.String().Draw(t, "subscription"),
			Instance:       assignment.InstanceID(instance.Draw(t, "instance")),
			Generation:     assignment.Generation(natural.Draw(t, "generation")),
			Registry:       assignment.InstanceID(instance.Draw(t, "registry")),
			ConnectTime:    drawTime(t, "connect"), Extra: drawExtra(t),
		}
	case 4:
		ack := &roster.Ack{
			Collector: assignment.CollectorID(collector.Draw(t, "id")),
			Instance:  assignment.InstanceID(instance.Draw(t, "instance")),
			Epoch:     assignment.Epoch(rapid.String().Draw(t, "epoch")),
			Revision:  assignment.Revision(natural.Draw(t, "revision")),
			Held:      rapid.Int64().Draw(t, "held"), Unrunnable: rapid.Int64().Draw(t, "unrunnable"),
			Persisted:   rapid.Bool().Draw(t, "persisted"),
			ReceiveTime: drawTime(t, "receive"), Extra: drawExtra(t),
		}
		if rapid.Bool().Draw(t, "refused") {
			ack.Refusal = &assignment.Refusal{
				Reason: rapid.String().Draw(t, "reason"), Message: rapid.String().Draw(t, "message"),
				ProducerID: assignment.ProducerID(producer.Draw(t, "producer")),
				Revision:   assignment.Revision(natural.Draw(t, "refused revision")),
			}
		}
		return ack
	default:
		return &roster.Removed{
			ID: assignment.ProducerID(producer.Draw(t, "id")), Cause: assignment.Cause(rapid.Int32().Draw(t, "cause")),
			Instances: roster.InstancesOf(drawInstances(t)...), Collector: assignment.CollectorID(collector.Draw(t, "collector")),
			RemoveTime: drawTime(t, "remove"), Extra: drawExtra(t),
		}
	}
}

// TestRecordsComeBack encodes any record and decodes it under its own key.
func TestRecordsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		record := drawRecord(t)
		value, err := store.Encode(record)
		if err != nil {
			t.Fatal(err)
		}
		name, err := store.FormatKey(record.Key())
		if err != nil {
			t.Fatal(err)
		}
		key, known, err := store.ParseKey(name)
		if err != nil || !known || key != record.Key() {
			t.Fatalf("%q is parsed as %v, %t, %v", name, key, known, err)
		}
		back, err := store.Decode(key, value)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record, back); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// FuzzDecode decodes any bytes as every kind of record. What is understood can
// be written again, and is understood as the same.
func FuzzDecode(f *testing.F) {
	keys := []roster.Key{
		{Kind: roster.KindEpoch},
		roster.ProducerKey("a/b"), roster.CollectorKey("a"), roster.SessionKey("a"), roster.AckKey("a"), roster.RemovedKey("a"),
	}
	for i := range keys {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte("\x0a\x01x"))
		f.Add(uint8(i), []byte("\x0a\x01x\x12\x01y\xfa\x3e\x03new"))
		f.Add(uint8(i), []byte("\x0a\x01x\x2a\x08\x08\x80\x80\x80\x80\x80\x80\x20"))
		f.Add(uint8(i), []byte("\xff"))
	}
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		key := keys[int(kind)%len(keys)]
		record, err := store.Decode(key, value)
		if err != nil {
			if !errors.Is(err, store.ErrUndecodable) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		if record.Key() != key {
			t.Fatalf("the record of %v has the key %v", key, record.Key())
		}
		again, err := store.Encode(record)
		if err != nil {
			t.Fatalf("read, but cannot be written: %v", err)
		}
		back, err := store.Decode(key, again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(record, back); diff != "" {
			t.Fatalf("changed by a round trip (-want +got):\n%s", diff)
		}
	})
}

// FuzzParseKey parses any key. A known one is formatted as it was.
func FuzzParseKey(f *testing.F) {
	for _, s := range []string{
		"", "/", "/rollcall/v1/", "/rollcall/v1/epoch", "/rollcall/v1/epoch/", "/rollcall/v1/producers", "/rollcall/v1/producers/",
		"/rollcall/v1/producers/a/b", "/rollcall/v1/producers//", "/rollcall/v1/collectors/a/b", "/rollcall/v1/suspects/a",
		"/rollcall/v1/sessions/a", "/rollcall/v1/acks/a", "/rollcall/v1/removed/a:1/b", "/rollcall/v2/producers/a", "/rollcall/v10",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, known, err := store.ParseKey(s)
		if err != nil {
			if known || !errors.Is(err, store.ErrUndecodable) || !strings.HasPrefix(s, "/rollcall/v1/") {
				t.Fatalf("%q: %t, %v", s, known, err)
			}
			return
		}
		back, err := store.FormatKey(key)
		if known != (err == nil) || known && back != s {
			t.Fatalf("%q is parsed as %v, %t, and formatted as %q, %v", s, key, known, back, err)
		}
	})
}
