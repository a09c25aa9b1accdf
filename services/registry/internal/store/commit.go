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
const maxInFlight = 8

// A job is a Txn that is to be carried out, encoded.
type job struct {
	writes []write
	size   int

	// outcome is where to tell what became of it.
	outcome *roster.Outcome
}

// Commit implements registrar.Store. A Txn may have 120 writes of 1 MiB in all,
// no two of one key; else, as with anything that cannot be encoded, nothing of
// the call is written and the error is ErrInvalid. Txns of one call that share
// a key are carried out in their order. A leased write while HoldLease has no
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
			return job{}, fmt.Errorf("%w: key %q is written twice", ErrInvalid, encoded.key)
		}
		j.writes = append(j.writes, encoded)
		j.size += 3*len(encoded.key) + len(encoded.value) + writeOverhead
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
	encoded := write{key: key, expect: int64(w.Expect)}
	if w.Expect < 0 {
		return write{}, fmt.Errorf("%w: key %q: expected revision %d", ErrInvalid, key, w.Expect)
	}
	if w.Record == nil {
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

// waves splits jobs so that no two in one wave touch the same key, and those
// that do are in waves of their order.
func waves(jobs []job) [][]job {
	var (
		split [][]job
		next  = map[string]int{} // by key: the first wave that is free of it
	)
	for _, j := range jobs {
		wave := 0
		for _, w := range j.writes {
			wave = max(wave, next[w.key])
		}
		for _, w := range j.writes {
			next[w.key] = wave + 1
		}
		if wave == len(split) {
			split = append(split, nil)
		}
		split[wave] = append(split[wave], j)
	}
	return split
}

// packs joins jobs up to the limits of a transaction, in their order.
func packs(jobs []job) [][]job {
	var (
		joined       [][]job
		start        int
		writes, size int
	)
	for i, j := range jobs {
		if i > start && (writes+len(j.writes) > maxWrites || size+j.size > maxBytes) {
			joined = append(joined, jobs[start:i])
			start, writes, size = i, 0, 0
		}
		writes += len(j.writes)
		size += j.size
	}
	return append(joined, jobs[start:])
}

// run carries out the jobs of one wave: those of a pack together if all of them
// find what they expect, else one by one.
func (s *Store) run(ctx context.Context, wave []job) error {
	var (
		mu    sync.Mutex
		alone []job
	)
	together := func(ctx context.Context, pack []job) error {
		committed, err := s.runPack(ctx, pack)
		if err == nil && !committed {
			mu.Lock()
			defer mu.Unlock()
			alone = append(alone, pack...)
		}
		return err
	}
	if err := inFlight(ctx, packs(wave), together); err != nil {
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

// runPack reports whether the jobs are committed, or, if there is only one,
// whether it has its outcome.
func (s *Store) runPack(ctx context.Context, pack []job) (done bool, err error) {
	if len(pack) == 1 {
		return true, s.runAlone(ctx, pack[0])
	}
	var writes []write
	for _, j := range pack {
		writes = append(writes, j.writes...)
	}
	r, err := s.kv.commit(ctx, writes, false)
	if err != nil || !r.committed {
		return false, err
	}
	for _, j := range pack {
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
