package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const drainDescription = `Hand everything that a collector has to the others before it is stopped, each
producer to one that collects it first: for what is run before a container stops,
without a shell. The drain ends by itself when the collector is started again; one
that an operator began stays.

It always ends: when nothing is left, when there is nobody to hand anything to, at
once or 10 s after the last other one (60 s, if that is known and away), when no
registry has answered for 10 s at the beginning or for 60 s later, or after --timeout.

Exit codes: 0 nothing is left or can be handed off, 1 something is, 2 refused its flags.`

type drainFlags struct {
	ID       string        `required:"" help:"The name of the collector."`
	Registry []string      `default:"127.0.0.1:7470" placeholder:"ADDRESS" help:"host:port of a registry's gRPC (repeatable); each try takes the next one. Default: ${default}."`
	Timeout  time.Duration `env:"ROLLCALL_DRAIN_TIMEOUT" default:"4m" help:"Wait at most so long."`

	process.ClientFlags
}

const (
	// answerWait is how long the first answer of a registry is waited for, and
	// another collector that may be on its way.
	answerWait = 10 * time.Second

	// silenceWait is how long the registries may all be silent later, and another
	// collector away that is the only one left: they hand off what it had by then.
	silenceWait = 60 * time.Second

	// expectPoll is the time between two looks for another collector.
	expectPoll = 2 * time.Second

	// drainCall bounds one call, drainPoll is the time between two.
	drainCall = 2 * time.Second
	drainPoll = 500 * time.Millisecond
)

// Run drains the collector and waits.
func (f *drainFlags) Run(ctx context.Context) error {
	if f.Timeout <= 0 {
		return process.Refusef("--timeout %v: want more than 0", f.Timeout)
	}
	if err := checkFollow(f.ID, f.Registry); err != nil {
		return err
	}
	client, err := f.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.Timeout, fmt.Errorf("not drained after %v", f.Timeout))
	defer cancel()
	d := drainer{id: f.ID, out: os.Stdout}
	for _, address := range f.Registry {
		conn, err := grpc.NewClient("passthrough:///"+address,
			append(client.Options(), grpc.WithNoProxy(), grpc.WithDisableServiceConfig())...)
		if err != nil {
			return err
		}
		defer conn.Close()
		d.registries = append(d.registries, registryv1.NewCollectorServiceClient(conn))
	}
	return d.drain(ctx)
}

// A drainer drains one collector. It asks one registry after the other.
type drainer struct {
	id         string
	registries []registryv1.CollectorServiceClient
	asked      int
	out        io.Writer

	looked   bool  // the first look at the collector was taken
	stood    bool  // a drain stood then
	revision int64 // what every look from then on has to have seen
}

// errNothing ends a drain that has nothing to do.
var errNothing = errors.New("nothing to hand off")

func (d *drainer) drain(ctx context.Context) error {
	instance, err := d.begin(ctx)
	if err == nil {
		err = d.wait(ctx, instance)
	}
	if errors.Is(err, errNothing) {
		_, err = fmt.Fprintf(d.out, "%s: %v\n", d.id, err)
	}
	return err
}

// begin begins the drain of the instance that is the newest one now: a request
// that is late must not drain the one that is started next.
func (d *drainer) begin(ctx context.Context) (instance string, err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, answerWait, fmt.Errorf("no registry has answered for %v", answerWait))
	defer cancel()
	for {
		err := d.ask(bounded, func(ctx context.Context, r registryv1.CollectorServiceClient) error {
			resp, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: d.id})
			if err != nil {
				return err
			}
			if resp.GetStale() {
				return errStale
			}
			if !d.looked {
				d.looked, d.stood = true, resp.GetCollector().GetDrainTime() != nil
			}
			instance = resp.GetCollector().GetInstanceId()
			return d.beginAt(ctx, r, instance)
		})
		switch {
		case err == nil:
			return instance, nil
		case reason(err) == "NO_OTHER_COLLECTOR":
			if live, away, err := d.others(bounded); err == nil && !live && !away {
				return "", fmt.Errorf("%w: there is no other live collector", errNothing)
			}
		case status.Code(err) == codes.NotFound:
			return "", fmt.Errorf("%w: no registry knows it", errNothing)
		case reason(err) == "EXPUNGED", reason(err) == "INSTANCE_REPLACED":
			return "", fmt.Errorf("%w: %s", errNothing, status.Convert(err).Message())
		default:
			return "", err
		}
		if pause(bounded) != nil {
			return "", fmt.Errorf("%w: there is no other live collector", errNothing)
		}
	}
}

// errStale is the answer of a registry that cannot reach its store.
var errStale = status.Error(codes.Unavailable, "the registry cannot reach its store")

// beginAt begins the drain at a registry. One of an older version drains without
// an end, which is undone.
func (d *drainer) beginAt(ctx context.Context, r registryv1.CollectorServiceClient, instance string) error {
	resp, err := r.DrainCollector(ctx, &registryv1.DrainCollectorRequest{
		CollectorId: d.id, UntilRestart: true, InstanceId: instance,
	})
	if err != nil {
		return err
	}
	d.revision = resp.GetRevision()
	if resp.GetCollector().GetDrainUntilRestart() || d.stood {
		return nil
	}
	if older, err := d.older(ctx, r); err != nil || !older {
		return err // an operator has begun a drain since the first look
	}
	_, err = r.UndrainCollector(ctx, &registryv1.UndrainCollectorRequest{CollectorId: d.id})
	return errors.Join(errors.New("the registry is of a version that knows no drain until the restart"), err)
}

// older tells whether a registry is of a version that knows no drain until the
// restart. It knows no instances then, either, and plans for one that nobody is.
func (d *drainer) older(ctx context.Context, r registryv1.CollectorServiceClient) (bool, error) {
	_, err := r.DrainCollector(ctx, &registryv1.DrainCollectorRequest{
		CollectorId: d.id, ValidateOnly: true, UntilRestart: true, InstanceId: rand.Text(),
	})
	if reason(err) == "INSTANCE_REPLACED" {
		return false, nil
	}
	return err == nil, err
}

// others tells whether there is another collector that may be given something,
// now or soon: one that was just started has no subscription yet.
func (d *drainer) others(ctx context.Context) (live, away bool, err error) {
	err = d.ask(ctx, func(ctx context.Context, r registryv1.CollectorServiceClient) error {
		resp, err := r.ListCollectors(ctx, &registryv1.ListCollectorsRequest{PageSize: 1000})
		if err == nil && resp.GetStale() {
			err = errStale
		}
		for _, c := range resp.GetCollectors() {
			if c.GetCollectorId() == d.id || c.GetDrainTime() != nil {
				continue
			}
			live = live || c.GetState() == registryv1.CollectorState_COLLECTOR_STATE_LIVE
			away = away || c.GetState() == registryv1.CollectorState_COLLECTOR_STATE_AWAY
		}
		return err
	})
	return live, away, err
}

// wait waits until nothing is left. Registries that are away for a while are
// waited for, too.
func (d *drainer) wait(ctx context.Context, instance string) error {
	now := time.Now()
	hope := hope{live: now, known: now}
	for {
		c, err := d.look(ctx)
		left := c.GetAssignedCount() + c.GetLeavingCount()
		switch {
		case err != nil:
			return err
		case c.GetInstanceId() != instance:
			return fmt.Errorf("%w: it was started again", errNothing)
		case c.GetDrainTime() == nil:
			return fmt.Errorf("somebody has ended the drain of %s with %d producers left", d.id, left)
		case left == 0:
			_, err := fmt.Fprintf(d.out, "%s is drained\n", d.id)
			return err
		}
		if hopes, err := d.hopes(ctx, &hope); err != nil {
			return err
		} else if !hopes {
			return fmt.Errorf("%w: there is no other live collector for the %d producers that are left", errNothing, left)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: %d producers are left", err, left)
		}
	}
}

// hope is when another collector was last seen live, when live or away, and when
// somebody looked.
type hope struct{ live, known, looked time.Time }

// hopes tells whether another collector may still take something.
func (d *drainer) hopes(ctx context.Context, h *hope) (bool, error) {
	if time.Since(h.looked) < expectPoll {
		return true, nil
	}
	bounded, cancel := silence(ctx)
	defer cancel()
	live, away, err := d.others(bounded)
	if err != nil {
		return false, err
	}
	now := time.Now()
	h.looked = now
	if live {
		h.live = now
	}
	if live || away {
		h.known = now
	}
	return now.Sub(h.live) < silenceWait && now.Sub(h.known) < answerWait, nil
}

// look gets the collector as it is since the drain began, or later.
func (d *drainer) look(ctx context.Context) (c *registryv1.Collector, err error) {
	bounded, cancel := silence(ctx)
	defer cancel()
	err = d.ask(bounded, func(ctx context.Context, r registryv1.CollectorServiceClient) error {
		resp, err := r.GetCollector(ctx, &registryv1.GetCollectorRequest{CollectorId: d.id, MinRevision: d.revision})
		if err == nil && resp.GetStale() {
			err = errStale
		}
		c = resp.GetCollector()
		return err
	})
	return c, err
}

// silence bounds how long no registry may answer.
func silence(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, silenceWait, fmt.Errorf("no registry has answered for %v", silenceWait))
}

// ask calls until a registry answers for good, or ctx ends.
func (d *drainer) ask(ctx context.Context, call func(context.Context, registryv1.CollectorServiceClient) error) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, drainCall)
		err := call(bounded, d.registries[d.asked%len(d.registries)])
		cancel()
		if err == nil || final(err) {
			return err
		}
		d.asked++
		if ended := pause(ctx); ended != nil {
			return fmt.Errorf("%w; the last one said: %.256q", ended, status.Convert(err).Message())
		}
	}
}

// final tells whether a call that failed would fail again.
func final(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return false
	case codes.Aborted:
		return reason(err) == "INSTANCE_REPLACED"
	default:
		return true
	}
}

// reason is the one that a registry gives for an error.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// pause waits a moment; the error tells why ctx has ended.
func pause(ctx context.Context) error {
	timer := time.NewTimer(drainPoll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
