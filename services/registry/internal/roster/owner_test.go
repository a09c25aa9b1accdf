package roster_test

import (
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"pgregory.net/rapid"
)

// owners is how many the drawn producers count for; their numbers begin at 1.
const owners = 3

// checkOwned fails unless a view has counted as its producers say.
func checkOwned(t *rapid.T, v *roster.View) {
	want := map[roster.Owner]int{}
	v.Snapshot().Ascend(func(e *roster.Entry) bool {
		want[e.Owner]++
		return true
	})
	want[0] = 0 // nobody
	for owner := range roster.Owner(owners + 1) {
		if v.Owned(owner) != want[owner] {
			t.Fatalf("%d count for %d, want %d", v.Owned(owner), owner, want[owner])
		}
	}
}

// TestWhoItCountsFor: only a change makes a producer count for another one, and
// none makes it count for one for whom as many do as may.
func TestWhoItCountsFor(t *testing.T) {
	const ann, ben = 1, 2
	same := roster.RegisterProducer{ID: "p", Stored: []byte("old"), Same: true, Instance: "a"}
	other := roster.RegisterProducer{ID: "p", Stored: []byte("new"), Instance: "b"}
	by := func(cmd roster.RegisterProducer, owner roster.Owner, full bool) roster.RegisterProducer {
		cmd.Owner, cmd.Limit, cmd.Owned = owner, 5, 4
		if full {
			cmd.Owned = 5
		}
		return cmd
	}
	of := func(owner roster.Owner) *roster.Producer {
		p := standing("a")
		p.Owner = owner
		return p
	}
	gone := &roster.Removed{ID: "p", Instances: roster.InstancesOf("z")}
	for name, test := range map[string]struct {
		before  roster.Record
		cmd     roster.RegisterProducer
		want    roster.Owner
		writes  bool
		refused bool
	}{
		"new":                              {gone, by(other, ann, false), ann, true, false},
		"new, full":                        {gone, by(other, ann, true), 0, false, true},
		"new, without a limit":             {gone, roster.RegisterProducer{ID: "p", Stored: []byte("new"), Owner: ann, Owned: 9}, ann, true, false},
		"new, of nobody":                   {gone, other, 0, true, false},
		"a renewal":                        {of(ann), by(same, ann, false), ann, false, false},
		"a renewal, full":                  {of(ann), by(same, ann, true), ann, false, false},
		"a renewal by another":             {of(ann), by(same, ben, false), ann, false, false},
		"a renewal of an old record":       {of(0), by(same, ann, false), 0, false, false},
		"a change":                         {of(ann), by(other, ann, false), ann, true, false},
		"a change, full":                   {of(ann), by(other, ann, true), ann, true, false},
		"a change by another":              {of(ann), by(other, ben, false), ben, true, false},
		"a change by another who is full":  {of(ann), by(other, ben, true), ann, true, false},
		"a change of an old record":        {of(0), by(other, ann, false), ann, true, false},
		"a change of an old record, full":  {of(0), by(other, ann, true), 0, true, false},
		"a change by nobody, as operators": {of(ann), other, 0, true, false},
	} {
		did, err := viewOf(test.before).Register(test.cmd, leastLoaded, now)
		if test.refused {
			refused(t, err, roster.Exhausted, roster.ReasonProducerQuota)
			continue
		}
		if err != nil || did.Producer.Owner != test.want || len(did.Txn) > 0 != test.writes {
			t.Errorf("%s: it counts for %d, want %d; %d writes, %v", name, did.Producer.Owner, test.want, len(did.Txn), err)
		}
	}
}

// TestOwnerOf: the owner of a name stands in records and must never change.
func TestOwnerOf(t *testing.T) {
	for name, want := range map[string]roster.Owner{
		"":                               0,
		"spiffe://example.org/a":         0x82b77c40cf8cbad9,
		"dns:node-agent.example.org":     0xa35a22a389f97214,
		strings.Repeat("spiffe://x", 99): 0xea75789f59192990,
	} {
		if got := roster.OwnerOf(name); got != want {
			t.Errorf("%.40q: %#x, want %#x", name, got, want)
		}
	}
}
