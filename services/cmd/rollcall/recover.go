package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

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

// A report is what became of what one collector has.
type report struct {
	Collector    string          `json:"collectorId"`
	Address      string          `json:"address"`
	Read         int             `json:"read"`
	Created      int             `json:"created"`
	Known        int             `json:"known"`
	Deregistered int             `json:"deregistered"`
	Conflicts    []reportedFault `json:"conflicts,omitempty"`
	Refused      []reportedFault `json:"refused,omitempty"`
	Error        string          `json:"error,omitempty"`

	collections []*collectorv1.Collection
	give        []*registryv1.Assignment // what the collector shall be given
}

type reportedFault struct {
	Producer string `json:"producerId"`
	Message  string `json:"message"`
}

// fail notes why a collector could not be recovered, or not whole.
func (r *report) fail(err error) { r.Error = err.Error() }

// name is what the collector is called where its id is not known.
func (r *report) name() string {
	if r.Collector == "" {
		return r.Address
	}
	return r.Collector
}

// Run recovers a registry.
func (c *recovery) Run(ctx context.Context, o output) error {
	return c.registry(ctx, func(ctx context.Context, r registryClient) error {
		reports, err := c.find(ctx, r)
		if err != nil {
			return err
		}
		if len(reports) == 0 {
			return errors.New("the registry knows no collector yet: they make themselves known when they subscribe; or name them by --collector-address")
		}
		for _, one := range reports {
			if one.Error == "" {
				c.read(ctx, one)
			}
		}
		share(reports)
		for _, one := range reports {
			if err := c.adopt(ctx, r, one); err != nil {
				one.fail(err)
			}
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
	err := askCollector(ctx, one.Address, c.CallTimeout, func(ctx context.Context, client collectorv1.CollectionServiceClient) error {
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

// share decides who is given what, and notes where several have the same.
func share(reports []*report) {
	by := map[string]*report{}
	var claims []claim
	for _, r := range reports {
		if first, twice := by[r.Collector]; twice && r.Collector != "" {
			r.fail(fmt.Errorf("it is %s, as at %s", r.Collector, first.Address))
			continue
		}
		by[r.Collector] = r
		for _, one := range r.collections {
			claims = append(claims, claim{r.Collector, one})
		}
	}
	given, others := settle(claims)
	owner := make(map[string]claim, len(given))
	for _, c := range given {
		owner[c.id()] = c
		r := by[c.collector]
		r.give = append(r.give, c.collection.GetAssignment())
	}
	for _, c := range others {
		message := owner[c.id()].collector + " has it too, and is given it"
		if differs(owner[c.id()], c) {
			message += ", with another content"
		}
		r := by[c.collector]
		r.Conflicts = append(r.Conflicts, reportedFault{c.id(), message})
	}
}

// The bounds of one call, below those of the registry.
const (
	adoptBatch = 900
	adoptBytes = 3 << 19
)

// adopt gives a collector what it has, in batches.
func (c *recovery) adopt(ctx context.Context, r registryClient, one *report) error {
	for rest := one.give; len(rest) > 0; {
		n := batch(rest)
		resp, err := r.AdoptProducers(ctx, &registryv1.AdoptProducersRequest{
			CollectorId: one.Collector, Assignments: rest[:n], ValidateOnly: c.DryRun,
		})
		if err != nil {
			return explain(c.Registry, err)
		}
		for _, result := range resp.GetResults() {
			one.note(result)
		}
		rest = rest[n:]
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

// note counts one result.
func (r *report) note(result *registryv1.AdoptResult) {
	fault := reportedFault{result.GetProducerId(), result.GetMessage()}
	switch result.GetOutcome() {
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_CREATED:
		r.Created++
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_KNOWN:
		r.Known++
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_DEREGISTERED:
		r.Deregistered++
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_CONFLICT:
		r.Conflicts = append(r.Conflicts, fault)
	default:
		r.Refused = append(r.Refused, fault)
	}
}

func (c *recovery) print(o output, reports []*report) error {
	if c.Output == "json" {
		for _, r := range reports {
			line, err := json.Marshal(r)
			if err != nil {
				return fmt.Errorf("encode: %w", err)
			}
			if _, err := fmt.Fprintf(o.out, "%s\n", line); err != nil {
				return err
			}
		}
		return nil
	}
	var rows, faults [][]string
	for _, r := range reports {
		row := []string{r.name()}
		for _, n := range []int{r.Read, r.Created, r.Known, len(r.Conflicts), r.Deregistered, len(r.Refused)} {
			row = append(row, strconv.Itoa(n))
		}
		rows = append(rows, append(row, dash(r.Error)))
		for _, f := range r.Conflicts {
			faults = append(faults, []string{"CONFLICT", r.name(), f.Producer, f.Message})
		}
		for _, f := range r.Refused {
			faults = append(faults, []string{"REFUSED", r.name(), f.Producer, f.Message})
		}
	}
	if err := o.table([]string{"COLLECTOR", "READ", "CREATED", "KNOWN", "CONFLICT", "DEREGISTERED", "REFUSED", "ERROR"}, rows); err != nil {
		return err
	}
	if len(faults) > 0 {
		if err := o.table(nil, faults); err != nil {
			return err
		}
	}
	if c.DryRun {
		_, err := fmt.Fprintln(o.out, "nothing was written")
		return err
	}
	return nil
}

// verdict is an error when not everything could be recovered.
func verdict(reports []*report) error {
	var failed failures
	refused := 0
	for _, r := range reports {
		if refused += len(r.Refused); r.Error != "" {
			failed.lines = append(failed.lines, r.name()+": "+r.Error)
		}
	}
	if err := failed.err("could not be recovered whole"); err != nil {
		return err
	}
	if refused > 0 {
		return fmt.Errorf("%d producers were refused", refused)
	}
	return nil
}
