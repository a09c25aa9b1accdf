package bench

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// BenchmarkMillionRecord is no measure: it fails unless the peer of
// BenchmarkMillion is given what the registry writes, but for the times.
func BenchmarkMillionRecord(b *testing.B) {
	const member = 42
	dir := b.TempDir()
	s := startIn(b, "registry", dir)
	enlist(b, s, millionCollector(member))
	client := registryv1.NewProducerServiceClient(s.client(b))
	if _, err := client.RegisterProducer(b.Context(), &registryv1.RegisterProducerRequest{Producer: millionMember(member)}); err != nil {
		b.Fatal(err)
	}
	s.stop()
	id, ours := millionRecord(member)
	written := storedUnder(b, dir, "/rollcall/v1/producers/"+id)
	if len(written) == 0 {
		b.Fatal("nothing is stored")
	}
	var got, want storev1.ProducerRecord
	if err := proto.Unmarshal(written, &got); err != nil {
		b.Fatal(err)
	}
	if err := proto.Unmarshal([]byte(ours), &want); err != nil {
		b.Fatal(err)
	}
	times := protocmp.IgnoreFields(&storev1.ProducerRecord{}, "assign_time", "create_time", "update_time")
	if diff := cmp.Diff(&want, &got, protocmp.Transform(), times); diff != "" {
		b.Errorf("record (-peer's +registry's):\n%s", diff)
	}
	b.ReportMetric(float64(len(written)), "registry-B")
	b.ReportMetric(float64(len(ours)), "peer-B")
	b.ReportMetric(0, "ns/op")
}

// storedUnder is the last value under a key of a store that is closed.
func storedUnder(b *testing.B, dir, key string) (value []byte) {
	b.Helper()
	db, err := bolt.Open(filepath.Join(dir, "member", "snap", "db"), 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(_, v []byte) error {
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(v, &kv); err != nil {
				return err
			}
			if string(kv.GetKey()) == key {
				value = kv.GetValue()
			}
			return nil
		})
	})
	if err != nil {
		b.Fatal(err)
	}
	return value
}
