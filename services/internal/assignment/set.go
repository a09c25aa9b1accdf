package assignment

import (
	"iter"
	"maps"
)

// A Member is what a Set holds: *Assignment at the collector, something
// smaller at the registry.
type Member interface {
	// ID is the member's key.
	ID() ProducerID

	// Hash is HashOf the member's id, version and role.
	Hash() Hash
}

// A Set is a set of members keyed by producer id, with its digest kept up to
// date. The zero value is an empty set. It is not safe for concurrent use; its
// owner guards it.
type Set[M Member] struct {
	members map[ProducerID]hashed[M]
	digest  Digest
}

type hashed[M Member] struct {
	member M
	hash   Hash
}

// Len is the number of members.
func (s *Set[M]) Len() int { return len(s.members) }

// Digest is the digest of the whole set.
func (s *Set[M]) Digest() Digest { return s.digest }

// Find returns the member with this id.
func (s *Set[M]) Find(id ProducerID) (M, bool) {
	h, ok := s.members[id]
	return h.member, ok
}

// HashOf returns the hash of the member with this id.
func (s *Set[M]) HashOf(id ProducerID) (Hash, bool) {
	h, ok := s.members[id]
	return h.hash, ok
}

// Grow makes room for that many members where there are none yet.
func (s *Set[M]) Grow(count int) {
	if len(s.members) == 0 && count > 0 {
		s.members = make(map[ProducerID]hashed[M], count)
	}
}

// Put adds a member, or replaces the one with its id.
func (s *Set[M]) Put(m M) {
	if s.members == nil {
		s.members = map[ProducerID]hashed[M]{}
	}
	id, hash := m.ID(), m.Hash()
	s.digest += Digest(hash) - Digest(s.members[id].hash)
	s.members[id] = hashed[M]{m, hash}
}

// Remove takes the member with this id out, and reports whether there was one.
func (s *Set[M]) Remove(id ProducerID) bool {
	h, ok := s.members[id]
	if ok {
		s.digest -= Digest(h.hash)
		delete(s.members, id)
	}
	return ok
}

// All ranges over the members, in no order.
func (s *Set[M]) All() iter.Seq2[ProducerID, M] {
	return func(yield func(ProducerID, M) bool) {
		for id, h := range s.members {
			if !yield(id, h.member) {
				return
			}
		}
	}
}

// Clone returns a set of its own with the same members.
func (s *Set[M]) Clone() *Set[M] {
	return &Set[M]{members: maps.Clone(s.members), digest: s.digest}
}

// BucketDigests computes the digest of each of the 2^bucketBits buckets in one
// pass. bucketBits is at most MaxBucketBits.
func (s *Set[M]) BucketDigests(bucketBits uint8) []Digest {
	digests := make([]Digest, 1<<bucketBits)
	for id, h := range s.members {
		digests[Bucket(id, bucketBits)] += Digest(h.hash)
	}
	return digests
}
