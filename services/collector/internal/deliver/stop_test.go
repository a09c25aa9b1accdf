package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

func TestAStopLetsRequestsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		g := start(t.Context(), l, newReceiver(l), deliver.Config{MaxSamplesPerSend: 100, MaxConcurrency: 1})
		g.receiver.reply(lasting(3 * time.Second))
		g.fill(3, 10, 10) // three requests, one after the other
		sleep(4 * time.Second)
		asked := time.Now()
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took != 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if st := g.sink.Status(); st.Delivered != 200 || l.committed != 20 || !g.receiver.closed {
			t.Errorf("%+v, %d records committed", st, l.committed)
		}
		l.again()
		g.receiver.again()
		g = start(t.Context(), l, g.receiver, deliver.Config{})
		sleep(5 * time.Second)
		g.expectRest(t, 100)
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		for _, b := range g.breaches() {
			t.Error(b)
		}
	})
}

// expectRest expects that this process has delivered n samples, and all is.
func (g *rig) expectRest(t *testing.T, n int) {
	t.Helper()
	if st := g.sink.Status(); st.Delivered != int64(n) || !g.log.idle() {
		t.Errorf("%+v", st)
	}
}

func TestAStopBreaksOffWhatDoesNotFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		g := start(t.Context(), l, newReceiver(l), deliver.Config{StopGrace: 2 * time.Second})
		g.receiver.reply(func(ctx context.Context, _ *deliver.Request) (deliver.Outcome, int) {
			<-ctx.Done()
			return deliver.Outcome{Result: deliver.Retry, Code: "timeout", Err: ctx.Err()}, 0
		})
		g.fill(1, 10, 10)
		sleep(4 * time.Second)
		asked := time.Now()
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took != 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if st := g.sink.Status(); st.LastError != "" || st.Delivered != 0 || l.committed != 0 {
			t.Errorf("%+v, %d records committed", st, l.committed)
		}
	})
}

func TestAStopDoesNotWaitForABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		g := start(t.Context(), l, newReceiver(l), deliver.Config{MaxSamplesPerSend: 10, WindowSamples: 100})
		g.receiver.reply(func(context.Context, *deliver.Request) (deliver.Outcome, int) { return unreachable(), 0 })
		g.fill(10, 10, 10)
		sleep(time.Hour)
		asked := time.Now()
		if err := g.stop(); err != nil || time.Since(asked) != 0 {
			t.Errorf("the stop took %v: %v", time.Since(asked), err)
		}
	})
}

func TestARequestThatDoesNotEndIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		g := start(t.Context(), l, newReceiver(l), deliver.Config{})
		end := make(chan struct{})
		g.receiver.reply(func(context.Context, *deliver.Request) (deliver.Outcome, int) {
			<-end
			return deliver.Outcome{Code: "200"}, 10
		})
		g.fill(1, 1, 10)
		sleep(4 * time.Second)
		asked := time.Now()
		if err := g.stop(); err == nil {
			t.Error("no error")
		}
		if took := time.Since(asked); took != deliver.DefaultStopGrace+time.Second {
			t.Errorf("the stop took %v", took)
		}
		if g.receiver.closed {
			t.Error("closed while a request is at work")
		}
		close(end)
	})
}

func TestALogThatFailsEndsTheSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := brokenLog{newLog()}
		c := newReceiver(l.fakeLog)
		s := deliver.New(deliver.Config{Name: "one", Log: l, Transport: c})
		if err := s.Run(t.Context()); err == nil || !c.closed {
			t.Errorf("%v, closed: %v", err, c.closed)
		}
	})
}

func TestAfterAStopNothingIsSentTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		l.perSegment = 1 << 20
		g := start(t.Context(), l, newReceiver(l), deliver.Config{MaxSamplesPerSend: 50})
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			time.Sleep(time.Duration(int(r.Items[0].Value)%97) * time.Millisecond)
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(30, 200, 10)
		sleep(800 * time.Millisecond)
		if g.sink.Status().Concurrency < 4 {
			t.Fatalf("%+v", g.sink.Status())
		}
		asked := time.Now()
		if err := g.stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took > 2*time.Second {
			t.Errorf("the stop took %v", took)
		}
		if n := len(g.receiver.taken); n == l.samples || n != l.committedSamples {
			t.Errorf("%d of %d samples are taken, %d committed", n, l.samples, l.committedSamples)
		}
		for _, b := range g.breaches() {
			t.Error(b)
		}
	})
}
