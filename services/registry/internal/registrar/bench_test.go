package registrar_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// processor is the time that this process has used of all cores. Unlike that of
// a clock it does not count who else is at work.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// measure reports the processor time of each round of work.
func measure(b *testing.B, work func()) {
	b.Helper()
	b.ReportAllocs()
	before := processor(b)
	for b.Loop() {
		work()
	}
	b.ReportMetric(float64((processor(b)-before).Milliseconds())/float64(b.N), "cpu-ms/op")
}

// served is a replica with a fleet, whose producers are all measured.
func served(b *testing.B) *replica {
	b.Helper()
	size := fleetSize(b)
	r := serve(b, fleetStore(b, size).Open(), "r1")
	r.weighFleet(size)
	return r
}

// weighFleet tells what all producers of a fleet yield.
func (r *replica) weighFleet(size int) {
	for c := range fleetCollectors {
		rates := map[assignment.ProducerID]float64{}
		for i := c; i < size; i += fleetCollectors {
			rates[fleetMember(i).ID] = float64(i%1000 + 1)
		}
		r.Weigh(fleetCollector(c), rates)
	}
}

// BenchmarkSumWeights is done by every replica once a minute.
func BenchmarkSumWeights(b *testing.B) {
	r := served(b)
	measure(b, r.SumWeights)
}

// BenchmarkPlan is done by the leader once a minute, if the load is uneven.
func BenchmarkPlan(b *testing.B) {
	r := served(b)
	r.SumWeights()
	measure(b, func() {
		if _, err := r.Plan(registrar.Wish{Rebalance: true, MaxMoves: 1000}); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkLoadView is what a replica does with a whole roster when it starts, but for
// the store's part.
func BenchmarkLoadView(b *testing.B) {
	s := fleetStore(b, fleetSize(b)).Open()
	defer func() { _ = s.Close() }()
	measure(b, func() { loadView(b, s) })
}
