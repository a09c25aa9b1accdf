package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// revokeTimeout bounds the goodbye.
const revokeTimeout = time.Second

// HoldLease implements registrar.Store. One at a time. The store may give the
// lease somewhat longer than ttl, at least a second. held should return soon:
// the lease is not renewed before. The lease counts as lost once ttl has passed
// without the store's word, so never later than the store lets it go.
func (s *Store) HoldLease(ctx context.Context, ttl time.Duration, held func()) error {
	ctx, end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	began := time.Now()
	lease, ttl, err := s.leaser.grant(ctx, ttl)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("grant a lease: %w", err)
	}
	defer s.revoke(ctx, lease)
	if err := s.useLease(lease); err != nil {
		return err
	}
	defer s.dropLease()
	held()
	return s.renew(ctx, lease, ttl, began)
}

func (s *Store) useLease(lease int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease != 0 {
		return errors.New("this process holds a lease already")
	}
	s.lease = lease
	return nil
}

func (s *Store) dropLease() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease = 0
}

// revoke is for the best: a lease that nobody renews runs out by itself.
func (s *Store) revoke(ctx context.Context, lease int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	_ = s.leaser.revoke(ctx, lease)
}

// renew keeps the lease alive, which was renewed last when that was asked for
// at began, until ctx ends or it is lost.
func (s *Store) renew(ctx context.Context, lease int64, ttl time.Duration, began time.Time) error {
	var (
		interval = ttl / 3
		deadline = began.Add(ttl)
		timer    = time.NewTimer(interval)
	)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
		asked := time.Now()
		if !asked.Before(deadline) {
			return fmt.Errorf("%w: not renewed for %s", registrar.ErrLeaseLost, ttl)
		}
		once, cancel := context.WithDeadline(ctx, earlier(asked.Add(interval), deadline))
		err := s.leaser.keepAlive(once, lease)
		cancel()
		switch {
		case err == nil:
			deadline = asked.Add(ttl)
			timer.Reset(interval)
		case errors.Is(err, registrar.ErrLeaseLost):
			return err
		default:
			timer.Reset(min(interval/4, time.Until(deadline)))
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
