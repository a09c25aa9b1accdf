package delivery_test

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

var outage = flag.Duration("outage", 15*time.Second, "TestOutage: for how long the receiver is away before the agent is stopped")

// The load of the tests that count each sample.
const (
	interval = time.Second // of a producer
	count    = 20          // producers
	samples  = 50          // of an answer

	// queueBytes is more than any of these tests needs.
	queueBytes = 256 << 20

	// killMargin is how long before a kill an answer is sent that is judged;
	// stopMargin is for an agent that is asked to stop, which may break off what it
	// has not read. On a busy machine that can be old.
	killMargin = time.Second
	stopMargin = time.Second

	// One sample of so many may be of an answer that was sent whole, and that the
	// agent calls a failed collection: a busy machine has some that came too late.
	maxFailedShare = 10

	// settleLimit is how long after the receiver's return samples are waited for.
	settleLimit = 30 * time.Second
)

// TestOutage has the receiver go away, the agent be stopped or killed while it is,
// and both come back: what the agent had collected has to arrive.
func TestOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about a minute")
	}
	t.Parallel()
	var mu sync.Mutex
	var rows []row
	var all sync.WaitGroup // not t.Parallel: they wait, and need no processor each
	for _, k := range kinds {
		for _, story := range []string{"stopped", "killed"} {
			all.Go(func() {
				t.Run(k.name+"/"+story, func(t *testing.T) {
					k.skip(t)
					r := playOutage(t, k, story == "killed")
					r.story = story
					if k.ours {
						r.require(t)
					}
					mu.Lock()
					defer mu.Unlock()
					rows = append(rows, r)
				})
			})
		}
	}
	all.Wait()
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name+a.story, b.name+b.story) })
	t.Log(table(rows))
}

// require fails when something was lost.
func (r row) require(t *testing.T) {
	t.Helper()
	if r.judged == 0 {
		t.Error("nothing was judged")
	}
	// Else an agent that calls failed what it loses would lose nothing.
	if r.failed*maxFailedShare > r.judged+r.failed {
		t.Errorf("%d of %d samples were sent whole and are of failed collections, by the agent's word", r.failed, r.judged+r.failed)
	}
	if r.lost > 0 {
		t.Errorf("%d of %d collected samples are lost, in part of %d answers: %s; the agent ended at %s",
			r.lost, r.judged, r.torn, strings.Join(r.examples, ", "), strings.Join(r.ended, ", "))
	}
	if r.summary.Disordered > 0 {
		t.Errorf("%d samples arrived after a later one of their series", r.summary.Disordered)
	}
}

func playOutage(t *testing.T, k kind, kill bool) row {
	t.Helper()
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	p := newProducers(t, count, samples)
	r, ledger := newReceiver(t)
	up(t, r)
	plan := k.plan(t, &setup{dir: t.TempDir(), pace: interval, targets: p, write: r.URL(), maxBytes: queueBytes})
	agent := launch(t, plan)
	defer func() { agent.Kill() }()
	p.await(t, 5, time.Minute)
	eventually(t, time.Minute, "samples arrive", func() bool { return ledger.Summary().Firsts > 0 })

	r.Down()
	time.Sleep(*outage)
	ended := stop(t, agent, kill)
	agent = launch(t, plan)
	back := time.Now()
	up(t, r)
	p.await(t, len(p.all()[p.names[0]])+5, time.Minute)
	cut := time.Now()
	counts := func(a answer) bool { return a.sent.Before(cut) && ended.judges(a) }
	v := settle(func() verdict { return judge(p, ledger, counts) })
	return row{name: k.name, ended: []string{ended.String()}, verdict: v, summary: ledger.Summary(), settled: time.Since(back), protocol: protocols(r.Totals())}
}

// An end is when an agent was stopped or killed: what is sent within the margin
// before, and until it has ended, is not judged. Time in which the machine stalled
// is none that the agent had.
type end struct {
	at, gone time.Time
	margin   time.Duration
}

func (e end) judges(a answer) bool {
	if a.began.After(e.gone) {
		return true
	}
	ahead := e.at.Sub(a.sent)
	return ahead > e.margin && (ahead > longestStall || ahead-noted.within(a.sent, e.at) > e.margin)
}

func (e end) String() string { return e.at.Format("15:04:05.000") }

// stop stops or kills an agent.
func stop(t testing.TB, agent *child.Child, kill bool) end {
	t.Helper()
	e := end{at: time.Now(), margin: stopMargin}
	if kill {
		e.margin = killMargin
		agent.Kill()
	} else {
		terminate(t, agent)
	}
	e.gone = time.Now()
	return e
}

// settle waits until nothing is missing, or the limit.
func settle(now func() verdict) verdict {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(settleLimit); ; <-tick.C {
		if v := now(); v.lost == 0 || time.Now().After(deadline) {
			return v
		}
	}
}

func protocols(t receiver.Totals) string {
	var all []string
	for name, n := range t.Protocols {
		all = append(all, fmt.Sprintf("%s (%d)", name, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
