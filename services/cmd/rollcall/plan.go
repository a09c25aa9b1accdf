package main

import (
	"fmt"
	"strconv"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// plan writes what a plan means for each collector, and with wide for each
// producer that it tells of.
func (o output) plan(p *registryv1.PlacementPlan, wide bool) error {
	var rows [][]string
	for _, l := range p.GetLoads() {
		rows = append(rows, []string{
			l.GetCollectorId(),
			strconv.FormatInt(l.GetProducerCountBefore(), 10),
			strconv.FormatInt(l.GetProducerCountAfter(), 10),
			rate(l.GetSamplesPerSecondBefore()),
			rate(l.GetSamplesPerSecondAfter()),
		})
	}
	if err := o.table([]string{"COLLECTOR", "PRODUCERS", "THEN", "SAMPLES/S", "THEN"}, rows); err != nil || !wide {
		return err
	}
	if len(p.GetMoves()) == 0 {
		return nil
	}
	rows = nil
	for _, m := range p.GetMoves() {
		rows = append(rows, []string{m.GetProducerId(), dash(m.GetFromCollectorId()), m.GetToCollectorId(), rate(m.GetSamplesPerSecond())})
	}
	if _, err := fmt.Fprintln(o.out); err != nil {
		return err
	}
	if err := o.table([]string{"PRODUCER", "FROM", "TO", "SAMPLES/S"}, rows); err != nil {
		return err
	}
	if more := p.GetMoveCount() - int64(len(p.GetMoves())); more > 0 {
		_, err := fmt.Fprintf(o.out, "and %d more\n", more)
		return err
	}
	return nil
}

// rate writes how many samples a second.
func rate(perSecond float64) string { return strconv.FormatFloat(perSecond, 'f', 1, 64) }

// stuck tells of those that have to leave a collector and cannot.
func stuck(p *registryv1.PlacementPlan) string {
	if p.GetStuckCount() == 0 {
		return ""
	}
	return fmt.Sprintf("; %d have to leave a collector, and there is none to give them to", p.GetStuckCount())
}
