package feed_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// versions is a set as a plain map.
type versions map[assignment.ProducerID]assignment.Version

// digest is computed anew, member by member.
func (v versions) digest() assignment.Digest {
	var d assignment.Digest
	for id, version := range v {
		d += assignment.Digest(assignment.HashOf(id, version, assignment.RoleOwner))
	}
	return d
}

// accepted is what a subscriber tells that holds this set.
func (v versions) accepted(bits uint8) *assignment.Accepted {
	a := &assignment.Accepted{
		Epoch: "e", SetCount: int64(len(v)), SetDigest: v.digest(), BucketBits: bits,
		BucketDigests: make([]assignment.Digest, 1<<bits), AssignmentFormat: assignment.AssignmentFormat,
	}
	for id, version := range v {
		a.BucketDigests[assignment.Bucket(id, bits)] += assignment.Digest(assignment.HashOf(id, version, assignment.RoleOwner))
	}
	return a
}

func item(id assignment.ProducerID, version assignment.Version) *feed.Item {
	return &feed.Item{ProducerID: id, Version: version, Role: assignment.RoleOwner, Stored: []byte("stored")}
}

func put(c assignment.CollectorID, id assignment.ProducerID, version assignment.Version) feed.Change {
	return feed.Change{Collector: c, ID: id, Item: item(id, version)}
}

func remove(c assignment.CollectorID, id assignment.ProducerID, cause assignment.Cause) feed.Change {
	return feed.Change{Collector: c, ID: id, Cause: cause}
}

func producer(i int) assignment.ProducerID { return assignment.ProducerID(fmt.Sprintf("p%d", i)) }

// next is the next delivery, which must be a D.
func next[D feed.Delivery](t *testing.T, s *feed.Subscription) D {
	t.Helper()
	d, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, ok := d.(D)
	if !ok {
		t.Fatalf("%T %+v, want a %T", d, d, got)
	}
	return got
}

// A mirror keeps a subscriber's set by the deliveries alone.
type mirror struct {
	sub *feed.Subscription
	set versions
	at  assignment.Revision
}

func follow(f *feed.Feed, r feed.Request) *mirror {
	return &mirror{sub: f.Subscribe(r), set: versions{}}
}

// step takes one delivery and checks it against the set it builds on.
func (m *mirror) step(ctx context.Context) (feed.Delivery, error) {
	d, err := m.sub.Next(ctx)
	if err != nil {
		return nil, err
	}
	switch d := d.(type) {
	case *feed.Snapshot:
		return d, m.snapshot(d)
	case *feed.Beat:
		if d.Revision < m.at {
			return d, fmt.Errorf("a heartbeat at revision %d after %d", d.Revision, m.at)
		}
		m.at = d.Revision
		return d, m.sealed(d.SetCount, d.SetDigest)
	}
	return d, nil
}

func (m *mirror) snapshot(d *feed.Snapshot) error {
	before := maps.Clone(m.set)
	switch d.Scope {
	case assignment.ScopeAll:
		m.set = versions{}
	case assignment.ScopeBuckets:
		m.drop(d)
	case assignment.ScopeChanges:
		if d.Base != m.at || d.Revision < m.at {
			return fmt.Errorf("changes from revision %d to %d for a set of revision %d", d.Base, d.Revision, m.at)
		}
	}
	m.at = d.Revision
	for _, item := range d.Items {
		m.set[item.ProducerID] = item.Version
	}
	if d.Scope != assignment.ScopeChanges && len(d.Removals) > 0 {
		return fmt.Errorf("scope %d with removals", d.Scope)
	}
	for _, r := range d.Removals {
		if _, had := before[r.ProducerID]; !had {
			return fmt.Errorf("the removal of %s, which was never given", r.ProducerID)
		}
		delete(m.set, r.ProducerID)
	}
	return m.sealed(d.SetCount, d.SetDigest)
}

func (m *mirror) drop(d *feed.Snapshot) {
	replaced := map[uint32]bool{}
	for _, b := range d.Replaced {
		replaced[b] = true
	}
	for id := range m.set {
		if replaced[assignment.Bucket(id, d.BucketBits)] {
			delete(m.set, id)
		}
	}
}

func (m *mirror) sealed(count int, digest assignment.Digest) error {
	if len(m.set) != count || m.set.digest() != digest {
		return fmt.Errorf("at revision %d: %d members with digest %x, the feed tells %d with %x",
			m.at, len(m.set), m.set.digest(), count, digest)
	}
	return nil
}
