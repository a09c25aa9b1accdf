// Package assignment holds the words that the registry and the collector share:
// ids, assignments, sets with their digests, and the frames of the assignment
// stream.
//
// Its invariant: two sets with equal digest and count hold, up to a hash
// collision, the same producers at the same versions in the same roles.
package assignment

import (
	"errors"
	"fmt"
)

type (
	// A ProducerID names a producer: [A-Za-z0-9][A-Za-z0-9._:/-]{0,127}.
	ProducerID string

	// A CollectorID names a collector: [A-Za-z0-9][A-Za-z0-9._-]{0,127}.
	CollectorID string

	// An InstanceID names one process of a producer, collector or registry;
	// another one at each start. Its characters are those of a ProducerID.
	InstanceID string

	// An Epoch names one lineage of the registry's store. Revisions of
	// different epochs are not comparable.
	Epoch string

	// A Revision is a point in the registry's commit order, positive and
	// strictly increasing within an epoch.
	Revision int64

	// A Generation orders the instances of one collector within an epoch: the
	// higher one stands. Positive; zero means none.
	Generation int64
)

// ErrID is wrapped by every error about a malformed id.
var ErrID = errors.New("malformed id")

const maxID = 128

// ParseProducerID checks an id from outside.
func ParseProducerID(s string) (ProducerID, error) {
	return ProducerID(s), checkID(s, "._:/-")
}

// ParseCollectorID checks an id from outside.
func ParseCollectorID(s string) (CollectorID, error) {
	return CollectorID(s), checkID(s, "._-")
}

// ParseInstanceID checks an id from outside.
func ParseInstanceID(s string) (InstanceID, error) {
	return InstanceID(s), checkID(s, "._:/-")
}

// CheckCredential checks the name of a credential that came from outside.
func CheckCredential(s string) error { return checkID(s, "._-") }

func checkID(s, marks string) error {
	if s == "" {
		return fmt.Errorf("%w: empty", ErrID)
	}
	if len(s) > maxID {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrID, len(s), maxID)
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			continue
		}
		if i == 0 {
			return fmt.Errorf("%w: %q must begin with a letter or a digit", ErrID, s)
		}
		if !contains(marks, c) {
			return fmt.Errorf("%w: %q may hold letters, digits and %q only", ErrID, s, marks)
		}
	}
	return nil
}

func contains(s string, c byte) bool {
	for i := range len(s) {
		if s[i] == c {
			return true
		}
	}
	return false
}
