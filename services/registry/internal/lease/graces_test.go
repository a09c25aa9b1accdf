package lease_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/lease"
	"pgregory.net/rapid"
)

// crew is some collectors, each with producers.
type crew struct {
	graces     *lease.Graces
	collectors []lease.Collector
}

// newCrew has n live collectors, c0 and so on.
func newCrew(n int) *crew {
	c := &crew{graces: lease.NewGraces(0, 0)}
	for i := range n {
		c.collectors = append(c.collectors, lease.Collector{ID: assignment.CollectorID(fmt.Sprintf("c%d", i)), Live: true, Assigned: 10})
	}
	return c
}

// do is "+0" for c0 live, "-0" not live, "~0" without producers, "!0" leaving,
// "?0" leaving no more.
func (c *crew) do(deeds string) {
	for deed := range strings.FieldsSeq(deeds) {
		s := &c.collectors[deed[1]-'0']
		switch deed[0] {
		case '+', '-':
			s.Live = deed[0] == '+'
		case '~':
			s.Assigned = 0
		case '!', '?':
			s.Leaving = deed[0] == '!'
		}
	}
}

func TestGraces(t *testing.T) {
	for name, test := range map[string]struct {
		crew  int
		deeds map[int]string // by the second
		want  []string       // "second: those newly gone"
	}{
		"all live":                   {4, nil, nil},
		"one is gone":                {4, map[int]string{20: "-1"}, []string{"80: c1"}},
		"gone from the start":        {4, map[int]string{0: "-1"}, []string{"60: c1"}},
		"back within it":             {4, map[int]string{20: "-1", 79: "+1"}, nil},
		"back, and away again":       {4, map[int]string{20: "-1", 79: "+1", 80: "-1"}, []string{"140: c1"}},
		"gone twice":                 {4, map[int]string{20: "-1", 90: "+1", 100: "-1"}, []string{"80: c1", "160: c1"}},
		"without producers":          {4, map[int]string{20: "-1 ~1"}, nil},
		"leaving":                    {4, map[int]string{20: "-1 !1"}, nil},
		"leaving no more":            {4, map[int]string{20: "-1 !1", 90: "?1"}, []string{"150: c1"}},
		"half is not more than half": {4, map[int]string{20: "-1 -2"}, []string{"80: c1 c2"}},

		"more than half":                    {4, map[int]string{20: "-1 -2 -3"}, []string{"140: c1 c2 c3"}},
		"the only one":                      {1, map[int]string{20: "-0"}, nil},
		"all, and one is back":              {4, map[int]string{20: "-0 -1 -2 -3", 200: "+0"}, []string{"245: c1 c2 c3"}},
		"all, and back one after another":   {4, map[int]string{20: "-0 -1 -2 -3", 145: "+0", 170: "+1", 190: "+2", 204: "+3"}, nil},
		"all, and one is back for long":     {4, map[int]string{20: "-0 -1 -2 -3", 145: "+0", 170: "+1"}, []string{"205: c2 c3"}},
		"all for long, and one is back":     {4, map[int]string{20: "-0 -1 -2 -3", 600: "+0"}, []string{"645: c1 c2 c3"}},
		"all for long, and back one by one": {4, map[int]string{20: "-0 -1 -2 -3", 600: "+0", 625: "+1", 650: "+2", 659: "+3"}, nil},
		"all, one after another, again and again": {
			4,
			map[int]string{20: "-0 -1 -2 -3", 200: "+0", 220: "-0", 400: "+1", 420: "-1", 500: "+0", 519: "-0", 600: "+0"},
			[]string{"601: c1 c2 c3"},
		},
		"more than half, and back":               {4, map[int]string{20: "-1 -2 -3", 130: "+1 +2 +3"}, nil},
		"more than half, and some are back":      {4, map[int]string{20: "-1 -2 -3", 60: "+1"}, []string{"140: c2 c3"}},
		"more than half at the last moment":      {4, map[int]string{20: "-1", 75: "-2 -3"}, []string{"140: c1", "195: c2 c3"}},
		"more than half, one after another":      {4, map[int]string{20: "-1", 35: "-2", 50: "-3"}, []string{"140: c1", "155: c2", "170: c3"}},
		"those without producers are not half":   {4, map[int]string{20: "-1 -2 ~2 -3 ~3"}, []string{"80: c1"}},
		"those that leave are not half":          {4, map[int]string{20: "-1 -2 !2 -3 !3"}, []string{"80: c1"}},
		"those that leave do not make up for it": {5, map[int]string{0: "!0 !3", 20: "-1 -2"}, []string{"140: c1 c2"}},
		"what is gone stays gone":                {4, map[int]string{20: "-1 -2", 85: "-3"}, []string{"80: c1 c2", "205: c3"}},

		"settles for ten seconds":             {6, map[int]string{20: "-1", 75: "-2"}, []string{"85: c1", "135: c2"}},
		"two of a rolling restart":            {6, map[int]string{20: "-1", 25: "-2"}, []string{"80: c1", "85: c2"}},
		"settles for those due meanwhile":     {6, map[int]string{20: "-1", 25: "-2", 79: "-3", 84: "+3"}, []string{"94: c1 c2"}},
		"a slow rolling restart":              {9, map[int]string{20: "-1", 78: "-2", 86: "+1 -3", 94: "+2 -4", 102: "+3", 110: "+4"}, nil},
		"never quiet, for one more grace":     {6, flap(20, 200, map[int]string{20: "-1 -2"}), []string{"140: c1 c2"}},
		"never quiet, and more than half":     {4, flap(20, 300, map[int]string{20: "-1 -2 -3"}), []string{"260: c1 c2 c3"}},
		"quiet after a while":                 {6, flap(20, 100, map[int]string{20: "-1"}), []string{"110: c1"}},
		"a drain is a change":                 {6, map[int]string{20: "-1", 75: "!2"}, []string{"85: c1"}},
		"one pressing takes along who is due": {6, flap(20, 200, map[int]string{20: "-1", 40: "-2"}), []string{"140: c1 c2"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrew(test.crew)
			var got []string
			for second := range 700 {
				c.do(test.deeds[second])
				a := c.graces.Tick(time.Hour+time.Duration(second)*time.Second, c.collectors)
				if len(a.New) > 0 {
					got = append(got, fmt.Sprintf("%d: %s", second, join(a.New)))
				}
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("gone (-want +got):\n%s", diff)
			}
		})
	}
}

// flap has c0 counted and not counted in turn, every five seconds.
func flap(from, to int, deeds map[int]string) map[int]string {
	for second := from; second <= to; second += 5 {
		deed := "!0 "
		if second%10 == 0 {
			deed = "?0 "
		}
		deeds[second] += " " + deed
	}
	return deeds
}

func join(ids []assignment.CollectorID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return strings.Join(words, " ")
}

// TestGoneForAsLongAsItHasAny: a gone collector is told until its last producer
// has another, and told to be new once.
func TestGoneForAsLongAsItHasAny(t *testing.T) {
	c := newCrew(4)
	at := func(second int) lease.Absences { return c.graces.Tick(time.Duration(second)*time.Second, c.collectors) }
	for second := 0; second < 60; second += 10 {
		c.do("-1")
		if a := at(second); len(a.Gone) > 0 || a.Half || a.Settling {
			t.Fatalf("at %d: %+v", second, a)
		}
	}
	if a := at(60); join(a.Gone) != "c1" || join(a.New) != "c1" {
		t.Errorf("%+v", a)
	}
	c.do("-2 -3")
	if a := at(65); join(a.Gone) != "c1" || len(a.New) > 0 || !a.Half {
		t.Errorf("%+v", a)
	}
	c.do("~1")
	if a := at(70); len(a.Gone) > 0 || !a.Half {
		t.Errorf("%+v", a)
	}
	c.do("+1 +2")
	if a := at(75); len(a.Gone) > 0 || a.Half {
		t.Errorf("%+v", a)
	}
}

func TestSettlingIsTold(t *testing.T) {
	c := newCrew(6)
	for second := range 90 {
		c.do(map[int]string{20: "-1", 75: "-2"}[second])
		if a := c.graces.Tick(time.Duration(second)*time.Second, c.collectors); a.Settling != (second >= 80 && second < 85) {
			t.Errorf("at %d: %+v", second, a)
		}
	}
}

// TestTimeThatNobodyTicked: after a pause nobody is gone at once, and a loop that
// is always slow comes to its end.
func TestTimeThatNobodyTicked(t *testing.T) {
	c := newCrew(4)
	c.graces.Tick(0, c.collectors)
	c.do("-1")
	for i, want := range []string{"", "", "", "", "c1"} { // at 0, 15, .. and 60 s as seen
		if a := c.graces.Tick(time.Duration(i+1)*time.Hour, c.collectors); join(a.Gone) != want {
			t.Errorf("tick %d: %+v", i, a)
		}
	}
	c = newCrew(4)
	c.do("-1")
	for range 100 { // a clock that stands, or goes back
		if a := c.graces.Tick(0, c.collectors); len(a.Gone) > 0 {
			t.Fatalf("%+v", a)
		}
	}
	for i, want := range []string{"", "", "", "", "c1"} { // it has gone back by an hour
		if a := c.graces.Tick(-time.Hour+time.Duration(i)*lease.DefaultMaxTick, c.collectors); join(a.Gone) != want {
			t.Errorf("tick %d: %+v", i, a)
		}
	}
}

// TestGracesModel: nobody is gone before one grace without a subscription (two
// when it was one of more than half), or while nobody is live; and everybody is
// after one more, of the time in which somebody was live.
func TestGracesModel(t *testing.T) {
	const n = 5
	rapid.Check(t, func(t *rapid.T) {
		c := newCrew(n)
		since, half, gone := map[assignment.CollectorID]int{}, map[assignment.CollectorID]bool{}, map[assignment.CollectorID]bool{}
		calm := rapid.IntRange(1, 100).Draw(t, "calm") // seconds between two deeds, on average
		attended := map[assignment.CollectorID]int{}   // how long somebody was live, once its graces were over
		before := n                                    // live, at the last tick
		for second := 0; second < 600; second += 5 {
			if rapid.IntRange(0, calm).Draw(t, "deed") < 5 {
				c.do(rapid.SampledFrom([]string{"+", "-", "-", "!", "?"}).Draw(t, "what") + string('0'+byte(rapid.IntRange(0, n-1).Draw(t, "who"))))
			}
			a := c.graces.Tick(time.Duration(second)*time.Second, c.collectors)
			live, without := 0, 0
			for _, s := range c.collectors {
				if s.Leaving {
					continue
				}
				if s.Live {
					live++
				} else {
					without++
				}
			}
			if a.Half != (without > live) {
				t.Fatalf("%d live, %d not: %+v", live, without, a)
			}
			for _, s := range c.collectors {
				if s.Live || s.Leaving {
					delete(since, s.ID)
					delete(half, s.ID)
					delete(gone, s.ID)
					delete(attended, s.ID)
					if slices.Contains(a.Gone, s.ID) {
						t.Fatalf("%s is there and gone", s.ID)
					}
					continue
				}
				if _, ok := since[s.ID]; !ok {
					since[s.ID] = second
				}
				fresh := slices.Contains(a.New, s.ID)
				if fresh == gone[s.ID] && fresh || gone[s.ID] && !slices.Contains(a.Gone, s.ID) {
					t.Fatalf("%s: %+v", s.ID, a)
				}
				half[s.ID] = half[s.ID] || a.Half && !gone[s.ID]
				least := 60
				if half[s.ID] {
					least = 120
				}
				away := second - since[s.ID]
				if away < least {
					delete(attended, s.ID)
				} else if _, ok := attended[s.ID]; !ok {
					attended[s.ID] = 0
				} else if before > 0 {
					attended[s.ID] += 5
				}
				pressing := attended[s.ID] >= 60
				if fresh && (away < least || live == 0) || !fresh && !gone[s.ID] && live > 0 && pressing {
					t.Fatalf("%s is away for %d s, of more than half: %v; %+v", s.ID, away, half[s.ID], a)
				}
				gone[s.ID] = gone[s.ID] || fresh
			}
			before = live
		}
	})
}

func TestClosed(t *testing.T) {
	at := func(minutes ...int) []time.Time {
		var times []time.Time
		for _, m := range minutes {
			times = append(times, morning.Add(time.Duration(m)*time.Minute))
		}
		return times
	}
	for name, test := range map[string]struct {
		gone      []time.Time
		liveSince int // -1: it is not
		now       int
		closed    bool
	}{
		"never gone":                 {nil, 0, 1, false},
		"gone once":                  {at(0), 1, 2, false},
		"gone once, not live":        {at(0), -1, 2, false},
		"twice in an hour":           {at(0, 60), 61, 70, true},
		"in any order":               {at(60, 0), 61, 70, true},
		"live for ten minutes":       {at(0, 60), 61, 71, false},
		"not live":                   {at(0, 60), -1, 100, true},
		"back after a while":         {at(0, 60), 110, 119, true},
		"an hour after the last":     {at(0, 60), 115, 121, false},
		"twice in more than an hour": {at(0, 61), 62, 63, false},
		"long ago, and then once":    {at(0, 10, 500), 501, 502, false},
		"three times":                {at(0, 100, 130), 131, 140, true},
		"live since later than now":  {at(0, 60), 62, 61, true},
	} {
		t.Run(name, func(t *testing.T) {
			var live time.Time
			if test.liveSince >= 0 {
				live = at(test.liveSince)[0]
			}
			gone := slices.Clone(test.gone)
			if closed := lease.Closed(test.gone, live, at(test.now)[0]); closed != test.closed {
				t.Errorf("closed: %v", closed)
			}
			if !slices.Equal(gone, test.gone) {
				t.Error("the times were changed")
			}
		})
	}
}
