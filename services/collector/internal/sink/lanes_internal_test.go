package sink

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// lanesFor makes lanes and what counts how often they were told to be stalled.
func lanesFor(n int, write func(*sample.Batch) (Refused, error)) (*lanes, *atomic.Int64) {
	var told atomic.Int64
	return newLanes(n, time.Second, write, func() { told.Add(1) }), &told
}

func TestACallerIsHeldForASecondAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan struct{})
		l, told := lanesFor(2, func(*sample.Batch) (Refused, error) { <-disk; return Refused{}, nil })
		defer l.close()
		b := &sample.Batch{Samples: make([]sample.Sample, 3)}
		var first atomic.Int64
		begin := time.Now()
		for range 10 {
			go func() {
				if _, err := l.send(t.Context(), b); !errors.Is(err, ErrStalled) {
					t.Errorf("error is %v, want ErrStalled", err)
				}
				if took := time.Since(begin); took != time.Second {
					t.Errorf("held for %v", took)
				}
				first.Add(1)
			}()
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if first.Load() != 10 || told.Load() != 10 {
			t.Fatalf("%d callers were let go, %d times told", first.Load(), told.Load())
		}
		if stuck := l.stuck.Load(); stuck != 2 {
			t.Errorf("%d batches are stuck, want as many as there are goroutines", stuck)
		}

		begin = time.Now()
		if _, err := l.send(t.Context(), b); !errors.Is(err, ErrStalled) || time.Since(begin) != 0 {
			t.Errorf("error is %v after %v, want ErrStalled at once", err, time.Since(begin))
		}

		close(disk)
		synctest.Wait()
		if _, err := l.send(t.Context(), b); err != nil || l.stuck.Load() != 0 {
			t.Errorf("error is %v, %d stuck, want none when the disk is back", err, l.stuck.Load())
		}
	})
}

func TestABatchIsTheCallersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, seen := make(chan struct{}), make(chan float64, 1)
		l, _ := lanesFor(1, func(b *sample.Batch) (Refused, error) {
			<-disk
			seen <- b.Samples[0].Value
			return Refused{}, nil
		})
		defer l.close()
		b := &sample.Batch{Samples: []sample.Sample{{Value: 1}}}
		if _, err := l.send(t.Context(), b); !errors.Is(err, ErrStalled) {
			t.Fatalf("error is %v", err)
		}
		b.Samples[0].Value = 2
		close(disk)
		if got := <-seen; got != 1 {
			t.Errorf("%v was written of a batch that was given up and used again, want 1", got)
		}
	})
}

func TestACallerWhoseContextEndsGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan struct{})
		l, _ := lanesFor(1, func(*sample.Batch) (Refused, error) { <-disk; return Refused{}, nil })
		defer l.close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := l.send(ctx, &sample.Batch{})
		if !errors.Is(err, ErrStalled) || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 100*time.Millisecond {
			t.Errorf("error is %v after %v", err, time.Since(begin))
		}
		close(disk)
		synctest.Wait()
		if stuck := l.stuck.Load(); stuck != 0 {
			t.Errorf("%d batches are stuck", stuck)
		}
	})
}

func TestAPanicIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := lanesFor(1, func(*sample.Batch) (Refused, error) { panic("no space") })
		defer l.close()
		for range 2 {
			if _, err := l.send(t.Context(), &sample.Batch{}); !errors.Is(err, errStore) {
				t.Errorf("error is %v, want errStore", err)
			}
		}
	})
}

func TestClosedLanesRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := lanesFor(1, func(*sample.Batch) (Refused, error) { return Refused{}, nil })
		l.close()
		synctest.Wait()
		if _, err := l.send(t.Context(), &sample.Batch{}); !errors.Is(err, ErrClosed) {
			t.Errorf("error is %v, want ErrClosed", err)
		}
	})
}

// BenchmarkLanes is what it costs a batch of 200 samples to be written elsewhere.
func BenchmarkLanes(b *testing.B) {
	l, _ := lanesFor(minWriters, func(*sample.Batch) (Refused, error) { return Refused{}, nil })
	defer l.close()
	batch := &sample.Batch{Samples: make([]sample.Sample, 200)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.send(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
}
