package api

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/peer"
)

const (
	// DefaultRegistrationRate lets a loader bring a million producers within a
	// minute, and ten million be renewed through one address.
	DefaultRegistrationRate = 20_000

	// burstSeconds is for how many seconds a peer that was quiet may save up.
	burstSeconds = 5

	// maxPeers bounds how many peers are remembered; the one that has not come
	// for longest is forgotten first. Forgetting one is to its favour.
	maxPeers = 10_000
)

// pace bounds how many registrations a second are taken from one peer, so that
// one that registers in a loop does not keep the others from it. A peer is an
// identity or, where nobody is asked for one, an address: that is no defence
// against one who has many addresses.
type pace struct {
	rate    rate.Limit
	burst   int
	metrics *Metrics

	mu    sync.Mutex // guards all below
	peers map[string]*list.Element
	used  list.List // of *bucket, the last one used in front
}

// A bucket is one peer's.
type bucket struct {
	peer   string
	tokens *rate.Limiter
}

// newPace makes one of so many a second; of 0 it bounds nothing.
func newPace(perSecond int, metrics *Metrics) *pace {
	return &pace{
		rate: rate.Limit(perSecond), burst: max(burstSeconds*perSecond, maxBatch), metrics: metrics,
		peers: map[string]*list.Element{},
	}
}

// take counts registrations of a call's peer, all of them or, with an
// *exhausted, none.
func (p *pace) take(ctx context.Context, registrations int) error {
	if p.rate <= 0 {
		return nil
	}
	now := time.Now()
	name, sort := peerOf(ctx)
	wait := p.reserve(name, registrations, now)
	if wait <= 0 {
		return nil
	}
	p.metrics.Paced.Add(float64(registrations))
	return &exhausted{
		"REGISTRATION_RATE", fmt.Sprintf("more than %v registrations a second come from this %s; try again later", p.rate, sort), wait,
	}
}

// reserve takes tokens from a peer's bucket, or tells how long it is until there
// are as many.
func (p *pace) reserve(name string, tokens int, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.bucket(name).ReserveN(now, tokens)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// bucket is a peer's. The caller holds mu.
func (p *pace) bucket(name string) *rate.Limiter {
	at := p.peers[name]
	if at == nil {
		if p.used.Len() == maxPeers {
			if oldest, ok := p.used.Remove(p.used.Back()).(*bucket); ok {
				delete(p.peers, oldest.peer)
			}
		}
		at = p.used.PushFront(&bucket{name, rate.NewLimiter(p.rate, p.burst)})
		p.peers[name] = at
	}
	p.used.MoveToFront(at)
	b, _ := at.Value.(*bucket)
	return b.tokens
}

// peerOf names who calls, and tells how: the identity if there is one, else the
// address. No identity looks like an address.
func peerOf(ctx context.Context) (name, sort string) {
	if who, ok := auth.From(ctx); ok {
		return who.Name, "identity"
	}
	return addressOf(ctx), "address"
}

// addressOf is where a call comes from.
func addressOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	return endpoint.Origin(p.Addr.String())
}
