package process_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/protobuf/types/known/emptypb"
)

// untilEnd makes calls that last until the server lets go of them.
func untilEnd(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); bounded {
		return nil
	}
	<-ctx.Done()
	return nil
}

// TestAnIdleConnectionIsLetGo, and its client comes back when it calls. One with a
// stream is not idle.
func TestAnIdleConnectionIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, untilEnd)
		nobody := static(client(t, authority.Pair{}, a))
		silent, busy := dialToy(t, h, nobody), dialToy(t, h, nobody)
		silent.Connect()
		stream, err := hold(t, busy)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Minute)
		if s := silent.GetState(); s != connectivity.Ready {
			t.Errorf("after 4 minutes it is %v", s)
		}
		time.Sleep(2 * time.Minute)
		if s := silent.GetState(); s != connectivity.Idle {
			t.Errorf("after 6 minutes it is %v", s)
		}
		if stream.Context().Err() != nil || busy.GetState() != connectivity.Ready {
			t.Errorf("a stream ends: %v", stream.Context().Err())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		again, err := holdIn(ctx, silent)
		if err == nil {
			err = again.RecvMsg(&emptypb.Empty{})
		}
		if err != nil {
			t.Errorf("it does not come back: %v", err)
		}
	})
}
