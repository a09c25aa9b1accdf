package soak_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	clients  = 6
	perCall  = 60 * time.Millisecond // of one client, at least
	callTime = 15 * time.Second      // that one call may take

	// The clients meet at a few ids for a while, then at others: the fewer calls
	// an id has of which nothing is known, the sooner its history is judged.
	meeting = 4 * time.Second
	atOnce  = 6
)

// A load is what clients do to registries, and what they were told.
type load struct {
	replicas []registryv1.ProducerServiceClient
	endpoint string
	history  *history

	texts   atomic.Int64 // makes every registration another one
	highest atomic.Int64 // revision that anybody was told

	mu     sync.Mutex // guards what follows
	kept   map[string]string
	epochs map[string]int
	faults []string
}

func newLoad(t *testing.T, addresses []string, endpoint string) *load {
	t.Helper()
	l := &load{
		endpoint: endpoint,
		history:  &history{start: time.Now(), calls: map[string][]call{}},
		kept:     map[string]string{},
		epochs:   map[string]int{},
	}
	for _, address := range addresses {
		conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second})) // no longer pauses than its own
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		l.replicas = append(l.replicas, registryv1.NewProducerServiceClient(conn))
	}
	return l
}

// run has one client act until ctx ends. A call that is under way is waited for.
func (l *load) run(ctx context.Context, client int) {
	tick := time.NewTicker(perCall)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		id := fmt.Sprintf("meet-%d-%d", l.history.now()/meeting, rand.IntN(atOnce))
		replica := rand.IntN(len(l.replicas))
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
		switch rand.IntN(10) {
		case 0:
			l.keep(bounded, replica, fmt.Sprintf("kept-%d-%d", client, n))
		case 1, 2, 3:
			l.do(bounded, replica, call{id: id, action: register})
		case 4, 5:
			l.do(bounded, replica, call{id: id, action: deregister})
		default:
			l.do(bounded, replica, call{id: id, action: get})
		}
		cancel()
	}
}

// do makes one call and notes it, unless it is certain that nothing came of it.
func (l *load) do(ctx context.Context, replica int, c call) (call, bool) {
	var err error
	c.began = l.history.now()
	to := l.replicas[replica]
	switch c.action {
	case register:
		c.text = fmt.Sprint(l.texts.Add(1))
		var r *registryv1.RegisterProducerResponse
		r, err = to.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: l.producer(c.id, c.text)})
		c.changed, c.revision = r.GetChanged(), r.GetRevision()
		l.told(r.GetEpoch(), c.revision, err)
	case deregister:
		var r *registryv1.DeregisterProducerResponse
		r, err = to.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: c.id})
		c.changed, c.revision = r.GetChanged(), r.GetRevision()
		l.told(r.GetEpoch(), c.revision, err)
	case get:
		var r *registryv1.GetProducerResponse
		r, err = to.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: c.id, MinRevision: l.highest.Load()})
		c.text, c.revision = text(r.GetProducer()), r.GetRevision()
		l.told(r.GetEpoch(), c.revision, err)
		if status.Code(err) == codes.NotFound {
			err = nil
		}
	}
	c.ended = l.history.now()
	if err != nil && (c.action == get || nothingCame(err)) {
		return c, false
	}
	if err != nil {
		l.unexpected(c, err)
	}
	c.unknown = err != nil
	l.history.add(c)
	return c, err == nil
}

// keep registers a producer that nobody else acts on.
func (l *load) keep(ctx context.Context, replica int, id string) {
	if c, ok := l.do(ctx, replica, call{id: id, action: register}); ok {
		l.mu.Lock()
		l.kept[id] = c.text
		l.mu.Unlock()
	}
}

func (l *load) producer(id, text string) *registryv1.Producer {
	return &registryv1.Producer{
		ProducerId: id, Endpoint: l.endpoint + id, Interval: durationpb.New(time.Hour),
		Labels: []*registryv1.Label{{Name: "text", Value: text}},
	}
}

func text(p *registryv1.Producer) string {
	for _, l := range p.GetLabels() {
		if l.GetName() == "text" {
			return l.GetValue()
		}
	}
	return ""
}

// told notes where in the store's history an answer stands. It is called before
// the call counts as ended: who begins after that asks for no less.
func (l *load) told(epoch string, revision int64, err error) {
	if err != nil {
		return
	}
	for {
		old := l.highest.Load()
		if revision <= old || l.highest.CompareAndSwap(old, revision) {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs[epoch]++
}

// nothingCame tells of an error that it came before anything was written: the
// replica was never reached, or has said that it does not serve.
func nothingCame(err error) bool {
	s := status.Convert(err)
	return s.Code() == codes.Unavailable &&
		(strings.Contains(s.Message(), "error while dialing") || strings.Contains(s.Message(), "Error while dialing") ||
			s.Message() == "the registry has no complete view of its store yet")
}

// unexpected notes an error that no loss of a process explains.
func (l *load) unexpected(c call, err error) {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
	default:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.faults = append(l.faults, fmt.Sprintf("%s: %v", c, err))
	}
}

// all lists every producer that a replica tells, by their texts.
func (l *load) all(ctx context.Context, replica int) (map[string]string, error) {
	found := map[string]string{}
	token, least := "", l.highest.Load()
	for {
		r, err := l.replicas[replica].ListProducers(ctx, &registryv1.ListProducersRequest{PageSize: 1000, PageToken: token, MinRevision: least})
		if err != nil {
			return nil, err
		}
		for _, p := range r.GetProducers() {
			found[p.GetProducerId()] = text(p)
		}
		if token = r.GetNextPageToken(); token == "" {
			return found, nil
		}
	}
}

// readBack reads, when all clients have ended, everything by every replica: for
// the history, and for what was to be kept.
func (l *load) readBack(ctx context.Context, fleet []string) []string {
	var faults []string
	for replica := range l.replicas {
		began := l.history.now()
		found, err := l.all(ctx, replica)
		if err != nil {
			return append(faults, fmt.Sprintf("replica %d: %v", replica, err))
		}
		ended := l.history.now()
		for _, id := range l.history.ids() {
			l.history.add(call{id: id, action: get, text: found[id], began: began, ended: ended})
		}
		for id, text := range l.kept {
			if found[id] != text {
				faults = append(faults, fmt.Sprintf("replica %d tells %q of %s, which was acknowledged as %q", replica, found[id], id, text))
			}
		}
		for _, id := range fleet {
			if found[id] == "" {
				faults = append(faults, fmt.Sprintf("replica %d does not tell of %s", replica, id))
			}
		}
	}
	return faults
}

// registerFleet registers producers that stay.
func (l *load) registerFleet(ctx context.Context, ids []string) error {
	for _, id := range ids {
		p := l.producer(id, "fleet")
		p.Interval, p.Timeout = durationpb.New(interval), durationpb.New(interval)
		_, err := l.replicas[0].RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
		if err != nil {
			return errors.Join(fmt.Errorf("register %s", id), err)
		}
	}
	return nil
}

// judge says what is wrong with all that was told.
func (l *load) judge() []string {
	faults := slices.Clone(l.faults)
	if len(l.epochs) != 1 {
		faults = append(faults, fmt.Sprintf("answers of epochs %v, want one", l.epochs))
	}
	for _, id := range l.history.ids() {
		if fault := judge(id, l.history.calls[id]); fault != "" {
			faults = append(faults, fault)
		}
	}
	return faults
}
