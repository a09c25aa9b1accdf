package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A step is one line of a script: the seconds since the begin, a verb, and what
// the verb takes. The verbs table tells all of them.
//
//	12.500 crash c-1 8s
type step struct {
	at   time.Duration
	verb string
	args []string
}

// String is the line.
func (s step) String() string {
	return strings.TrimSpace(fmt.Sprintf("%8.3f %s %s", s.at.Seconds(), s.verb, strings.Join(s.args, " ")))
}

func formatScript(script []step) string {
	var b strings.Builder
	for _, s := range script {
		fmt.Fprintf(&b, "%8.3f %s\n", s.at.Seconds(), strings.Join(append([]string{s.verb}, s.args...), " "))
	}
	return b.String()
}

// parseScript reads lines; empty ones and those that begin with # say nothing.
func parseScript(text string) ([]step, error) {
	var script []step
	for n, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		s, err := parseStep(fields)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q: %w", n+1, line, err)
		}
		if len(script) > 0 && s.at < script[len(script)-1].at {
			return nil, fmt.Errorf("line %d: %q: is before the line above it", n+1, line)
		}
		script = append(script, s)
	}
	return script, nil
}

func parseStep(fields []string) (step, error) {
	if len(fields) < 2 {
		return step{}, fmt.Errorf("want a time and a verb")
	}
	seconds, err := strconv.ParseFloat(fields[0], 64)
	if err != nil || seconds < 0 || seconds > 1e6 {
		return step{}, fmt.Errorf("%q is no time", fields[0])
	}
	s := step{at: time.Duration(seconds*1000) * time.Millisecond, verb: fields[1], args: fields[2:]}
	i := slices.IndexFunc(verbs, func(v verb) bool { return v.name == s.verb })
	if i < 0 {
		return step{}, fmt.Errorf("%q is no verb", s.verb)
	}
	kinds := strings.Fields(verbs[i].takes)
	if len(kinds) != len(s.args) {
		return step{}, fmt.Errorf("%s takes %q", s.verb, verbs[i].takes)
	}
	for i, kind := range kinds {
		if !fits(kind, s.args[i]) {
			return step{}, fmt.Errorf("%q is no %s", s.args[i], kind)
		}
	}
	return s, nil
}

// fits tells whether an argument is of a kind.
func fits(kind, arg string) bool {
	numbered := func(prefix string, most int) bool {
		digits, ok := strings.CutPrefix(arg, prefix)
		n, err := strconv.Atoi(digits)
		return ok && err == nil && n >= 1 && n <= most
	}
	switch kind {
	case "PRODUCER":
		return numbered("p-", townProducers)
	case "LEASED":
		return fits("PRODUCER", arg) && isLeased(arg)
	case "REGISTRY":
		return numbered("r-", townRegistries)
	case "COLLECTOR":
		return numbered("c-", townCollectors)
	case "NODE":
		return fits("REGISTRY", arg) || fits("COLLECTOR", arg)
	case "FOR", "BY":
		d, err := time.ParseDuration(arg)
		return err == nil && (kind == "BY" || d > 0) && d.Abs() <= 48*time.Hour
	case "N":
		n, err := strconv.Atoi(arg)
		return err == nil && n >= 0
	default: // a choice
		return slices.Contains(strings.Split(kind, "|"), arg)
	}
}

// draw makes an argument of a kind.
func draw(r *rand.Rand, kind string) string {
	switch kind {
	case "PRODUCER":
		return fmt.Sprintf("p-%02d", 1+r.IntN(townProducers))
	case "LEASED":
		return fmt.Sprintf("p-%02d", 2+2*r.IntN(townProducers/2))
	case "REGISTRY":
		return fmt.Sprintf("r-%d", 1+r.IntN(townRegistries))
	case "COLLECTOR":
		return fmt.Sprintf("c-%d", 1+r.IntN(townCollectors))
	case "NODE":
		return draw(r, []string{"REGISTRY", "COLLECTOR"}[r.IntN(2)])
	case "FOR":
		return (time.Duration(1+r.IntN(400)) * 100 * time.Millisecond).String()
	case "BY":
		return (time.Duration(r.IntN(7200)-3600) * time.Second).String()
	case "N":
		return strconv.Itoa(r.IntN(12))
	default:
		choices := strings.Split(kind, "|")
		return choices[r.IntN(len(choices))]
	}
}

// drawVerb draws a verb by its weight.
func drawVerb(r *rand.Rand, forgetful bool) verb {
	var weights int
	for _, v := range verbs {
		if forgetful || !v.forgets {
			weights += v.weight
		}
	}
	n := r.IntN(weights)
	for _, v := range verbs {
		if forgetful || !v.forgets {
			if n -= v.weight; n < 0 {
				return v
			}
		}
	}
	panic("the weights do not add up")
}

// The shape of a generated script: rounds of commands, each followed by a time
// in which everything works.
const (
	rounds       = 5
	roundSteps   = 24
	roundTime    = 110 * time.Second
	quietTime    = 135 * time.Second
	scriptLength = rounds * (roundTime + quietTime)
)

// generateScript draws the script of a seed.
func generateScript(seed uint64) []step {
	r := rand.New(rand.NewPCG(seed, 0))
	var script []step
	// A fleet that is there before the first fault makes faults worth having.
	for i := range townProducers * 3 / 4 {
		script = append(script, step{at: time.Duration(1000+50*i) * time.Millisecond, verb: "register", args: []string{fmt.Sprintf("p-%02d", i+1), draw(r, "REGISTRY")}})
	}
	for round := range rounds {
		begin := time.Duration(round) * (roundTime + quietTime)
		if round == 0 {
			begin += 5 * time.Second
		}
		times := make([]time.Duration, roundSteps)
		for i := range times {
			times[i] = begin + time.Duration(r.Int64N(int64(roundTime-5*time.Second)/1e6))*time.Millisecond
		}
		slices.Sort(times)
		// A store that forgets excuses much, so in half of the rounds none does.
		forgetful := r.IntN(2) == 0
		for _, at := range times {
			v := drawVerb(r, forgetful)
			s := step{at: at, verb: v.name}
			for kind := range strings.FieldsSeq(v.takes) {
				s.args = append(s.args, draw(r, kind))
			}
			script = append(script, s)
		}
		script = append(script, step{at: begin + roundTime, verb: "quiet", args: []string{quietTime.String()}})
	}
	return script
}
