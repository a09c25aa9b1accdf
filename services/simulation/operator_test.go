package simulation

import (
	"context"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// operate has an operator ask one registry after the other until one carries it
// out, or refuses, and tells whether one did.
func (t *town) operate(what string, ask func(ctx context.Context, conn *grpc.ClientConn) error) bool {
	first := t.random.IntN(len(t.registries))
	for i := range t.registries {
		r := t.registries[(first+i)%len(t.registries)]
		err := r.call(ask)
		switch status.Code(err) {
		case codes.OK:
			return true
		case codes.NotFound, codes.FailedPrecondition:
			return false
		case codes.Unavailable, codes.DeadlineExceeded, codes.Unknown, codes.Canceled, codes.Aborted, codes.ResourceExhausted:
		default:
			t.journal.violate("%s is answered with %v", what, err)
			return false
		}
	}
	return false
}

// drain begins a collector's drain, or ends it.
func (t *town) drain(id string, begin bool) {
	c := t.collectorNamed(id)
	c.drained = false // whatever becomes of a call that is broken off
	if begin {
		known := time.Since(t.journal.lost) > time.Second // else a registry may answer by what it knew
		c.drained = known && t.operate("drain", func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := registryv1.NewCollectorServiceClient(conn).DrainCollector(ctx, &registryv1.DrainCollectorRequest{CollectorId: id})
			return err
		})
		return
	}
	t.operate("undrain", func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := registryv1.NewCollectorServiceClient(conn).UndrainCollector(ctx, &registryv1.UndrainCollectorRequest{CollectorId: id})
		return err
	})
}

// expunge ends a collector that lives and has producers, and later takes that
// back.
func (t *town) expunge(id, wait string) {
	t.operate("expunge", func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := registryv1.NewCollectorServiceClient(conn).ExpungeCollector(ctx, &registryv1.ExpungeCollectorRequest{CollectorId: id, Force: true})
		return err
	})
	t.later(wait, func() { t.drain(id, false) })
}

func (t *town) moveTo(producer, collector string) {
	t.operate("move", func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := registryv1.NewPlacementServiceClient(conn).MoveProducer(ctx,
			&registryv1.MoveProducerRequest{ProducerId: producer, CollectorId: collector})
		return err
	})
}

func (t *town) rebalance() {
	t.operate("rebalance", func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := registryv1.NewPlacementServiceClient(conn).Rebalance(ctx, &registryv1.RebalanceRequest{})
		return err
	})
}

// settleFleet has the operator end, at the begin of a quiet time, every drain and
// expunction that is not known to stand: a store that was set back has old ones.
func (t *town) settleFleet() {
	for _, c := range t.collectors {
		if !c.drained {
			t.drain(c.name, false)
		}
	}
}

// shunned is for how long a producer is not given to a collector again that did
// not come to collect it, and the time-out of that handoff.
const shunned = 12 * time.Minute

// judgeDrained judges, at the end of a quiet time, that a drained collector has
// nothing, but for those that the others have not reached lately, for a reason of
// theirs or their own.
func (t *town) judgeDrained() {
	j := t.journal
	if time.Since(j.secluded) < shunned {
		return
	}
	var unreached int64
	for _, s := range j.subjects {
		if time.Since(s.refused) < shunned {
			unreached++
		}
	}
	for _, c := range t.collectors {
		if n := c.membershipNow().GetAcceptedCount(); c.drained && n > unreached {
			j.violate("%s is drained and has %d", c.name, n)
		}
	}
}
