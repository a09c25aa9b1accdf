package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// status is one line about everything, read from the services' own metrics.
func (w *workers) status(ctx context.Context) string {
	var parts []string
	for i, c := range w.children {
		m, err := child.Scrape(ctx, "http://"+c.HTTP+"/metrics")
		switch {
		case ctx.Err() != nil:
			return "stopping"
		case err != nil:
			parts = append(parts, c.Name+": no answer")
		case i == 0:
			parts = append(parts, fmt.Sprintf("registry: %.0f producers, %.0f collectors live",
				m["rollcall_registry_producers"], m[`rollcall_registry_collectors{state="live"}`]))
		default:
			parts = append(parts, collectorStatus(c.Name, m))
		}
	}
	return strings.Join(parts, " | ")
}

func collectorStatus(name string, m map[string]float64) string {
	const collections = "rollcall_collector_collections_total{"
	var failed, missed float64
	for series, value := range m {
		switch {
		case series == collections+`outcome="success"}`, series == collections+`outcome="cancelled"}`:
		case strings.HasPrefix(series, collections):
			failed += value
		case strings.HasPrefix(series, "rollcall_collector_missed_ticks_total{"):
			missed += value
		}
	}
	following := ""
	if m["rollcall_collector_subscribed"] == 0 {
		following = ", without a registry"
	}
	return fmt.Sprintf("%s: %.0f assigned, %.0f held, %.0f collected, %.0f failed, %.0f missed%s", name,
		m["rollcall_collector_accepted_producers"], m["rollcall_collector_held_producers"],
		m[collections+`outcome="success"}`], failed, missed, following)
}
