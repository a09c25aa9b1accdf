package bench

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"
)

// Paces is how evenly producers were asked, as they saw it.
type paces struct {
	Producers int
	Missed    int // instants of their grids between the first request and the last

	// P50, P99 and Most are how far requests were from the grid of their producer,
	// in seconds. The grid is the one that has half of the requests before it: where
	// the subject meant it to be, no producer can know.
	P50, P99, Most float64
}

// watch forgets all times, and begins to remember them.
func (e *exposers) watch(http.ResponseWriter, *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.times = map[string][]time.Time{}
}

// tellPaces ends that, and tells what came of it.
func (e *exposers) tellPaces(w http.ResponseWriter, r *http.Request) {
	interval, err := time.ParseDuration(r.PathValue("interval"))
	if err != nil || interval <= 0 {
		http.Error(w, "no interval", http.StatusBadRequest)
		return
	}
	e.mu.Lock()
	times := e.times
	e.times = nil
	e.mu.Unlock()
	_ = json.NewEncoder(w).Encode(pacesOf(times, interval)) // who has gone away needs none
}

func pacesOf(times map[string][]time.Time, interval time.Duration) paces {
	p := paces{Producers: len(times)}
	var errs []time.Duration
	for _, all := range times {
		late := deviations(all, interval)
		middle := median(late)
		seen := map[int64]bool{}
		first, last := int64(0), int64(0)
		for i, t := range all {
			errs = append(errs, (late[i] - middle).Abs())
			at := int64((t.Sub(all[0]) - middle + interval/2) / interval)
			seen[at] = true
			first, last = min(first, at), max(last, at)
		}
		p.Missed += int(last-first) + 1 - len(seen)
	}
	if len(errs) == 0 {
		return p
	}
	slices.Sort(errs)
	p.P50 = errs[len(errs)/2].Seconds()
	p.P99 = errs[(len(errs)-1)*99/100].Seconds()
	p.Most = errs[len(errs)-1].Seconds()
	return p
}

// deviations is how far each time is from a whole number of intervals after the
// first: at most half of one, early or late.
func deviations(all []time.Time, interval time.Duration) []time.Duration {
	late := make([]time.Duration, len(all))
	for i, t := range all {
		since := t.Sub(all[0])
		late[i] = since - since.Round(interval)
	}
	return late
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

// paces ends what watch has begun.
func (s *server) paces(b *testing.B, interval time.Duration) paces {
	b.Helper()
	var p paces
	if err := json.Unmarshal([]byte(fetch(b, "http://"+s.address+"/-/paces/"+interval.String())), &p); err != nil {
		b.Fatal(err)
	}
	return p
}

func TestPacesTellsWhoWasMissed(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	at := func(ms ...int) []time.Time {
		var all []time.Time
		for _, n := range ms {
			all = append(all, start.Add(time.Duration(n)*time.Millisecond))
		}
		return all
	}
	got := pacesOf(map[string][]time.Time{
		"even":        at(0, 1000, 2000, 3000),
		"late once":   at(0, 1000, 2300, 3000),
		"first late":  at(400, 1000, 2000, 3000),
		"missed two":  at(0, 1010, 4000),
		"asked twice": at(0, 1000, 1010, 2000),
	}, time.Second)
	want := paces{Producers: 5, Missed: 2, P50: 0, P99: .3, Most: .4}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
