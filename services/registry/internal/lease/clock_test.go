package lease_test

import (
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"pgregory.net/rapid"
)

var morning = time.Unix(1e9, 0)

// span is the time to a tick by both clocks, and whether the registry is healthy
// at it.
type span struct {
	mono, wall time.Duration
	healthy    bool
}

func (s span) after(i lease.Instant) lease.Instant {
	return lease.Instant{Mono: i.Mono + s.mono, Wall: i.Wall.Add(s.wall)}
}

func TestClock(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		maxTick  time.Duration
		spans    []span
		losses   []lease.Loss
		credited time.Duration
	}{
		"healthy":               {0, []span{{5 * s, 5 * s, true}, {5 * s, 5 * s, true}}, []lease.Loss{"", ""}, 10 * s},
		"ill at its end":        {0, []span{{5 * s, 5 * s, false}}, []lease.Loss{lease.Ill}, 0},
		"ill at its beginning":  {0, []span{{5 * s, 5 * s, false}, {5 * s, 5 * s, true}, {5 * s, 5 * s, true}}, []lease.Loss{lease.Ill, lease.Ill, ""}, 5 * s},
		"as long as may be":     {0, []span{{15 * s, 15 * s, true}}, []lease.Loss{""}, 15 * s},
		"paused":                {0, []span{{15*s + 1, 15 * s, true}, {s, s, true}}, []lease.Loss{lease.Paused, ""}, s},
		"another longest tick":  {20 * s, []span{{20 * s, 20 * s, true}, {20*s + 1, 20 * s, true}}, []lease.Loss{"", lease.Paused}, 20 * s},
		"drifted":               {0, []span{{5 * s, 6 * s, true}, {5 * s, 4 * s, true}}, []lease.Loss{"", ""}, 10 * s},
		"jumped ahead":          {0, []span{{5 * s, 6*s + ms, true}, {s, s, true}}, []lease.Loss{lease.Jumped, ""}, s},
		"jumped back":           {0, []span{{5 * s, 4*s - ms, true}, {s, s, true}}, []lease.Loss{lease.Jumped, ""}, s},
		"jumped far":            {0, []span{{5 * s, -1 << 62, true}, {5 * s, 1 << 62, true}}, []lease.Loss{lease.Jumped, lease.Jumped}, 0},
		"slept":                 {0, []span{{5 * s, time.Hour, true}}, []lease.Loss{lease.Jumped}, 0},
		"monotonic went back":   {0, []span{{-5 * s, -5 * s, true}}, []lease.Loss{lease.Jumped}, 0},
		"ill, paused, jumped":   {0, []span{{time.Hour, 0, false}}, []lease.Loss{lease.Paused}, 0},
		"ill and jumped":        {0, []span{{s, time.Hour, false}}, []lease.Loss{lease.Jumped}, 0},
		"no time between ticks": {0, []span{{0, 0, true}}, []lease.Loss{""}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			clock := lease.NewClock(c.maxTick)
			at := lease.Instant{Mono: time.Hour, Wall: morning}
			if loss := clock.Tick(at, true); loss != "" || clock.Credited() != 0 {
				t.Fatalf("first: lost as %q, credited %v", loss, clock.Credited())
			}
			for i, sp := range c.spans {
				at = sp.after(at)
				if loss := clock.Tick(at, sp.healthy); loss != c.losses[i] {
					t.Errorf("span %d is lost as %q, want %q", i, loss, c.losses[i])
				}
			}
			if clock.Credited() != c.credited {
				t.Errorf("credited %v, want %v", clock.Credited(), c.credited)
			}
		})
	}
}

// TestClockModel: what is credited are the whole spans between two healthy ticks
// of one running process, and nothing else.
func TestClockModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := lease.NewClock(0)
		at := lease.Instant{Wall: morning}
		well := rapid.Bool().Draw(t, "healthy")
		clock.Tick(at, well)
		want := time.Duration(0)
		for range rapid.IntRange(0, 50).Draw(t, "ticks") {
			d := time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
			jump := time.Duration(rapid.SampledFrom([]int{0, 0, 0, -1000, 1000, -1001, 1001, 3600000}).Draw(t, "jump")) * time.Millisecond
			sp := span{d, d + jump, rapid.IntRange(0, 3).Draw(t, "healthy") > 0}
			at = sp.after(at)
			counts := well && sp.healthy && d <= 15*time.Second && jump.Abs() <= time.Second
			if counts {
				want += d
			}
			if loss := clock.Tick(at, sp.healthy); (loss == "") != counts || clock.Credited() != want {
				t.Fatalf("lost as %q, credited %v, want %v", loss, clock.Credited(), want)
			}
			well = sp.healthy
		}
	})
}
