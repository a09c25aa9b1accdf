package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/prometheus/util/annotations"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// maxAsked bounds how many collectors are asked at the same time.
	maxAsked = 64

	// doubtTimeout bounds the wait for one that did not answer in time the last
	// time.
	doubtTimeout = time.Second
)

// An inquiry is all that one query asks of the others: one poll for each of its
// selectors. Whoever fails one of them is left out of all, so that no result
// mixes what is whole with what is not. It is safe for concurrent use.
type inquiry struct {
	fleet      *Fleet
	start, end int64
	allowance  *allowance
	closed     chan struct{}
	close      sync.Once
	working    sync.WaitGroup

	mu     sync.Mutex // guards what follows
	polls  []*poll
	failed map[*peer]error
}

// A poll is one question to all others.
type poll struct {
	question *question
	scope    Scope
	done     chan struct{} // closed when what follows is complete
	unknown  error         // why the others are not known
	answers  map[*peer]*answer
}

func (f *Fleet) newInquiry(start, end int64) *inquiry {
	return &inquiry{
		fleet: f, start: start, end: end,
		allowance: &allowance{budget: f.budget, left: f.MaxQueryBytes},
		closed:    make(chan struct{}),
		failed:    map[*peer]error{},
	}
}

// Close ends what is asked, and lets go of all answers.
func (q *inquiry) Close() error {
	q.close.Do(func() {
		close(q.closed)
		q.working.Wait()
		q.allowance.release()
	})
	return nil
}

// ask begins a poll. It is nil when only the local store is asked.
func (q *inquiry) ask(ctx context.Context, question *question) *poll {
	p := &poll{question: question, scope: q.fleet.ScopeOf(ctx), done: make(chan struct{}), answers: map[*peer]*answer{}}
	if p.scope.Local {
		return nil
	}
	q.mu.Lock()
	q.polls = append(q.polls, p)
	q.mu.Unlock()
	q.working.Go(func() {
		defer close(p.done)
		q.run(ctx, p)
	})
	return p
}

// run asks all others, each but for those that have failed already.
func (q *inquiry) run(ctx context.Context, p *poll) {
	ctx, cancel := context.WithTimeout(ctx, q.fleet.patience(ctx))
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-q.closed:
			cancel()
		case <-stop:
		}
	}()
	others, err := q.fleet.book.others(ctx)
	p.unknown = err
	places := make(chan struct{}, maxAsked)
	var asking sync.WaitGroup
	for _, other := range others {
		if q.hasFailed(other) {
			continue
		}
		asking.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			a, err := q.fleet.askOne(ctx, other, p.question, q.allowance)
			q.mu.Lock()
			defer q.mu.Unlock()
			if err != nil {
				q.failed[other] = err
				return
			}
			p.answers[other] = a
		})
	}
	asking.Wait()
}

// patience is how long the others are waited for.
func (f *Fleet) patience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return f.Timeout
	}
	return min(f.Timeout, time.Until(deadline)/2)
}

func (q *inquiry) hasFailed(p *peer) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.failed[p] != nil
}

// settle waits for a poll and those beside it, and returns the answers of those
// who failed none, and what is missing. An error says that nothing may be
// missing.
func (q *inquiry) settle(p *poll) ([]*answer, annotations.Annotations, error) {
	q.mu.Lock()
	polls := append([]*poll(nil), q.polls...)
	q.mu.Unlock()
	for _, one := range polls {
		<-one.done
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var missing []error
	if p.unknown != nil {
		missing = append(missing, fmt.Errorf("the other collectors are not known, so this result may be partial: %w", p.unknown))
	}
	for other, err := range q.failed {
		missing = append(missing, fmt.Errorf("collector %q is left out, so this result is partial: %w", other.id, err))
	}
	if p.scope.Whole && len(missing) > 0 {
		return nil, nil, errors.Join(missing...)
	}
	var answers []*answer
	var warnings annotations.Annotations
	for _, err := range missing {
		warnings.Add(err)
	}
	for other, a := range p.answers {
		if q.failed[other] != nil {
			continue
		}
		answers = append(answers, a)
		for _, w := range a.warnings {
			warnings.Add(fmt.Errorf("collector %q: %s", other.id, w))
		}
	}
	return answers, warnings, nil
}

// askOne asks one collector and returns its answer, which is sealed.
func (f *Fleet) askOne(ctx context.Context, p *peer, q *question, allowed *allowance) (*answer, error) {
	begin := time.Now()
	ask := ctx
	if p.doubtful.Load() {
		var cancel context.CancelFunc
		ask, cancel = context.WithTimeout(ctx, doubtTimeout)
		defer cancel()
	}
	a, err := f.receive(ask, p, q, allowed)
	switch {
	case err == nil:
		p.doubtful.Store(false)
		f.Metrics.asked(outcomeAnswered, time.Since(begin))
		return a, nil
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err() // Nobody waits any more; it says nothing of the other.
	case ask.Err() != nil || status.Code(err) == codes.DeadlineExceeded: // the other one's clock may be the first to say so
		p.doubtful.Store(true)
		f.Metrics.asked(outcomeLate, time.Since(begin))
		return nil, fmt.Errorf("no whole answer in %v", time.Since(begin).Round(time.Millisecond))
	default:
		f.Metrics.asked(outcomeFailed, time.Since(begin))
		f.book.nudge() // It may be elsewhere by now.
		if s, ok := status.FromError(err); ok {
			err = fmt.Errorf("%s: %s", s.Code(), clip(s.Message()))
		}
		return nil, err
	}
}

func (f *Fleet) receive(ctx context.Context, p *peer, q *question, allowed *allowance) (*answer, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Ends the stream of whoever is not read to the end.
	request := q.encode()
	request.MaxBytes = allowed.rest()
	if request.MaxBytes <= 0 {
		return nil, errTooLarge
	}
	stream, err := collectorv1.NewCollectionServiceClient(conn).Select(ctx, request, grpc.MaxCallRecvMsgSize(maxFrame))
	if err != nil {
		return nil, err
	}
	a := &answer{question: q, from: p.id, take: func(n int64) error {
		err := allowed.take(n)
		if err == nil {
			f.Metrics.Bytes.Add(float64(n))
		}
		return err
	}}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && a.sealed:
			return a, nil
		case errors.Is(err, io.EOF):
			return nil, errUnsealed
		case err != nil:
			return nil, err
		}
		if err := a.add(m); err != nil {
			return nil, err
		}
	}
}
