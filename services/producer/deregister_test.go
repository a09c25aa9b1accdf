package producer_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Without time nobody is asked, and the error says so.
func TestDeregisterWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		if err := k.Deregister(0); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// The silent registry leaves time for the one that answers.
func TestDeregisterTriesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1", "r3")
		n.endpoint(t, app, metrics)
		k := start(t, n.config("r1", "r2", "r3"), registration)
		time.Sleep(time.Second)
		n.drop("r1")
		n.hush("r2")
		begin := time.Now()
		if err := k.Deregister(5 * time.Second); err != nil || r.stands(id) != "" || time.Since(begin) >= 5*time.Second {
			t.Errorf("%v after %v, on the roll is %q", err, time.Since(begin), r.stands(id))
		}
	})
}

func TestDeregisterIsBounded(t *testing.T) {
	for name, spoil := range map[string]func(*network, *roll){
		"gone":   func(n *network, _ *roll) { n.drop("r1") },
		"silent": func(n *network, _ *roll) { n.hush("r1") },
		"hangs": func(_ *network, r *roll) {
			r.set(func() { r.deregister = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() } })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				r := n.registry(t, "r1")
				n.endpoint(t, app, metrics)
				k := start(t, n.config("r1"), registration)
				time.Sleep(time.Second)
				spoil(n, r)
				begin := time.Now()
				if err := k.Deregister(5 * time.Second); err == nil || time.Since(begin) > 5*time.Second {
					t.Errorf("%v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// A registration that is under way is waited for: it could arrive after the
// deregistration, and stay.
func TestDeregisterWaitsForARegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		n.endpoint(t, app, metrics)
		r.set(func() { r.register = func(context.Context) error { time.Sleep(3 * time.Second); return nil } })
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Second)
		if err := k.Deregister(10 * time.Second); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if got := r.stands(id); got != "" {
			t.Errorf("on the roll is %q", got)
		}
	})
}

// Nobody is deregistered who was never registered.
func TestDeregisterOfAnEndpointThatNeverAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		r := n.registry(t, "r1")
		r.newest[id] = "another"
		k := start(t, n.config("r1"), registration)
		time.Sleep(time.Minute)
		if err := k.Deregister(time.Second); err != nil || len(r.asked()) != 0 {
			t.Errorf("%v, calls %v", err, r.asked())
		}
	})
}
