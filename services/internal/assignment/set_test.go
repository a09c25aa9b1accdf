package assignment_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

func producerIDs() *rapid.Generator[assignment.ProducerID] {
	return rapid.Map(rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}`),
		func(s string) assignment.ProducerID { return assignment.ProducerID(s) })
}

// fewIDs are few enough for one to be put, replaced and removed.
func fewIDs() *rapid.Generator[assignment.ProducerID] {
	return rapid.Map(rapid.StringMatching(`[a-f][0-9]?`),
		func(s string) assignment.ProducerID { return assignment.ProducerID(s) })
}

func members(id *rapid.Generator[assignment.ProducerID]) *rapid.Generator[*assignment.Assignment] {
	return rapid.Custom(func(t *rapid.T) *assignment.Assignment {
		return &assignment.Assignment{
			ProducerID: id.Draw(t, "id"),
			Version:    assignment.Version(rapid.Uint64().Draw(t, "version")),
			Role:       assignment.Role(rapid.Uint8Range(0, 3).Draw(t, "role")),
		}
	})
}

type (
	set   = assignment.Set[*assignment.Assignment]
	model = map[assignment.ProducerID]*assignment.Assignment
)

// checkSet compares a set with what it should hold, digests by their
// definition.
func checkSet(t rapid.TB, s *set, want model) {
	t.Helper()
	if got := maps.Collect(s.All()); !maps.Equal(got, want) || s.Len() != len(want) {
		t.Fatalf("members %v (%d), want %v", got, s.Len(), want)
	}
	var digest assignment.Digest
	for id, m := range want {
		hash := memberHash(string(id), uint64(m.Version), uint8(m.Role))
		digest += assignment.Digest(hash)
		if found, ok := s.Find(id); !ok || found != m {
			t.Fatalf("Find(%q) = %v, %v", id, found, ok)
		}
		if h, ok := s.HashOf(id); !ok || h != hash {
			t.Fatalf("HashOf(%q) = %#x, %v, want %#x", id, h, ok, hash)
		}
	}
	if s.Digest() != digest {
		t.Fatalf("digest %#x, want %#x", s.Digest(), digest)
	}
}

// checkBuckets checks the bucket digests for every number of bits.
func checkBuckets(t rapid.TB, s *set, want model) {
	t.Helper()
	for bucketBits := range uint8(assignment.MaxBucketBits + 1) {
		digests := s.BucketDigests(bucketBits)
		if len(digests) != 1<<bucketBits {
			t.Fatalf("%d digests for %d bits", len(digests), bucketBits)
		}
		expected := map[uint64]assignment.Digest{}
		for id, m := range want {
			bucket := xxh64([]byte(id))
			bucket = bucket >> 1 >> (63 - bucketBits)
			expected[bucket] += assignment.Digest(memberHash(string(id), uint64(m.Version), uint8(m.Role)))
		}
		var sum assignment.Digest
		for i, d := range digests {
			sum += d
			if d != expected[uint64(i)] {
				t.Fatalf("bucket %d of %d bits: %#x, want %#x", i, bucketBits, d, expected[uint64(i)])
			}
		}
		if sum != s.Digest() {
			t.Fatalf("the buckets of %d bits sum to %#x, the set's digest is %#x", bucketBits, sum, s.Digest())
		}
	}
}

// A set tells the same whatever way it came about.
func TestSetForgetsItsHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := &set{}, model{}
		type pair struct {
			set  *set
			want model
		}
		var originals []pair
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				m := members(fewIDs()).Draw(t, "member")
				s.Put(m)
				want[m.ProducerID] = m
			},
			"put again": func(*rapid.T) {
				for _, m := range want {
					s.Put(m)
				}
			},
			"remove": func(t *rapid.T) {
				id := fewIDs().Draw(t, "id")
				_, had := want[id]
				if s.Remove(id) != had {
					t.Fatalf("Remove(%q) = %v", id, !had)
				}
				delete(want, id)
			},
			"grow": func(t *rapid.T) { s.Grow(rapid.IntRange(0, 9).Draw(t, "room")) },
			"clone": func(*rapid.T) {
				originals = append(originals, pair{s, maps.Clone(want)})
				s = s.Clone()
			},
			"": func(t *rapid.T) { checkSet(t, s, want) },
		})
		checkBuckets(t, s, want)
		for _, o := range originals {
			checkSet(t, o.set, o.want)
		}
		rebuilt := &set{}
		for _, id := range slices.Sorted(maps.Keys(want)) {
			rebuilt.Put(want[id])
		}
		checkSet(t, rebuilt, want)
		if rebuilt.Digest() != s.Digest() || !slices.Equal(rebuilt.BucketDigests(5), s.BucketDigests(5)) {
			t.Fatal("a set built in order has other digests")
		}
	})
}

func TestSetOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.SliceOfDistinct(members(producerIDs()), (*assignment.Assignment).ID).Draw(t, "members")
		a, b := &set{}, &set{}
		for _, m := range ms {
			a.Put(m)
		}
		for _, m := range rapid.Permutation(ms).Draw(t, "order") {
			b.Put(m)
		}
		if a.Digest() != b.Digest() || a.Len() != b.Len() || !slices.Equal(a.BucketDigests(4), b.BucketDigests(4)) {
			t.Fatal("the order of puts shows")
		}
	})
}

// The package's invariant, as far as chance can tell.
func TestSetsThatDifferHaveOtherDigests(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ms := rapid.SliceOfNDistinct(members(producerIDs()), 1, -1, (*assignment.Assignment).ID).Draw(t, "members")
		a := &set{}
		for _, m := range ms {
			a.Put(m)
		}
		changed := *rapid.SampledFrom(ms).Draw(t, "changed")
		b := a.Clone()
		switch rapid.IntRange(0, 2).Draw(t, "what") {
		case 0:
			changed.Version ^= 1 << rapid.IntRange(0, 63).Draw(t, "bit")
			b.Put(&changed)
		case 1:
			changed.Role++
			b.Put(&changed)
		default:
			b.Remove(changed.ProducerID)
		}
		if a.Digest() == b.Digest() {
			t.Fatal("sets that differ have one digest")
		}
	})
}

func TestZeroSet(t *testing.T) {
	s := &set{}
	checkSet(t, s, model{})
	checkBuckets(t, s, model{})
	if s.Remove("a") {
		t.Error("something was removed from an empty set")
	}
	if _, ok := s.Find("a"); ok {
		t.Error("something was found in an empty set")
	}
	if _, ok := s.HashOf("a"); ok {
		t.Error("something in an empty set has a hash")
	}
	clone := s.Clone()
	clone.Put(&assignment.Assignment{ProducerID: "a"})
	checkSet(t, s, model{})
}

func TestAllCanBeLeft(t *testing.T) {
	s := &set{}
	for _, id := range []assignment.ProducerID{"a", "b", "c"} {
		s.Put(&assignment.Assignment{ProducerID: id})
	}
	n := 0
	for range s.All() {
		n++
		break
	}
	if n != 1 {
		t.Errorf("ranged over %d members", n)
	}
}
