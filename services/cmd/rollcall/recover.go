package main

import (
	"context"
	"errors"
	"fmt"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/proto"
)

type recovery struct {
	DryRun           bool     `help:"Only tell what would become of each; write nothing."`
	CollectorAddress []string `env:"-" placeholder:"ADDRESS" group:"peer" help:"host:port of a collector's gRPC (repeatable). Default: every collector that the registry knows, at the address that it has told."`
	answerFlags
	registryFlags
}

// Help tells more than one line.
func (c *recovery) Help() string {
	return "Reads what every collector collects and puts it on the roll of a registry that has lost its store, each producer with the collector that has it. " +
		"It only creates: what the registry knows, or was told to take off, stays as it is. Nothing stops being collected before, meanwhile or after. " +
		"It may be run again at any time. Collectors make themselves known to a registry when they subscribe: see with get collectors that all are there. " +
		"Ends with exit code 1 when a collector could not be read or a producer was refused; the others have been recovered then."
}

// Run recovers a registry.
func (c *recovery) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		reports, err := c.find(ctx, r)
		if err != nil {
			return err
		}
		if len(reports) == 0 {
			return errors.New("the registry knows no collector: they make themselves known when they subscribe; or name them by --collector-address")
		}
		for _, one := range reports {
			if one.Error == "" {
				c.read(ctx, one)
			}
		}
		given, others := settle(c.claims(ctx, r, reports))
		outcomes := c.adoptAll(ctx, r, reports, given)
		for _, lost := range others {
			lost.tell(reports, given, outcomes)
		}
		if err := ctx.Err(); err != nil {
			return errors.New("stopped; what has been adopted is on the roll, and the same again does the rest")
		}
		return errors.Join(c.print(o, reports), verdict(reports))
	})
}

// find tells which collectors to ask, and where. Those that were expunged are
// none any more.
func (c *recovery) find(ctx context.Context, r registryClient) (reports []*report, err error) {
	for _, address := range c.CollectorAddress {
		reports = append(reports, &report{Address: address})
	}
	if len(reports) > 0 {
		return reports, nil
	}
	err = r.everyCollector(ctx, func(one *registryv1.Collector) error {
		if one.GetState() == registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED {
			return nil
		}
		found := &report{Collector: one.GetCollectorId(), Address: one.GetIntrospectionEndpoint()}
		if found.Address == "" {
			found.fail(errNoAddress)
		}
		reports = append(reports, found)
		return nil
	})
	return reports, err
}

// rereads is how often a collector is read whose set changes meanwhile.
const rereads = 3

// read reads all that a collector collects.
func (c *recovery) read(ctx context.Context, one *report) {
	err := askTold(ctx, &c.ClientFlags, one.Address, c.CallTimeout, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
		var err error
		for range rereads {
			if err = one.readOnce(ctx, client); err == nil || !errors.Is(err, errChanged) {
				return err
			}
		}
		return err
	})
	if err != nil {
		one.fail(err)
	}
}

// errChanged is wrapped by the error of a list that is not all.
var errChanged = errors.New("its list is not all that it collects")

func (r *report) readOnce(ctx context.Context, client collectorv1.CollectionServiceClient) error {
	m, err := client.GetMembership(ctx, &collectorv1.GetMembershipRequest{})
	if err != nil {
		return err
	}
	if r.Collector != "" && r.Collector != m.GetCollectorId() {
		return fmt.Errorf("at %s answers the collector %s", r.Address, m.GetCollectorId())
	}
	r.Collector, r.collections = m.GetCollectorId(), nil
	req := &collectorv1.ListCollectionsRequest{PageSize: pageSize}
	for {
		resp, err := client.ListCollections(ctx, req)
		if err != nil {
			r.collections = nil
			return err
		}
		r.collections = append(r.collections, resp.GetCollections()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	r.Read = len(r.collections)
	if int64(r.Read) < m.GetAppliedCount() {
		return fmt.Errorf("%w: it lists %d and collects %d", errChanged, r.Read, m.GetAppliedCount())
	}
	return nil
}

// claims are those of all collectors. Where several have the same, the registry is
// asked whose it is.
func (c *recovery) claims(ctx context.Context, r registryClient, reports []*report) []claim {
	var claims []claim
	first := map[string]*report{}
	for _, one := range reports {
		if before, twice := first[one.Collector]; twice && one.Collector != "" {
			one.fail(fmt.Errorf("it is %s, as at %s", one.Collector, before.Address))
			continue
		}
		first[one.Collector] = one
		for _, collection := range one.collections {
			claims = append(claims, claim{collector: one.Collector, collection: collection})
		}
	}
	settle(claims) // sorts them
	by := map[string][]*claim{}
	for _, one := range contested(claims) {
		by[one.collector] = append(by[one.collector], one)
	}
	for collector, some := range by {
		all := make([]*registryv1.Assignment, len(some))
		for i, one := range some {
			all[i] = one.collection.GetAssignment()
		}
		// Without an answer nobody's is known; the same error comes again, and is told.
		_ = c.adopt(ctx, r, collector, all, true, func(i int, result *registryv1.AdoptResult) {
			some[i].known = result.GetOutcome() == registryv1.AdoptOutcome_ADOPT_OUTCOME_KNOWN
		})
	}
	return claims
}

// The bounds of one call, below those of the registry.
const (
	adoptBatch = 900
	adoptBytes = 3 << 19
)

// adoptAll gives each collector what it has the best claim to, and returns what
// became of each producer.
func (c *recovery) adoptAll(ctx context.Context, r registryClient, reports []*report, given []claim) map[string]registryv1.AdoptOutcome {
	by := map[string][]*registryv1.Assignment{}
	for _, one := range given {
		by[one.collector] = append(by[one.collector], one.collection.GetAssignment())
	}
	outcomes := make(map[string]registryv1.AdoptOutcome, len(given))
	for _, one := range reports {
		all := by[one.Collector]
		delete(by, one.Collector) // it may be named twice
		err := c.adopt(ctx, r, one.Collector, all, c.DryRun, func(i int, result *registryv1.AdoptResult) {
			outcomes[all[i].GetProducerId()] = result.GetOutcome()
			one.note(result)
		})
		if err != nil {
			one.fail(err)
		}
	}
	return outcomes
}

// adopt asks to adopt what a collector has, in batches, and calls each with what
// became of it.
func (c *recovery) adopt(ctx context.Context, r registryClient, collector string, all []*registryv1.Assignment, only bool,
	each func(int, *registryv1.AdoptResult),
) error {
	for from := 0; from < len(all); {
		to := from + batch(all[from:])
		resp, err := r.AdoptProducers(ctx, &registryv1.AdoptProducersRequest{
			CollectorId: collector, Assignments: all[from:to], ValidateOnly: only,
		})
		if err != nil {
			return explain(c.Registry, err)
		}
		if n := len(resp.GetResults()); n != to-from {
			return fmt.Errorf("the registry answers %d results to %d assignments", n, to-from)
		}
		for i, result := range resp.GetResults() {
			each(from+i, result)
		}
		from = to
	}
	return nil
}

// batch is how many of the next fit into one call; one at least.
func batch(all []*registryv1.Assignment) int {
	size := 0
	for n, a := range all {
		if size += proto.Size(a) + 8; n == adoptBatch || size > adoptBytes && n > 0 {
			return n
		}
	}
	return len(all)
}
