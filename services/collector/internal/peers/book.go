package peers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// learnEvery is how often the registry is asked who there is when nobody
	// wants to know, and learnAgain how often at most: when a query finds the
	// list older than maxAge, or somebody does not answer.
	learnEvery = 30 * time.Second
	learnAgain = 2 * time.Second
	maxAge     = 5 * time.Second

	// learnTimeout bounds the wait for one page of one registry.
	learnTimeout = 5 * time.Second

	// firstTimeout bounds how long a query waits for the first list, freshTimeout
	// how long for a fresh one.
	firstTimeout = 2 * time.Second
	freshTimeout = 500 * time.Millisecond

	// missingFor is for how long the registry must have gone without naming a
	// collector until it is asked no more. One that is named EXPUNGED is asked
	// no more at once.
	missingFor = 24 * time.Hour

	// maxCollectors bounds the list, pageSize a page of it.
	maxCollectors = 1000
	pageSize      = 1000
)

// errUnlearnt says that no registry has answered yet.
var errUnlearnt = errors.New("no registry has named them yet")

// A book is who the other collectors are. Only a registry's whole answer changes
// it, and nobody leaves it whom such an answer does not name EXPUNGED, or does
// not name for a day: an outage of the registry leaves it as it is. It is in
// memory only, so after a restart there is none until a registry answers.
type book struct {
	Config
	wake chan struct{} // holds one token when the list is wanted

	mu      sync.Mutex // guards what follows
	peers   map[assignment.CollectorID]*peer
	learnt  chan struct{} // closed when there is a list
	tried   chan struct{} // closed when the next attempt is done
	fresh   time.Time     // when the list came
	lastErr error         // of the last attempt, if it had no success
	closed  bool
}

// A peer is one of the other collectors.
type peer struct {
	id      assignment.CollectorID
	address string
	dial    Dial
	creds   credentials.TransportCredentials

	// doubtful says that it did not answer in time.
	doubtful atomic.Bool

	// missingSince is since when the registry does not name it; the zero time
	// when it does. The book's learner owns it.
	missingSince time.Time

	mu   sync.Mutex // guards conn and gone
	conn *grpc.ClientConn
	gone bool
}

func newBook(c Config) *book {
	return &book{
		Config: c,
		wake:   make(chan struct{}, 1),
		peers:  map[assignment.CollectorID]*peer{},
		learnt: make(chan struct{}),
		tried:  make(chan struct{}),
	}
}

// nudge asks for a fresh list, soon.
func (b *book) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// others are the other collectors, by id: one that is new is among them after
// maxAge at most, while a registry answers. The error says that there is no list
// yet.
func (b *book) others(ctx context.Context) ([]*peer, error) {
	select {
	case <-b.learnt:
		b.refresh(ctx)
	default:
		b.nudge()
		if !b.await(ctx, b.learnt, firstTimeout) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.lastErr != nil {
				return nil, b.lastErr
			}
			return nil, errUnlearnt
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.peers), func(p, q *peer) int {
		return strings.Compare(string(p.id), string(q.id))
	}), nil
}

// refresh waits for a fresh list, unless no registry has answered the last time.
func (b *book) refresh(ctx context.Context) {
	b.mu.Lock()
	old, failing, tried := time.Since(b.fresh) > maxAge, b.lastErr != nil, b.tried
	b.mu.Unlock()
	if !old {
		return
	}
	b.nudge()
	if !failing {
		b.await(ctx, tried, freshTimeout)
	}
}

// await waits until a channel is closed, and tells whether it was.
func (b *book) await(ctx context.Context, closed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-closed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// run learns of the others until ctx ends.
func (b *book) run(ctx context.Context) {
	for n := 0; ; n++ {
		wait := learnEvery*3/4 + rand.N(learnEvery/2)
		if list, err := b.fetch(ctx, n); err != nil {
			b.Metrics.LearnFailures.Inc()
			b.fail(err)
			b.Logger.DebugContext(ctx, "could not learn of the other collectors", "error", err)
		} else {
			b.enter(list, time.Now())
		}
		b.await(ctx, nil, learnAgain) // However much it is wanted.
		if ctx.Err() != nil {
			return
		}
		timer := time.NewTimer(wait - learnAgain)
		select {
		case <-timer.C:
		case <-b.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastErr = err
	b.done()
}

// done tells those who wait that an attempt is done. mu is held.
func (b *book) done() {
	close(b.tried)
	b.tried = make(chan struct{})
}

// fetch asks the registries in turn, beginning with the nth, until one answers
// in full.
func (b *book) fetch(ctx context.Context, n int) ([]*registryv1.Collector, error) {
	var failures []error
	for i := range b.Registries {
		address := b.Registries[(n+i)%len(b.Registries)]
		list, err := b.fetchFrom(ctx, address)
		if err == nil {
			return list, nil
		}
		failures = append(failures, fmt.Errorf("registry %s: %.200s", address, err.Error()))
	}
	return nil, errors.Join(failures...)
}

func (b *book) fetchFrom(ctx context.Context, address string) ([]*registryv1.Collector, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, options(b.DialRegistry, b.Credentials)...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := registryv1.NewCollectorServiceClient(conn)
	request := &registryv1.ListCollectorsRequest{PageSize: pageSize}
	var all []*registryv1.Collector
	for range maxCollectors {
		page, err := listPage(ctx, client, request)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetCollectors()...)
		if len(all) > maxCollectors {
			return nil, fmt.Errorf("more than %d collectors", maxCollectors)
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return all, check(all)
		}
	}
	return nil, errors.New("a list without end")
}

func listPage(ctx context.Context, client registryv1.CollectorServiceClient, m *registryv1.ListCollectorsRequest) (*registryv1.ListCollectorsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	return client.ListCollectors(ctx, m)
}

// check refuses a list of which any part is malformed.
func check(all []*registryv1.Collector) error {
	for i, c := range all {
		if _, err := assignment.ParseCollectorID(c.GetCollectorId()); err != nil {
			return fmt.Errorf("collector_id: %w", err)
		}
		if i > 0 && c.GetCollectorId() <= all[i-1].GetCollectorId() {
			return errors.New("the collectors are not in order")
		}
		if s := c.GetIntrospectionEndpoint(); s != "" {
			u, err := endpoint.Parse("http://" + s)
			if err != nil || u.Host != s || u.Port() == "" {
				return fmt.Errorf("collector %q is said to be at %.100q", c.GetCollectorId(), s)
			}
		}
	}
	return nil
}

// enter enters a whole list.
func (b *book) enter(list []*registryv1.Collector, now time.Time) {
	var stale []*peer
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	named := map[assignment.CollectorID]bool{}
	for _, c := range list {
		id := assignment.CollectorID(c.GetCollectorId())
		if id == b.Self {
			continue
		}
		named[id] = true
		known := b.peers[id]
		switch {
		case c.GetState() == registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED:
			if known != nil {
				stale = append(stale, known)
				delete(b.peers, id)
			}
		case known == nil || known.address != c.GetIntrospectionEndpoint():
			if known != nil {
				stale = append(stale, known)
			}
			b.peers[id] = &peer{id: id, address: c.GetIntrospectionEndpoint(), dial: b.DialPeer, creds: b.Credentials}
		default:
			known.missingSince = time.Time{}
		}
	}
	stale = append(stale, b.missing(named, now)...)
	b.lastErr, b.fresh = nil, time.Now()
	b.done()
	select {
	case <-b.learnt:
	default:
		close(b.learnt)
	}
	b.Metrics.Known.Set(float64(len(b.peers)))
	b.mu.Unlock()
	disconnect(stale)
}

// missing takes out those that are not named for too long.
func (b *book) missing(named map[assignment.CollectorID]bool, now time.Time) (gone []*peer) {
	for id, p := range b.peers {
		switch {
		case named[id]:
		case p.missingSince.IsZero():
			p.missingSince = now
		case now.Sub(p.missingSince) >= missingFor:
			gone = append(gone, p)
			delete(b.peers, id)
		}
	}
	return gone
}

func (b *book) close() {
	b.mu.Lock()
	b.closed = true
	peers := slices.Collect(maps.Values(b.peers))
	b.mu.Unlock()
	disconnect(peers)
}

// disconnect ends connections all at once: a goodbye to a host that stands still
// takes seconds.
func disconnect(peers []*peer) {
	var all sync.WaitGroup
	for _, p := range peers {
		all.Go(p.disconnect)
	}
	all.Wait()
}

// connection is the connection to the peer, which is kept.
func (p *peer) connection() (*grpc.ClientConn, error) {
	if p.address == "" {
		return nil, errors.New("it has not told where it answers")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, errors.New("it is elsewhere by now")
	}
	if p.conn == nil {
		conn, err := grpc.NewClient("passthrough:///"+p.address, options(p.dial, p.creds)...)
		if err != nil {
			return nil, err
		}
		p.conn = conn
	}
	return p.conn, nil
}

// disconnect ends the connection, and whatever is asked by it.
func (p *peer) disconnect() {
	p.mu.Lock()
	conn := p.conn
	p.conn, p.gone = nil, true
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // Its error is that it was closed.
	}
}

// options are those of a connection: one that failed is tried again after some
// seconds at most, since a question does not wait for it.
func options(dial Dial, creds credentials.TransportCredentials) []grpc.DialOption {
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 100*time.Millisecond, 2*time.Second
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	all := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(64 << 10),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 5 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
	if dial != nil {
		all = append(all, grpc.WithContextDialer(dial))
	}
	return all
}
