package siege_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
)

// maxPeak bounds what an attack takes while it lasts, that of the attacker
// included: both are in this process.
const maxPeak = 256 << 20

// attackTime is how long an attack lasts at least, and enough how often a good
// client has to be served before it ends.
const (
	attackTime = 200 * time.Millisecond
	enough     = 3
)

// goodTimeout is how long a good client waits at most, and how long an attack goes
// on if it is not served often enough. It is for machines that are busy with other
// things, too.
const goodTimeout = 20 * time.Second

// An attack goes on until ctx ends, or is done before: then it is made again. It
// tells what it did.
type attack func(ctx context.Context, r *raid) string

// A raid is what an attack holds.
type raid struct {
	*testing.T
	open []net.Conn
}

// dial opens a connection, also when the attack is to end.
func (r *raid) dial(ctx context.Context, p port) net.Conn {
	r.Helper()
	conn, err := p.dial(context.WithoutCancel(ctx))
	if err != nil {
		r.Fatalf("after %d connections: %v", len(r.open), err)
	}
	r.open = append(r.open, conn)
	return conn
}

// hangUp closes what is open. No port of this machine stays taken for it.
func (r *raid) hangUp() {
	for _, conn := range r.open {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
	r.open = nil
}

// A watch is what is seen beside an attack.
type watch struct {
	served int // good calls that ended before the attack did
	worst  time.Duration
	peak   uint64
}

// besiege attacks a port again and again, and calls a good client all the while,
// who has to be served meanwhile: the attack does not end before. What it tells
// goes to the log, with what it cost.
func (f *fort) besiege(t *testing.T, good func(ctx context.Context) error, a attack) {
	t.Helper()
	runtime.GC()
	base, burnt, begin := taken(), cpu(), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), goodTimeout)
	defer cancel()
	var w watch
	var beside sync.WaitGroup
	beside.Go(func() {
		for ctx.Err() == nil {
			w.peak = max(w.peak, taken())
			pause(ctx, 20*time.Millisecond)
		}
	})
	beside.Go(func() {
		defer cancel()
		if err := w.call(ctx, t.Context(), good); err != nil {
			t.Errorf("a good client beside it: %v", err)
		}
	})
	r := &raid{T: t}
	t.Cleanup(r.hangUp)
	rounds, told := 0, ""
	for ; ctx.Err() == nil; rounds++ {
		told = a(ctx, r)
		r.hangUp()
	}
	starved, took := errors.Is(ctx.Err(), context.DeadlineExceeded), time.Since(begin)
	beside.Wait()
	over := int64(w.peak) - int64(base)
	t.Logf("%s; %d times in %v, %d good calls beside it, the slowest in %v; %.1f MiB more at the peak, %v of CPU, both ends together",
		told, rounds, took.Round(time.Millisecond), w.served, w.worst.Round(100*time.Microsecond), float64(over)/(1<<20), (cpu() - burnt).Round(time.Millisecond))
	if starved {
		t.Errorf("only %d good calls ended in %v of it", w.served, took)
	}
	if over > maxPeak {
		t.Errorf("%d MiB more at the peak", over>>20)
	}
	if fault := f.faults.take(); fault != "" {
		t.Error(fault)
	}
}

// call makes good calls until they were enough, or the attack has ended.
func (w *watch) call(attack, all context.Context, good func(ctx context.Context) error) error {
	for begin := time.Now(); attack.Err() == nil && (w.served < enough || time.Since(begin) < attackTime); {
		ctx, cancel := context.WithTimeout(all, goodTimeout)
		start := time.Now()
		err := good(ctx)
		cancel()
		if err != nil {
			return err
		}
		w.worst = max(w.worst, time.Since(start))
		if attack.Err() == nil {
			w.served++
		}
		pause(attack, 2*time.Millisecond)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// taken is the memory of this process that is in use.
func taken() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// askRegistry is a good client of the registry: on a connection that it has, and
// on a new one.
func (f *fort) askRegistry(ctx context.Context) error {
	return f.ask(f.registry, f.toReg, func(conn *grpc.ClientConn) error {
		_, err := registryv1.NewProducerServiceClient(conn).GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: "p1"}, grpc.WaitForReady(true))
		return err
	})
}

// askCollector is a good client of the collector.
func (f *fort) askCollector(ctx context.Context) error {
	return f.ask(f.collector, f.toColl, func(conn *grpc.ClientConn) error {
		_, err := collectorv1.NewCollectionServiceClient(conn).GetCollection(ctx, &collectorv1.GetCollectionRequest{ProducerId: "p1"}, grpc.WaitForReady(true))
		return err
	})
}

func (f *fort) ask(p port, kept *grpc.ClientConn, call func(*grpc.ClientConn) error) error {
	if err := call(kept); err != nil {
		return fmt.Errorf("on a connection that was there: %w", err)
	}
	fresh := p.connect(f.client)
	defer fresh.Close()
	if err := call(fresh); err != nil {
		return fmt.Errorf("on a new connection: %w", err)
	}
	return nil
}

// browse is a good client of a port of HTTP.
func (p port) browse(ctx context.Context) error {
	status, err := p.get(ctx, "/healthz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return err
}

// get makes one HTTP request, and returns its status.
func (p port) get(ctx context.Context, path string) (int, error) {
	status, _, err := p.ask(ctx, http.MethodGet, path, nil, nil)
	return status, err
}

// ask makes one HTTP request, and returns the status and the beginning of what is
// answered.
func (p port) ask(ctx context.Context, verb, path string, header map[string]string, body []byte) (int, string, error) {
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx) },
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(ctx, verb, "http://port"+path, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	return resp.StatusCode, string(said), err
}
