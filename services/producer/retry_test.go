package producer

import (
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// What the registry tells is waited for, a little more, and never for longer than
// a backoff may be.
func TestToldIsHeeded(t *testing.T) {
	for _, c := range []struct {
		code        codes.Code
		told        time.Duration
		least, most time.Duration
	}{
		{codes.ResourceExhausted, 4 * time.Second, 4 * time.Second, 5 * time.Second},
		{codes.Unavailable, 4 * time.Second, 4 * time.Second, 5 * time.Second},
		{codes.ResourceExhausted, time.Hour, maxBackoff, maxBackoff * 5 / 4},
		{codes.ResourceExhausted, -time.Hour, 0, 0},
		{codes.Internal, 4 * time.Second, 0, 0},
	} {
		s, err := status.New(c.code, "no").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(c.told)})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if got := told(s.Err()); got < c.least || got > c.most {
				t.Fatalf("%v, told %v: waits %v, want %v to %v", c.code, c.told, got, c.least, c.most)
			}
		}
	}
}
