// Package schedule runs the collections of the applied set, each on its own grid
// of absolute time.
//
// Its invariant: every applied producer that can be run here has exactly one
// collection, which does one thing at a time; it is left only by its removal,
// and its due times do not drift, whatever the collections do.
package schedule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// What a Config has where it says nothing.
const (
	DefaultConcurrency = 1024
	DefaultStartRate   = 5000
)

// stepTolerance is how far the wall clock may be from the monotonic one before
// the due times are derived anew; stepCheck is how often that is looked at.
const (
	stepTolerance = time.Second
	stepCheck     = time.Second
)

// A Config is what a schedule is made of. Only Opener is required.
type Config struct {
	Opener Opener

	// Concurrency bounds the collections that run at one time, the ends of
	// removed ones included. Default 1024.
	Concurrency int

	// StartRate bounds the first collections in a second, with a burst of
	// Concurrency: a restart must not be a burst of new connections. Default
	// 5,000.
	StartRate int

	// StopGrace is how long collections that run when Run is to end may go on.
	// Default 0: they are cancelled at once.
	StopGrace time.Duration

	// Metrics are counted in; the caller registers them.
	Metrics *Metrics

	// Panicked is told when an Opener or a Collection panicked, with the stack
	// of that goroutine. It may be called by several goroutines at a time, and
	// must not call the schedule.
	Panicked func(id assignment.ProducerID, value any, stack []byte)

	// TargetCollected is told when Collected has one more. It is called with the
	// schedule's locks held: it must not wait, and must not call the schedule.
	TargetCollected func()

	// Now is the wall clock, for tests of clock steps. Due times run on the
	// monotonic clock all the same.
	Now func() time.Time
}

// A Schedule is the applied set and its collections. All methods may be called
// by any goroutine.
type Schedule struct {
	opener      Opener
	concurrency int
	stopGrace   time.Duration
	metrics     *Metrics
	panicked    func(id assignment.ProducerID, value any, stack []byte)
	now         func() time.Time

	targetCollected func()

	base time.Time     // the monotonic clock's zero
	kick chan struct{} // something can be started or is due earlier

	// applying makes one of several changes at a time. It is taken before mu.
	applying sync.Mutex

	// applied is written with mu held: who holds a roll and then takes mu sees
	// its entries as that roll left them, or later.
	applied atomic.Pointer[roll]

	mu sync.Mutex // guards what follows, and the entries

	// wall is the Unix time of base, so that wall + monotonic time is the
	// schedule's clock. It moves only when the wall clock steps.
	wall time.Duration

	// launch is start with a context of Run's: a collection ends with Run, not with
	// whoever asked for it. It is nil before Run and after.
	launch  func(e *entry, stamp int64, done chan<- Result)
	began   bool
	stopped bool
	running sync.WaitGroup
	spare   []chan func() // workers with nothing to do, the last one first

	due    dueHeap // every entry with a collection that is not gone
	ready  queue   // waiting for room
	firsts queue   // waiting for room and for the rate
	ends   queue   // removed, and End not begun
	rate   rate    // of firsts
	busy   int     // at most concurrency

	// ending has the producers with a removed collection that has not ended.
	ending     map[assignment.ProducerID]ending
	unrunnable map[assignment.ProducerID]unrunnable
	collected  line // targets of handoffs that have been collected
}

// An ending is what is known of a producer with removed collections that have not
// ended: none may begin before they have.
type ending struct {
	entry     *entry // the one that collected; the others were removed before they could
	open      int    // how many have not ended
	successor *entry // applied now, in the state blocked; nil for none
}

// An unrunnable is an applied assignment that cannot be run, and why.
type unrunnable struct {
	assigned *assignment.Assignment
	reason   string
}

// New makes a schedule with nothing applied. It collects nothing before Run.
func New(cfg Config) *Schedule {
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if cfg.StartRate <= 0 {
		cfg.StartRate = DefaultStartRate
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics()
	}
	if cfg.Panicked == nil {
		cfg.Panicked = func(assignment.ProducerID, any, []byte) {}
	}
	if cfg.TargetCollected == nil {
		cfg.TargetCollected = func() {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Schedule{
		opener:      cfg.Opener,
		concurrency: cfg.Concurrency,
		stopGrace:   cfg.StopGrace,
		metrics:     cfg.Metrics,
		panicked:    cfg.Panicked,
		now:         cfg.Now,
		base:        time.Now(),
		kick:        make(chan struct{}, 1),
		rate:        newRate(cfg.StartRate, cfg.Concurrency),
		ending:      map[assignment.ProducerID]ending{},
		unrunnable:  map[assignment.ProducerID]unrunnable{},

		targetCollected: cfg.TargetCollected,
	}
	s.applied.Store(&roll{})
	s.wall = s.wallNow() - s.elapsed()
	return s
}

// Run collects until ctx ends. Then it starts nothing more, lets the collections
// that run go on for the StopGrace, cancels those that are left, waits for them,
// and ends every collection: those removed before as their removal said, all
// others without stale markers. It returns nil, or an error at once when it was
// called before. What is applied afterwards is ignored.
func (s *Schedule) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.begin(work); err != nil {
		return err
	}
	defer s.stop(cancel)
	timer := time.NewTimer(stepCheck)
	defer timer.Stop()
	for ctx.Err() == nil {
		timer.Reset(s.advance())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.kick:
		}
	}
	return nil
}

func (s *Schedule) begin(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began {
		return errors.New("schedule: Run was called before")
	}
	s.began = true
	s.launch = func(e *entry, stamp int64, done chan<- Result) { s.start(ctx, e, stamp, done) }
	// What was due between Apply and Run was not missed by anyone.
	s.derive(func(_, next int64) int64 { return next })
	return nil
}

// stop ends what Run began: cancel ends the context of the collections.
func (s *Schedule) stop(cancel context.CancelFunc) {
	s.applying.Lock()
	s.mu.Lock()
	s.stopped = true
	s.launch = nil // nothing starts from here on
	s.dismiss()
	s.mu.Unlock()
	s.applying.Unlock()
	if s.stopGrace <= 0 {
		cancel()
	}
	defer time.AfterFunc(s.stopGrace, cancel).Stop()
	s.running.Wait()

	s.mu.Lock()
	var left []*entry
	for s.ends.head != nil {
		left = append(left, s.ends.head)
		s.ends.remove(s.ends.head)
	}
	for m := range s.applied.Load().after("") {
		if m.entry.collection != nil {
			left = append(left, m.entry)
		}
	}
	s.mu.Unlock()
	s.endAll(left)
}

// endAll ends collections in their order, some at a time.
func (s *Schedule) endAll(entries []*entry) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(s.concurrency, len(entries)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(entries)); i = next.Add(1) - 1 {
				s.end(entries[i])
			}
		})
	}
	workers.Wait()
}

// wake lets Run look at once at what there is to do.
func (s *Schedule) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// elapsed is the monotonic time.
func (s *Schedule) elapsed() time.Duration { return time.Since(s.base) }

func (s *Schedule) wallNow() time.Duration { return time.Duration(s.now().UnixNano()) }

// clock is the schedule's time as Unix time. mu is held.
func (s *Schedule) clock() time.Duration { return s.wall + s.elapsed() }

// followWall takes over a step of the wall clock. What was due sooner than its
// grid is now is collected when it was due, or its last collection and the next
// could be nearly two intervals apart. mu is held.
func (s *Schedule) followWall() {
	now := s.wallNow()
	before := s.clock()
	step := now - before
	if step.Abs() <= stepTolerance {
		return
	}
	s.wall += step
	was, is := before.Milliseconds(), s.clock().Milliseconds()
	s.derive(func(tick, next int64) int64 { return min(next, is+max(0, tick-was)) })
}

// derive puts every entry on what due makes of its due time and the next instant
// of its grid. mu is held.
func (s *Schedule) derive(due func(tick, next int64) int64) {
	clock := s.clock().Milliseconds()
	for i, item := range s.due {
		e := item.entry
		s.due[i].tick = due(item.tick, GridOf(e.id, e.work.Interval).Next(clock))
		s.unstamp(e)
	}
	s.due.order()
}
