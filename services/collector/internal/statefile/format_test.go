package statefile_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// TestFormatOfNewerVersion tells what must be understood from what need not.
func TestFormatOfNewerVersion(t *testing.T) {
	p := newPast(t)
	openWith := func(change func([]statefile.Record) []statefile.Record) (*statefile.State, error) {
		file := statefile.Join(change(statefile.Records(p.files[p.newest])))
		d := p.disk(map[string][]byte{p.newest: file})
		f, state, err := statefile.Open(statefile.Config{Dir: "state", FS: d, Collector: collectorID, MaxProducers: 10})
		if err == nil && len(f.Recovery().Damage) > 0 {
			t.Errorf("damage: %v", f.Recovery().Damage)
		}
		return state, err
	}
	insert := func(kind byte) func([]statefile.Record) []statefile.Record {
		return func(records []statefile.Record) []statefile.Record {
			return slices.Insert(records, len(records)-1, statefile.Record{Kind: kind, Payload: []byte("news")})
		}
	}
	if state, err := openWith(insert(200)); err != nil || show(state) != p.marks[len(p.marks)-1].shown {
		t.Errorf("a record to be skipped: %v", err)
	}
	if _, err := openWith(insert(100)); !errors.Is(err, statefile.ErrNewerFormat) {
		t.Errorf("a record to be understood: %v", err)
	}
	header := func(version uint16, format int32) func([]statefile.Record) []statefile.Record {
		return func(records []statefile.Record) []statefile.Record {
			records[0].Payload = statefile.HeaderOf(version, 100, format, collectorID)
			return records
		}
	}
	if _, err := openWith(header(2, 1)); !errors.Is(err, statefile.ErrNewerFormat) {
		t.Errorf("another version: %v", err)
	}
	// What an older build has recorded lacks the fields that it did not know,
	// whatever format the registry had sent.
	if state, err := openWith(header(1, 0)); err != nil || state.Accepted.Format != 0 {
		t.Errorf("by an older build: format %d, %v", state.Accepted.Format, err)
	}
	// It asks for everything, then: nothing is resumed in another format.
	if state, err := openWith(header(1, 1)); err != nil || state.Accepted.Set.Len() == 0 ||
		state.Accepted.Describe().AssignmentFormat != 1 || state.Accepted.Describe().AssignmentFormat == assignment.AssignmentFormat {
		t.Errorf("by the build before permanent: %+v, %v", state.Accepted.Describe(), err)
	}
	if state, err := openWith(header(1, 9)); err != nil || state.Accepted.Format != assignment.AssignmentFormat {
		t.Errorf("by a newer build: %v", err)
	}
}

// TestNoFileOfTwoBuilds appends to what a build with another format has
// written: it must not tell about the entries of this one too.
func TestNoFileOfTwoBuilds(t *testing.T) {
	p := newPast(t)
	for _, format := range []int32{0, assignment.AssignmentFormat - 1, 9} {
		records := statefile.Records(p.files[p.newest])
		records[0].Payload = statefile.HeaderOf(1, 100, format, collectorID)
		d := p.disk(map[string][]byte{p.newest: statefile.Join(records)})
		file, state := open(t, statefile.Config{FS: d, Dir: "state"})
		err := file.Append(statefile.Entry{Released: []assignment.ProducerID{"p1"}}, func() statefile.State { return *state })
		if err != nil {
			t.Fatal(err)
		}
		if n := len(d.live[p.newest].data); n != len(p.files[p.newest]) {
			t.Errorf("appended %d bytes to a file of format %d", n-len(p.files[p.newest]), format)
		}
		if g := generation(d.live[p.older()].data); g != 101 {
			t.Errorf("generation %d", g)
		}
	}
}
