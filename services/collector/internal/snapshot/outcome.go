package snapshot

import "github.com/rollcall-metrics/rollcall/services/internal/assignment"

// assigned ranges over the assignments of the open snapshot, as they came.
func (a *Assembler) assigned(yield func(*assignment.Assignment) bool) {
	for _, frame := range a.frames {
		c, ok := frame.(*assignment.Chunk)
		if !ok {
			continue
		}
		for _, m := range c.Assignments {
			if !yield(m) {
				return
			}
		}
	}
}

// outcome is the count and digest that the set would have.
func (a *Assembler) outcome(s *Sealed) (int, assignment.Digest) {
	set := &a.accepted.Set
	count, digest := set.Len(), set.Digest()
	for _, m := range s.Upserts {
		old, had := set.HashOf(m.ProducerID)
		if !had {
			count++
		}
		digest += assignment.Digest(m.Hash()) - assignment.Digest(old)
	}
	for _, was := range s.Gone {
		old, _ := set.HashOf(was.ProducerID)
		count--
		digest -= assignment.Digest(old)
	}
	return count, digest
}

func (a *Assembler) commit(s *Sealed) {
	set := &a.accepted.Set
	a.accepted.bytes = a.size(s)
	for _, was := range s.Gone {
		set.Remove(was.ProducerID)
	}
	set.Grow(len(s.Upserts))
	for _, m := range s.Upserts {
		set.Put(m)
	}
	a.accepted.Position = s.Position
	a.accepted.Format = a.open.AssignmentFormat
}
