package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A fleet is a fake Opener whose collections keep a record of every call and
// find every breach of their contract.
type fleet struct {
	// open, update and collect are the faults to inject, nil for none. They are
	// set before the schedule runs.
	open    func(a *assignment.Assignment) error
	update  func(a *assignment.Assignment) error
	collect func(ctx context.Context, p *pull, at time.Time) schedule.Result

	// inRealTime says that time passes between two statements.
	inRealTime bool

	mu       sync.Mutex
	pulls    []*pull // in the order of Open
	byID     map[assignment.ProducerID][]*pull
	breaches []string
}

// A pull is one fake Collection.
type pull struct {
	fleet *fleet
	id    assignment.ProducerID

	// Guarded by fleet.mu.
	work    *assignment.Assignment
	calls   []call
	updates int
	inside  string // the method that runs
	ends    []end
}

type call struct {
	at, began time.Time
	ended     time.Time // zero while it runs
	endpoint  string
	probe     bool
}

type end struct {
	at, called time.Time
	stale      bool
}

func (f *fleet) Open(a *assignment.Assignment) (schedule.Collection, error) {
	if f.open != nil {
		if err := f.open(a); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &pull{fleet: f, id: a.ProducerID, work: a}
	f.pulls = append(f.pulls, p)
	if f.byID == nil {
		f.byID = map[assignment.ProducerID][]*pull{}
	}
	f.byID[p.id] = append(f.byID[p.id], p)
	return p, nil
}

func (p *pull) Update(a *assignment.Assignment) error {
	defer p.enter("Update")()
	if p.fleet.update != nil {
		if err := p.fleet.update(a); err != nil {
			return err
		}
	}
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	p.work = a
	p.updates++
	return nil
}

func (p *pull) Collect(ctx context.Context, at time.Time) schedule.Result {
	defer p.enter("Collect")()
	return p.pull(ctx, at, false)
}

func (p *pull) Probe(ctx context.Context, at time.Time) schedule.Result {
	defer p.enter("Probe")()
	return p.pull(ctx, at, true)
}

func (p *pull) pull(ctx context.Context, at time.Time, probe bool) schedule.Result {
	f := p.fleet
	began := time.Now()
	f.mu.Lock()
	for _, earlier := range f.byID[p.id][:slices.Index(f.byID[p.id], p)] {
		if len(earlier.ends) == 0 {
			f.breaches = append(f.breaches, fmt.Sprintf("%s: collected before its former collection had ended", p.id))
		}
	}
	timeout := p.work.Timeout
	n := len(p.calls)
	p.calls = append(p.calls, call{at: at, began: began, endpoint: p.work.Endpoint, probe: probe})
	f.mu.Unlock()
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > timeout || !f.inRealTime && time.Until(deadline) != timeout {
		p.breach("the context's deadline is not the timeout")
	}

	result := schedule.Result{Samples: 1, BodyBytes: 10}
	if f.collect != nil {
		result = f.collect(ctx, p, at)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p.calls[n].ended = time.Now()
	return result
}

func (p *pull) End(at time.Time, stale bool) {
	defer p.enter("End")()
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	p.ends = append(p.ends, end{at, time.Now(), stale})
}

func (p *pull) enter(method string) (leave func()) {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	if p.inside != "" {
		p.fleet.breaches = append(p.fleet.breaches, fmt.Sprintf("%s: %s during %s", p.id, method, p.inside))
	}
	if len(p.ends) > 0 {
		p.fleet.breaches = append(p.fleet.breaches, fmt.Sprintf("%s: %s after End", p.id, method))
	}
	p.inside = method
	return func() {
		p.fleet.mu.Lock()
		defer p.fleet.mu.Unlock()
		p.inside = ""
	}
}

func (p *pull) breach(text string) {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	p.fleet.breaches = append(p.fleet.breaches, fmt.Sprintf("%s: %s", p.id, text))
}

// of returns the collections that were opened for a producer.
func (f *fleet) of(id assignment.ProducerID) []*pull {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.byID[id])
}

// only returns the one collection that was ever opened for a producer.
func (f *fleet) only(t *testing.T, id assignment.ProducerID) *pull {
	t.Helper()
	found := f.of(id)
	if len(found) != 1 {
		t.Fatalf("%d collections of %s were opened, want 1", len(found), id)
	}
	return found[0]
}

func (p *pull) log() []call {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *pull) updated() int {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.updates
}

func (p *pull) ended() []end {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return slices.Clone(p.ends)
}

// sound fails the test for every breach, and unless every collection has ended
// once.
func (f *fleet) sound(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, b := range f.breaches {
		t.Error(b)
	}
	for _, p := range f.pulls {
		if len(p.ends) != 1 {
			t.Errorf("%s: End was called %d times, want once", p.id, len(p.ends))
		}
	}
}

// take makes a collection that lasts that long, or until its context ends.
func take(d time.Duration) func(context.Context, *pull, time.Time) schedule.Result {
	return func(ctx context.Context, _ *pull, _ time.Time) schedule.Result { return pass(ctx, d) }
}

func pass(ctx context.Context, d time.Duration) schedule.Result {
	if d == 0 {
		// Timers that are due at once, waited for by several goroutines of a
		// bubble, can crash the race detector of Go 1.26.
		return schedule.Result{Samples: 1, BodyBytes: 10}
	}
	select {
	case <-time.After(d):
		return schedule.Result{Samples: 1, BodyBytes: 10}
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return schedule.Result{Reason: schedule.ReasonTimeout, Message: "too slow"}
		}
		return schedule.Result{Reason: schedule.ReasonUnreachable, Message: "cancelled"}
	}
}

func newAssignment(id assignment.ProducerID, interval time.Duration) *assignment.Assignment {
	return &assignment.Assignment{
		ProducerID: id, Version: 1, Endpoint: "http://" + string(id) + "/metrics",
		Interval: interval, Timeout: interval,
	}
}

func upserts(list ...*assignment.Assignment) schedule.Change { return schedule.Change{Upserts: list} }

func removal(id assignment.ProducerID, stale bool) schedule.Change {
	return schedule.Change{Removals: []schedule.Removal{{ProducerID: id, Stale: stale}}}
}

// run runs a schedule in the bubble; stop ends it, and fails the test unless the
// fleet is sound.
func run(t *testing.T, f *fleet, cfg schedule.Config) (s *schedule.Schedule, stop func()) {
	t.Helper()
	cfg.Opener = f
	s = schedule.New(cfg)
	return s, start(t, f, s)
}

func start(t *testing.T, f *fleet, s *schedule.Schedule) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	synctest.Wait()
	return func() {
		t.Helper()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		f.sound(t)
	}
}

func find(t *testing.T, s *schedule.Schedule, id assignment.ProducerID) schedule.Status {
	t.Helper()
	status, ok := s.Find(id)
	if !ok {
		t.Fatalf("%s is not applied", id)
	}
	return status
}

// metric is the value of a counter or gauge, or the count of a histogram, with
// the one label value.
func metric(t *testing.T, m *schedule.Metrics, name, label string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "rollcall_collector_"+name {
			continue
		}
		for _, m := range family.GetMetric() {
			if labelOf(m) == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func labelOf(m *dto.Metric) string {
	if len(m.GetLabel()) == 0 {
		return ""
	}
	return m.GetLabel()[0].GetValue()
}

// startForReal runs a schedule in real time.
func startForReal(t testing.TB, s *schedule.Schedule) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (p *pull) endpoint() string {
	p.fleet.mu.Lock()
	defer p.fleet.mu.Unlock()
	return p.work.Endpoint
}
