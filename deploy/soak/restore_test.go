package soak_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// TestBackupRestored saves a backup of a registry that runs and is written to, goes
// on, loses the store, and writes on in what the backup holds. What was acknowledged
// before the backup is there. Those that it does not know are held and collected
// until rollcall recover brings them back.
//
// That the store was set back is found by its revisions, and a new epoch begins. When
// the tool lifts them it is not to be seen: the epoch goes on, and the absence alone
// has them held.
func TestBackupRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	bin := commands(t)
	for _, c := range []struct {
		name     string
		flags    []string
		newEpoch bool
	}{
		{name: "as it is", newEpoch: true},
		{name: "revisions lifted", flags: []string{"--bump-revision", "1000000000", "--mark-compacted"}},
	} {
		t.Run(c.name, func(t *testing.T) { backupRestored(t, bin, c.flags, c.newEpoch) })
	}
}

func backupRestored(t *testing.T, bin string, flags []string, newEpoch bool) {
	s, l, f := newOwnStore(t, bin)
	registry, collector := s.registries[0].Service, s.collectors[0].Service
	data, backup := filepath.Join(s.dir, registry.Name), filepath.Join(s.dir, "backup.db")
	known, later, last := named("known", 40), named("later", 40), named("last", 3)
	must(t, l.registerFleet(t.Context(), known), f.await(t.Context(), known, 2))
	from := time.Now()

	written := busy(t, l, backup, filepath.Join(data, "etcd.sock"))
	must(t, l.registerFleet(t.Context(), later), f.await(t.Context(), later, 2))
	laterFrom, epoch := time.Now(), epochOf(t.Context(), t, collector.GRPC)

	s.registries[0].Kill()
	must(t, os.RemoveAll(data))
	tool(t, etcdutlCommand, append([]string{"snapshot", "restore", backup, "--data-dir", data}, flags...)...)
	s.restart(t, registry)
	found, err := l.all(t.Context(), 0)
	if n, _ := strconv.Atoi(found["busy"]); err != nil || n < written || len(found) != len(known)+1 {
		t.Errorf("%d producers, one as written the %dth time, at least the %dth was acknowledged before the backup; %v", len(found), n, written, err)
	}
	must(t, l.registerFleet(t.Context(), last), until(t.Context(), s.settled), f.await(t.Context(), last, 2))
	must(t, until(t.Context(), func(ctx context.Context) error { return s.holds(ctx, len(later)) }))
	if now := epochOf(t.Context(), t, collector.GRPC); (now != epoch) != newEpoch {
		t.Errorf("the epoch is %s and was %s; want a new one: %v", now, epoch, newEpoch)
	}
	tool(t, filepath.Join(filepath.Dir(registry.Args[0]), "rollcall"), "recover", "--registry", registry.GRPC)
	must(t, until(t.Context(), s.unheld))
	missedNone(t, f, known, from)
	missedNone(t, f, later, laterFrom)
	if t.Failed() {
		s.keepLogs(t)
	}
}

// newOwnStore starts a registry with a store of its own and two collectors; they
// end with the test. The goroutine is locked to its thread.
func newOwnStore(t *testing.T, bin string) (*site, *load, *fleet) {
	t.Helper()
	runtime.LockOSThread() // for child.Start; the thread ends with the test's goroutine
	s := &site{dir: t.TempDir()}
	t.Cleanup(s.end)
	plans := planRecovery(t, bin, s.dir)[:3]
	s.restart(t, plans[0])
	var err error
	if s.collectors, err = start(t.Context(), plans[1:]); err != nil {
		t.Fatal(err)
	}
	must(t, until(t.Context(), s.settled))
	f := newFleet(t)
	return s, newLoad(t, []string{plans[0].GRPC}, f.url), f
}

// restart has the one registry be a new process, and waits until it is ready.
func (s *site) restart(t *testing.T, plan *child.Service) {
	t.Helper()
	var err error
	if s.registries, err = start(t.Context(), []*child.Service{plan}); err != nil {
		t.Fatal(err)
	}
}

// stop stops the registries and waits for that.
func (s *site) stop() {
	for _, r := range s.registries {
		r.Terminate()
		<-r.Done()
	}
}

// busy saves a backup while one producer is registered anew again and again, and
// tells how often it was acknowledged before.
func busy(t *testing.T, l *load, backup, socket string) (before int) {
	t.Helper()
	var acknowledged atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		for n := 1; ctx.Err() == nil; n++ {
			p := l.producer("busy", strconv.Itoa(n))
			if _, err := l.replicas[0].RegisterProducer(context.WithoutCancel(ctx), &registryv1.RegisterProducerRequest{Producer: p}); err != nil {
				done <- err
				return
			}
			acknowledged.Store(int64(n))
		}
		done <- nil
	}()
	must(t, until(t.Context(), func(context.Context) error {
		if acknowledged.Load() == 0 {
			return fmt.Errorf("nothing was written")
		}
		return nil
	}))
	before = int(acknowledged.Load())
	tool(t, etcdctlCommand, "--endpoints", "unix://"+socket, "snapshot", "save", backup)
	during := int(acknowledged.Load()) - before
	stop()
	must(t, <-done)
	t.Logf("%d writes before the backup, %d while it was saved", before, during)
	return before
}

// tool runs one of etcd's tools and returns what it prints.
func tool(t *testing.T, command string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), command, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(command), strings.Join(args, " "), err, out)
	}
	return string(out)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// missedNone checks that no collection was missed from a time until now.
func missedNone(t *testing.T, f *fleet, ids []string, from time.Time) {
	t.Helper()
	longest, who, often := f.check(ids, from, time.Now())
	if most := 2*interval + *late; longest > most || len(often) > 0 {
		t.Errorf("%s waited %v for a pull, want %v at most; %v", who, longest, most, often)
	}
	t.Logf("the longest wait for a pull of %v was %v", interval, longest.Round(time.Millisecond))
}

// holds checks how many are held by all collectors.
func (s *site) holds(ctx context.Context, want int) error {
	n := 0
	for _, c := range s.collectors {
		held, err := listHeld(ctx, c.GRPC)
		if err != nil {
			return err
		}
		n += len(held)
	}
	if n != want {
		return fmt.Errorf("%d are held, want %d", n, want)
	}
	return nil
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
