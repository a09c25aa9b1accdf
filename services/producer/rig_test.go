package producer_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// A roll is a registry that knows instances as the real one does, and fails as a
// test wants.
type roll struct {
	registryv1.UnimplementedProducerServiceServer

	mu       sync.Mutex
	newest   map[string]string    // by id, the instance that stands
	old      map[string]bool      // instances that do not stand any more
	calls    []string             // what was asked, by method
	renewals []time.Time          // when registrations were taken
	last     *registryv1.Producer // the last registration

	// register and deregister, if set, answer before the roll does: an error fails
	// the call. answer changes an answer.
	register, deregister func(ctx context.Context) error
	answer               func(*registryv1.RegisterProducerResponse)
}

func fault(code codes.Code, reason string) error {
	s, err := status.New(code, "no: "+reason).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "rollcall"})
	if err != nil {
		return err
	}
	return s.Err()
}

func (r *roll) RegisterProducer(ctx context.Context, m *registryv1.RegisterProducerRequest) (*registryv1.RegisterProducerResponse, error) {
	r.mu.Lock()
	r.calls = append(r.calls, "register")
	hook := r.register
	r.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := m.GetProducer()
	id, instance := p.GetProducerId(), p.GetInstanceId()
	switch {
	case r.old[instance] && r.newest[id] != "":
		return nil, fault(codes.Aborted, "INSTANCE_REPLACED")
	case r.old[instance]:
		return nil, fault(codes.FailedPrecondition, "INSTANCE_DEREGISTERED")
	}
	changed := r.newest[id] != instance
	if was := r.newest[id]; changed && was != "" {
		r.old[was] = true
	}
	r.newest[id], r.last = instance, p
	r.renewals = append(r.renewals, time.Now())
	resp := &registryv1.RegisterProducerResponse{
		Producer:   &registryv1.Producer{ProducerId: id, Placements: []*registryv1.Placement{{CollectorId: "c1"}}},
		RenewAfter: durationpb.New(200 * time.Second), Changed: changed,
	}
	if r.answer != nil {
		r.answer(resp)
	}
	return resp, nil
}

func (r *roll) DeregisterProducer(ctx context.Context, m *registryv1.DeregisterProducerRequest) (*registryv1.DeregisterProducerResponse, error) {
	r.mu.Lock()
	r.calls = append(r.calls, "deregister")
	hook := r.deregister
	r.mu.Unlock()
	if hook != nil {
		if err := hook(ctx); err != nil {
			return nil, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stands := r.newest[m.GetProducerId()]
	if stands != "" && m.GetInstanceId() != "" && stands != m.GetInstanceId() {
		return nil, fault(codes.Aborted, "INSTANCE_REPLACED")
	}
	r.old[stands] = true
	delete(r.newest, m.GetProducerId())
	return &registryv1.DeregisterProducerResponse{Changed: stands != ""}, nil
}

// stands is the instance that the roll has for an id; empty: none.
func (r *roll) stands(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest[id]
}

// times are when registrations were taken.
func (r *roll) times() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]time.Time(nil), r.renewals...)
}

// count is how often a method was called.
func (r *roll) count(method string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c == method {
			n++
		}
	}
	return n
}

// latest is the last registration.
func (r *roll) latest() *registryv1.Producer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// asked are the methods that were called.
func (r *roll) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls...)
}

// set changes the roll.
func (r *roll) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// A network has registries and endpoints, by address, in memory.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	silent    map[string]bool // takes no connection, and refuses none
}

func newNetwork() *network {
	return &network{listeners: map[string]*bufconn.Listener{}, silent: map[string]bool{}}
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	lis, silent := n.listeners[address], n.silent[address]
	n.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case lis == nil:
		return nil, errors.New("connection refused")
	}
	return lis.DialContext(ctx)
}

func (n *network) listen(address string) *bufconn.Listener {
	lis := bufconn.Listen(1 << 16)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[address] = lis
	return lis
}

// drop makes nobody listen at an address.
func (n *network) drop(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, address)
}

// hush makes an address take no connection, and refuse none.
func (n *network) hush(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent[address] = true
}

// registry serves a new roll at each address until the test ends.
func (n *network) registry(tb testing.TB, addresses ...string) *roll {
	tb.Helper()
	r := &roll{newest: map[string]string{}, old: map[string]bool{}}
	for _, address := range addresses {
		n.serve(tb, address, r)
	}
	return r
}

func (n *network) serve(tb testing.TB, address string, r registryv1.ProducerServiceServer) {
	tb.Helper()
	lis := n.listen(address)
	server := grpc.NewServer()
	registryv1.RegisterProducerServiceServer(server, r)
	served := make(chan struct{})
	go func() { _ = server.Serve(lis); close(served) }()
	tb.Cleanup(func() { server.Stop(); <-served })
}

// endpoint serves metrics at an address until the returned function is called or
// the test ends.
func (n *network) endpoint(tb testing.TB, address string, handler http.HandlerFunc) (stop func()) {
	tb.Helper()
	lis := n.listen(address)
	var handlers sync.WaitGroup
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handlers.Add(1)
		defer handlers.Done()
		handler(w, r)
	})}
	served := make(chan struct{})
	go func() { _ = server.Serve(lis); close(served) }()
	stop = sync.OnceFunc(func() { n.drop(address); _ = server.Close(); <-served; handlers.Wait() })
	tb.Cleanup(stop)
	return stop
}

// config is that of a keeper in this network.
func (n *network) config(registries ...string) producer.Config {
	c := producer.Config{Registries: registries, Dial: n.dial}
	producer.DialEndpoint(&c, func(ctx context.Context, _, address string) (net.Conn, error) { return n.dial(ctx, address) })
	return c
}

// metrics answers as an endpoint should.
func metrics(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up_and_well 1\n")) }
