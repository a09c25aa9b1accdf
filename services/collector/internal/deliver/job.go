package deliver

import (
	"slices"
	"time"
)

// A job is entries that are delivered together. One goroutine has it at a time,
// or it waits in Sink.parked.
type job struct {
	entries []*entry // in the order of the log
	samples int
	lanes   laneSet
	seq     uint64 // of the first entry
	extras  bool   // some sample has an Extra

	request Request    // all of it
	parts   []*Request // what is not settled yet, in order
	ended   int        // entries that are
	done    int        // samples that are, of entries that are not

	round    int       // of the pace, when it was sent last
	probe    bool      // it is tried while the receiver is down
	tries    int       // without an answer
	failures int       // those of them that were not for the receiver being down
	spoiled  bool      // its memory is not to be used again
	due      time.Time // when it may be tried again

	// For Sink.chokes.
	choked int  // answers that count, in a row
	takes  int  // of the sink, at the last failure
	chokes bool // it is known to
}

// build copies the entries into one request, once.
func (j *job) build() {
	if len(j.parts) > 0 {
		return
	}
	r := &j.request
	r.Series = j.entries[0].table.series
	r.Items = slices.Grow(r.Items[:0], j.samples)
	for _, e := range j.entries {
		r.Items = append(r.Items, e.items...)
		r.Ends = append(r.Ends, len(r.Items))
	}
	j.parts = append(j.parts, r)
}

// cutRecords puts two requests in the place of the first, cut between two
// records. It answers false when that is one record.
func (j *job) cutRecords() bool {
	r := j.parts[0]
	if len(r.Ends) < 2 {
		return false
	}
	i := middle(r.Ends)
	at := r.Ends[i]
	behind := slices.Clone(r.Ends[i+1:])
	for k := range behind {
		behind[k] -= at
	}
	j.parts = slices.Insert(j.parts[1:], 0,
		&Request{Series: r.Series, Items: r.Items[:at:at], Ends: slices.Clone(r.Ends[:i+1])},
		&Request{Series: r.Series, Items: r.Items[at:], Ends: behind})
	return true
}

// cutSamples is cutRecords for one record, which is cut in its middle. It answers
// false when that is one sample.
func (j *job) cutSamples() bool {
	r := j.parts[0]
	n := len(r.Items)
	if n < 2 {
		return false
	}
	j.parts = slices.Insert(j.parts[1:], 0,
		&Request{Series: r.Series, Items: r.Items[: n/2 : n/2], Ends: []int{n / 2}},
		&Request{Series: r.Series, Items: r.Items[n/2:], Ends: []int{n - n/2}})
	return true
}

// middle is which of several ends, but for the last, is nearest to the half.
func middle(ends []int) int {
	half := ends[len(ends)-1] / 2
	i, _ := slices.BinarySearch(ends, half)
	i = min(i, len(ends)-2)
	if i > 0 && half-ends[i-1] <= ends[i]-half {
		i--
	}
	return i
}

// settled takes the first part off, whose samples are dealt with, and answers
// the entries of which nothing is left.
func (j *job) settled() []*entry {
	j.done += len(j.parts[0].Items)
	j.parts = slices.Delete(j.parts, 0, 1)
	from := j.ended
	for j.ended < len(j.entries) && len(j.entries[j.ended].items) <= j.done {
		j.done -= len(j.entries[j.ended].items)
		j.ended++
	}
	return j.entries[from:j.ended]
}

// reset makes a job as good as new, with its memory.
func (j *job) reset() {
	items, ends, entries, parts := j.request.Items, j.request.Ends, j.entries, j.parts
	if j.extras {
		clear(items) // or what they point to would live on
	}
	clear(entries)
	clear(parts)
	*j = job{entries: entries[:0], parts: parts[:0]}
	j.request.Items, j.request.Ends = items[:0], ends[:0]
}
