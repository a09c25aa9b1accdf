package roster_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// A drainModel is what a collector's drain has to be, by the rules alone.
type drainModel struct {
	newest       assignment.InstanceID
	drains, ends bool // ends: by itself, when another instance registers
}

// TestDrainsEndAsToldForAnyHistory: a drain until the restart ends with the next
// instance, and with nothing else; any other one by Undrain only.
func TestDrainsEndAsToldForAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		record, at := collector(a1), now
		m := drainModel{newest: "a"}
		write := func(txn roster.Txn, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if len(txn) > 0 {
				record = txn[0].Record.(*roster.Collector) //nolint:errcheck // it panics
			}
		}
		drain := func(until bool) {
			at = at.Add(time.Second)
			write(viewOf(record).Drain("c1", roster.Drain{UntilRestart: until}, at))
			m.ends = until && (m.ends || !m.drains)
			m.drains = true
		}
		started := 0
		t.Repeat(map[string]func(*rapid.T){
			"drain":               func(*rapid.T) { drain(false) },
			"drain until restart": func(*rapid.T) { drain(true) },
			"undrain": func(*rapid.T) {
				write(viewOf(record).Undrain("c1"))
				m.drains, m.ends = false, false
			},
			"same instance": func(t *rapid.T) {
				want := *collector()
				want.Zone = rapid.SampledFrom([]string{"", "eu"}).Draw(t, "zone")
				txn, _, err := viewOf(record).RegisterCollector(want, m.newest, at)
				write(txn, err)
			},
			"another instance": func(*rapid.T) {
				started++
				m.newest = assignment.InstanceID(fmt.Sprint("i", started))
				txn, _, err := viewOf(record).RegisterCollector(*collector(), m.newest, at)
				write(txn, err)
				if m.ends {
					m.drains, m.ends = false, false
				}
			},
			"": func(t *rapid.T) {
				if record.Drains() != m.drains || record.DrainsUntilRestart() != m.ends || record.Leaves() != m.drains {
					t.Fatalf("want %+v, got %+v", m, record)
				}
				if record.Drains() == record.DrainTime.IsZero() {
					t.Fatalf("drained since %v: %+v", record.DrainTime, record)
				}
			},
		})
	})
}

// TestDrainOfAnInstanceThatWasReplaced: who asks late drains nobody.
func TestDrainOfAnInstanceThatWasReplaced(t *testing.T) {
	v := viewOf(collector(a1, b2))
	_, err := v.Drain("c1", roster.Drain{UntilRestart: true, Instance: "a"}, now)
	refused(t, err, roster.Aborted, roster.ReasonInstanceReplaced)
	if txn, err := v.Drain("c1", roster.Drain{UntilRestart: true, Instance: "b"}, now); err != nil || len(txn) != 1 {
		t.Errorf("that of the newest: %v, %v", txn, err)
	}
}

// TestDrainThatAnOlderReplicaLeft: one that does not know of such drains keeps the
// drain when another instance registers. It has ended all the same.
func TestDrainThatAnOlderReplicaLeft(t *testing.T) {
	left := collector(a1, b2)
	left.DrainTime, left.DrainInstance = then, "a"
	if left.Leaves() {
		t.Error("it stands")
	}
	txn, err := viewOf(left).Drain("c1", roster.Drain{}, now)
	if err != nil || len(txn) != 1 {
		t.Fatal(txn, err)
	}
	if got := txn[0].Record.(*roster.Collector); !got.DrainTime.Equal(now) || got.DrainsUntilRestart() { //nolint:errcheck // it panics
		t.Errorf("a drain by an operator then: %+v", got)
	}
	txn, err = viewOf(left).Undrain("c1")
	if err != nil || len(txn) != 1 {
		t.Fatal(txn, err)
	}
	if got := txn[0].Record.(*roster.Collector); !got.DrainTime.IsZero() || got.DrainInstance != "" { //nolint:errcheck // it panics
		t.Errorf("undrained then: %+v", got)
	}
}
