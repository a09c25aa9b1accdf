// Package witness asks collectors how their producers answer.
//
// Its invariant: an answer counts only when it is whole, and comes from the very
// process that was asked: an address may have another tenant by now.
package witness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/leader"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Dial connects to an address.
type Dial func(ctx context.Context, address string) (net.Conn, error)

const (
	pageSize = 10_000

	// leastPage is how many testimonies a page has at least, in the mean: a page is
	// cut at about 1 MiB.
	leastPage = 1000

	// pageTimeout bounds the wait for one page.
	pageTimeout = 10 * time.Second

	// maxIdle is how long a connection is kept that nobody uses.
	maxIdle = 5 * time.Minute
)

// An Asker keeps a connection to each collector that it asks. It is safe for
// concurrent use.
type Asker struct {
	dial  Dial
	creds credentials.TransportCredentials

	mu    sync.Mutex // guards conns
	conns map[string]*conn
}

type conn struct {
	*grpc.ClientConn
	used time.Time
}

var _ leader.Asker = (*Asker)(nil)

// New makes an Asker. dial is nil for the network, creds for plain text.
func New(dial Dial, creds credentials.TransportCredentials) *Asker {
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	return &Asker{dial: dial, creds: creds, conns: map[string]*conn{}}
}

// Close closes all connections.
func (a *Asker) Close() error {
	a.mu.Lock()
	conns := a.conns
	a.conns = map[string]*conn{}
	a.mu.Unlock()
	var err error
	for _, c := range conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// Ask implements leader.Asker.
func (a *Asker) Ask(ctx context.Context, q leader.Question, tell func(leader.Testimony)) error {
	if q.Address == "" {
		return errors.New("it has not told where it answers")
	}
	defer a.closeIdle(time.Now())
	conn, err := a.connect(q.Address)
	if err != nil {
		return err
	}
	client := collectorv1.NewCollectionServiceClient(conn)
	req := &collectorv1.WitnessRequest{Failing: q.Failing, PageSize: pageSize}
	for _, id := range q.Producers {
		req.ProducerIds = append(req.ProducerIds, string(id))
	}
	told := 0
	for range 2 + q.Most/leastPage {
		resp, err := page(ctx, client, req)
		if status.Code(err) == codes.Unimplemented {
			return fmt.Errorf("%w: %w", leader.ErrNoWitness, err)
		}
		if err != nil {
			return fmt.Errorf("ask collector %q at %s: %w", q.Collector, q.Address, err)
		}
		if resp.GetCollectorId() != string(q.Collector) || resp.GetInstanceId() != string(q.Instance) {
			return fmt.Errorf("ask collector %q at %s: %.128q answers, instance %.128q instead of %q",
				q.Collector, q.Address, resp.GetCollectorId(), resp.GetInstanceId(), q.Instance)
		}
		if told += len(resp.GetTestimonies()); told > q.Most {
			break
		}
		for _, m := range resp.GetTestimonies() {
			t, err := decode(m)
			if err != nil {
				return fmt.Errorf("ask collector %q at %s: %w", q.Collector, q.Address, err)
			}
			tell(t)
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return nil
		}
	}
	return fmt.Errorf("ask collector %q at %s: it goes on after %d testimonies, and has no more than %d producers", q.Collector, q.Address, told, q.Most)
}

func page(ctx context.Context, client collectorv1.CollectionServiceClient, req *collectorv1.WitnessRequest) (*collectorv1.WitnessResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return client.Witness(ctx, req)
}

// maxRate bounds what a producer is believed to yield, in samples per second.
const maxRate = 1e9

func decode(m *collectorv1.Testimony) (leader.Testimony, error) {
	id, err := assignment.ParseProducerID(m.GetProducerId())
	if err != nil {
		return leader.Testimony{}, fmt.Errorf("producer_id: %w", err)
	}
	rate := m.GetSamplesPerSecond()
	if !(rate >= 0 && rate <= maxRate) { // NaN is neither
		return leader.Testimony{}, fmt.Errorf("producer %q yields %v samples per second", id, rate)
	}
	return leader.Testimony{
		ID:        id,
		Failing:   m.GetFailingSince() != nil,
		Failures:  m.GetFailureCount(),
		Reason:    m.GetFailureReason().String(),
		Rate:      rate,
		Collected: m.GetCollected(),

		Identified: m.GetIdentified(),
	}, nil
}

// closeIdle closes the connections that nobody has used for a while. It holds mu
// for none of them: the close of one to a host that stands still takes seconds,
// which is no reason not to ask others.
func (a *Asker) closeIdle(now time.Time) {
	var idle []*conn
	a.mu.Lock()
	for address, c := range a.conns {
		if now.Sub(c.used) > maxIdle {
			idle = append(idle, c)
			delete(a.conns, address)
		}
	}
	a.mu.Unlock()
	for _, c := range idle {
		_ = c.Close() // its error is that it was closed
	}
}

// connect returns the connection to an address.
func (a *Asker) connect(address string) (*grpc.ClientConn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if c := a.conns[address]; c != nil {
		c.used = now
		return c.ClientConn, nil
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(a.creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if a.dial != nil {
		options = append(options, grpc.WithContextDialer(a.dial))
	}
	fresh, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	a.conns[address] = &conn{fresh, now}
	return fresh, nil
}
