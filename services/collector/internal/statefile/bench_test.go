package statefile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const fleet = 100_000

func fleetMember(n, version int) *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: assignment.ProducerID(fmt.Sprintf("node-exporter/host-%06d", n)),
		Version:    assignment.Version(version),
		Role:       assignment.RoleOwner,
		Endpoint:   fmt.Sprintf("http://10.%d.%d.%d:9100/metrics", n>>16, n>>8&255, n&255),
		Interval:   15 * time.Second,
		Timeout:    10 * time.Second,
		Labels: []assignment.Label{
			{Name: "datacenter", Value: "eu-west-1"},
			{Name: "instance", Value: fmt.Sprintf("host-%06d", n)},
			{Name: "job", Value: "node-exporter"},
			{Name: "rack", Value: fmt.Sprintf("r%03d", n%400)},
		},
	}
}

func newFleet(b *testing.B) (*roll, *statefile.File, string) {
	b.Helper()
	dir := b.TempDir()
	file, _ := open(b, statefile.Config{Dir: dir, MaxProducers: fleet})
	r := newRoll(b)
	ms := make([]*assignment.Assignment, fleet)
	for n := range ms {
		ms[n] = fleetMember(n, 1)
	}
	if err := file.Append(r.all(ms), r.state); err != nil {
		b.Fatal(err)
	}
	return r, file, dir
}

// BenchmarkAppend appends a change of one producer to a set of 100,000.
func BenchmarkAppend(b *testing.B) {
	r, file, _ := newFleet(b)
	entry := r.change([]*assignment.Assignment{fleetMember(7, 2)})
	b.ReportAllocs()
	for b.Loop() {
		if err := file.Append(entry, r.state); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRewrite writes a set of 100,000 anew.
func BenchmarkRewrite(b *testing.B) {
	r, file, _ := newFleet(b)
	b.ReportAllocs()
	for b.Loop() {
		// An entry that cannot be appended.
		if err := file.Append(statefile.Entry{Frames: []assignment.Frame{&assignment.End{}}}, r.state); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen loads a set of 100,000.
func BenchmarkOpen(b *testing.B) {
	_, file, dir := newFleet(b)
	_ = file.Close()
	info, err := os.Stat(filepath.Join(dir, "set.1"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		file, state := open(b, statefile.Config{Dir: dir, MaxProducers: fleet})
		if state.Accepted.Set.Len() != fleet {
			b.Fatal(state.Accepted.Set.Len())
		}
		_ = file.Close()
	}
	b.ReportMetric(float64(info.Size())/fleet, "B/producer")
}
