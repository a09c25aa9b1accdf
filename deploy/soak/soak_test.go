package soak_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

var (
	duration = flag.Duration("duration", 20*time.Second, "how long one process after the other is killed")
	late     = flag.Duration("late", 2*time.Second, "how much later than two intervals a pull may be, for a machine that is busy")
)

// producers is how many are in the fleet.
const producers = 60

func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about a minute")
	}
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	s := newSite(t, commands(t))
	f := newFleet(t)
	var ids, addresses []string
	for i := range producers {
		ids = append(ids, fmt.Sprintf("fleet-%d", i))
	}
	for _, r := range s.registries {
		addresses = append(addresses, r.GRPC)
	}
	l := newLoad(t, addresses, f.url)
	if err := until(t.Context(), s.settled); err != nil {
		t.Fatal(err)
	}
	if err := l.registerFleet(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	if err := f.await(t.Context(), ids, 3); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	killed := play(t, s, l)
	played := time.Now()
	// Streams that break again and again have made the collectors wait longer and
	// longer before they subscribe anew.
	if err := until(t.Context(), s.settled); err != nil {
		t.Error(err)
	}
	settled := time.Since(played)
	if err := until(t.Context(), s.unheld); err != nil {
		t.Error(err)
	}
	for _, fault := range l.readBack(t.Context(), ids) {
		t.Error(fault)
	}
	to := time.Now()
	longest, who, often := f.check(ids, from, to)
	if most := 2*interval + *late; longest > most {
		t.Errorf("%s waited %v for a pull, want %v at most", who, longest, most)
	}
	for _, fault := range append(often, l.judge()...) {
		t.Error(fault)
	}
	calls, unknown := l.history.size()
	t.Logf("in %v: killed %v; %d calls, of %d nothing is known; %d registrations kept; the longest wait for a pull %v; all follow after %v",
		played.Sub(from).Round(time.Second), killed, calls, unknown, len(l.kept), longest.Round(time.Millisecond), settled.Round(time.Millisecond))
	if len(killed) == 0 || len(l.kept) == 0 {
		t.Error("that was no soak")
	}
	if t.Failed() {
		s.keepLogs(t)
	}
}

// play kills one process after the other while clients make their calls. It
// tells how often whom.
func play(t *testing.T, s *site, l *load) map[string]int {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), *duration)
	defer stop()
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() { l.run(ctx, client) })
	}
	killed := map[string]int{}
	for ctx.Err() == nil {
		// Also the last one is to come back: not bound to ctx.
		who, err := s.killOne(t.Context())
		if err != nil {
			t.Error(err)
			break
		}
		killed[who]++
	}
	stop()
	group.Wait()
	return killed
}
