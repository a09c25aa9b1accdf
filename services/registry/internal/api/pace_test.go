package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/peer"
)

// from is a call of an address.
func from(t *testing.T, address string) context.Context {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return peer.NewContext(t.Context(), &peer.Peer{Addr: addr})
}

// wait is how long a call is told to wait; zero: it is taken.
func wait(ctx context.Context, t *testing.T, p *pace, n int) time.Duration {
	t.Helper()
	err := p.take(ctx, n)
	if err == nil {
		return 0
	}
	var full *exhausted
	if !errors.As(err, &full) || full.reason != "REGISTRATION_RATE" || full.retry <= 0 {
		t.Fatalf("%v", err)
	}
	return full.retry
}

// TestPace: a burst, then the rate; a batch is taken whole or not at all, and who
// waits as long as told is taken. Other peers notice nothing.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000, NewMetrics())
		one, again, other := from(t, "10.0.0.1:1000"), from(t, "10.0.0.1:2000"), from(t, "10.0.0.2:1000")
		for range 5 {
			if w := wait(one, t, p, 1000); w != 0 {
				t.Fatalf("within the burst: wait %v", w)
			}
		}
		if w := wait(again, t, p, 1000); w != time.Second {
			t.Errorf("another port of it: wait %v", w)
		}
		if w := wait(one, t, p, 1); w != time.Millisecond {
			t.Errorf("what was refused has cost something: wait %v", w)
		}
		if w := wait(other, t, p, 1000); w != 0 {
			t.Errorf("another peer waits %v", w)
		}
		time.Sleep(time.Second)
		if w := wait(again, t, p, 1000); w != 0 {
			t.Errorf("after the wait: wait %v", w)
		}
		taken := 0
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
			if wait(one, t, p, 7) == 0 {
				taken += 7
			}
		}
		if taken > 10_000+7 || taken < 6_000 {
			t.Errorf("%d within 10 s", taken)
		}
	})
}

// TestPaceOfALargestBatch: it is taken some time, however low the rate is.
func TestPaceOfALargestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1, NewMetrics())
		ctx := from(t, "10.0.0.1:1000")
		if w := wait(ctx, t, p, maxBatch); w != 0 {
			t.Errorf("the first waits %v", w)
		}
		w := wait(ctx, t, p, maxBatch)
		if w != maxBatch*time.Second {
			t.Errorf("the second waits %v", w)
		}
		time.Sleep(w)
		if w := wait(ctx, t, p, maxBatch); w != 0 {
			t.Errorf("when told, it waits %v", w)
		}
	})
}

// TestNoPace: 0 bounds nothing and remembers nobody.
func TestNoPace(t *testing.T) {
	p := newPace(0, NewMetrics())
	for range 1000 {
		if w := wait(from(t, "10.0.0.1:1000"), t, p, maxBatch); w != 0 {
			t.Fatalf("wait %v", w)
		}
	}
	if len(p.peers) > 0 {
		t.Errorf("%d peers", len(p.peers))
	}
}

// TestHostilePeers: a flood of addresses takes no more memory than may be, and
// does not set free one that registers all the time.
func TestHostilePeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1000, NewMetrics())
		busy := from(t, "192.0.2.1:1")
		for range 5 {
			wait(busy, t, p, 1000)
		}
		for i := range 5 * maxPeers {
			wait(from(t, fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)), t, p, 1)
			if i%1000 == 0 && wait(busy, t, p, 1000) == 0 {
				t.Fatal("the flood has made it forgotten")
			}
		}
		if len(p.peers) != maxPeers || p.used.Len() != maxPeers {
			t.Errorf("%d peers, %d in order, want %d", len(p.peers), p.used.Len(), maxPeers)
		}
	})
}

func TestAddressOf(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1:80":              "10.0.0.1",
		"[::ffff:10.0.0.1]:80":     "10.0.0.1",
		"[2001:db8:1:2:3::4]:80":   "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:81": "2001:db8:1:2::/64",
		"[2001:db8:1:3::]:81":      "2001:db8:1:3::/64",
	} {
		if got := addressOf(from(t, address)); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if got := addressOf(t.Context()); got != "" {
		t.Errorf("nobody: %s", got)
	}
	pipe := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.UnixAddr{Name: "@x", Net: "unix"}})
	if got := addressOf(pipe); got != "@x" {
		t.Errorf("a socket: %s", got)
	}
}
