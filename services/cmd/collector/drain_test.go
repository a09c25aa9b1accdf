package main

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// A fakeRegistry has one collector, a, with one producer that never leaves unless
// its left is set otherwise, and others.
type fakeRegistry struct {
	registryv1.CollectorServiceClient

	mu sync.Mutex // guards what follows, while time changes it

	old, stale, silent bool
	drained, until     bool
	behind             bool // shows no drain to who does not ask for its revision
	left               int64
	others             func() []*registryv1.Collector
	onDrain            func() // before a drain
	undrained          int
}

func (f *fakeRegistry) collector() *registryv1.Collector {
	c := &registryv1.Collector{CollectorId: "a", InstanceId: "i1", AssignedCount: f.left, DrainUntilRestart: f.until}
	if f.drained {
		c.DrainTime = timestamppb.Now()
	}
	return c
}

func (f *fakeRegistry) GetCollector(_ context.Context, m *registryv1.GetCollectorRequest, _ ...grpc.CallOption) (*registryv1.GetCollectorResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent {
		return nil, status.Error(codes.Unavailable, "silent")
	}
	c := f.collector()
	if f.behind && m.GetMinRevision() < 7 || f.stale {
		c.DrainTime, c.DrainUntilRestart = nil, false
	}
	return &registryv1.GetCollectorResponse{Collector: c, Stale: f.stale}, nil
}

func (f *fakeRegistry) ListCollectors(context.Context, *registryv1.ListCollectorsRequest, ...grpc.CallOption) (*registryv1.ListCollectorsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent {
		return nil, status.Error(codes.Unavailable, "silent")
	}
	return &registryv1.ListCollectorsResponse{Collectors: append(f.others(), f.collector()), Stale: f.stale}, nil
}

func (f *fakeRegistry) DrainCollector(_ context.Context, m *registryv1.DrainCollectorRequest, _ ...grpc.CallOption) (*registryv1.DrainCollectorResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.old && m.GetInstanceId() != "i1" {
		s, err := status.New(codes.Aborted, "another").WithDetails(&errdetails.ErrorInfo{Reason: "INSTANCE_REPLACED"})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	if !m.GetValidateOnly() {
		if f.onDrain != nil {
			f.onDrain()
		}
		f.until = !f.old && (f.until || !f.drained)
		f.drained = true
	}
	return &registryv1.DrainCollectorResponse{Collector: f.collector(), Revision: 7}, nil
}

func (f *fakeRegistry) UndrainCollector(context.Context, *registryv1.UndrainCollectorRequest, ...grpc.CallOption) (*registryv1.UndrainCollectorResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.undrained++
	f.drained = false
	return &registryv1.UndrainCollectorResponse{}, nil
}

func other(state registryv1.CollectorState) func() []*registryv1.Collector {
	return func() []*registryv1.Collector {
		return []*registryv1.Collector{{CollectorId: "b", State: state}}
	}
}

const (
	live     = registryv1.CollectorState_COLLECTOR_STATE_LIVE
	away     = registryv1.CollectorState_COLLECTOR_STATE_AWAY
	draining = registryv1.CollectorState_COLLECTOR_STATE_DRAINING
)

// TestDrain: how drains end, and when.
func TestDrain(t *testing.T) {
	for name, c := range map[string]struct {
		registry    func() *fakeRegistry
		says, fails string
		after       time.Duration
		undrained   int
	}{
		"drained": {func() *fakeRegistry { return &fakeRegistry{others: other(live)} }, "a is drained", "", 0, 0},
		"all others drain": {
			func() *fakeRegistry { return &fakeRegistry{left: 1, others: other(draining)} },
			"no other live collector for the 1 producers", "", 10 * time.Second, 0,
		},
		"the only other one is away": {
			func() *fakeRegistry { return &fakeRegistry{left: 1, others: other(away)} },
			"no other live collector", "", time.Minute, 0,
		},
		"a slow one":   {func() *fakeRegistry { return &fakeRegistry{left: 1, others: other(live)} }, "", "deadline exceeded", 4 * time.Minute, 0},
		"an older one": {func() *fakeRegistry { return &fakeRegistry{old: true, left: 1, others: other(live)} }, "", "knows no drain until", 0, 1},
		"an older one that drained already": {
			func() *fakeRegistry { return &fakeRegistry{old: true, drained: true, others: other(live)} },
			"a is drained", "", 0, 0,
		},
		"an operator's drain comes between": {func() *fakeRegistry {
			f := &fakeRegistry{others: other(live)}
			f.onDrain = func() { f.drained = true }
			return f
		}, "a is drained", "", 0, 0},
		"one that is behind": {func() *fakeRegistry { return &fakeRegistry{behind: true, others: other(live)} }, "a is drained", "", 0, 0},
		"a stale one": {func() *fakeRegistry {
			f := &fakeRegistry{left: 1, others: other(live)}
			f.onDrain = func() {
				f.stale = true
				time.AfterFunc(30*time.Second, func() { f.mu.Lock(); defer f.mu.Unlock(); f.stale, f.left = false, 0 })
			}
			return f
		}, "a is drained", "", 30 * time.Second, 0},
		"silence": {func() *fakeRegistry {
			f := &fakeRegistry{left: 1, others: other(live)}
			f.onDrain = func() { f.silent = true }
			return f
		}, "", "no registry has answered for 1m0s", time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				r := c.registry()
				d := drainer{id: "a", out: &out, registries: []registryv1.CollectorServiceClient{r}}
				ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
				defer cancel()
				begin := time.Now()
				err := d.drain(ctx)
				switch took := time.Since(begin); {
				case (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails):
					t.Errorf("ended with %v, want %q", err, c.fails)
				case !strings.Contains(out.String(), c.says):
					t.Errorf("says %q, want %q", out.String(), c.says)
				case took < c.after || took > c.after+3*time.Second:
					t.Errorf("took %v, want %v", took, c.after)
				case r.undrained != c.undrained:
					t.Errorf("undrained %d times, want %d", r.undrained, c.undrained)
				}
			})
		})
	}
}
