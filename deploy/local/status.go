package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// status is one line about everything, read from the services' own metrics.
func (w *workers) status(ctx context.Context) string {
	var parts []string
	for i, c := range w.children {
		m, err := scrape(ctx, "http://"+c.http+"/metrics")
		switch {
		case ctx.Err() != nil:
			return "stopping"
		case err != nil:
			parts = append(parts, c.name+": no answer")
		case i == 0:
			parts = append(parts, fmt.Sprintf("registry: %.0f producers, %.0f collectors live",
				m["rollcall_registry_producers"], m[`rollcall_registry_collectors{state="live"}`]))
		default:
			parts = append(parts, collectorStatus(c.name, m))
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

// scrape reads the metrics of a service by their series, as written. It reads
// what our own services write, and no more of the format than that.
func scrape(ctx context.Context, url string) (map[string]float64, error) {
	body, err := fetch(ctx, url)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return parse(io.LimitReader(body, 8<<20))
}

func parse(r io.Reader) (map[string]float64, error) {
	metrics := make(map[string]float64)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		series, text, ok := strings.Cut(lines.Text(), " ")
		if !ok || !strings.HasPrefix(series, "rollcall_") {
			continue // a comment, or of no interest; ours have no spaces in their labels
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", series, err)
		}
		metrics[series] = value
	}
	return metrics, lines.Err()
}
