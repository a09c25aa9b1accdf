package bench

import (
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	storev1 "github.com/rollcall-metrics/rollcall/gen/rollcall/store/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// millionRecord is the record that the registry keeps of a millionMember.
func millionRecord(i int) (id, value string) {
	p := millionMember(i)
	stored := encoded(&registryv1.Assignment{
		ProducerId: p.GetProducerId(), Endpoint: p.GetEndpoint(), Labels: p.GetLabels(),
		Interval: durationpb.New(15 * time.Second), Timeout: durationpb.New(10 * time.Second),
	})
	now := timestamppb.Now()
	return p.GetProducerId(), string(encoded(&storev1.ProducerRecord{
		Assignment: stored, InstanceIds: []string{p.GetInstanceId()}, CollectorId: p.GetLastCollectorId(),
		AssignTime: now, AssignReason: int32(registryv1.PlacementReason_PLACEMENT_REASON_HINT), CreateTime: now, UpdateTime: now,
		LeaseDuration: durationpb.New(10 * time.Minute), ExpireAfter: durationpb.New(time.Hour), Zone: p.GetZone(),
	}))
}

func encoded(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // no text of ours is invalid UTF-8
	}
	return b
}

// awaitReady waits until a registry says that it serves.
func (s *server) awaitReady(b *testing.B) {
	b.Helper()
	for {
		resp, err := s.ask("/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// awaitQuiet waits until the registry has nothing more to write by itself, such as
// who leads.
func (s *server) awaitQuiet(b *testing.B) {
	b.Helper()
	for before := -1.0; ; time.Sleep(3 * time.Second) {
		revision := s.gauge(b, "rollcall_registry_view_revision")
		if revision == before {
			return
		}
		before = revision
	}
}

// commits is how many transactions the registry has tried.
func (s *server) commits(b *testing.B) float64 {
	b.Helper()
	sum := 0.0
	for name, value := range s.metrics(b) {
		if strings.HasPrefix(name, "rollcall_registry_commits_total{") {
			sum += value
		}
	}
	return sum
}

// dialCounted is a connection of its own, whose bytes are counted.
func dialCounted(b *testing.B, address string, received *counter) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(received.dial))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

// diskUsage is what the files below a directory take, in MiB.
func diskUsage(b *testing.B, dir string) float64 {
	b.Helper()
	sum := int64(0)
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return float64(sum) / (1 << 20)
}

// loadAverage is that of one, five and fifteen minutes.
func loadAverage(b *testing.B) string {
	b.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
