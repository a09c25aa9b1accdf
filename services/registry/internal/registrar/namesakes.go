package registrar

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/google/btree"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// Marks are what two producers should not have in common.
type Marks struct {
	// Series are the labels that every series of a producer has in the end, `job`
	// and `instance` included. Those of equal ones cannot be told apart.
	Series string

	// Address is the host and port at which it answers.
	Address string
}

// namesakes know which producers have a mark in common. They follow the view, by
// change; whoever owns the view guards them.
//
// There may be a million producers, and hardly any of them has a namesake. So
// all that is kept of one is a pointer and, for each of its marks, its number by
// a hash of 32 bits: 35 to 48 bytes in all, by how full the maps are, where the
// rest of it takes a thousand. The marks themselves are made anew
// from the record whenever they are needed. Hashes that meet are no conflict:
// those who share one are set beside each other by the marks themselves. Nobody
// can choose the labels so that hashes meet: they are seeded.
type namesakes struct {
	marksOf func(stored []byte) Marks // nil: there are no marks
	hash    func(mark string) uint32

	// entries are the producers by number. That of number 0 is none: it is to be
	// compared with.
	entries []*roster.Entry
	unused  []uint32
	nodes   *btree.FreeListG[uint32]

	series, addresses sharing
}

// sharing finds those who have one of the two marks in common.
type sharing struct {
	of func(Marks) string

	// alone are the numbers of those whose hash nobody else has, parties those
	// who are not alone, by their hash.
	alone   map[uint32]uint32
	parties map[uint32][]*party

	// count is how many producers have the same mark as another one.
	count int
}

// A party are the producers with one mark, by number, in the order of their ids.
type party struct {
	mark    string
	members *btree.BTreeG[uint32]
}

func newNamesakes(marksOf func([]byte) Marks) *namesakes {
	of := func(mark func(Marks) string) sharing {
		return sharing{of: mark, alone: map[uint32]uint32{}, parties: map[uint32][]*party{}}
	}
	seed := maphash.MakeSeed()
	return &namesakes{
		marksOf: marksOf,
		hash:    func(mark string) uint32 { return uint32(maphash.String(seed, mark)) },
		entries: []*roster.Entry{{}}, nodes: btree.NewFreeListG[uint32](btree.DefaultFreeListSize),
		series:    of(func(m Marks) string { return m.Series }),
		addresses: of(func(m Marks) string { return m.Address }),
	}
}

// marks are those of a producer; of none, none.
func (n *namesakes) marks(e *roster.Entry) Marks {
	if e == nil || n.marksOf == nil {
		return Marks{}
	}
	return n.marksOf(e.Stored)
}

// change takes it that the view has next where it had old; nil is no producer.
func (n *namesakes) change(old, next *roster.Entry) {
	was := n.marks(old)
	is := was
	if old == nil || next == nil || old.Version != next.Version { // else it was only moved
		is = n.marks(next)
	}
	at := n.numberOf(old, was)
	if at == 0 {
		if is == (Marks{}) {
			return
		}
		at = n.number(next)
	}
	for _, s := range []*sharing{&n.series, &n.addresses} {
		if s.of(was) != s.of(is) {
			n.remove(s, s.of(was), at)
			n.add(s, s.of(is), at)
		}
	}
	n.entries[at] = next
	if is == (Marks{}) {
		n.entries[at] = nil
		n.unused = append(n.unused, at)
	}
}

// number gives a producer a number.
func (n *namesakes) number(e *roster.Entry) uint32 {
	if last := len(n.unused) - 1; last >= 0 {
		at := n.unused[last]
		n.unused = n.unused[:last]
		n.entries[at] = e
		return at
	}
	n.entries = append(n.entries, e)
	return uint32(len(n.entries) - 1)
}

// numberOf finds the number of a producer with these marks; 0: it has none.
func (n *namesakes) numberOf(e *roster.Entry, marks Marks) uint32 {
	for _, s := range []*sharing{&n.series, &n.addresses} {
		if s.of(marks) == "" {
			continue
		}
		p, alone := n.find(s, s.of(marks))
		if p == nil {
			return alone
		}
		n.entries[0] = e
		at, _ := p.members.Get(0)
		return at
	}
	return 0
}

// find finds those with a mark: a party, the number of the one who may be alone
// with it, or nobody.
func (n *namesakes) find(s *sharing, mark string) (p *party, alone uint32) {
	h := n.hash(mark)
	for _, p := range s.parties[h] {
		if p.mark == mark {
			return p, 0
		}
	}
	return nil, s.alone[h]
}

// add notes that a producer has a mark; an empty one is none.
func (n *namesakes) add(s *sharing, mark string, at uint32) {
	if mark == "" {
		return
	}
	h := n.hash(mark)
	if s.parties[h] == nil {
		other, met := s.alone[h]
		if !met {
			s.alone[h] = at
			return
		}
		delete(s.alone, h)
		s.parties[h] = []*party{n.party(s.of(n.marks(n.entries[other])), other)}
	}
	for _, p := range s.parties[h] {
		if p.mark == mark {
			p.members.ReplaceOrInsert(at)
			s.count += grown(p.members.Len())
			return
		}
	}
	s.parties[h] = append(s.parties[h], n.party(mark, at))
}

// grown is by how many there are more in conflict when a party has come to so
// many: the first two are so at once.
func grown(members int) int {
	if members == 2 {
		return 2
	}
	return 1
}

func (n *namesakes) party(mark string, first uint32) *party {
	p := &party{mark, btree.NewWithFreeListG(32, func(a, b uint32) bool { return n.entries[a].ID < n.entries[b].ID }, n.nodes)}
	p.members.ReplaceOrInsert(first)
	return p
}

// remove undoes add.
func (n *namesakes) remove(s *sharing, mark string, at uint32) {
	if mark == "" {
		return
	}
	h := n.hash(mark)
	p, alone := n.find(s, mark)
	if p == nil {
		if alone == at {
			delete(s.alone, h)
		}
		return
	}
	if was := p.members.Len(); was > 1 {
		s.count -= grown(was)
	}
	p.members.Delete(at)
	if p.members.Len() == 0 {
		s.parties[h] = slices.DeleteFunc(s.parties[h], func(other *party) bool { return other == p })
	}
	if left := s.parties[h]; len(left) == 1 && left[0].members.Len() == 1 {
		s.alone[h], _ = left[0].members.Min()
		delete(s.parties, h)
	}
}

// others are the ids of some other producers with the mark, the first ones of
// them, up to so many.
func (n *namesakes) others(s *sharing, mark string, id assignment.ProducerID, most int) []assignment.ProducerID {
	if mark == "" {
		return nil
	}
	p, alone := n.find(s, mark)
	if p == nil {
		if e := n.entries[alone]; alone != 0 && e.ID != id && s.of(n.marks(e)) == mark {
			return []assignment.ProducerID{e.ID}
		}
		return nil
	}
	var some []assignment.ProducerID
	p.members.Ascend(func(at uint32) bool {
		if e := n.entries[at]; e.ID != id {
			some = append(some, e.ID)
		}
		return len(some) < most
	})
	return some
}

// maxParty is how many of a party are looked at: more than that at one address
// are behind something that answers for all of them.
const maxParty = 1000

// newest is when the newest of a party was registered first.
func (n *namesakes) newest(p *party) time.Time {
	var newest time.Time
	n.look(p, func(e *roster.Entry) bool {
		if e.CreateTime.After(newest) {
			newest = e.CreateTime
		}
		return true
	})
	return newest
}

// look calls yield with the first ones of a party.
func (n *namesakes) look(p *party, yield func(*roster.Entry) bool) {
	looked := 0
	p.members.Ascend(func(at uint32) bool {
		looked++
		return looked <= maxParty && yield(n.entries[at])
	})
}
