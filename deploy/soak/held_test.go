package soak_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// moved checks who is held when all has settled, and tells how many are held
// because they moved. Nobody else may be.
//
// A producer that is deregistered and registered again while its collector is
// told nothing may be given to another one. The first finds it absent, is told no
// reason, as it is on the roll, and holds it: it is collected by both until the
// registry has confirmed the absence for a day. That is a gap of the registry, on
// the safe side. When moves are named this is to become: nobody is held.
func (s *site) moved(ctx context.Context, l *load) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	n := 0
	for _, c := range s.collectors {
		held, err := listHeld(ctx, c.GRPC)
		if err != nil {
			return n, fmt.Errorf("%s: %w", c.Name, err)
		}
		for _, id := range held {
			if !strings.HasPrefix(id, "meet-") {
				return n, fmt.Errorf("%s holds %s, which was never deregistered", c.Name, id)
			}
			r, err := l.replicas[0].GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: id, MinRevision: l.highest.Load()})
			if err != nil {
				return n, fmt.Errorf("%s holds %s: %w", c.Name, id, err)
			}
			if at := r.GetProducer().GetPlacements(); len(at) != 1 || at[0].GetCollectorId() == c.Name {
				return n, fmt.Errorf("%s holds %s, which is on the roll with %v", c.Name, id, at)
			}
			n++
		}
	}
	return n, nil
}

func listHeld(ctx context.Context, address string) (ids []string, err error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := collectorv1.NewCollectionServiceClient(conn).ListHeld(ctx, &collectorv1.ListHeldRequest{})
	for _, h := range r.GetHeld() {
		ids = append(ids, h.GetAssignment().GetProducerId())
	}
	return ids, err
}
