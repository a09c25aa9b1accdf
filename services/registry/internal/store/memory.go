package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// The operations of a Memory that can be made to fail.
const (
	OpRead      = "read"      // a revision, or a page of a load
	OpCommit    = "commit"    // before anything is written
	OpCommitted = "committed" // it is written, but the answer is lost
	OpWatch     = "watch"     // the begin of a watch
	OpDeliver   = "deliver"   // one response of a watch; an error ends the watch
	OpGrant     = "grant"
	OpKeepAlive = "keepalive"
	OpRevoke    = "revoke"
)

var errRestored = errors.New("the store was restored")

// A Memory is a store server in memory, for tests. It outlives the Stores that
// are opened on it, as etcd does. All of its waiting is durably blocking in the
// sense of testing/synctest, if it was made in the bubble; it needs none.
type Memory struct {
	mu      sync.Mutex // guards what follows
	data    *mvcc
	timers  map[int64]*time.Timer // one of each lease
	changed chan struct{}         // closed and made anew at each change
	epoch   int                   // counts Restore: older watches are cut off
	fail    func(op string) error
}

// NewMemory makes a server without records.
func NewMemory() *Memory {
	return &Memory{data: newMVCC(), timers: map[int64]*time.Timer{}, changed: make(chan struct{})}
}

// Open opens the store as one more process does.
func (m *Memory) Open() *Store { return m.OpenFaulty(nil) }

// OpenFaulty opens the store for a process that has faults of its own, as Fail
// gives them to all. A process that was killed or cut off is one for which
// everything fails.
func (m *Memory) OpenFaulty(fail func(op string) error) *Store {
	c := &memoryClient{server: m, fail: fail}
	return newStore(c, c, func() error { return nil })
}

// Fail has fail asked before each operation of every Store, by the name of the
// operation: an error fails it. It may also wait, as long as the operation's
// context lets it. It is called by many goroutines. Nil: nothing fails.
func (m *Memory) Fail(fail func(op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = fail
}

// Revision is the current one.
func (m *Memory) Revision() assignment.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return assignment.Revision(m.data.revision)
}

// Compact forgets what was before a revision, at most the current one.
func (m *Memory) Compact(at assignment.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data.compact(min(int64(at), m.data.revision))
}

// Get reads the bytes under a key, past all types; nil where nothing stands.
func (m *Memory) Get(key string) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.data.find(key, m.data.revision).value)
}

// Put writes bytes under a key, past all types, as another version or a vandal
// would.
func (m *Memory) Put(key string, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data.apply([]write{{key: key, value: slices.Clone(value)}})
	m.notify()
}

// Delete removes a key, past all types.
func (m *Memory) Delete(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.data.apply([]write{{key: key, delete: true}})
	m.notify()
}

// A MemorySnapshot is a Memory as it was.
type MemorySnapshot struct{ data *mvcc }

// Snapshot copies everything, as a backup does.
func (m *Memory) Snapshot() *MemorySnapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &MemorySnapshot{m.data.clone()}
}

// Restore sets everything back to a snapshot, the revision too. Running watches
// fail. The snapshot's leases live for all of their time again.
func (m *Memory) Restore(snapshot *MemorySnapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	granted := m.data.lastLease
	m.data = snapshot.data.clone()
	// No id is given twice: a process that has lost its lease must not keep
	// another one's alive.
	m.data.lastLease = max(m.data.lastLease, granted)
	m.epoch++
	for lease, timer := range m.timers {
		timer.Stop()
		delete(m.timers, lease)
	}
	for lease := range m.data.leases {
		m.arm(lease)
	}
	m.notify()
}

// notify wakes the watches. The caller holds mu, as for arm.
func (m *Memory) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// arm has the lease end after all of its time.
func (m *Memory) arm(lease int64) {
	if old := m.timers[lease]; old != nil {
		old.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(m.data.leases[lease].ttl, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		// Another timer stands for the lease if this one fired while it was
		// being renewed.
		if m.timers[lease] == timer {
			m.end(lease)
		}
	})
	m.timers[lease] = timer
}

func (m *Memory) end(lease int64) {
	m.timers[lease].Stop()
	delete(m.timers, lease)
	m.data.dropLease(lease)
	m.notify()
}

// A memoryClient is one process's access to a Memory.
type memoryClient struct {
	server *Memory
	fail   func(op string) error
}

// check lets an operation fail. It may wait.
func (c *memoryClient) check(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.server.mu.Lock()
	shared := c.server.fail
	c.server.mu.Unlock()
	for _, fail := range []func(string) error{c.fail, shared} {
		if fail == nil {
			continue
		}
		answer := make(chan error, 1)
		go func() { answer <- fail(op) }()
		select {
		case err := <-answer:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

func (c *memoryClient) revision(ctx context.Context) (int64, error) {
	if err := c.check(ctx, OpRead); err != nil {
		return 0, err
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.server.data.revision, nil
}

func (c *memoryClient) page(ctx context.Context, from, to string, at int64, limit int) (page, error) {
	if err := c.check(ctx, OpRead); err != nil {
		return page{}, err
	}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	p, err := c.server.data.page(from, to, at, limit)
	for i, it := range p.items { // the caller's own, as those of etcd are
		p.items[i].key, p.items[i].value = strings.Clone(it.key), bytes.Clone(it.value)
	}
	return p, err
}

func (c *memoryClient) commit(ctx context.Context, writes []write, read bool) (result, error) {
	if err := c.check(ctx, OpCommit); err != nil {
		return result{}, err
	}
	r, err := c.server.commit(writes, read)
	if err != nil {
		return result{}, err
	}
	return r, c.check(ctx, OpCommitted)
}

func (m *Memory) commit(writes []write, read bool) (result, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data.holds(writes) {
		for _, w := range writes {
			if w.lease != 0 && m.data.leases[w.lease] == nil {
				return result{}, registrar.ErrLeaseLost
			}
		}
		if m.data.apply(writes) {
			m.notify()
		}
		return result{committed: true, revision: m.data.revision}, nil
	}
	r := result{revision: m.data.revision}
	if read {
		for _, w := range writes {
			r.found = append(r.found, m.data.find(w.key, m.data.revision))
		}
	}
	return r, nil
}

func (c *memoryClient) grant(ctx context.Context, ttl time.Duration) (int64, time.Duration, error) {
	if err := c.check(ctx, OpGrant); err != nil {
		return 0, 0, err
	}
	m := c.server
	m.mu.Lock()
	defer m.mu.Unlock()
	lease := m.data.addLease(ttl)
	m.arm(lease)
	return lease, ttl, nil
}

func (c *memoryClient) keepAlive(ctx context.Context, lease int64) error {
	if err := c.check(ctx, OpKeepAlive); err != nil {
		return err
	}
	m := c.server
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data.leases[lease] == nil {
		return registrar.ErrLeaseLost
	}
	m.arm(lease)
	return nil
}

func (c *memoryClient) revoke(ctx context.Context, lease int64) error {
	if err := c.check(ctx, OpRevoke); err != nil {
		return err
	}
	m := c.server
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data.leases[lease] == nil {
		return registrar.ErrLeaseLost
	}
	m.end(lease)
	return nil
}

func (c *memoryClient) watch(ctx context.Context, keyPrefix string, after int64) (*stream, error) {
	if err := c.check(ctx, OpWatch); err != nil {
		return nil, err
	}
	c.server.mu.Lock()
	epoch := c.server.epoch
	c.server.mu.Unlock()
	w := &memoryWatch{
		client: c, prefix: keyPrefix, last: after, epoch: epoch,
		responses: make(chan response), asked: make(chan struct{}, 1),
	}
	go func() {
		defer close(w.responses)
		w.run(ctx)
	}()
	return &stream{responses: w.responses, progress: func() error {
		select {
		case w.asked <- struct{}{}:
		default:
		}
		return nil
	}}, nil
}

// A memoryWatch is one running watch; its fields are its goroutine's.
type memoryWatch struct {
	client    *memoryClient
	prefix    string
	last      int64
	epoch     int
	responses chan response
	asked     chan struct{} // one place: progress is asked for
}

func (w *memoryWatch) run(ctx context.Context) {
	for {
		news, revision, changed, err := w.news()
		for _, r := range news {
			if !w.send(ctx, r) {
				return
			}
		}
		if err != nil {
			w.send(ctx, response{err: err})
			return
		}
		w.last = max(w.last, revision)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-w.asked:
			// As in etcd, a watch of the future has no progress.
			if revision >= w.last && !w.send(ctx, response{revision: revision}) {
				return
			}
		}
	}
}

// news is all that has happened after the last, up to revision, and what is
// closed when more happens.
func (w *memoryWatch) news() (news []response, revision int64, changed <-chan struct{}, err error) {
	m := w.client.server
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.epoch != m.epoch {
		return nil, 0, nil, errRestored
	}
	news, err = m.data.since(w.last, w.prefix)
	return news, m.data.revision, m.changed, err
}

// send reports whether the watch goes on.
func (w *memoryWatch) send(ctx context.Context, r response) bool {
	if r.err == nil {
		if err := w.client.check(ctx, OpDeliver); err != nil {
			r = response{err: err}
		}
	}
	select {
	case w.responses <- r:
		return r.err == nil
	case <-ctx.Done():
		return false
	}
}
