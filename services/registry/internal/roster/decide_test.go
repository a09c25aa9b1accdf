package roster_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

var (
	then = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now  = then.Add(time.Hour)
)

// refused fails unless err is a refusal of that class and reason.
func refused(t *testing.T, err error, class roster.Class, reason string) {
	t.Helper()
	var e *roster.Error
	if !errors.As(err, &e) || e.Class != class || e.Reason != reason || e.Message == "" {
		t.Fatalf("error %+v, want class %d and reason %s", err, class, reason)
	}
}

func viewOf(records ...roster.Record) *roster.View {
	v := roster.NewView()
	for i, r := range records {
		v.Put(r, assignment.Revision(10+i))
	}
	v.Loaded(assignment.Revision(10 + len(records)))
	return v
}

func standing(instances ...assignment.InstanceID) *roster.Producer {
	return &roster.Producer{
		ID: "p", Stored: []byte("old"), Version: assignment.VersionOf([]byte("old")), Instances: roster.InstancesOf(instances...),
		Collector: "c1", AssignTime: then, AssignReason: roster.PlacementHint, CreateTime: then, UpdateTime: then,
	}
}

func nowhere() roster.Place { return roster.Place{} }

func leastLoaded() roster.Place {
	return roster.Place{Collector: "c2", Reason: roster.PlacementLeastLoaded}
}

type registration struct {
	before  []roster.Record
	cmd     roster.RegisterProducer
	place   func() roster.Place
	want    *roster.Producer // nil: refused
	expect  []roster.Write   // keys and expectations; the first one's record is want
	refusal string
}

var registrations = map[string]registration{
	"new": {
		cmd:   roster.RegisterProducer{Stored: []byte("new"), Instance: "a"},
		place: leastLoaded,
		want: &roster.Producer{
			ID: "p", Stored: []byte("new"), Version: assignment.VersionOf([]byte("new")),
			Instances: roster.InstancesOf("a"), Collector: "c2", AssignTime: now,
			AssignReason: roster.PlacementLeastLoaded, CreateTime: now, UpdateTime: now,
		},
		// That nothing was removed meanwhile is a condition too: else an older
		// read brings back what was deregistered in between.
		expect: []roster.Write{{Key: roster.ProducerKey("p")}, {Key: roster.RemovedKey("p"), Check: true}},
	},
	"new, by hand, nobody to have it": {
		cmd:   roster.RegisterProducer{Stored: []byte("new")},
		place: nowhere,
		want: &roster.Producer{
			ID: "p", Stored: []byte("new"), Version: assignment.VersionOf([]byte("new")), CreateTime: now, UpdateTime: now,
		},
		expect: []roster.Write{{Key: roster.ProducerKey("p")}, {Key: roster.RemovedKey("p"), Check: true}},
	},
	"renewal": {
		before: []roster.Record{standing("a")},
		cmd:    roster.RegisterProducer{Stored: []byte("old"), Same: true, Instance: "a"},
		want:   standing("a"),
	},
	"renewal in other bytes": {
		before: []roster.Record{standing("a")},
		cmd:    roster.RegisterProducer{Stored: []byte("0ld"), Same: true, Instance: "a"},
		want:   standing("a"),
	},
	"renewal by hand": {
		before: []roster.Record{standing("a")},
		cmd:    roster.RegisterProducer{Stored: []byte("old"), Same: true},
		want:   standing("a"),
	},
	"changed content keeps its collector": {
		before: []roster.Record{standing("a")},
		cmd:    roster.RegisterProducer{Stored: []byte("new"), Instance: "a"},
		place:  func() roster.Place { panic("a producer with a collector was placed") },
		want: func() *roster.Producer {
			p := standing("a")
			p.Stored, p.Version, p.UpdateTime = []byte("new"), assignment.VersionOf([]byte("new")), now
			return p
		}(),
		expect: []roster.Write{{Key: roster.ProducerKey("p"), Expect: 10}},
	},
	"newer instance, same content": {
		before: []roster.Record{standing("a")},
		cmd:    roster.RegisterProducer{Stored: []byte("old"), Same: true, Instance: "b"},
		want:   standing("a", "b"),
		expect: []roster.Write{{Key: roster.ProducerKey("p"), Expect: 10}},
	},
	"older instance": {
		before:  []roster.Record{standing("a", "b")},
		cmd:     roster.RegisterProducer{Stored: []byte("old"), Same: true, Instance: "a"},
		refusal: roster.ReasonInstanceReplaced,
	},
	"fifth instance": {
		before: []roster.Record{standing("a", "b", "c", "d")},
		cmd:    roster.RegisterProducer{Stored: []byte("old"), Same: true, Instance: "e"},
		want:   standing("b", "c", "d", "e"),
		expect: []roster.Write{{Key: roster.ProducerKey("p"), Expect: 10}},
	},
	"an orphan is placed when it is written anyway": {
		before: []roster.Record{func() *roster.Producer {
			p := standing("a")
			p.Collector, p.AssignReason, p.AssignTime = "", 0, time.Time{}
			return p
		}()},
		cmd:   roster.RegisterProducer{Stored: []byte("old"), Same: true, Instance: "b"},
		place: leastLoaded,
		want: func() *roster.Producer {
			p := standing("a", "b")
			p.Collector, p.AssignReason, p.AssignTime = "c2", roster.PlacementLeastLoaded, now
			return p
		}(),
		expect: []roster.Write{{Key: roster.ProducerKey("p"), Expect: 10}},
	},
	"deregistered instance": {
		before:  []roster.Record{&roster.Removed{ID: "p", Instances: roster.InstancesOf("a")}},
		cmd:     roster.RegisterProducer{Stored: []byte("old"), Instance: "a"},
		refusal: roster.ReasonInstanceDeregistered,
	},
	"new instance after a deregistration knows the old ones": {
		before: []roster.Record{&roster.Removed{ID: "p", Instances: roster.InstancesOf("a", "b")}},
		cmd:    roster.RegisterProducer{Stored: []byte("new"), Instance: "c"},
		place:  nowhere,
		want: &roster.Producer{
			ID: "p", Stored: []byte("new"), Version: assignment.VersionOf([]byte("new")),
			Instances: roster.InstancesOf("a", "b", "c"), CreateTime: now, UpdateTime: now,
		},
		expect: []roster.Write{{Key: roster.ProducerKey("p")}, {Key: roster.RemovedKey("p"), Expect: 10}},
	},
}

func TestRegister(t *testing.T) {
	for name, test := range registrations {
		t.Run(name, func(t *testing.T) {
			v := viewOf(test.before...)
			cmd := test.cmd
			cmd.ID = "p"
			did, err := v.Register(cmd, test.place, now)
			txn, got := did.Txn, did.Producer
			if test.refusal != "" {
				class := roster.Aborted
				if test.refusal == roster.ReasonInstanceDeregistered {
					class = roster.FailedPrecondition
				}
				refused(t, err, class, test.refusal)
				if len(txn) > 0 {
					t.Errorf("a refused command writes %+v", txn)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("producer (-want +got):\n%s", diff)
			}
			want := roster.Txn(test.expect)
			if did.Changed != (len(want) > 0) {
				t.Errorf("changed: %v, and it expects %d writes", did.Changed, len(want))
			}
			if len(want) > 0 {
				want[0].Record = test.want
			}
			if diff := cmp.Diff(want, txn, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("transaction (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRegisterLeavesTheViewAlone: records are shared with whoever reads the
// view.
func TestRegisterLeavesTheViewAlone(t *testing.T) {
	p := standing("a", "b", "c", "d")
	v := viewOf(p)
	if _, err := v.Register(roster.RegisterProducer{ID: "p", Stored: []byte("new"), Instance: "e"}, nowhere, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(standing("a", "b", "c", "d"), &v.Producer("p").Producer); diff != "" {
		t.Errorf("the view's record changed (-want +got):\n%s", diff)
	}
}

// TestOldInstanceCannotTakeBack: also not by way of a deregistration.
func TestOldInstanceCannotTakeBack(t *testing.T) {
	v := viewOf(standing("a"))
	revision := assignment.Revision(20)
	commit := func(txn roster.Txn, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		revision++
		b := roster.Batch{Revision: revision}
		for _, w := range txn {
			if w.Check {
				continue
			}
			b.Events = append(b.Events, roster.Event{Key: w.Key, Record: w.Record})
		}
		v.Apply(b)
	}
	register := func(instance assignment.InstanceID) (roster.Txn, error) {
		did, err := v.Register(roster.RegisterProducer{ID: "p", Stored: []byte("x"), Instance: instance}, nowhere, now)
		return did.Txn, err
	}
	commit(v.Deregister("p", "a", now))
	commit(register("b"))
	_, err := register("a")
	refused(t, err, roster.Aborted, roster.ReasonInstanceReplaced)
	commit(v.Deregister("p", "b", now))
	for _, old := range []assignment.InstanceID{"a", "b"} {
		_, err = register(old)
		refused(t, err, roster.FailedPrecondition, roster.ReasonInstanceDeregistered)
	}
}

func TestDeregister(t *testing.T) {
	gone := &roster.Removed{
		ID: "p", Cause: assignment.CauseDeregistered, Instances: roster.InstancesOf("a", "b"), Collector: "c1", RemoveTime: now,
	}
	older := &roster.Removed{ID: "p", Cause: assignment.CauseExpired}
	strike := func(expectRemoved assignment.Revision) roster.Txn {
		return roster.Txn{
			{Key: roster.ProducerKey("p"), Expect: 10},
			{Key: roster.RemovedKey("p"), Expect: expectRemoved, Record: gone},
		}
	}
	for name, test := range map[string]struct {
		before   []roster.Record
		instance assignment.InstanceID
		want     roster.Txn
		refusal  string
	}{
		"unknown":                    {instance: "a"},
		"unknown, remembered":        {before: []roster.Record{older}, instance: "a"},
		"by hand":                    {before: []roster.Record{standing("a", "b")}, want: strike(0)},
		"by the newest instance":     {before: []roster.Record{standing("a", "b")}, instance: "b", want: strike(0)},
		"by an older instance":       {before: []roster.Record{standing("a", "b")}, instance: "a", refusal: roster.ReasonInstanceReplaced},
		"by an instance not known":   {before: []roster.Record{standing("a", "b")}, instance: "x", refusal: roster.ReasonInstanceReplaced},
		"over an older removed name": {before: []roster.Record{standing("a", "b"), older}, want: strike(11)},
	} {
		t.Run(name, func(t *testing.T) {
			txn, err := viewOf(test.before...).Deregister("p", test.instance, now)
			if test.refusal != "" {
				refused(t, err, roster.Aborted, test.refusal)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, txn); diff != "" {
				t.Errorf("transaction (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGiveAnOrphan(t *testing.T) {
	p := standing("a")
	p.Collector = ""
	want := standing("a")
	want.Collector, want.AssignReason, want.AssignTime = "c2", roster.PlacementLeastLoaded, now
	txn := roster.Give(&roster.Entry{Producer: *p, Revision: 7}, leastLoaded(), false, now)
	if diff := cmp.Diff(roster.Txn{{Key: p.Key(), Expect: 7, Record: want}}, txn); diff != "" {
		t.Errorf("transaction (-want +got):\n%s", diff)
	}
}
