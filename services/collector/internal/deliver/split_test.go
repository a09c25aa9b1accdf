package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// upTo takes requests of so many samples.
func upTo(n int) answerer {
	return func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
		if len(r.Items) > n {
			return deliver.Outcome{Result: deliver.TooLarge, Code: "413"}, 0
		}
		return deliver.Outcome{Code: "200"}, len(r.Items)
	}
}

func TestALargeRequestIsSplitBetweenRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		g.receiver.reply(upTo(40))
		g.log.write(1, 30)
		g.log.write(2, 5)
		g.log.write(3, 35)
		g.log.write(1, 20)
		g.log.write(2, 10)
		sleep(time.Second)
		var sizes []int
		for _, tr := range g.receiver.tried() {
			sizes = append(sizes, tr.samples)
		}
		if diff := cmp.Diff([]int{100, 35, 65, 35, 30}, sizes); diff != "" {
			t.Error(diff)
		}
		g.expectAll(t)
	})
}

func TestALargeRecordIsSplitBetweenSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		g.receiver.reply(upTo(30))
		g.log.write(1, 250)
		g.log.write(1, 3)
		sleep(2 * time.Second)
		g.expectAll(t)
		if st := g.sink.Status(); len(st.Dropped) > 0 || st.LastError != "" {
			t.Errorf("%+v", st)
		}
	})
}

func TestOneSampleThatIsTooLargeIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 100})
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			for _, i := range r.Items {
				if i.Value == 37 {
					return deliver.Outcome{Result: deliver.TooLarge, Code: "413"}, 0
				}
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		g.fill(1, 10, 10)
		sleep(time.Second)
		st := g.sink.Status()
		if diff := cmp.Diff(map[string]int64{deliver.ReasonTooLarge: 1}, st.Dropped); diff != "" || st.Delivered != 99 || !g.log.idle() {
			t.Errorf("%+v\n%s", st, diff)
		}
	})
}

func TestRequestsAreAsLargeAsTheReceiverTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 200, WindowSamples: 1 << 20})
		g.receiver.reply(upTo(60))
		g.fill(30, 64, 10)
		sleep(10 * time.Second)
		g.expectAll(t)
		sent := 0
		for _, tr := range g.receiver.tried() {
			sent += tr.samples
		}
		if sent > g.log.samples*12/10 {
			t.Errorf("%d samples were sent for %d", sent, g.log.samples)
		}
		if n := g.sink.Limit(); n < 25 || n > 60 {
			t.Errorf("limit %d", n)
		}
		g.receiver.reply(nil)
		g.fill(500, 64, 10)
		sleep(10 * time.Second)
		g.expectAll(t)
		if n := g.sink.Limit(); n != 200 {
			t.Errorf("limit %d in the end", n)
		}
	})
}

func TestARejectedRecordCostsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 500})
		g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
			for i := range r.Items {
				if sourceOf(r, i) == "7" {
					return deliver.Outcome{Result: deliver.Rejected, Code: "400", Reason: deliver.ReasonInvalid}, 0
				}
			}
			return deliver.Outcome{Code: "200"}, len(r.Items)
		})
		for range 10 {
			g.fill(1, 50, 10)
			sleep(10 * time.Second)
		}
		st := g.sink.Status()
		if diff := cmp.Diff(map[string]int64{deliver.ReasonInvalid: 100}, st.Dropped); diff != "" || st.Delivered != 4900 || !g.log.idle() {
			t.Errorf("%+v\n%s", st, diff)
		}
	})
}

func TestARejectedSampleCostsNoOtherIfTheReceiverSaysSo(t *testing.T) {
	for _, divisible := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := run(t, deliver.Config{MaxSamplesPerSend: 500})
			g.receiver.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
				for _, i := range r.Items {
					if i.Value == 37 {
						return deliver.Outcome{Result: deliver.Rejected, Code: "400", Reason: deliver.ReasonInvalid, Divisible: divisible}, 0
					}
				}
				return deliver.Outcome{Code: "200"}, len(r.Items)
			})
			g.fill(1, 10, 10)
			sleep(time.Second)
			want := map[string]int64{deliver.ReasonInvalid: 10}
			if divisible {
				want[deliver.ReasonInvalid] = 1
			}
			if diff := cmp.Diff(want, g.sink.Status().Dropped); diff != "" || !g.log.idle() {
				t.Errorf("divisible %t: %s", divisible, diff)
			}
		})
	}
}

func TestAReceiverThatRejectsAllIsNotAskedTwiceAsMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := run(t, deliver.Config{MaxSamplesPerSend: 500})
		g.receiver.reply(func(context.Context, *deliver.Request) (deliver.Outcome, int) {
			return deliver.Outcome{Result: deliver.Rejected, Code: "400", Reason: deliver.ReasonInvalid}, 0
		})
		for range 100 {
			g.fill(1, 50, 10)
			sleep(10 * time.Second)
		}
		sent := 0
		for _, tr := range g.receiver.tried() {
			sent += tr.samples
		}
		st := g.sink.Status()
		if sent < 50_000 || sent > 50_000+8*500 || st.Dropped[deliver.ReasonInvalid] != 50_000 || !g.log.idle() {
			t.Errorf("%d samples were sent for 50,000: %+v", sent, st)
		}
	})
}
