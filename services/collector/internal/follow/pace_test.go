package follow

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refusal is an answer that tells when to come back.
func refusal(t *testing.T, code codes.Code, delay *durationpb.Duration) error {
	t.Helper()
	s, err := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Domain: "rollcall", Reason: "X"}, &errdetails.RetryInfo{RetryDelay: delay})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Errorf("subscription at x: %w", s.Err())
}

// TestRetryInfoIsHeeded: the wait is at least what the registry told, at most a
// quarter more, and never more than a backoff may be.
func TestRetryInfoIsHeeded(t *testing.T) {
	told := func(d time.Duration) *durationpb.Duration { return durationpb.New(d) }
	for name, c := range map[string]struct {
		err         error
		least, most time.Duration
	}{
		"exhausted":      {refusal(t, codes.ResourceExhausted, told(8*time.Second)), 8 * time.Second, 10 * time.Second},
		"unavailable":    {refusal(t, codes.Unavailable, told(8*time.Second)), 8 * time.Second, 10 * time.Second},
		"short":          {refusal(t, codes.ResourceExhausted, told(time.Second)), time.Second, 1250 * time.Millisecond},
		"an hour":        {refusal(t, codes.ResourceExhausted, told(time.Hour)), maxBackoff, maxBackoff * 5 / 4},
		"for ever":       {refusal(t, codes.Unavailable, &durationpb.Duration{Seconds: 1 << 62}), maxBackoff, maxBackoff * 5 / 4},
		"negative":       {refusal(t, codes.ResourceExhausted, told(-time.Hour)), 0, minBackoff},
		"malformed":      {refusal(t, codes.ResourceExhausted, &durationpb.Duration{Seconds: -1 << 62, Nanos: 7}), 0, minBackoff},
		"none":           {refusal(t, codes.ResourceExhausted, nil), 0, minBackoff},
		"another code":   {refusal(t, codes.NotFound, told(8*time.Second)), 0, minBackoff},
		"no status":      {errors.New("connection refused"), 0, minBackoff},
		"without detail": {status.Error(codes.Unavailable, "no"), 0, minBackoff},
	} {
		synctest.Test(t, func(t *testing.T) {
			least, most := time.Hour, time.Duration(0)
			for range 200 {
				wait := new(pacer).next(c.err, &session{address: "a"}, "a")
				least, most = min(least, wait), max(most, wait)
			}
			if least < c.least || most > c.most {
				t.Errorf("%s: waits of %v to %v, want %v to %v", name, least, most, c.least, c.most)
			}
			if c.least > 0 && most-least < c.least/8 {
				t.Errorf("%s: waits of %v to %v are not spread", name, least, most)
			}
		})
	}
}

// TestRetryInfoIsOfOneRegistry: another one is tried meanwhile, and the busy one
// not before its time.
func TestRetryInfoIsOfOneRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		busy := refusal(t, codes.ResourceExhausted, durationpb.New(20*time.Second))
		if wait := p.next(busy, &session{address: "a"}, "b"); wait > minBackoff {
			t.Errorf("b is tried after %v", wait)
		}
		time.Sleep(5 * time.Second)
		if wait := p.next(errors.New("refused"), &session{address: "b"}, "a"); wait < 15*time.Second || wait > 20*time.Second {
			t.Errorf("a is tried after %v more", wait)
		}
		time.Sleep(20 * time.Second)
		if wait := p.next(errors.New("refused"), &session{address: "a"}, "a"); wait > 4*minBackoff {
			t.Errorf("a, which told nothing more, is tried after %v", wait)
		}
	})
}

// TestBackoffGrowsOverWhatIsTold: a registry that tells a short time again and
// again is asked less and less often.
func TestBackoffGrowsOverWhatIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		short := refusal(t, codes.ResourceExhausted, durationpb.New(time.Millisecond))
		var sum time.Duration
		for range 100 {
			sum += p.next(short, &session{address: "a"}, "a")
		}
		if sum < 10*time.Minute {
			t.Errorf("100 tries within %v", sum)
		}
	})
}
