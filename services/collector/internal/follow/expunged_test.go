package follow

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExpunged(t *testing.T) {
	refusal := func(code codes.Code, domain, reason string) error {
		s, err := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Errorf("subscription at x: %w", s.Err())
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"expunged":       {refusal(codes.FailedPrecondition, "rollcall", "EXPUNGED"), true},
		"another reason": {refusal(codes.FailedPrecondition, "rollcall", "STALE_ACKNOWLEDGEMENT"), false},
		"another code":   {refusal(codes.NotFound, "rollcall", "EXPUNGED"), false},
		"another domain": {refusal(codes.FailedPrecondition, "proxy.example", "EXPUNGED"), false},
		"no details":     {status.Error(codes.FailedPrecondition, "EXPUNGED"), false},
		"no status":      {errors.New("EXPUNGED"), false},
		"none":           {nil, false},
	} {
		if got := expunged(c.err); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
