package roster_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

func collector(instances ...roster.Instance) *roster.Collector {
	return &roster.Collector{
		ID: "c1", Instances: instances, IntrospectionEndpoint: "h:1", SoftwareVersion: "v1",
		Labels: []assignment.Label{{Name: "zone", Value: "a"}}, CreateTime: then,
	}
}

var a1, b2, c3, d4, e5 = roster.Instance{ID: "a", Generation: 1}, roster.Instance{ID: "b", Generation: 2},
	roster.Instance{ID: "c", Generation: 3}, roster.Instance{ID: "d", Generation: 4}, roster.Instance{ID: "e", Generation: 5}

func TestRegisterCollector(t *testing.T) {
	created := collector(a1)
	created.CreateTime = now
	moved := collector(a1)
	moved.IntrospectionEndpoint = "h:2"
	for name, test := range map[string]struct {
		before   []roster.Record
		instance assignment.InstanceID
		change   func(*roster.Collector)
		want     *roster.Collector
		expect   assignment.Revision // -1: nothing is written
		refusal  string
	}{
		"new":                           {instance: "a", want: created},
		"same instance":                 {before: []roster.Record{collector(a1)}, instance: "a", want: collector(a1), expect: -1},
		"same instance, other content":  {before: []roster.Record{collector(a1)}, instance: "a", change: func(c *roster.Collector) { c.IntrospectionEndpoint = "h:2" }, want: moved, expect: 10},
		"new instance, next generation": {before: []roster.Record{collector(a1)}, instance: "b", want: collector(a1, b2), expect: 10},
		"fifth instance":                {before: []roster.Record{collector(a1, b2, c3, d4)}, instance: "e", want: collector(b2, c3, d4, e5), expect: 10},
		"older instance":                {before: []roster.Record{collector(a1, b2)}, instance: "a", refusal: roster.ReasonInstanceReplaced},
		"older instance, changed":       {before: []roster.Record{collector(a1, b2)}, instance: "a", change: func(c *roster.Collector) { c.SoftwareVersion = "v2" }, refusal: roster.ReasonInstanceReplaced},
		"leftovers of one are none":     {before: []roster.Record{&roster.Ack{Collector: "c1"}}, instance: "a", want: created},
	} {
		t.Run(name, func(t *testing.T) {
			want := *collector()
			if test.change != nil {
				test.change(&want)
			}
			txn, got, err := viewOf(test.before...).RegisterCollector(want, test.instance, now)
			if test.refusal != "" {
				refused(t, err, roster.Aborted, test.refusal)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("collector (-want +got):\n%s", diff)
			}
			var expect roster.Txn
			if test.expect >= 0 {
				expect = roster.Txn{{Key: roster.CollectorKey("c1"), Expect: test.expect, Record: test.want}}
			}
			if diff := cmp.Diff(expect, txn); diff != "" {
				t.Errorf("transaction (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOpenSession(t *testing.T) {
	with := func(instance assignment.InstanceID, generation assignment.Generation) *roster.Session {
		return &roster.Session{Collector: "c1", SubscriptionID: "s1", Instance: instance, Generation: generation}
	}
	for name, test := range map[string]struct {
		before     []roster.Record
		instance   assignment.InstanceID
		generation assignment.Generation
		expect     assignment.Revision
		class      roster.Class
		refusal    string
	}{
		"first":                      {before: []roster.Record{collector(a1)}, instance: "a", generation: 1},
		"same instance again":        {before: []roster.Record{collector(a1), with("a", 1)}, instance: "a", generation: 1, expect: 11},
		"newer instance takes over":  {before: []roster.Record{collector(a1, b2), with("a", 1)}, instance: "b", generation: 2, expect: 11},
		"older while a newer stands": {before: []roster.Record{collector(a1, b2), with("b", 2)}, instance: "a", generation: 1, class: roster.Aborted, refusal: roster.ReasonSuperseded},
		"unknown collector":          {instance: "a", generation: 1, class: roster.NotFound, refusal: roster.ReasonUnknownCollector},
		"leftovers of a collector":   {before: []roster.Record{with("a", 1)}, instance: "a", generation: 1, class: roster.NotFound, refusal: roster.ReasonUnknownCollector},
		"unknown instance":           {before: []roster.Record{collector(a1)}, instance: "x", generation: 1, class: roster.FailedPrecondition, refusal: roster.ReasonGenerationMismatch},
		"another's generation":       {before: []roster.Record{collector(a1, b2)}, instance: "a", generation: 2, class: roster.FailedPrecondition, refusal: roster.ReasonGenerationMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			s := roster.Session{Collector: "c1", SubscriptionID: "s2", Instance: test.instance, Generation: test.generation, Registry: "r"}
			txn, err := viewOf(test.before...).OpenSession(s)
			if test.refusal != "" {
				refused(t, err, test.class, test.refusal)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := roster.Txn{{Key: roster.SessionKey("c1"), Expect: test.expect, Record: &s, Leased: true}}
			if diff := cmp.Diff(want, txn); diff != "" {
				t.Errorf("transaction (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCloseSessionClosesItsOwnOnly(t *testing.T) {
	v := viewOf(collector(a1), &roster.Session{Collector: "c1", SubscriptionID: "s1"})
	for _, other := range []struct {
		collector    assignment.CollectorID
		subscription string
	}{{"c1", "s2"}, {"c2", "s1"}} {
		if txn := v.CloseSession(other.collector, other.subscription); len(txn) > 0 {
			t.Errorf("closing %v writes %+v", other, txn)
		}
	}
	want := roster.Txn{{Key: roster.SessionKey("c1"), Expect: 11}}
	if diff := cmp.Diff(want, v.CloseSession("c1", "s1")); diff != "" {
		t.Errorf("transaction (-want +got):\n%s", diff)
	}
}

func TestSaveAckKeepsWhatOnlyNewerVersionsKnow(t *testing.T) {
	if txn := viewOf().SaveAck(roster.Ack{Collector: "c1"}); len(txn) > 0 {
		t.Errorf("the acknowledgement of nobody writes %+v", txn)
	}
	ack := roster.Ack{Collector: "c1", Revision: 9}
	want := roster.Txn{{Key: roster.AckKey("c1"), Record: &ack}}
	if diff := cmp.Diff(want, viewOf(collector(a1)).SaveAck(ack)); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	kept := ack
	kept.Extra = roster.Extra("x")
	want = roster.Txn{{Key: roster.AckKey("c1"), Expect: 11, Record: &kept}}
	v := viewOf(collector(a1), &roster.Ack{Collector: "c1", Extra: roster.Extra("x")})
	if diff := cmp.Diff(want, v.SaveAck(ack)); diff != "" {
		t.Errorf("next (-want +got):\n%s", diff)
	}
}

// TestExplain: a held producer is explained only by what the registry knows of
// it in this epoch. A deregistration is for everybody who holds the producer, any
// other end for the collector that had it.
func TestExplain(t *testing.T) {
	v := viewOf(
		&roster.Removed{ID: "old", Cause: assignment.CauseDeregistered, Collector: "c1"},
		&roster.Epoch{Epoch: "e"},
		&roster.Removed{ID: "gone", Cause: assignment.CauseDeregistered, Collector: "c1"},
		&roster.Removed{ID: "others", Cause: assignment.CauseDeregistered, Collector: "c2"},
		&roster.Removed{ID: "others-expired", Cause: assignment.CauseExpired, Collector: "c2"},
		&roster.Removed{ID: "back", Cause: assignment.CauseDeregistered, Collector: "c1"},
		&roster.Producer{ID: "back", Stored: []byte("x"), Collector: "c1"},
		&roster.Producer{ID: "there", Stored: []byte("x"), Collector: "c1"},
	)
	ids := []assignment.ProducerID{"never", "old", "gone", "others", "others-expired", "back", "there"}
	want := []assignment.Removal{
		{ProducerID: "gone", Cause: assignment.CauseDeregistered, Revision: 12},
		{ProducerID: "others", Cause: assignment.CauseDeregistered, Revision: 13},
	}
	if diff := cmp.Diff(want, v.Explain("c1", ids), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("explained (-want +got):\n%s", diff)
	}
}
