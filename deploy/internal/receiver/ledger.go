package receiver

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// What producers that a ledger is kept of expose: each of their answers has a
// number, counted from 0 by each producer, and this with Fraction is the value of
// all its samples. The series are those of Family, told apart by the label
// LabelSeries, which counts from 0. The label LabelHost names the producer.
const (
	Family      = "delivery_seconds_total"
	LabelHost   = "host"
	LabelSeries = "k"

	// Fraction keeps agents from making integers of all values.
	Fraction = 0.25
)

// maxSeries and maxAnswers bound what a ledger is kept of.
const (
	maxSeries  = 1 << 16
	maxAnswers = 1 << 22
)

// A Ledger knows how often each sample has arrived. It is safe for concurrent
// use.
type Ledger struct {
	mu    sync.Mutex
	hosts map[string]*host

	firsts, again, disordered, stale int
}

// host is what has arrived of one producer.
type host struct {
	times [][]uint8 // by series and answer; 255 is as many or more

	// auto is how often the samples arrived that an agent makes itself, such as
	// up, by name and time.
	auto map[string]map[int64]int

	downs []int64 // when up was 0
}

// NewLedger makes an empty one.
func NewLedger() *Ledger { return &Ledger{hosts: map[string]*host{}} }

// Summary counts samples of all producers.
type Summary struct {
	// Firsts are those that arrived, Again how often one arrived that was there.
	Firsts, Again int

	// Disordered are those that arrived first after a later one of their series.
	Disordered int

	// Stale are stale markers.
	Stale int
}

// Summary counts.
func (l *Ledger) Summary() Summary {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Summary{Firsts: l.firsts, Again: l.again, Disordered: l.disordered, Stale: l.stale}
}

// Arrived tells, of the first so many series of an answer, how many samples have
// arrived, and how often one arrived that was there.
func (l *Ledger) Arrived(producer string, answer, series int) (arrived, again int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[producer]
	if h == nil {
		return 0, 0
	}
	for i := range min(series, len(h.times)) {
		if answer < len(h.times[i]) && h.times[i][answer] > 0 {
			arrived++
			again += int(h.times[i][answer]) - 1
		}
	}
	return arrived, again
}

// Down tells whether an agent said of a producer that a collection failed, at a
// time in a span of milliseconds since the Unix epoch, both ends included.
func (l *Ledger) Down(producer string, from, to int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[producer]
	return h != nil && slices.ContainsFunc(h.downs, func(at int64) bool { return from <= at && at <= to })
}

// Auto counts, by name, the samples that the agent made itself: each time of a
// producer once.
func (l *Ledger) Auto() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]int{}
	for _, h := range l.hosts {
		for name, times := range h.auto {
			all[name] += len(times)
		}
	}
	return all
}

// Downs counts failed collections as the agent told them.
func (l *Ledger) Downs() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for h := range maps.Values(l.hosts) {
		n += len(h.downs)
	}
	return n
}

// add notes the samples of a body.
func (l *Ledger) add(raw []byte, two bool) error {
	if two {
		return l.addTwo(raw)
	}
	var req prompb.WriteRequest
	if err := req.Unmarshal(raw); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range req.Timeseries {
		var id identity
		for _, label := range req.Timeseries[i].Labels {
			id.set(label.Name, label.Value)
		}
		for _, s := range req.Timeseries[i].Samples {
			if err := l.note(id, s.Timestamp, s.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Ledger) addTwo(raw []byte) error {
	var req writev2.Request
	if err := req.Unmarshal(raw); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range req.Timeseries {
		refs := req.Timeseries[i].LabelsRefs
		var id identity
		for len(refs) >= 2 {
			if int(refs[0]) >= len(req.Symbols) || int(refs[1]) >= len(req.Symbols) {
				return errors.New("no such symbol")
			}
			id.set(req.Symbols[refs[0]], req.Symbols[refs[1]])
			refs = refs[2:]
		}
		for _, s := range req.Timeseries[i].Samples {
			if err := l.note(id, s.Timestamp, s.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// identity is what a ledger knows a series by.
type identity struct{ name, host, series string }

func (id *identity) set(name, value string) {
	switch name {
	case "__name__":
		id.name = value
	case LabelHost:
		id.host = value
	case LabelSeries:
		id.series = value
	}
}

// note notes one sample. It is called with the lock held.
func (l *Ledger) note(id identity, at int64, v float64) error {
	if id.name != Family && id.name != "up" && !strings.HasPrefix(id.name, "scrape_") {
		return nil
	}
	if value.IsStaleNaN(v) {
		l.stale++
		return nil
	}
	h := l.hosts[id.host]
	if h == nil {
		h = &host{auto: map[string]map[int64]int{}}
		l.hosts[strings.Clone(id.host)] = h
	}
	if id.name != Family {
		h.noteAuto(id.name, at, v)
		return nil
	}
	series, err := strconv.ParseUint(id.series, 10, 64)
	if err != nil || series >= maxSeries || v < 0 || v >= maxAnswers || v-math.Trunc(v) != Fraction {
		return fmt.Errorf("unexpected: series %q with the value %v", id.series, v)
	}
	for int(series) >= len(h.times) {
		h.times = append(h.times, nil)
	}
	times, answer := &h.times[series], int(v)
	late := answer < len(*times)
	for answer >= len(*times) {
		*times = append(*times, 0)
	}
	switch n := (*times)[answer]; {
	case n > 0:
		l.again++
	case late:
		l.disordered++
		fallthrough
	default:
		l.firsts++
	}
	if (*times)[answer] < math.MaxUint8 {
		(*times)[answer]++
	}
	return nil
}

func (h *host) noteAuto(name string, at int64, v float64) {
	if h.auto[name] == nil {
		h.auto[strings.Clone(name)] = map[int64]int{}
	}
	h.auto[name][at]++
	if name == "up" && v == 0 && h.auto[name][at] == 1 {
		h.downs = append(h.downs, at)
	}
}
