package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

// settings are how the story is told.
type settings struct {
	out io.Writer
	dir string // for data and logs

	registryCommand, collectorCommand string

	producers int
	interval  time.Duration
	pulls     int           // of each producer in each act
	late      time.Duration // that a pull may be
}

// patience bounds the wait for what an act is about.
const patience = 30 * time.Second

// A story is one telling. Its fields belong to the goroutine that tells it.
type story struct {
	settings
	fleet     fleet
	address   string // of whoever is the registry
	http      string
	registry  *child.Child
	collector *child.Child
	began     time.Time // of the act
}

// tell tells the story from its begin to its end.
func tell(ctx context.Context, set settings) (err error) {
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	f, err := newFleet(ctx, set.producers)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	s := &story{settings: set, fleet: f}
	defer s.end()
	for _, act := range []func(context.Context) error{
		s.everybodyIsCollected, s.itRefuses, s.itSaysTheSame, s.itLies, s.itHasForgotten, s.oneLeaves,
	} {
		if err := act(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("broken off")
		}
	}
	fmt.Fprintln(set.out, "Nobody was missed.")
	return nil
}

// end ends what was started.
func (s *story) end() {
	for _, c := range []*child.Child{s.registry, s.collector} {
		if c != nil {
			c.Kill()
		}
	}
}

func (s *story) everybodyIsCollected(ctx context.Context) error {
	ports, err := child.FreePorts(ctx, 4)
	if err != nil {
		return err
	}
	s.address, s.http = ports[0], ports[1]
	if err := s.startRegistry(ctx, "registry"); err != nil {
		return err
	}
	plan := child.Plan(s.collectorCommand, "collector", s.dir, ports[2], ports[3],
		"--id", "collector-1", "--registry", s.address, "--no-self-register")
	if s.collector, err = child.Start(plan); err != nil {
		return err
	}
	if err := child.AwaitReady(ctx, s.collector); err != nil {
		return err
	}
	if err := s.register(ctx); err != nil {
		return err
	}
	if err := s.until(ctx, "everybody is collected", func() bool { return s.fleet.pulled(time.Time{}, 2) }); err != nil {
		return err
	}
	s.began = time.Now()
	return s.closeAct(ctx, "a registry and a collector run, and the producers are registered")
}

func (s *story) itRefuses(ctx context.Context) error {
	s.registry.Kill()
	before := s.told(ctx, `rollcall_collector_subscriptions_ended_total{reason="unavailable"}`)
	if err := s.until(ctx, "the collector is refused", func() bool {
		return s.told(ctx, `rollcall_collector_subscriptions_ended_total{reason="unavailable"}`) >= before+2
	}); err != nil {
		return err
	}
	return s.closeAct(ctx, "the registry is killed; its port refuses the connection")
}

// itSaysTheSame also gives the collector its patience back: it tries again more
// and more rarely while nothing is sealed.
func (s *story) itSaysTheSame(ctx context.Context) error {
	if err := s.startRegistry(ctx, "registry"); err != nil {
		return err
	}
	if err := s.follows(ctx); err != nil {
		return err
	}
	sent, err := child.Scrape(ctx, "http://"+s.http+"/metrics")
	if err != nil {
		return err
	}
	for series, n := range sent {
		if len(series) > 40 && series[:40] == "rollcall_registry_assignments_sent_total" && n > 0 {
			return fmt.Errorf("%v assignments were sent again", n)
		}
	}
	// A stream that has stood for 10 s gives the collector its patience back.
	stood := time.Now().Add(11 * time.Second)
	if err := s.until(ctx, "the stream stands", func() bool { return time.Now().After(stood) }); err != nil {
		return err
	}
	return s.closeAct(ctx, "the registry is started again; nothing is sent that has not changed")
}

func (s *story) itLies(ctx context.Context) error {
	s.registry.Kill()
	l, err := newLiar(ctx, s.address)
	if err != nil {
		return err
	}
	defer l.stop()
	if err := s.until(ctx, "the collector is told three halves", func() bool { return l.lies() > halves }); err != nil {
		return err
	}
	if err := s.closeAct(ctx, "in its place one gives half an answer, and ends, fails, or resets the connection"); err != nil {
		return err
	}
	close(l.nobody)
	if err := s.until(ctx, "the collector is told that there is nobody", func() bool { return s.held(ctx) == len(s.fleet) }); err != nil {
		return err
	}
	return s.closeAct(ctx, "it gives an empty answer, whole and sealed: all are held, and collected")
}

func (s *story) itHasForgotten(ctx context.Context) error {
	if err := s.startRegistry(ctx, "registry-without-a-store"); err != nil {
		return err
	}
	if err := s.follows(ctx); err != nil {
		return err
	}
	if n := s.held(ctx); n != len(s.fleet) {
		return fmt.Errorf("%d producers are held, want all", n)
	}
	if err := s.closeAct(ctx, "a real registry is started on an empty directory: all are held, and collected"); err != nil {
		return err
	}
	if err := s.register(ctx); err != nil {
		return err
	}
	if err := s.until(ctx, "nobody is held", func() bool { return s.held(ctx) == 0 }); err != nil {
		return err
	}
	return s.closeAct(ctx, "the producers register again: nobody is held any more")
}

// oneLeaves shows that the guard keeps nobody who really leaves.
func (s *story) oneLeaves(ctx context.Context) error {
	leaver := s.fleet[0]
	err := s.call(func(conn *grpc.ClientConn) error {
		_, err := registryv1.NewProducerServiceClient(conn).DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: leaver.id})
		return err
	})
	if err != nil {
		return fmt.Errorf("deregister: %w", err)
	}
	left := time.Now()
	rest := s.fleet[1:]
	if err := s.until(ctx, "the others are collected", func() bool { return rest.pulled(left, s.pulls) }); err != nil {
		return err
	}
	var last time.Duration
	pulls := leaver.since(left)
	if len(pulls) > 0 {
		last = pulls[len(pulls)-1].Sub(left)
	}
	// One pull may have been under way.
	if len(pulls) > 1 || last > s.late {
		return fmt.Errorf("%s was pulled %d times after it was deregistered, at last after %v", leaver.id, len(pulls), last)
	}
	s.fleet = rest
	return s.closeAct(ctx, fmt.Sprintf("%s is deregistered: it is pulled no more (%d after the answer), the others are", leaver.id, len(pulls)))
}

// closeAct ends an act: everybody has been pulled often enough since it began, and
// nobody has waited too long.
func (s *story) closeAct(ctx context.Context, act string) error {
	since := time.Now()
	if err := s.until(ctx, "everybody is pulled", func() bool { return s.fleet.pulled(since, s.pulls) }); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	now := time.Now()
	t := s.fleet.tally(s.began, now)
	s.began = now
	narrate(s.out, act, t.String())
	if t.longest > s.interval+s.late {
		return fmt.Errorf("%s: %s waited for %v, interval %v", act, t.waited, t.longest, s.interval)
	}
	return nil
}

// until waits until something is so.
func (s *story) until(ctx context.Context, what string, so func() bool) error {
	start := time.Now()
	for !so() {
		if time.Since(start) > patience || ctx.Err() != nil {
			return fmt.Errorf("not within %v: %s", time.Since(start).Round(time.Second), what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

func (s *story) startRegistry(ctx context.Context, name string) (err error) {
	plan := child.Plan(s.registryCommand, name, s.dir, s.address, s.http, "--no-self-register")
	if s.registry, err = child.Start(plan); err != nil {
		return err
	}
	return child.AwaitReady(ctx, s.registry)
}

// follows waits until the registry has a subscription, which is after its first
// snapshot was sent.
func (s *story) follows(ctx context.Context) error {
	return s.until(ctx, "the collector follows the registry", func() bool {
		m, err := child.Scrape(ctx, "http://"+s.http+"/metrics")
		return err == nil && m["rollcall_registry_subscriptions"] == 1 && s.told(ctx, "rollcall_collector_subscribed") == 1
	})
}

// told is a metric of the collector; less than 0 when it does not answer.
func (s *story) told(ctx context.Context, series string) float64 {
	m, err := child.Scrape(ctx, "http://"+s.collector.HTTP+"/metrics")
	if err != nil {
		return -1
	}
	return m[series]
}

func (s *story) held(ctx context.Context) int {
	return int(s.told(ctx, "rollcall_collector_held_producers"))
}

func (s *story) register(ctx context.Context) error {
	return s.call(func(conn *grpc.ClientConn) error {
		for _, p := range s.fleet {
			_, err := registryv1.NewProducerServiceClient(conn).RegisterProducer(ctx, &registryv1.RegisterProducerRequest{
				Producer: &registryv1.Producer{
					ProducerId: p.id, Endpoint: p.url,
					Interval: durationpb.New(s.interval), Timeout: durationpb.New(s.interval),
				},
			})
			if err != nil {
				return fmt.Errorf("register %s: %w", p.id, err)
			}
		}
		return nil
	})
}

// call calls the registry.
func (s *story) call(do func(conn *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return err
	}
	return errors.Join(do(conn), conn.Close())
}
