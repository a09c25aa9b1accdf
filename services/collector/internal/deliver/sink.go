package deliver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// errStuck says that a transport has broken its contract.
var errStuck = errors.New("a request has not ended with its context")

// A Sink delivers one log to one receiver. Its methods are safe for concurrent
// use; Run is called once.
type Sink struct {
	config Config
	counts *counts
	voice  *voice

	wake  chan struct{} // for the dispatcher: there is something to look at
	space chan struct{} // for the reader: there is room in the window
	sends sync.WaitGroup

	mu       sync.Mutex
	window   window  // guarded by mu
	pace     pace    // guarded by mu
	parked   []*job  // guarded by mu; to be sent again
	inFlight int     // guarded by mu; jobs that are sent
	spare    []*job  // guarded by mu; memory for later
	starved  bool    // guarded by mu; the reader waits for room
	takes    int     // guarded by mu; requests that were taken
	ahead    int     // guarded by mu; how much larger than configured the window may be
	stopping bool    // guarded by mu; nothing new is sent
	history  history // guarded by mu
}

// New makes a sink. It does nothing before Run.
func New(c Config) *Sink {
	c = c.complete()
	s := &Sink{
		config: c,
		voice:  &voice{log: c.Logger.With("sink", c.Name)},
		wake:   make(chan struct{}, 1),
		space:  make(chan struct{}, 1),
	}
	s.pace = newPace(&s.config)
	s.history = newHistory(time.Now())
	s.counts = c.Metrics.attach(s)
	return s
}

// Run delivers until ctx ends, and closes the transport. It returns at the
// latest StopGrace and a second after that. Requests at work may finish in this
// time, and what lies in the log before something that was sent is sent, if the
// receiver takes it; what is not settled then is in the log, behind what is
// committed.
// An error says that the log or the transport has broken its contract.
func (s *Sink) Run(ctx context.Context) error {
	defer s.config.Metrics.detach(s)
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()

	var (
		readErr error
		read    = make(chan struct{})
	)
	go func() {
		defer close(read)
		readErr = newReader(s).run(reading)
		s.nudge(s.wake)
	}()
	s.dispatchAll(ctx, sending, read)
	stopReading()
	err := s.finish(sending, cancel)
	<-read
	if err == nil {
		s.config.Transport.Close()
	}
	return errors.Join(readErr, err)
}

// dispatchAll sends what is ready until ctx ends, or what is read, after that
// has ended.
func (s *Sink) dispatchAll(ctx, sending context.Context, read <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, _ := s.dispatch(sending)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-read:
			return
		case <-s.wake:
		case <-timer.C:
		}
	}
}

// finish sends what was written before something that is sent already, so that
// after the next start nothing is sent twice, and lets requests at work end, in
// the time that they have.
func (s *Sink) finish(sending context.Context, cancel context.CancelFunc) error {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()

	timer := time.NewTimer(s.config.StopGrace)
	defer timer.Stop()
	for _, working := s.dispatch(sending); working; _, working = s.dispatch(sending) {
		select {
		case <-s.wake:
			continue
		case <-timer.C:
		}
		break
	}
	cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.sends.Wait()
	}()
	if await(ended, stopRest) {
		return nil
	}
	return errStuck
}

// await waits until c is closed, and tells whether it was. It waits in parts: a
// process that stands still loses one of them, and not all of the time that others
// have to end in.
func await(c <-chan struct{}, d time.Duration) bool {
	const parts = 10
	for range parts {
		timer := time.NewTimer(d / parts)
		select {
		case <-c:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
	return false
}

// awaitRoom waits until the window has room. It answers false when ctx ends.
func (s *Sink) awaitRoom(ctx context.Context) bool {
	for {
		s.mu.Lock()
		s.starved = s.window.full(s.config.WindowSamples + s.ahead)
		full := s.starved
		s.mu.Unlock()
		if !full {
			return ctx.Err() == nil
		}
		s.nudge(s.wake) // what is there may not be a full request
		select {
		case <-ctx.Done():
			return false
		case <-s.space:
		}
	}
}

// push adds an entry to the window, and wakes the dispatcher if that changes
// what it waits for. mu is held.
func (s *Sink) push(e *entry) {
	s.window.push(e)
	if e.settled {
		s.commit()
		return
	}
	if s.window.busy&(1<<e.lane) != 0 || s.inFlight+len(s.parked) >= s.pace.concurrency {
		return
	}
	n := s.pace.concurrency
	samples, oldest := s.window.waiting(shareOf(e.lane%n, n))
	if samples >= s.pace.limit || s.window.lanes[oldest].first == e || s.window.lanes[oldest].first.table != e.table {
		s.nudge(s.wake)
	}
}

// commit tells the log what is dealt with. mu is held, so that positions rise.
func (s *Sink) commit() {
	end, moved := s.window.commit()
	if !moved {
		return
	}
	s.config.Log.Commit(end)
	if !s.window.full(s.config.WindowSamples) {
		s.ahead = 0
	}
	if s.starved && !s.window.full(s.config.WindowSamples+s.ahead) {
		s.starved = false
		s.nudge(s.space)
	}
}

func (s *Sink) nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// job is an empty job. mu is held.
func (s *Sink) job() *job {
	if n := len(s.spare); n > 0 {
		j := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return j
	}
	return &job{}
}

// unpark takes a job out of those that wait. mu is held.
func (s *Sink) unpark(j *job) {
	i := slices.Index(s.parked, j)
	s.parked = slices.Delete(s.parked, i, i+1)
}
