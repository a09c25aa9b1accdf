package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/otlp"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// sinks are the places that samples are sent to, and the queue that they wait
// in. They are safe for concurrent use.
type sinks struct {
	config  Config
	fanout  *fanout
	metrics *deliver.Metrics

	changing sync.Mutex // one change at a time; taken before mu

	mu      sync.Mutex   // guards what follows; not held while anything is waited for
	queue   *queue.Queue // changed while changing
	running map[string]*outlet
	run     func(*outlet) // nil until Run
	stopped bool
}

// An outlet is one sink that runs, or will.
type outlet struct {
	settings.Sink

	target    string
	transport deliver.Transport // which sink closes, if it was started
	sink      *deliver.Sink
	reader    *queue.Reader
	cancel    context.CancelFunc
	done      chan struct{} // closed when it has ended; nil before it was started
}

func newSinks(c Config, f *fanout) *sinks {
	k := &sinks{config: c, fanout: f, metrics: deliver.NewMetrics(), running: map[string]*outlet{}}
	c.Metrics.MustRegister(k.metrics)
	return k
}

// openQueue opens the queue when there is a sink for the first time. It stays
// open: what waits in it may be for one that comes back.
func (k *sinks) openQueue(q settings.Queue) error {
	if k.queue != nil {
		return k.queue.Resize(int64(q.MaxBytes), int64(q.MemoryBytes))
	}
	metrics := queue.NewMetrics()
	opened, err := queue.Open(queue.Config{
		Dir:         filepath.Join(k.config.DataDir, "queue"),
		MaxBytes:    int64(q.MaxBytes),
		MemoryBytes: int64(q.MemoryBytes),
		Logger:      k.config.Logger,
		Metrics:     metrics,
	})
	if err != nil {
		return fmt.Errorf("open the queue: %w", err)
	}
	k.config.Metrics.MustRegister(metrics)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = opened
	return nil
}

// check refuses what cannot be, before anything is changed.
func (k *sinks) check(s *settings.Settings) error {
	if len(s.Sinks) == 0 && k.fanout.store == nil {
		return fmt.Errorf("%w: without a store of its own, the collector needs a sink", ErrConfiguration)
	}
	return nil
}

// apply makes the sinks those of the settings. What stays as it was is not
// touched; what is changed goes on where it was; what is gone has nothing kept
// for it any more.
func (k *sinks) apply(s *settings.Settings) error {
	k.changing.Lock()
	defer k.changing.Unlock()
	k.mu.Lock()
	stopped := k.stopped
	k.mu.Unlock()
	if stopped {
		return nil
	}
	if err := k.check(s); err != nil {
		return err
	}
	fresh, err := k.make(s.Sinks)
	if err != nil {
		return err
	}
	if len(s.Sinks) > 0 {
		if err := k.openQueue(s.Queue); err != nil {
			closeAll(fresh)
			return err
		}
	}
	var names []string
	for _, one := range s.Sinks {
		names = append(names, one.Name)
	}
	k.endAll(k.takeOut(func(name string) bool { return fresh[name] != nil || !slices.Contains(names, name) }))
	var failed error
	for name, made := range fresh {
		if err := k.begin(made); err != nil {
			failed = errors.Join(failed, fmt.Errorf("sink %s: %w", name, err))
		}
	}
	if k.queue == nil {
		return failed
	}
	k.queue.Forget(names)
	if len(names) == 0 {
		k.fanout.queue.Store(nil)
	} else {
		k.fanout.queue.Store(k.queue)
	}
	return failed
}

// takeOut takes sinks out of those that run.
func (k *sinks) takeOut(which func(name string) bool) []*outlet {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*outlet
	for name, r := range k.running {
		if which(name) {
			out = append(out, r)
			delete(k.running, name)
		}
	}
	return out
}

// A made sink is one that has not begun.
type made struct {
	settings.Sink

	target    string
	transport deliver.Transport
}

// make makes those that are new or changed.
func (k *sinks) make(all []settings.Sink) (map[string]*made, error) {
	fresh := map[string]*made{}
	k.mu.Lock()
	running := maps.Clone(k.running)
	k.mu.Unlock()
	for _, one := range all {
		if old := running[one.Name]; old != nil && old.Digest == one.Digest {
			continue
		}
		transport, target, err := k.transport(one)
		if err != nil {
			closeAll(fresh)
			return nil, fmt.Errorf("%w: sinks: %s: %w", ErrConfiguration, one.Name, err)
		}
		fresh[one.Name] = &made{Sink: one, target: target, transport: transport}
	}
	return fresh, nil
}

func closeAll(all map[string]*made) {
	for _, m := range all {
		m.transport.Close()
	}
}

// transport is what speaks to the receiver.
func (k *sinks) transport(s settings.Sink) (t deliver.Transport, target string, err error) {
	agent := "rollcall-collector/" + process.Version
	if w := s.RemoteWrite; w != nil {
		client, err := sinkClient(w.HTTP, "sink_"+s.Name, cmp.Or(s.Timeout, deliver.DefaultSendTimeout), k.config.DialSink)
		if err != nil {
			return nil, "", err
		}
		protocol := map[string]remotewrite.Protocol{"auto": remotewrite.Auto, "1.0": remotewrite.V1, "2.0": remotewrite.V2}[w.Protocol]
		write, err := remotewrite.New(remotewrite.Config{
			Name: s.Name, URL: w.URL.String(), HTTP: client, Headers: w.Headers, Protocol: protocol,
			OmitExemplars: w.NoExemplars, OmitNativeHistograms: w.NoNativeHistograms,
			UserAgent: agent, Logger: k.config.Logger,
		})
		if err != nil {
			return nil, "", err
		}
		return write, write.Target(), nil
	}
	o := s.OTLP
	headers := make(map[string]string, len(o.Headers))
	for name, value := range o.Headers {
		headers[name] = string(value)
	}
	var dial func(ctx context.Context, address string) (net.Conn, error)
	if k.config.DialSink != nil {
		dial = func(ctx context.Context, address string) (net.Conn, error) {
			return k.config.DialSink(ctx, "tcp", address)
		}
	}
	client, err := otlp.New(otlp.Config{
		Name: s.Name, Target: o.Endpoint, TLS: o.TLS, Insecure: o.TLS == nil, Headers: headers,
		Compression: otlp.Compression(o.Compression),
		UserAgent:   agent, Version: process.Version, Dial: dial, Logger: k.config.Logger,
	})
	if err != nil {
		return nil, "", err // not client: that would be a Transport with nil in it
	}
	return client, o.Endpoint, nil
}

// begin opens a sink's place in the queue and starts it. changing is held.
func (k *sinks) begin(m *made) error {
	reader, err := k.queue.Reader(m.Name)
	if err != nil {
		m.transport.Close()
		return err
	}
	r := &outlet{Sink: m.Sink, target: m.target, transport: m.transport, reader: reader}
	r.sink = deliver.New(deliver.Config{
		Name: m.Name, Log: reader, Transport: m.transport,
		ExternalLabels: m.ExternalLabels, Relabel: m.Relabel,
		MaxSamplesPerSend: m.MaxSamplesPerSend, MaxConcurrency: m.MaxConcurrency,
		BatchDeadline: m.BatchDeadline, SendTimeout: m.Timeout, MinBackoff: m.MinBackoff, MaxBackoff: m.MaxBackoff,
		StopGrace: k.config.StopGrace / 4, Logger: k.config.Logger, Metrics: k.metrics,
	})
	k.mu.Lock()
	stopped := k.stopped
	if !stopped {
		k.running[m.Name] = r
		if k.run != nil {
			k.run(r)
		}
	}
	k.mu.Unlock()
	if stopped {
		k.endAll([]*outlet{r})
	}
	return nil
}

// endAll stops sinks, all at one time, and leaves their places in the queue. It
// is bounded by a sink's own grace.
func (k *sinks) endAll(all []*outlet) {
	for _, r := range all {
		if r.done != nil {
			r.cancel()
		}
	}
	for _, r := range all {
		if r.done != nil {
			<-r.done
		} else {
			r.transport.Close()
		}
		r.reader.Close()
	}
}

// Run sends what is queued until ctx ends, and then what is left: until all
// sinks that work have it, for half of the collector's grace at most. The rest
// stays in the queue. collected is closed when nothing more is collected.
func (k *sinks) Run(ctx context.Context, collected <-chan struct{}) error {
	k.mu.Lock()
	k.run = func(r *outlet) {
		// Not a child of ctx: a sink that is stopped ends by its own cancel, and all
		// of them at the end of Run.
		sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r.cancel, r.done = cancel, make(chan struct{})
		go func() {
			defer close(r.done)
			if err := r.sink.Run(sending); err != nil && !errors.Is(err, context.Canceled) {
				k.config.Logger.ErrorContext(ctx, "a sink has ended", "sink", r.Name, "error", err)
			}
		}()
	}
	for _, r := range k.running {
		k.run(r)
	}
	k.mu.Unlock()

	<-ctx.Done()
	k.drain(collected)
	k.stop()
	return nil
}

// stop ends all sinks. None is started any more.
func (k *sinks) stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	k.endAll(k.takeOut(func(string) bool { return true }))
}

// drain waits until the sinks that work have all that was collected.
func (k *sinks) drain(collected <-chan struct{}) {
	limit := time.NewTimer(k.config.StopGrace / 2)
	defer limit.Stop()
	select {
	case <-collected:
	case <-limit.C:
		return
	}
	look := time.NewTicker(drainPoll)
	defer look.Stop()
	for k.behind() {
		select {
		case <-look.C:
		case <-limit.C:
			return
		}
	}
}

// drainPoll is how often it is looked whether the sinks have everything.
const drainPoll = 20 * time.Millisecond

// behind reports whether a sink that works has not got everything.
func (k *sinks) behind() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.running {
		if s := r.sink.Status(); !s.Failing && s.LagBytes > 0 {
			return true
		}
	}
	return false
}

// Close closes the queue, when nobody writes to it any more.
func (k *sinks) Close() {
	k.stop()
	k.changing.Lock() // a reload may be under way
	defer k.changing.Unlock()
	if k.queue == nil {
		return
	}
	if err := k.queue.Close(); err != nil {
		k.config.Logger.Error("could not close the queue", "error", err)
	}
}

// assembleSinks makes where samples go. The embedded store is open.
func (k *Collector) assembleSinks(first *settings.Settings) error {
	f := &fanout{store: k.config.Sink}
	if k.tsdb != nil {
		f.store = k.tsdb
	}
	k.sinks = newSinks(k.config, f)
	return k.sinks.apply(first)
}
