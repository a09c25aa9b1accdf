package bench

import (
	"context"
	"flag"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"
)

// The size of BenchmarkRenewals. The defaults keep make bench short.
var (
	renewers       = flag.Int("renewers", 2000, "BenchmarkRenewals: how many producers renew, once each")
	renewersAtOnce = flag.Int("at-once", 16, "BenchmarkRenewals: how many of them at one time")
)

const (
	// renewalPace is the time between two renewals by default: a third of the lease.
	renewalPace = 10 * time.Minute / 3

	// renewalsRest is for how long at most the registry is looked at while nobody renews.
	renewalsRest = 5 * time.Second
)

// BenchmarkRenewals tells what a renewal costs the registry and the producer: as
// the SDK makes it, on a connection of its own, in plain text and with a
// certificate of the producer's own, and beside it on a connection that is kept,
// which nobody does.
func BenchmarkRenewals(b *testing.B) {
	bin := buildCommands(b)
	for _, v := range []struct {
		name    string
		kept    bool
		secured bool
	}{{"kept", true, false}, {"plain", false, false}, {"mtls", false, true}} {
		b.Run(v.name, func(b *testing.B) {
			for b.Loop() {
				benchRenewals(b, bin, v.kept, v.secured)
			}
		})
	}
}

func benchRenewals(b *testing.B, bin string, kept, secured bool) {
	var t *trust
	if secured {
		t = newTrust(b, bin)
	}
	s := startRegistry(b, bin, t)
	all := make([]renewer, *renewers)
	for i := range all {
		all[i] = renewer{id: fmt.Sprintf("checkout-%07d", i)}
		if secured {
			all[i].creds = t.producer(b, all[i].id)
		}
	}
	renew := func(ctx context.Context, r renewer) error { return r.renew(ctx, s.address) }
	if kept {
		client := registryv1.NewProducerServiceClient(s.client(b))
		renew = func(ctx context.Context, r renewer) error {
			_, err := client.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: r.message()})
			return err
		}
	}
	inTurn(b, all, renew) // the first time is the registration
	revision := s.gauge(b, "rollcall_registry_view_revision")
	profiled := s.profileRenewals(b)
	cpu, own, began := s.cpu(b), ownCPU(b), time.Now()
	inTurn(b, all, renew)
	took := time.Since(began)
	cpu, own = s.cpu(b)-cpu, ownCPU(b)-own
	cpu -= s.idleCPU(b, min(took, renewalsRest)) * took.Seconds()
	profiled()
	if now := s.gauge(b, "rollcall_registry_view_revision"); now-revision > float64(len(all))/10 { // who leads is written, too
		b.Errorf("renewals have made %v revisions", now-revision)
	}
	n := float64(len(all))
	b.ReportMetric(cpu/n*1e6, "registry-cpu-us/renewal")
	b.ReportMetric(own/n*1e6, "producer-cpu-us/renewal")
	b.ReportMetric(cpu/n*1e6/renewalPace.Seconds(), "registry-cores/Mproducers")
	b.ReportMetric(n/took.Seconds(), "renewals/s")
	b.ReportMetric(s.memory(b), "MiB")
	b.ReportMetric(0, "ns/op")
	b.Log("load average", loadAverage(b))
	s.stop()
}

// inTurn lets all renew, some at a time.
func inTurn(b *testing.B, all []renewer, renew func(context.Context, renewer) error) {
	b.Helper()
	group, ctx := errgroup.WithContext(b.Context())
	group.SetLimit(*renewersAtOnce)
	for _, r := range all {
		group.Go(func() error { return renew(ctx, r) })
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// profileRenewals is profileCPU of a registry, for the first seconds of them.
func (s *server) profileRenewals(b *testing.B) (done func()) {
	b.Helper()
	if *profiles == "" {
		return func() {}
	}
	text := make(chan []byte, 1)
	go func() {
		defer close(text)
		resp, err := s.ask("/debug/pprof/profile?seconds=10")
		if err != nil {
			return
		}
		defer func() { _ = resp.Body.Close() }()
		all, _ := io.ReadAll(resp.Body)
		text <- all
	}()
	return func() { (&subject{server: s}).keep(b, "cpu", string(<-text)) }
}

// A renewer is one producer.
type renewer struct {
	id    string
	creds credentials.TransportCredentials // nil: plain text
}

// renew registers it, as the SDK does it each time.
func (r renewer) renew(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var outcome error
	c := producer.Config{
		Registries: []string{address}, Credentials: r.creds,
		Observe: func(_ producer.Step, err error) { outcome = err; cancel() },
	}
	if err := producer.Keep(ctx, c, r.registration()); err != nil {
		return err
	}
	return outcome
}

func (r renewer) registration() producer.Registration {
	return producer.Registration{
		ID: r.id, Endpoint: "http://" + r.id + ".example:9100/metrics", Instance: "i-" + r.id, Zone: "eu-west-1",
		Labels: map[string]string{"env": "production", "host": r.id, "service": "checkout", "team": "payments", "zone": "eu-west-1"},
	}
}

// message is the same for a call without the SDK.
func (r renewer) message() *registryv1.Producer {
	like := r.registration()
	p := &registryv1.Producer{ProducerId: like.ID, Endpoint: like.Endpoint, InstanceId: like.Instance, Zone: like.Zone}
	for _, name := range []string{"env", "host", "service", "team", "zone"} {
		p.Labels = append(p.Labels, &registryv1.Label{Name: name, Value: like.Labels[name]})
	}
	return p
}

// idleCPU is the processor time that a server uses in a second for nothing.
func (s *server) idleCPU(b *testing.B, span time.Duration) float64 {
	b.Helper()
	cpu, began := s.cpu(b), time.Now()
	time.Sleep(span)
	return (s.cpu(b) - cpu) / time.Since(began).Seconds()
}

// ownCPU is the processor time that this process has used, in seconds.
func ownCPU(b *testing.B) float64 {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}
