package deliver_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

var errGone = errors.New("connection refused")

// unreachable is the outcome of a try that meets nobody.
func unreachable() deliver.Outcome {
	return deliver.Outcome{Result: deliver.Retry, Code: "unreachable", Err: errGone}
}

// lasting takes all, after a time.
func lasting(d time.Duration) func(context.Context, *deliver.Request) (deliver.Outcome, int) {
	return func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
		time.Sleep(d)
		return deliver.Outcome{Code: "200"}, len(r.Items)
	}
}

func (g *rig) expectAll(t *testing.T) {
	t.Helper()
	if st := g.sink.Status(); !g.log.idle() || st.Delivered != int64(g.log.samples) || st.Failing || g.sink.Window() != 0 {
		t.Errorf("of %d samples: %+v, %d in the window", g.log.samples, st, g.sink.Window())
	}
}

// whens are the times of tries since a moment.
func whens(tries []try, since time.Time) []time.Duration {
	var all []time.Duration
	for _, tr := range tries {
		all = append(all, tr.at.Sub(since))
	}
	return all
}

func TestASampleWaitsForTheDeadlineAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		began := time.Now()
		g.log.write(1, 60) // waits
		sleep(300 * time.Millisecond)
		g.log.write(2, 40) // fills the request
		sleep(200 * time.Millisecond)
		g.log.write(3, 1)
		sleep(600 * time.Millisecond)
		g.log.write(4, 1) // goes with it
		sleep(2 * time.Second)
		want := []time.Duration{300 * time.Millisecond, 1500 * time.Millisecond}
		if diff := cmp.Diff(want, whens(g.receiver.tried(), began)); diff != "" {
			t.Error(diff)
		}
		g.expectAll(t)
	})
}

func TestTriesAreAsFarApartAsTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{})
		var gone atomic.Bool
		gone.Store(true)
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			if gone.Load() {
				return unreachable(), 0
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.log.write(1, 10)
		sleep(deliver.DefaultBatchDeadline)
		began := time.Now()
		sleep(100 * time.Second)
		ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
		want := []time.Duration{
			0, ms(100), ms(300), ms(700), ms(1500), ms(3100), ms(6300), ms(12_700), ms(25_500), ms(51_100), ms(81_100),
		}
		if diff := cmp.Diff(want, whens(g.receiver.tried(), began)); diff != "" {
			t.Error(diff)
		}
		if st := g.sink.Status(); !st.Failing || st.LastError != errGone.Error() {
			t.Errorf("%+v", st)
		}
		gone.Store(false)
		sleep(11100 * time.Millisecond)
		g.expectAll(t)
	})
}

func TestNothingIsSentBeforeTheReceiverWantsIt(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{
		0:                0,
		7 * time.Second:  7 * time.Second,
		time.Hour:        10 * time.Minute, // the bound
		time.Millisecond: 100 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			g := run(t, deliver.Config{MaxSamplesPerSend: 10})
			var once atomic.Bool
			g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
				if once.CompareAndSwap(false, true) {
					return deliver.Outcome{Result: deliver.Retry, Code: "429", Overloaded: true, RetryAfter: asked}, 0
				}
				return deliver.Outcome{Code: "200"}, len(r.Items)
			})
			began := time.Now()
			g.fill(1, 40, 10)
			sleep(11 * time.Minute)
			if want == 0 {
				want = 100 * time.Millisecond
			}
			if got := whens(g.receiver.tried(), began); len(got) < 2 || got[0] != 0 || got[1] != want {
				t.Errorf("asked to wait %v: tries at %v", asked, got)
			}
			g.expectAll(t)
		})
	}
}

func TestConcurrencyFollowsTheBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		g.receiver.reply(lasting(100 * time.Millisecond))
		began := time.Now()
		g.fill(20, 640, 10) // 1,280 full requests
		for !g.log.idle() {
			sleep(10 * time.Millisecond)
		}
		// 16 at a time are 160 a second, after half a second to get there.
		if took := time.Since(began); took > 10*time.Second || g.receiver.max != 16 {
			t.Errorf("it took %v, with %d requests at a time", took, g.receiver.max)
		}
		g.expectAll(t)

		// With little to do, one request in the time of the deadline does.
		for range 300 {
			g.fill(1, 1, 5)
			sleep(100 * time.Millisecond)
		}
		before := len(g.receiver.tried())
		for range 100 {
			g.fill(1, 1, 5)
			sleep(100 * time.Millisecond)
		}
		if st, n := g.sink.Status(), len(g.receiver.tried())-before; st.Concurrency != 1 || n > 11 {
			t.Errorf("concurrency %d, %d requests in 10 s", st.Concurrency, n)
		}
	})
}

func TestOverloadHalvesTheConcurrency(t *testing.T) {
	for _, code := range []string{"429", "timeout"} {
		synctest.Test(t, func(t *testing.T) {
			g := run(t, deliver.Config{MaxSamplesPerSend: 100, WindowSamples: 1 << 20})
			var overloaded atomic.Bool
			g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
				time.Sleep(100 * time.Millisecond)
				if overloaded.Load() {
					return deliver.Outcome{Result: deliver.Retry, Code: code, Overloaded: code == "429"}, 0
				}
				return deliver.Outcome{Code: "200"}, len(r.Items)
			})
			g.fill(100, 640, 10)
			sleep(2 * time.Second)
			concurrency := func() int { return g.sink.Status().Concurrency }
			if concurrency() != 16 {
				t.Fatalf("%d", concurrency())
			}
			overloaded.Store(true)
			sleep(100 * time.Millisecond)
			overloaded.Store(false)
			if concurrency() != 8 { // all of one round are one reason
				t.Errorf("%s: %d after a round of overload", code, concurrency())
			}
			sleep(time.Second)
			for want := 8; want <= 16; want++ { // one a second
				if c := concurrency(); c < want-1 || c > want+1 {
					t.Errorf("%s: %d, want about %d", code, c, want)
				}
				sleep(time.Second)
			}
			sleep(2 * time.Second)
			if concurrency() != 16 {
				t.Errorf("%s: %d in the end", code, concurrency())
			}
		})
	}
}

func TestOverloadThatEndsNotIsNotAskedMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		g.receiver.reply(func(context.Context, *deliver.Request) (deliver.Outcome, int) {
			return deliver.Outcome{Result: deliver.Retry, Code: "503", Overloaded: true}, 0
		})
		g.fill(5, 640, 10)
		sleep(time.Minute)
		before := len(g.receiver.tried())
		sleep(10 * time.Minute)
		if n := len(g.receiver.tried()) - before; n > 21 {
			t.Errorf("%d requests in ten minutes", n)
		}
		g.receiver.reply(nil)
		sleep(31 * time.Second)
		g.expectAll(t)
	})
}

func TestAReceiverThatIsGoneIsTriedByOneRequest(t *testing.T) {
	for _, outage := range []time.Duration{15 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			g := run(t, deliver.Config{MaxSamplesPerSend: 100})
			var gone atomic.Bool
			g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
				time.Sleep(100 * time.Millisecond)
				if gone.Load() {
					return unreachable(), 0
				}
				return deliver.Outcome{Code: "200"}, len(r.Items)
			})
			g.fill(100, 640, 10) // a backlog of 6,400 requests
			sleep(2 * time.Second)
			gone.Store(true)
			sleep(time.Second)
			g.receiver.mu.Lock()
			g.receiver.max = 0
			g.receiver.mu.Unlock()
			sleep(outage - time.Second)
			if g.receiver.max != 1 {
				t.Errorf("%d requests at a time", g.receiver.max)
			}
			gone.Store(false)
			back := time.Now()
			for g.sink.Status().Failing {
				sleep(10 * time.Millisecond)
			}
			waited := time.Since(back)
			if limit := min(outage+time.Second, deliver.DefaultMaxBackoff+200*time.Millisecond); waited > limit {
				t.Errorf("the first request came %v after the receiver was back", waited)
			}
			before := g.sink.Status().Delivered
			sleep(time.Second)
			// 16 requests of 100 samples in each tenth of a second.
			if n := g.sink.Status().Delivered - before; n < 14_400 {
				t.Errorf("%d samples in the second after %v", n, outage)
			}
		})
	}
}

func TestOneRequestThatFailsDoesNotHideTheReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100, WindowSamples: 1 << 20})
		var bad atomic.Int64 // a sample that the receiver chokes on
		bad.Store(-1)
		tries := 0
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			time.Sleep(50 * time.Millisecond)
			if slices.ContainsFunc(r.Items, func(i deliver.Item) bool { return int64(i.Value) == bad.Load() }) {
				tries++
				return deliver.Outcome{Result: deliver.Retry, Code: "500"}, 0
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(30, 640, 10) // 1,920 requests
		sleep(time.Second)
		bad.Store(100_000)
		sleep(5 * time.Minute)
		if d := g.sink.Status().Delivered; d < 150_000 {
			t.Errorf("%d samples delivered beside one that is not", d)
		}
		if tries > 25 {
			t.Errorf("the bad request was sent %d times", tries)
		}
		bad.Store(-1)
		sleep(30 * time.Second)
		g.expectAll(t)
	})
}

func TestAnotherRequestIsTriedEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		var gone atomic.Bool
		var chokes atomic.Int64 // on this sample, when it is not gone
		chokes.Store(-1)
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			time.Sleep(50 * time.Millisecond)
			if gone.Load() || slices.ContainsFunc(r.Items, func(i deliver.Item) bool { return int64(i.Value) == chokes.Load() }) {
				return unreachable(), 0
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(20, 64, 10)
		sleep(200 * time.Millisecond)
		gone.Store(true)
		sleep(time.Second)
		g.log.mu.Lock()
		oldest := g.log.committedSamples // it is in the request that waits longest
		g.log.mu.Unlock()
		chokes.Store(int64(oldest))
		before := g.sink.Status().Delivered
		sleep(time.Hour)
		gone.Store(false)
		sleep(5 * time.Minute)
		if n := g.sink.Status().Delivered - before; n < 1000 {
			t.Errorf("%d samples were delivered beside what the receiver chokes on", n)
		}
		chokes.Store(-1)
		sleep(time.Minute)
		g.expectAll(t)
	})
}

func TestWhatCannotBecomeFullIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		l.perSegment = 2
		g := start(t.Context(), l, newReceiver(l), deliver.Config{BatchDeadline: time.Hour})
		g.fill(1, 5, 10) // three tables
		sleep(time.Millisecond)
		if d := g.sink.Status().Delivered; d != 40 {
			t.Errorf("%d delivered", d)
		}
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestASlowReceiverFillsTheWindowAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const window = 5000
		g := run(t, deliver.Config{MaxSamplesPerSend: 500, WindowSamples: window, MaxConcurrency: 1})
		g.receiver.reply(lasting(5 * time.Second)) // 100 a second
		most := 0
		for range 300 { // 1,000 a second come
			g.fill(1, 20, 50)
			sleep(time.Second)
			most = max(most, g.sink.Window())
		}
		if most < window || most > window+50+4 {
			t.Errorf("%d in the window", most)
		}
		if st := g.sink.Status(); st.LagBytes < 2_500_000 || st.LagDuration < 250*time.Second || st.SamplesPerSecond < 90 || st.SamplesPerSecond > 140 {
			t.Errorf("%+v", st)
		}
		g.receiver.reply(nil)
		sleep(10 * time.Second)
		g.expectAll(t)
	})
}

func TestAWindowBelowARequestIsSentAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 1000, WindowSamples: 10, BatchDeadline: time.Hour})
		g.fill(10, 10, 30) // each more than the window
		sleep(time.Second)
		if d := g.sink.Status().Delivered; d != 3000 {
			t.Errorf("%d delivered", d)
		}
		g.expectAll(t)
	})
}

func TestTwoSinksAreOnTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := run(t, deliver.Config{MaxSamplesPerSend: 100})
		bad.receiver.reply(func(ctx context.Context, _ *deliver.Request) (deliver.Outcome, int) {
			<-ctx.Done()
			return deliver.Outcome{Result: deliver.Retry, Code: "timeout"}, 0
		})
		good := run(t, deliver.Config{MaxSamplesPerSend: 100})
		for range 100 {
			bad.fill(1, 20, 50)
			good.fill(1, 20, 50)
			sleep(time.Second)
			good.expectAll(t)
		}
		if d := bad.sink.Status().Delivered; d != 0 {
			t.Errorf("%d", d)
		}
	})
}
