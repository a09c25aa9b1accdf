package soak_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	kept      = 3000 // producers that three collectors keep for a registry
	keptEvery = 5 * time.Second
)

// TestRecover deletes the store of a registry under a running fleet of 3 collectors
// with 1,000 producers each, starts it empty, and has `rollcall recover` give it
// back what the collectors have kept: every producer with its owner, no missed
// collection, nobody held in the end.
func TestRecover(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about a minute")
	}
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	bin := commands(t)
	s := &site{dir: t.TempDir()}
	t.Cleanup(s.end)
	plans := planRecovery(t, bin, s.dir)
	var err error
	if s.registries, err = start(t.Context(), plans[:1]); err != nil {
		t.Fatal(err)
	}
	if s.collectors, err = start(t.Context(), plans[1:]); err != nil {
		t.Fatal(err)
	}
	if err := until(t.Context(), s.settled); err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	ids := make([]string, kept)
	for i := range ids {
		ids[i] = fmt.Sprintf("kept-%d", i)
	}
	registerAll(t, plans[0].GRPC, f.url, ids)
	if err := f.await(t.Context(), ids, 2); err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	owners := ownersOf(t, plans[0].GRPC)

	s.registries[0].Kill()
	if err := os.RemoveAll(filepath.Join(s.dir, plans[0].Name)); err != nil {
		t.Fatal(err)
	}
	if s.registries, err = start(t.Context(), plans[:1]); err != nil {
		t.Fatal(err)
	}
	if err := until(t.Context(), s.settled); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for _, args := range [][]string{{"recover", "--dry-run"}, {"recover"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "rollcall"), append(args, "--registry", plans[0].GRPC)...)
		out, err := cmd.CombinedOutput()
		t.Logf("%s: %s", strings.Join(args, " "), out)
		if err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	if err := until(t.Context(), s.unheld); err != nil {
		t.Error(err)
	}
	healed := time.Since(began)
	if after := ownersOf(t, plans[0].GRPC); len(after) != kept {
		t.Errorf("%d are on the roll, want %d", len(after), kept)
	} else {
		for id, owner := range after {
			if owners[id] != owner {
				t.Errorf("%s is with %s, and was with %s", id, owner, owners[id])
			}
		}
	}
	more := time.NewTimer(2 * keptEvery)
	defer more.Stop()
	<-more.C
	longest := time.Duration(0)
	for _, id := range ids {
		last := from
		for _, at := range append(f.of(id), time.Now()) {
			if at.After(from) {
				longest, last = max(longest, at.Sub(last)), at
			}
		}
	}
	if most := keptEvery + *late; longest > most {
		t.Errorf("the longest wait for a pull was %v, want %v at most", longest, most)
	}
	t.Logf("recovered %d producers in %v, dry run included; nobody was held any more after %v; the longest wait for a pull of %v was %v",
		kept, took.Round(time.Millisecond), healed.Round(time.Millisecond), keptEvery, longest.Round(time.Millisecond))
	if t.Failed() {
		s.keepLogs(t)
	}
}

// planRecovery plans one registry with a store of its own, and three collectors.
func planRecovery(t *testing.T, bin, dir string) []*child.Service {
	t.Helper()
	ports, err := child.FreePorts(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	plans := []*child.Service{child.Plan(filepath.Join(bin, "registry"), "registry-0", dir, ports[0], ports[1], "--no-self-register")}
	for i := range 3 {
		id := fmt.Sprintf("collector-%d", i)
		plans = append(plans, child.Plan(filepath.Join(bin, "collector"), id, dir, ports[2+2*i], ports[3+2*i],
			"--id", id, "--registry", ports[0], "--no-self-register"))
	}
	return plans
}

func dialed(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// registerAll registers producers, every third of them with a lease.
func registerAll(t *testing.T, address, url string, ids []string) {
	t.Helper()
	client := registryv1.NewProducerServiceClient(dialed(t, address))
	for batch := range slices.Chunk(ids, 500) {
		req := &registryv1.BatchRegisterProducersRequest{}
		for i, id := range batch {
			p := &registryv1.Producer{ProducerId: id, Endpoint: url + id, Interval: durationpb.New(keptEvery)}
			if i%3 == 0 {
				p.InstanceId = id + "-1"
			}
			req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: p})
		}
		resp, err := client.BatchRegisterProducers(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetResults() {
			if r.GetCode() != 0 {
				t.Fatal(r)
			}
		}
	}
}

// ownersOf tells who has whom.
func ownersOf(t *testing.T, address string) map[string]string {
	t.Helper()
	owners := map[string]string{}
	client := registryv1.NewProducerServiceClient(dialed(t, address))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for token := ""; ; {
		resp, err := client.ListProducers(ctx, &registryv1.ListProducersRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range resp.GetProducers() {
			for _, at := range p.GetPlacements() {
				owners[p.GetProducerId()] = at.GetCollectorId()
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			return owners
		}
	}
}
