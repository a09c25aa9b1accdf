package soak_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
)

// TestBackupRestored sets a registry's data directory back to a backup, of the same
// epoch, and writes on in it. That is found: a new epoch begins, and those that the
// backup does not know are held and collected until they are registered again.
func TestBackupRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	bin := commands(t)
	s := &site{dir: t.TempDir()}
	t.Cleanup(s.end)
	plans := planRecovery(t, bin, s.dir)[:2]
	data, backup := filepath.Join(s.dir, plans[0].Name), filepath.Join(s.dir, "backup")
	again := func() {
		t.Helper()
		var err error
		if s.registries, err = start(t.Context(), plans[:1]); err != nil {
			t.Fatal(err)
		}
	}
	again()
	var err error
	if s.collectors, err = start(t.Context(), plans[1:]); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	l := newLoad(t, []string{plans[0].GRPC}, f.url)
	known, later, last := named("known", 40), named("later", 40), named("last", 3)
	must := func(steps ...func() error) {
		t.Helper()
		for _, step := range steps {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	settled := func() error { return until(t.Context(), s.settled) }
	must(settled, func() error { return l.registerFleet(t.Context(), known) }, func() error { return f.await(t.Context(), known, 2) })
	from := time.Now()

	s.registries[0].Terminate()
	<-s.registries[0].Done()
	must(func() error { return os.CopyFS(backup, os.DirFS(data)) })
	again()
	must(settled, func() error { return l.registerFleet(t.Context(), later) }, func() error { return f.await(t.Context(), later, 2) })
	laterFrom, epoch := time.Now(), epochOf(t.Context(), t, plans[1].GRPC)

	s.registries[0].Kill()
	must(func() error { return os.RemoveAll(data) }, func() error { return os.CopyFS(data, os.DirFS(backup)) })
	again()
	must(func() error { return l.registerFleet(t.Context(), last) }, settled)
	must(func() error {
		return until(t.Context(), func(ctx context.Context) error {
			if now := epochOf(ctx, t, plans[1].GRPC); now == epoch {
				return fmt.Errorf("the epoch is %s still", now)
			}
			return nil
		})
	}, func() error { return f.await(t.Context(), last, 2) })
	if held, err := listHeld(t.Context(), plans[1].GRPC); err != nil || len(held) != len(later) {
		t.Errorf("%d are held, want %d; %v", len(held), len(later), err)
	}
	must(func() error { return l.registerFleet(t.Context(), later) }, func() error { return until(t.Context(), s.unheld) })
	for ids, since := range map[*[]string]time.Time{&known: from, &later: laterFrom} {
		longest, who, often := f.check(*ids, since, time.Now())
		if most := 2*interval + *late; longest > most || len(often) > 0 {
			t.Errorf("%s waited %v for a pull, want %v at most; %v", who, longest, most, often)
		}
	}
	if t.Failed() {
		s.keepLogs(t)
	}
}

func named(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return ids
}

// epochOf is that of a collector's set.
func epochOf(ctx context.Context, t *testing.T, address string) string {
	t.Helper()
	m, err := collectorv1.NewCollectionServiceClient(dialed(t, address)).GetMembership(ctx, &collectorv1.GetMembershipRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return m.GetEpoch()
}
