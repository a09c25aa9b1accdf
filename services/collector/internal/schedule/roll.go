package schedule

import (
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// chunkFill is how many members a chunk of a roll has at least, together with
// its neighbour; it has at most twice as many.
const chunkFill = 256

// A roll is the applied set in the order of the ids. It is immutable: a reader
// that holds one sees one set, whatever is applied meanwhile. A changed roll
// shares all untouched chunks with the one before, so that a small change of a
// large set is cheap.
type roll struct {
	chunks [][]member // none is empty
	count  int
}

// A member is a producer with what was applied last for it.
type member struct {
	entry    *entry
	assigned *assignment.Assignment
}

// An edit puts a member into a roll, in the place of the one with its id, or
// takes it out.
type edit struct {
	id     assignment.ProducerID
	put    member
	remove bool
}

// find returns the member with this id.
func (r *roll) find(id assignment.ProducerID) (member, bool) {
	c := r.chunk(id)
	if c == len(r.chunks) {
		return member{}, false
	}
	i, ok := slices.BinarySearchFunc(r.chunks[c], id, byID)
	if !ok {
		return member{}, false
	}
	return r.chunks[c][i], true
}

// after ranges over the members behind an id, in the order of the ids.
func (r *roll) after(id assignment.ProducerID) iter.Seq[member] {
	return func(yield func(member) bool) {
		for c := r.chunk(id); c < len(r.chunks); c++ {
			for _, m := range r.chunks[c] {
				if m.entry.id > id && !yield(m) {
					return
				}
			}
		}
	}
}

// chunk is the number of the only chunk that can hold an id.
func (r *roll) chunk(id assignment.ProducerID) int {
	return sort.Search(len(r.chunks), func(i int) bool {
		return r.chunks[i][len(r.chunks[i])-1].entry.id >= id
	})
}

// edited is the roll with edits made. They are sorted by id, one for an id.
func (r *roll) edited(edits []edit) *roll {
	next := &roll{chunks: make([][]member, 0, len(r.chunks)+len(edits)/chunkFill+1)}
	for i, chunk := range r.chunks {
		n := len(edits)
		if i < len(r.chunks)-1 {
			last := chunk[len(chunk)-1].entry.id
			n = sort.Search(len(edits), func(j int) bool { return edits[j].id > last })
		}
		if n > 0 {
			chunk = mergedChunk(chunk, edits[:n])
			edits = edits[n:]
		}
		next.push(chunk)
	}
	if len(edits) > 0 {
		next.push(mergedChunk(nil, edits))
	}
	return next
}

// push adds a chunk of any length at the end: it is split when it is too long,
// and joined to the one before when both are short.
func (r *roll) push(chunk []member) {
	r.count += len(chunk)
	if n := len(r.chunks); n > 0 && len(r.chunks[n-1])+len(chunk) <= chunkFill {
		r.chunks[n-1] = slices.Concat(r.chunks[n-1], chunk)
		return
	}
	if len(chunk) <= 2*chunkFill {
		if len(chunk) > 0 {
			r.chunks = append(r.chunks, chunk)
		}
		return
	}
	for part := range slices.Chunk(chunk, chunkFill) {
		// A copy, or each part would keep the memory of all.
		r.chunks = append(r.chunks, slices.Clone(part))
	}
}

func mergedChunk(old []member, edits []edit) []member {
	merged := make([]member, 0, len(old)+len(edits))
	for _, ed := range edits {
		i, found := slices.BinarySearchFunc(old, ed.id, byID)
		merged = append(merged, old[:i]...)
		old = old[i:]
		if found {
			old = old[1:]
		}
		if !ed.remove {
			merged = append(merged, ed.put)
		}
	}
	return append(merged, old...)
}

func byID(m member, id assignment.ProducerID) int {
	return compareIDs(m.entry.id, id)
}

func compareIDs(a, b assignment.ProducerID) int { return strings.Compare(string(a), string(b)) }
