package soak_test

import (
	"context"
	"fmt"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// unheld checks that nobody is held when all has settled. A producer that was
// deregistered, registered again and given to another collector while its first
// one was told nothing is held there at first: the registry hands it off from the
// holder when it hears of that.
func (s *site) unheld(ctx context.Context) error {
	for _, c := range s.collectors {
		held, err := listHeld(ctx, c.GRPC)
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		if len(held) > 0 {
			return fmt.Errorf("%s holds %v", c.Name, held)
		}
	}
	return nil
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
