package child

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Scrape reads the metrics of a service by their series, as written. It reads
// what our own services write, and no more of the format than that.
func Scrape(ctx context.Context, url string) (map[string]float64, error) {
	body, err := Fetch(ctx, url)
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
