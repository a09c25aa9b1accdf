package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
)

// etcd is the body over an etcd, in this process or not. Leases and watches go
// by the generated client: clientv3's lease retries without a pause, and its
// watch buffers without bound and resumes by itself, also on a store that was
// set back in between.
type etcd struct {
	kv     clientv3.KV
	leases pb.LeaseClient
	events pb.WatchClient
}

// OpenClient opens the roster in the etcd that a client is connected to. The
// client stays its caller's: Close leaves it open.
func OpenClient(client *clientv3.Client) *Store {
	e := etcdOf(client)
	return newStore(&e, &e, func() error { return nil })
}

// etcdOf has all calls go by one connection, which is balanced over all members
// and carries the client's token.
func etcdOf(client *clientv3.Client) etcd {
	conn := client.ActiveConnection()
	return etcd{kv: client.KV, leases: pb.NewLeaseClient(conn), events: pb.NewWatchClient(conn)}
}

func (e *etcd) revision(ctx context.Context) (int64, error) {
	r, err := e.kv.Get(ctx, epochKey, clientv3.WithCountOnly())
	if err != nil {
		return 0, etcdError(ctx, err)
	}
	return r.Header.GetRevision(), nil
}

func (e *etcd) page(ctx context.Context, from, to string, at int64, limit int) (page, error) {
	r, err := e.kv.Get(ctx, from,
		clientv3.WithRange(to), clientv3.WithRev(at), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return page{}, etcdError(ctx, err)
	}
	p := page{revision: at, items: make([]item, len(r.Kvs)), more: r.More}
	if at == 0 {
		p.revision = r.Header.GetRevision()
	}
	for i, kv := range r.Kvs {
		p.items[i] = itemOf(kv)
	}
	return p, nil
}

func itemOf(kv *mvccpb.KeyValue) item {
	return item{key: string(kv.GetKey()), value: kv.GetValue(), modified: kv.GetModRevision()}
}

func (e *etcd) commit(ctx context.Context, writes []write, read bool) (result, error) {
	puts := make([]clientv3.Op, 0, len(writes))
	for _, w := range writes {
		switch {
		case w.check:
		case w.delete:
			puts = append(puts, clientv3.OpDelete(w.key))
		default:
			puts = append(puts, clientv3.OpPut(w.key, string(w.value), clientv3.WithLease(clientv3.LeaseID(w.lease))))
		}
	}
	r, err := e.transact(ctx, writes, puts, read)
	if errors.Is(err, registrar.ErrFull) {
		return e.settle(ctx, writes, read, err)
	}
	return r, err
}

// settle finds out what became of writes for which there was no space: etcd
// says so too after a transaction that it has carried out, if that was the one
// to fill the store. Reading needs no space.
func (e *etcd) settle(ctx context.Context, writes []write, read bool, full error) (result, error) {
	r, err := e.transact(ctx, writes, nil, true)
	if err != nil {
		return result{}, err
	}
	if r.committed {
		return result{}, full // everything is as it was
	}
	if revision, ours := standsAsWritten(writes, r.found); ours {
		return result{committed: true, revision: revision}, nil
	}
	if !read {
		r.found = nil
	}
	return r, nil
}

// standsAsWritten reports whether what was found is what writes make of it, all
// at one revision.
func standsAsWritten(writes []write, found []item) (revision int64, ours bool) {
	for i, w := range writes {
		it := found[i]
		if w.check {
			continue
		}
		if w.delete != (it.modified == 0) || !w.delete && !bytes.Equal(it.value, w.value) {
			return 0, false
		}
		if w.delete {
			continue
		}
		if revision != 0 && revision != it.modified {
			return 0, false
		}
		revision = it.modified
	}
	// What is only checked may have changed since, but not before: then it was
	// somebody else who wrote the same.
	for i, w := range writes {
		if at := found[i].modified; w.check && at != w.expect && at != 0 && at <= revision {
			return 0, false
		}
	}
	return revision, revision != 0 // deletes alone need no space
}

// transact does puts if all writes find what they expect, else nothing.
func (e *etcd) transact(ctx context.Context, writes []write, puts []clientv3.Op, read bool) (result, error) {
	var (
		compares = make([]clientv3.Cmp, len(writes))
		reads    []clientv3.Op
	)
	for i, w := range writes {
		compares[i] = clientv3.Compare(clientv3.ModRevision(w.key), "=", w.expect)
		if read {
			reads = append(reads, clientv3.OpGet(w.key))
		}
	}
	answer, err := e.kv.Txn(ctx).If(compares...).Then(puts...).Else(reads...).Commit()
	if err != nil {
		return result{}, etcdError(ctx, err)
	}
	r := result{committed: answer.Succeeded, revision: answer.Header.GetRevision()}
	if r.committed || !read {
		return r, nil
	}
	if len(answer.Responses) != len(writes) {
		return result{}, fmt.Errorf("etcd answered %d of %d reads", len(answer.Responses), len(writes))
	}
	r.found = make([]item, len(writes))
	for i, w := range writes {
		r.found[i].key = w.key
		if kvs := answer.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			r.found[i] = itemOf(kvs[0])
		}
	}
	return r, nil
}

// grantTimeout bounds the wait for a lease.
const grantTimeout = 5 * time.Second

func (e *etcd) grant(ctx context.Context, ttl time.Duration) (int64, time.Duration, error) {
	seconds := int64(math.Ceil(ttl.Seconds()))
	// It waits for a server that is down, and its error tells why it is; but no
	// longer, as the lease counts from when it was asked for.
	bounded, cancel := context.WithTimeout(ctx, min(ttl, grantTimeout))
	defer cancel()
	r, err := e.leases.LeaseGrant(bounded, &pb.LeaseGrantRequest{TTL: max(seconds, 1)}, grpc.WaitForReady(true))
	if err != nil {
		return 0, 0, etcdError(ctx, err)
	}
	if r.GetError() != "" {
		return 0, 0, errors.New(r.GetError())
	}
	return r.GetID(), time.Duration(r.GetTTL()) * time.Second, nil
}

func (e *etcd) keepAlive(ctx context.Context, lease int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	keeper, err := e.leases.LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return etcdError(ctx, err)
	}
	if err := keeper.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
		return etcdError(ctx, err)
	}
	r, err := keeper.Recv()
	if err != nil {
		return etcdError(ctx, err)
	}
	if r.GetTTL() <= 0 {
		return registrar.ErrLeaseLost
	}
	return nil
}

func (e *etcd) revoke(ctx context.Context, lease int64) error {
	_, err := e.leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
	return etcdError(ctx, err)
}

func (e *etcd) watch(ctx context.Context, keyPrefix string, after int64) (*stream, error) {
	events, err := e.events.Watch(clientv3.WithRequireLeader(ctx), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return nil, etcdError(ctx, err)
	}
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key:            []byte(keyPrefix),
		RangeEnd:       []byte(clientv3.GetPrefixRangeEnd(keyPrefix)),
		StartRevision:  after + 1,
		ProgressNotify: true,
		Fragment:       true,
	}}}
	if err := events.Send(create); err != nil {
		return nil, etcdError(ctx, err)
	}
	responses := make(chan response)
	go func() {
		defer close(responses)
		receive(ctx, events, responses)
	}()
	return &stream{responses: responses, progress: func() error {
		return etcdError(ctx, events.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{},
		}}))
	}}, nil
}

func receive(ctx context.Context, events pb.Watch_WatchClient, responses chan<- response) {
	var c cutter
	for {
		r, err := events.Recv()
		if err != nil {
			err = etcdError(ctx, err)
		}
		for _, out := range c.cut(r, err) {
			select {
			case responses <- out:
			case <-ctx.Done():
				return
			}
			if out.err != nil {
				return
			}
		}
	}
}

// A cutter makes one response of each revision of what etcd sends: a message
// may hold many revisions, or end in the midst of one.
type cutter struct {
	revision int64
	changes  []change // of revision, of which more may come
}

func (c *cutter) cut(r *pb.WatchResponse, err error) []response {
	switch {
	case err != nil:
		return []response{{err: err}}
	case r.GetCompactRevision() != 0:
		return []response{{err: registrar.ErrCompacted}}
	case r.GetCanceled():
		return []response{{err: fmt.Errorf("etcd ended it: %s", r.GetCancelReason())}}
	case r.GetCreated():
		return nil
	}
	var whole []response
	for _, event := range r.GetEvents() {
		kv := event.GetKv()
		if len(c.changes) > 0 && kv.GetModRevision() != c.revision {
			whole = append(whole, c.flush())
		}
		c.revision = kv.GetModRevision()
		c.changes = append(c.changes, change{
			key:     string(kv.GetKey()),
			value:   kv.GetValue(),
			deleted: event.GetType() == mvccpb.Event_DELETE,
		})
	}
	if r.GetFragment() {
		return whole
	}
	if len(c.changes) > 0 {
		return append(whole, c.flush())
	}
	// Only now is the header's revision that of the watch. With events it may
	// be ahead of others that are still to come.
	return append(whole, response{revision: r.GetHeader().GetRevision()})
}

func (c *cutter) flush() response {
	out := response{revision: c.revision, changes: c.changes}
	c.changes = nil
	return out
}

// etcdError tells apart what callers tell apart.
func etcdError(ctx context.Context, err error) error {
	err = clientv3.ContextError(ctx, err)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("%w: %w", registrar.ErrCompacted, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%w: %w", registrar.ErrFull, err)
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", registrar.ErrLeaseLost, err)
	default:
		return err
	}
}
