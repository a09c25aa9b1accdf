package roster

import (
	"crypto/sha256"
	"encoding/binary"
)

// An Owner is an identity for which producers count: a hash of its name, or zero
// for nobody.
//
// A name may be two thousand bytes long, and would be in the record of each of a
// hundred thousand producers. The hash takes nine bytes there, and none in the view,
// where they fit into what an entry takes anyway. Nobody can look for a name that
// shares the owner of another one: names are what an authority has signed, or what
// the rules give.
type Owner uint64

// OwnerOf is that of an identity's name; an empty one is nobody's.
func OwnerOf(identity string) Owner {
	if identity == "" {
		return 0
	}
	hash := sha256.Sum256([]byte(identity))
	return max(1, Owner(binary.BigEndian.Uint64(hash[:])))
}

// own takes it that a registration which changes the producer makes it count for
// somebody else: a change only, for a renewal writes nothing. If as many count for
// that one as may, it counts for the one before. So a producer that is known is
// never refused, and two who take producers from each other have no more than
// both may.
func (r *Producer) own(cmd RegisterProducer) {
	if !cmd.full() {
		r.Owner = cmd.Owner
	}
}

// full tells whether as many producers count for the owner as may.
func (cmd *RegisterProducer) full() bool {
	return cmd.Owner != 0 && cmd.Limit > 0 && cmd.Owned >= cmd.Limit
}

func overQuota(cmd RegisterProducer) error {
	e := Refuse(Exhausted, ReasonProducerQuota,
		"producer %q: %d producers count for this identity, and no more than %d may; deregister others first", cmd.ID, cmd.Owned, cmd.Limit)
	e.Limit = cmd.Limit
	return e
}

// Owned is how many producers count for an owner; of nobody, none.
func (v *View) Owned(owner Owner) int { return v.owned[owner] }

func (v *View) countOwner(e *Entry, by int) {
	if e == nil || e.Owner == 0 {
		return
	}
	if v.owned[e.Owner] += by; v.owned[e.Owner] == 0 {
		delete(v.owned, e.Owner)
	}
}
