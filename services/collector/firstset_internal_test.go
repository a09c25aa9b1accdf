package collector

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/membership"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
)

// firstSet is how many producers a first set has.
const firstSet = 100_000

// BenchmarkFirstSet takes a set from its encoded frames to what is collected and
// on disk: all that follows the network in a collector that had nothing.
func BenchmarkFirstSet(b *testing.B) {
	frames := encodedSet(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		m, file := emptyMembership(b)
		b.StartTimer()
		for _, encoded := range frames {
			frame, err := wire.UnmarshalFrame(encoded)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := m.Take(b.Context(), frame); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		if n := m.Status().AcceptedCount; n != firstSet {
			b.Fatalf("%d accepted", n)
		}
		_ = file.Close()
		b.StartTimer()
	}
}

// nowhere is where samples go that nobody collects.
type nowhere struct{}

func (nowhere) Write(context.Context, *sample.Batch) error { return nil }

// emptyMembership is a membership as New assembles it, with an empty state file
// and a schedule that does not run.
func emptyMembership(b *testing.B) (*membership.Membership, *statefile.File) {
	b.Helper()
	file, state, err := statefile.Open(statefile.Config{Dir: b.TempDir(), Collector: "bench", MaxProducers: firstSet})
	if err != nil {
		b.Fatal(err)
	}
	scraper := scrape.New(scrape.Config{Sink: nowhere{}})
	collections := schedule.New(schedule.Config{Opener: scraper})
	m := membership.New(membership.Config{
		Log:          stateLog{file},
		Runner:       runner{collections},
		Witness:      witness{collections},
		MaxProducers: firstSet,
		Logger:       slog.New(slog.DiscardHandler),
		Metrics:      membership.NewMetrics(),
	}, membership.State(*state))
	m.Begin()
	return m, file
}

// encodedSet is a snapshot of scope ALL as a registry sends it.
func encodedSet(b *testing.B) []wire.Encoded {
	b.Helper()
	marshal := func(f assignment.Frame) wire.Encoded {
		encoded, err := wire.MarshalFrame(f)
		if err != nil {
			b.Fatal(err)
		}
		return encoded
	}
	frames := []wire.Encoded{marshal(&assignment.Begin{
		SnapshotID: 1, Epoch: "e", Revision: 7, Scope: assignment.ScopeAll, ExpectedUpserts: firstSet,
		AssignmentFormat: assignment.AssignmentFormat,
	})}
	var chunk wire.ChunkWriter
	var set assignment.Set[*assignment.Assignment]
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(firstSet) { // a registry keeps no order
		id := fmt.Sprintf("k%015d", i)
		a := &assignment.Assignment{
			ProducerID: assignment.ProducerID(id),
			Role:       assignment.RoleOwner,
			Endpoint:   "http://127.0.0.1:9/metrics/" + id,
			Interval:   24 * time.Hour,
			Timeout:    time.Second,
			Labels:     []assignment.Label{{Name: "job", Value: "bench"}, {Name: "zone", Value: "here"}},
		}
		stored := wire.EncodeStored(a)
		a.Version = assignment.VersionOf(stored)
		set.Put(a)
		if !chunk.Fits(len(stored)) {
			frames = append(frames, chunk.Finish(1, uint64(len(frames)-1)))
		}
		chunk.Add(stored, a.Version, a.Role)
	}
	frames = append(frames, chunk.Finish(1, uint64(len(frames)-1)))
	return append(frames, marshal(&assignment.End{
		SnapshotID: 1, Epoch: "e", Revision: 7, Chunks: uint64(len(frames) - 1),
		Upserts: firstSet, SetCount: firstSet, SetDigest: set.Digest(),
	}))
}
