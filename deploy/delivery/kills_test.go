package delivery_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

var kills = flag.Duration("kills", 2*time.Minute, "TestKills: for how long agent and receiver are killed")

// TestKills kills agents and their receivers by SIGKILL, again and again: what
// the agent had collected has to arrive.
func TestKills(t *testing.T) {
	if testing.Short() {
		t.Skipf("it takes %v", *kills)
	}
	t.Parallel()
	var mu sync.Mutex
	var rows []row
	var all sync.WaitGroup // not t.Parallel: they wait, and need no processor each
	for _, k := range kinds {
		all.Go(func() {
			t.Run(k.name, func(t *testing.T) {
				k.skip(t)
				r := playKills(t, k)
				if k.ours {
					r.require(t)
				}
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, r)
			})
		})
	}
	all.Wait()
	slices.SortFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	t.Log(table(rows))
}

// A pair is an agent and its receiver, each a process, and how the agent has
// ended so far.
type pair struct {
	agent, receiver *child.Child
	ends            []end
	killed          int // receivers
}

func playKills(t *testing.T, k kind) row {
	t.Helper()
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	dir := t.TempDir()
	p := newProducers(t, count, samples)
	plan, path := planReceiver(t, dir)
	both := &pair{receiver: launch(t, plan)}
	defer func() { both.receiver.Kill() }()
	both.agent = launch(t, k.plan(t, &setup{
		dir: dir, pace: interval, targets: p, write: "http://" + plan.HTTP + receiver.Path, maxBytes: queueBytes,
	}))
	defer func() { both.agent.Kill() }()
	p.await(t, 5, time.Minute)

	for over := time.Now().Add(*kills); time.Now().Before(over); {
		both.killOne(t)
	}
	back := time.Now()
	p.await(t, len(p.all()[p.names[0]])+5, time.Minute)
	cut := time.Now()
	counts := func(a answer) bool {
		return a.sent.Before(cut) && !slices.ContainsFunc(both.ends, func(e end) bool { return !e.judges(a) })
	}
	ledger := receiver.NewLedger()
	var read int64
	v := settle(func() verdict {
		var err error
		if read, err = receiver.ReadJournal(path, read, ledger); err != nil {
			t.Fatal(err)
		}
		return judge(p, ledger, counts)
	})
	r := row{name: k.name, story: fmt.Sprintf("%d, %d", len(both.ends), both.killed), verdict: v, summary: ledger.Summary(), settled: time.Since(back)}
	for _, e := range both.ends {
		r.ended = append(r.ended, e.String())
	}
	return r
}

// killOne kills the agent, the receiver, or the agent while the receiver is away,
// after a while, and starts what it has killed again after a moment.
func (p *pair) killOne(t testing.TB) {
	t.Helper()
	time.Sleep(time.Second + rand.N(3*time.Second))
	for _, c := range []*child.Child{p.agent, p.receiver} {
		if c.Ended() {
			t.Fatalf("%s has ended by itself: %s", c.Name, c.How())
		}
	}
	who := rand.N(3)
	if who != 0 {
		p.receiver.Kill()
		p.killed++
		time.Sleep(rand.N(2 * time.Second))
	}
	if who != 1 {
		p.ends = append(p.ends, stop(t, p.agent, true))
		time.Sleep(rand.N(2 * time.Second))
		p.agent = launch(t, p.agent.Service)
	}
	if who != 0 {
		p.receiver = launch(t, p.receiver.Service)
	}
}
