package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

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

// tell notes that another collector had the better claim.
func (lost claim) tell(reports []*report, given []claim, outcomes map[string]registryv1.AdoptOutcome) {
	at, _ := slices.BinarySearchFunc(given, lost.id(), func(c claim, id string) int { return strings.Compare(c.id(), id) })
	message := given[at].collector + " has it too"
	switch outcomes[lost.id()] {
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_CREATED:
		message += ", and is given it"
	case registryv1.AdoptOutcome_ADOPT_OUTCOME_KNOWN:
		message += ", and was given it before"
	}
	if differs(given[at], lost) {
		message += ", with another content"
	}
	for _, r := range reports {
		if r.Collector == lost.collector && len(r.collections) > 0 {
			r.Conflicts = append(r.Conflicts, reportedFault{lost.id(), message})
			return
		}
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
