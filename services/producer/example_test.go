package producer_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"github.com/rollcall-metrics/rollcall/services/producer"
)

// playground is a registry and the network to it, for the examples.
func playground() (dial *network, roll *roll, stop func()) {
	tb := &exampleTB{}
	n := newNetwork()
	return n, n.registry(tb, "registry:7470"), tb.end
}

// An exampleTB ends what the rig began.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (*exampleTB) Helper() {}

func (tb *exampleTB) Cleanup(f func()) { tb.cleanups = append(tb.cleanups, f) }

func (tb *exampleTB) end() {
	for _, f := range tb.cleanups {
		f()
	}
}

// A program serves its metrics, and is on the roll for as long as it runs.
func Example() {
	network, roll, stop := playground()
	defer stop()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &http.Server{Handler: producer.Identify("shop/checkout-1", promhttp.Handler()), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(lis) }()
	defer server.Close()
	registered := make(chan struct{})

	keeper, err := producer.Start(producer.Config{
		Registries: []string{"registry:7470"},
		Dial:       network.dial, // the example has a registry of its own
		Observe: func(step producer.Step, err error) {
			if step == producer.StepRegister && err == nil {
				close(registered)
			}
		},
	}, producer.Registration{ID: "shop/checkout-1", Endpoint: "http://" + lis.Addr().String() + "/metrics"})
	if err != nil {
		fmt.Println(err)
		return
	}

	<-registered
	fmt.Println("ready:", keeper.Ready() == nil, "on the roll:", roll.stands("shop/checkout-1") != "")
	fmt.Println("deregistered:", keeper.Deregister(5*time.Second) == nil, "on the roll:", roll.stands("shop/checkout-1") != "")
	// Output:
	// ready: true on the roll: true
	// deregistered: true on the roll: false
}

// A process that is back in seconds closes its keeper, and stays on the roll.
func ExampleKeeper_Close() {
	network, roll, stop := playground()
	defer stop()
	registered := make(chan struct{})
	keeper, err := producer.Start(producer.Config{
		Registries: []string{"registry:7470"},
		Dial:       network.dial,
		NoWait:     true, // it need not answer itself yet
		Observe:    func(producer.Step, error) { close(registered) },
	}, producer.Registration{ID: "shop/checkout-1", Endpoint: "http://shop-1:9100/metrics"})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-registered
	keeper.Close()
	fmt.Println("on the roll:", roll.stands("shop/checkout-1") != "")
	// Output:
	// on the roll: true
}

// A registration that cannot be right is refused before anything is sent.
func ExampleStart_refused() {
	_, err := producer.Start(producer.Config{Registries: []string{"registry:7470"}},
		producer.Registration{ID: "shop/checkout-1", Endpoint: "shop-1:9100"})
	fmt.Println(err)
	// Output:
	// the registry refuses the registration: malformed request: registration.endpoint: bad endpoint: scheme "shop-1", want http, https, grpc or grpcs
}

// A program answers collectors over gRPC, and registers the endpoint at which it
// does.
func ExampleExpose() {
	requests := prometheus.NewCounter(prometheus.CounterOpts{Name: "requests_total", Help: "Requests."})
	prometheus.MustRegister(requests)

	lis, err := net.Listen("tcp", ":9100")
	if err != nil {
		return
	}
	server := grpc.NewServer()
	producer.Expose(server, "shop/checkout-1", prometheus.DefaultGatherer)
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()

	keeper, err := producer.Start(producer.Config{Registries: []string{"registry:7470"}},
		producer.Registration{ID: "shop/checkout-1", Endpoint: "grpc://shop-1:9100"})
	if err != nil {
		return
	}
	defer keeper.Deregister(5 * time.Second) //nolint:errcheck // it is struck off all the same
}
