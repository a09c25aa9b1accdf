package producer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

const (
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 30 * time.Second
	callTimeout = 10 * time.Second
	minRenewal  = time.Second
	maxRenewal  = 8 * time.Hour // a third of the longest lease
)

// A Keeper keeps one producer registered. Its methods may be called by any
// goroutine, at any time.
type Keeper struct {
	config  Config
	message *registryv1.Producer // changed by run only
	probe   *probe               // nil: the endpoint is not asked

	stop    context.CancelFunc // begins nothing anew
	abandon context.CancelFunc // ends the call under way
	done    chan struct{}      // closed when run has returned

	// Of run, and when it has returned of Deregister, which holds leaving.
	next    int             // the registry of the next try
	sent    bool            // some registry may know of us
	failing map[Step]bool   // what failed at the last try
	taken   bool            // some registry has taken the registration
	refused map[string]bool // registries that called it malformed
	leaving sync.Mutex

	mu         sync.Mutex
	registered bool  // guarded by mu
	trouble    error // guarded by mu: what keeps it from being registered
	err        error // guarded by mu: how it ended
}

func newKeeper(c Config, r Registration) (*Keeper, error) {
	if len(c.Registries) == 0 {
		return nil, errors.New("no address of a registry")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observe == nil {
		c.Observe = func(Step, error) {}
	}
	k := &Keeper{
		config: c, message: encode(r), done: make(chan struct{}), failing: map[Step]bool{},
		// A fleet with one list must not all ask its first one.
		next: mathrand.IntN(len(c.Registries)), refused: map[string]bool{},
		trouble: errors.New("not registered yet"),
	}
	if !c.NoWait {
		p, err := newProbe(r, c.dialEndpoint)
		if err != nil {
			return nil, err
		}
		k.probe = p
	}
	return k, nil
}

// newInstance names a process as no other one is named.
func newInstance() string { return rand.Text() }

// Ready returns nil while the producer is registered: from the first registration
// that the registry has taken until one is refused. An outage of the registry, or
// of the endpoint, changes nothing about it. Else it says what is missing.
func (k *Keeper) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.registered {
		return nil
	}
	return k.trouble
}

// Done is closed when the keeper renews no more: after Close or Deregister, or
// when the registry refuses the registration, which Err tells.
func (k *Keeper) Done() <-chan struct{} { return k.done }

// Err is what ended the keeper, an error that wraps ErrRefused; nil while it runs
// and when it was told to end.
func (k *Keeper) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// Close ends the keeper and leaves the producer on the roll, for the process that
// comes next.
func (k *Keeper) Close() {
	k.stop()
	k.abandon()
	<-k.done
}

// Deregister ends the keeper and takes the producer off the roll, by whichever
// registry answers first, within a time. It is not taken off, and that is no
// error, when a newer instance has registered it. When none answers the error says
// so; the producer stays on the roll until its lease ends, and then as long as it
// answers its collector.
func (k *Keeper) Deregister(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	// A registration that is under way could arrive after the deregistration.
	k.stop()
	select {
	case <-k.done:
	case <-time.After(within / 2):
	}
	k.Close()

	k.leaving.Lock()
	defer k.leaving.Unlock()
	if !k.sent {
		return nil
	}
	err := k.deregister(ctx)
	if err == nil {
		k.sent = false
	}
	return err
}

// run registers and renews until ctx ends. A call that is under way then goes on
// until calls ends.
func (k *Keeper) run(ctx, calls context.Context) error {
	failures := 0
	for ctx.Err() == nil {
		wait, err := k.turn(ctx, calls)
		switch {
		case err == nil:
			failures = 0
		case ctx.Err() != nil:
			return nil //nolint:nilerr // asked to stop
		case errors.Is(err, ErrRefused):
			return err
		default:
			wait = max(backoff(failures), told(err))
			failures++
		}
		sleep(ctx, wait)
	}
	return nil
}

// turn registers once, if the endpoint answers, and tells when to renew.
func (k *Keeper) turn(ctx, calls context.Context) (time.Duration, error) {
	if k.probe != nil {
		err := k.probe.ask(ctx)
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if k.note(ctx, StepProbe, err); err != nil {
			return 0, err
		}
	}
	address := k.address()
	k.sent = true
	resp, err := register(calls, k.config, address, k.message)
	if err != nil && ctx.Err() != nil {
		return 0, err
	}
	err = k.weigh(address, err)
	if k.note(ctx, StepRegister, err); err != nil {
		k.next++
		return 0, err
	}
	k.taken = true
	k.message.LastCollectorId = owner(resp.GetProducer())
	if resp.GetChanged() {
		k.config.Logger.InfoContext(ctx, "registered", "producer", k.message.GetProducerId(), "registry", address, "revision", resp.GetRevision())
	}
	return renewal(resp.GetRenewAfter().AsDuration()), nil
}

// weigh makes a refusal of what every registry calls malformed. Once one has taken
// it, it is not, and who says so has an outage of its own.
func (k *Keeper) weigh(address string, err error) error {
	if k.taken || !errors.Is(err, errMalformed) {
		return err
	}
	k.refused[address] = true
	for _, address := range k.config.Registries {
		if !k.refused[address] {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// address is the registry of the next try: the one that answered last, as long as
// it does.
func (k *Keeper) address() string { return k.config.Registries[k.next%len(k.config.Registries)] }

// note keeps, logs and tells what became of a step. Of many failures in a row the
// first one is worth a line, and so is their end; a refusal is told by end.
func (k *Keeper) note(ctx context.Context, step Step, err error) {
	k.mu.Lock()
	if err == nil {
		k.registered = k.registered || step == StepRegister
	} else {
		k.trouble = err
	}
	k.mu.Unlock()
	level := slog.LevelWarn
	if k.failing[step] {
		level = slog.LevelDebug
	}
	if err == nil && k.failing[step] {
		k.config.Logger.InfoContext(ctx, "a step that failed succeeds again", "step", string(step), "producer", k.message.GetProducerId())
	}
	k.failing[step] = err != nil
	if err != nil && !errors.Is(err, ErrRefused) {
		k.config.Logger.Log(ctx, level, "a step failed, and is tried again", "step", string(step),
			"producer", k.message.GetProducerId(), "error", err)
	}
	k.config.Observe(step, err)
}

// end notes how run has ended.
func (k *Keeper) end(err error) {
	if err != nil {
		k.config.Logger.Error("the registration is not renewed any more", "producer", k.message.GetProducerId(), "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.registered, k.err = false, err
	if k.trouble = err; err == nil {
		k.trouble = errors.New("the keeper was told to end")
	}
}

// deregister asks one registry after the other. Each has its share of the time, so
// that one that is silent leaves some to the others.
func (k *Keeper) deregister(ctx context.Context) error {
	deadline, _ := ctx.Deadline()
	var last error
	for n := 0; ctx.Err() == nil; n++ {
		share := time.Until(deadline) / time.Duration(max(1, len(k.config.Registries)-n))
		err := deregister(ctx, k.config, k.address(), k.message, min(share, callTimeout))
		k.note(ctx, StepDeregister, err)
		switch {
		case err == nil:
			k.config.Logger.InfoContext(ctx, "deregistered", "producer", k.message.GetProducerId(), "registry", k.address())
			return nil
		case errors.Is(err, ErrReplaced):
			k.config.Logger.InfoContext(ctx, "left to the newer process", "producer", k.message.GetProducerId())
			return nil
		case errors.Is(err, ErrRefused):
			return err
		}
		last = err
		k.next++
		if n >= len(k.config.Registries)-1 {
			sleep(ctx, backoff(n))
		}
	}
	if last == nil { // there was no time at all
		last = ctx.Err()
	}
	return fmt.Errorf("no registry took the deregistration: %w", last)
}

// backoff is full jitter over a bound that doubles.
func backoff(failures int) time.Duration {
	return mathrand.N(min(minBackoff<<min(failures, 20), maxBackoff))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
