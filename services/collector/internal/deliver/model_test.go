package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// A story is what happens to a sink.
type story struct {
	config  deliver.Config
	records []write
	answers []answer // to one request after another; then all is taken
	perSeg  int
	lossy   bool            // answers get lost
	kills   []time.Duration // from one start to the end of that process
}

type write struct {
	after     time.Duration
	source, n int
}

type answer struct {
	outcome deliver.Outcome
	takes   bool // even though it says otherwise
	lasts   time.Duration
	panics  bool
}

func drawStory(t *rapid.T, kills bool) story {
	s := story{
		config: deliver.Config{
			MaxSamplesPerSend: rapid.IntRange(1, 40).Draw(t, "maxSamplesPerSend"),
			MaxConcurrency:    rapid.SampledFrom([]int{1, 2, 3, 7, 16, 64}).Draw(t, "maxConcurrency"),
			WindowSamples:     rapid.SampledFrom([]int{1, 30, 200, 2000}).Draw(t, "window"),
			BatchDeadline:     rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second}).Draw(t, "deadline"),
			MaxBackoff:        rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 30 * time.Second}).Draw(t, "backoff"),
			ExternalLabels:    labels.FromStrings("source", "never", "fleet", "one"),
		},
		perSeg: rapid.SampledFrom([]int{1, 3, 32, 1000}).Draw(t, "perSegment"),
	}
	sources := rapid.IntRange(1, 100).Draw(t, "sources")
	for range rapid.IntRange(0, 150).Draw(t, "records") {
		s.records = append(s.records, write{
			after:  time.Duration(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 10, 300}).Draw(t, "after")) * time.Millisecond,
			source: rapid.IntRange(0, sources-1).Draw(t, "source"),
			n:      rapid.SampledFrom([]int{0, 1, 2, 5, 20, 60}).Draw(t, "n"),
		})
	}
	for range rapid.IntRange(0, 120).Draw(t, "answers") {
		s.answers = append(s.answers, drawAnswer(t, kills))
	}
	if kills {
		s.lossy = true
		s.config.StopGrace = time.Duration(rapid.SampledFrom([]int{1, 100, 5000}).Draw(t, "grace")) * time.Millisecond
		for range rapid.IntRange(1, 6).Draw(t, "kills") {
			s.kills = append(s.kills, time.Duration(rapid.IntRange(0, 3000).Draw(t, "life"))*time.Millisecond)
		}
	}
	return s
}

func drawAnswer(t *rapid.T, lossy bool) answer {
	a := answer{lasts: time.Duration(rapid.SampledFrom([]int{0, 1, 20, 700, 40_000}).Draw(t, "lasts")) * time.Millisecond}
	o := &a.outcome
	o.Result = rapid.SampledFrom([]deliver.Result{
		deliver.Delivered, deliver.Delivered, deliver.Retry, deliver.Retry, deliver.Rejected, deliver.TooLarge,
	}).Draw(t, "result")
	o.Code = fmt.Sprint(o.Result)
	switch o.Result {
	case deliver.Delivered:
		o.Refused = rapid.SampledFrom([]int{0, 0, 0, 1, 1000}).Draw(t, "refused")
		o.Reason = rapid.SampledFrom(deliver.Reasons()).Draw(t, "reason")
	case deliver.Rejected:
		o.Reason = rapid.SampledFrom(append(deliver.Reasons(), "")).Draw(t, "reason")
		a.panics = rapid.IntRange(0, 9).Draw(t, "panics") == 0
	case deliver.Retry:
		o.Overloaded = rapid.Bool().Draw(t, "overloaded")
		o.RetryAfter = rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Hour}).Draw(t, "retryAfter")
		o.Err = errors.New("not now")
		a.takes = lossy && rapid.Bool().Draw(t, "takes")
	case deliver.TooLarge:
	}
	return a
}

// reply answers requests as the story has it.
func (s *story) reply(c *receiver) func(ctx context.Context, r *deliver.Request) (deliver.Outcome, int) {
	next := 0
	return func(ctx context.Context, r *deliver.Request) (deliver.Outcome, int) {
		c.mu.Lock()
		i := next
		next++
		c.mu.Unlock()
		if i >= len(s.answers) {
			return deliver.Outcome{Code: "200"}, len(r.Items)
		}
		a := s.answers[i]
		timer := time.NewTimer(a.lasts)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			take := 0
			if s.lossy {
				take = len(r.Items)
			}
			return deliver.Outcome{Result: deliver.Retry, Code: "timeout", Err: ctx.Err()}, take
		case <-timer.C:
		}
		o := a.outcome
		take := 0
		switch {
		case a.panics:
			c.end(r, nil, &deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonRejected}, 0)
			c.forget(r)
			panic("as the story has it")
		case o.Result == deliver.Delivered:
			o.Refused = min(o.Refused, len(r.Items))
			take = len(r.Items) - o.Refused
		case o.Result == deliver.Rejected && o.Reason == "":
			o.Reason = deliver.ReasonRejected
		case a.takes:
			take = len(r.Items)
		}
		return o, take
	}
}

// forget says that a request is not at work any more.
func (c *receiver) forget(r *deliver.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range r.Items {
		c.inFlight[sourceOf(r, i)] = false
	}
}

// tell runs a story in a bubble, and answers what is wrong.
func (s *story) tell(ctx context.Context) error {
	l := newLog()
	l.perSegment = s.perSeg
	c := newReceiver(l)
	c.reply(s.reply(c))
	go func() {
		for _, w := range s.records {
			time.Sleep(w.after)
			l.write(w.source, w.n)
		}
	}()
	var sum status
	for _, life := range s.kills {
		g := start(ctx, l, c, s.config)
		time.Sleep(life)
		asked := time.Now()
		if err := g.stop(); err != nil {
			return err
		}
		if took := time.Since(asked); took > s.config.StopGrace {
			return fmt.Errorf("a stop took %v", took)
		}
		sum.add(g.sink.Status())
		c.again()
		l.again()
	}
	g := start(ctx, l, c, s.config)
	for range 100 {
		if len(l.settledRecords()) == len(s.records) && l.idle() {
			break
		}
		time.Sleep(10 * time.Minute)
	}
	synctest.Wait()
	sum.add(g.sink.Status())
	if g.sink.Window() != 0 || !l.idle() {
		return fmt.Errorf("%d of %d records are committed in the end, %d in the window", l.committed, len(l.records), g.sink.Window())
	}
	if err := g.stop(); err != nil {
		return err
	}
	return s.check(g, &sum)
}

// settledRecords are the records that have been written.
func (l *fakeLog) settledRecords() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// A status is the sum of those of several processes.
type status struct {
	delivered int64
	dropped   map[string]int64
}

func (s *status) add(st deliver.Status) {
	s.delivered += st.Delivered
	if s.dropped == nil {
		s.dropped = map[string]int64{}
	}
	for reason, n := range st.Dropped {
		s.dropped[reason] += n
	}
}

// check looks at what has become of each sample.
func (s *story) check(g *rig, sum *status) error {
	if b := g.breaches(); len(b) > 0 {
		return fmt.Errorf("%d breaches, the first: %s", len(b), b[0])
	}
	if c := g.receiver; c.max > s.config.MaxConcurrency {
		return fmt.Errorf("%d requests at one time", c.max)
	}
	taken := 0
	for id := range g.log.samples {
		n := g.receiver.taken[id]
		if n > 1 && !s.lossy {
			return fmt.Errorf("sample %d has been delivered %d times", id, n)
		}
		if n == 0 && !g.log.settled[id] {
			return fmt.Errorf("sample %d is missing", id)
		}
		taken += min(n, 1)
	}
	if s.lossy {
		return nil
	}
	dropped, lost := g.receiver.dropped(), 0
	for _, n := range dropped {
		lost += int(n)
	}
	if int64(taken) != sum.delivered || taken+lost != g.log.samples || !maps.Equal(dropped, sum.dropped) {
		return fmt.Errorf("of %d samples, %d were taken and %v refused; counted: %d and %v",
			g.log.samples, taken, dropped, sum.delivered, sum.dropped)
	}
	return nil
}

func TestEverySampleIsDeliveredOrCountedOnce(t *testing.T) { tellAll(t, false) }

func TestNothingIsMissingAfterRestarts(t *testing.T) { tellAll(t, true) }

func tellAll(t *testing.T, kills bool) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawStory(rt, kills)
		var err error
		synctest.Test(t, func(t *testing.T) { err = s.tell(t.Context()) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func TestReasonsAreAClosedSet(t *testing.T) {
	reasons := deliver.Reasons()
	if len(reasons) != 11 || len(slices.Compact(slices.Sorted(slices.Values(reasons)))) != 11 {
		t.Fatal(reasons)
	}
}
