package store

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// The limits of one transaction. etcd refuses more than 128 compares or
// operations and 1.5 MiB.
const (
	maxWrites = 120
	maxBytes  = 1 << 20

	// writeOverhead is more than what etcd's encoding adds to a write, its
	// compare and its read: each names the key once.
	writeOverhead = 96
)

// maxInFlight is how many transactions one Commit has under way. etcd writes
// those that wait together to disk together.
const maxInFlight = 32

// A job is a Txn that is to be carried out, encoded.
type job struct {
	writes []write
	size   int

	// outcome is where to tell what became of it.
	outcome *roster.Outcome
}

// Commit implements registrar.Store. A Txn may have 120 writes of 1 MiB in all,
// no two of one key and not only checks; else, as with anything that cannot be
// encoded, nothing of the call is written and the error is ErrInvalid. Txns of
// one call that share a key are carried out in their order, unless all of them
// only check the same of it. A leased write while HoldLease has no
// lease is registrar.ErrLeaseLost. With registrar.ErrFull a call of one Txn has
// written nothing; of a larger one nothing is known.
func (s *Store) Commit(ctx context.Context, txns []roster.Txn) ([]roster.Outcome, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	outcomes := make([]roster.Outcome, len(txns))
	jobs := make([]job, len(txns))
	for i, txn := range txns {
		j, err := s.prepare(txn)
		if err != nil {
			return nil, fmt.Errorf("transaction %d of %d: %w", i+1, len(txns), err)
		}
		j.outcome = &outcomes[i]
		jobs[i] = j
	}
	for _, wave := range waves(jobs) {
		if err := s.run(ctx, wave); err != nil {
			return nil, fmt.Errorf("commit: %w", err)
		}
	}
	return outcomes, nil
}

func (s *Store) prepare(txn roster.Txn) (job, error) {
	if len(txn) == 0 {
		return job{}, fmt.Errorf("%w: it is empty", ErrInvalid)
	}
	if len(txn) > maxWrites {
		return job{}, fmt.Errorf("%w: %d writes, at most %d are allowed", ErrInvalid, len(txn), maxWrites)
	}
	j := job{writes: make([]write, 0, len(txn))}
	for _, w := range txn {
		encoded, err := s.prepareWrite(w)
		if err != nil {
			return job{}, err
		}
		if slices.ContainsFunc(j.writes, func(other write) bool { return other.key == encoded.key }) {
			return job{}, fmt.Errorf("%w: key %q comes twice", ErrInvalid, encoded.key)
		}
		j.writes = append(j.writes, encoded)
		j.size += encoded.size()
	}
	if !slices.ContainsFunc(txn, func(w roster.Write) bool { return !w.Check }) {
		return job{}, fmt.Errorf("%w: it only checks", ErrInvalid)
	}
	if j.size > maxBytes {
		return job{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrInvalid, j.size, maxBytes)
	}
	return j, nil
}

func (s *Store) prepareWrite(w roster.Write) (write, error) {
	key, err := formatKey(w.Key)
	if err != nil {
		return write{}, err
	}
	encoded := write{key: key, expect: int64(w.Expect), check: w.Check}
	switch {
	case w.Expect < 0:
		return write{}, fmt.Errorf("%w: key %q: expected revision %d", ErrInvalid, key, w.Expect)
	case w.Check && (w.Record != nil || w.Leased):
		return write{}, fmt.Errorf("%w: key %q: a check writes nothing", ErrInvalid, key)
	case w.Check:
		return encoded, nil
	case w.Record == nil:
		encoded.delete = true
		return encoded, nil
	}
	if w.Record.Key() != w.Key {
		return write{}, fmt.Errorf("%w: key %q: the record is of kind %d and id %q",
			ErrInvalid, key, w.Record.Key().Kind, w.Record.Key().ID)
	}
	if encoded.value, err = encode(w.Record); err != nil {
		return write{}, err
	}
	if !w.Leased {
		return encoded, nil
	}
	s.mu.Lock()
	encoded.lease = s.lease
	s.mu.Unlock()
	if encoded.lease == 0 {
		return write{}, fmt.Errorf("key %q: %w", key, registrar.ErrLeaseLost)
	}
	return encoded, nil
}

func (w write) size() int { return 3*len(w.key) + len(w.value) + writeOverhead }

// A turn is the waves from first until end in which one key is used alike: by
// the one job that writes it, or by all that check it for the same.
type turn struct {
	first, end int
	check      bool
	expect     int64
}

// next is the turn in which a write comes: this one, if both check the same, or
// the one after it.
func (t turn) next(w write) turn {
	if w.check && t.check && w.expect == t.expect {
		return t
	}
	return turn{first: t.end, check: w.check, expect: w.expect}
}

// waves splits jobs so that no two in one wave touch the same key, but to check
// the same, and those that do are in waves of their order.
func waves(jobs []job) [][]job {
	var (
		split [][]job
		turns = map[string]turn{} // by key: the last
	)
	for _, j := range jobs {
		wave := 0
		for _, w := range j.writes {
			wave = max(wave, turns[w.key].next(w).first)
		}
		for _, w := range j.writes {
			t := turns[w.key].next(w)
			t.end = max(t.end, wave+1)
			turns[w.key] = t
		}
		if wave == len(split) {
			split = append(split, nil)
		}
		split[wave] = append(split[wave], j)
	}
	return split
}

// A bundle is jobs of one wave that go in one transaction, and the writes of all
// of them: what several check is in it once.
type bundle struct {
	jobs    []job
	writes  []write
	size    int
	checked map[string]struct{}
}

// add adds a job, unless the bundle would be too large with it.
func (p *bundle) add(j job) bool {
	repeated := func(w write) bool {
		_, ok := p.checked[w.key]
		return ok && w.check
	}
	writes, size := len(p.writes), p.size
	for _, w := range j.writes {
		if !repeated(w) {
			writes, size = writes+1, size+w.size()
		}
	}
	if len(p.jobs) > 0 && (writes > maxWrites || size > maxBytes) {
		return false
	}
	for _, w := range j.writes {
		if repeated(w) {
			continue
		}
		p.writes = append(p.writes, w)
		if w.check {
			p.checked[w.key] = struct{}{}
		}
	}
	p.jobs, p.size = append(p.jobs, j), size
	return true
}

// bundles joins jobs up to the limits of a transaction, in their order.
func bundles(jobs []job) []*bundle {
	var joined []*bundle
	for _, j := range jobs {
		if last := len(joined) - 1; last >= 0 && joined[last].add(j) {
			continue
		}
		p := &bundle{checked: map[string]struct{}{}}
		p.add(j)
		joined = append(joined, p)
	}
	return joined
}

// run carries out the jobs of one wave: those of a bundle together if all of them
// find what they expect, else one by one.
func (s *Store) run(ctx context.Context, wave []job) error {
	var (
		mu    sync.Mutex
		alone []job
	)
	together := func(ctx context.Context, p *bundle) error {
		committed, err := s.runBundle(ctx, p)
		if err == nil && !committed {
			mu.Lock()
			defer mu.Unlock()
			alone = append(alone, p.jobs...)
		}
		return err
	}
	if err := inFlight(ctx, bundles(wave), together); err != nil {
		return err
	}
	return inFlight(ctx, alone, s.runAlone)
}

// inFlight does all of them, a few at a time, until the first error.
func inFlight[T any](ctx context.Context, all []T, do func(context.Context, T) error) error {
	if len(all) == 1 {
		return do(ctx, all[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxInFlight)
	for _, one := range all {
		group.Go(func() error { return do(ctx, one) })
	}
	return group.Wait()
}

// runBundle reports whether the jobs are committed, or, if there is only one,
// whether it has its outcome.
func (s *Store) runBundle(ctx context.Context, p *bundle) (done bool, err error) {
	if len(p.jobs) == 1 {
		return true, s.runAlone(ctx, p.jobs[0])
	}
	r, err := s.kv.commit(ctx, p.writes, false)
	if err != nil || !r.committed {
		return false, err
	}
	for _, j := range p.jobs {
		*j.outcome = roster.Outcome{Committed: true, Revision: assignment.Revision(r.revision)}
	}
	return true, nil
}

func (s *Store) runAlone(ctx context.Context, j job) error {
	r, err := s.kv.commit(ctx, j.writes, true)
	if err != nil {
		return err
	}
	*j.outcome, err = outcomeOf(r)
	return err
}

func outcomeOf(r result) (roster.Outcome, error) {
	o := roster.Outcome{Committed: r.committed, Revision: assignment.Revision(r.revision)}
	if r.committed {
		return o, nil
	}
	o.Found = make([]roster.Found, len(r.found))
	for i, it := range r.found {
		if it.modified == 0 {
			continue
		}
		found, _, err := readItem(it)
		if err != nil {
			return roster.Outcome{}, err
		}
		o.Found[i] = found
	}
	return o, nil
}
