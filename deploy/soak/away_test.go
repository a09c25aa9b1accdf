package soak_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

var away = flag.Duration("away", 20*time.Second, "how long all of etcd is away; longer than the 15 s of a session")

// TestEtcdAway kills all members of etcd for a while: collecting goes on, writes
// and subscriptions are refused as unavailable, reads are answered and say that
// they may be old, and all is well again by itself.
func TestEtcdAway(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes about a minute")
	}
	runtime.LockOSThread() // for child.Start
	defer runtime.UnlockOSThread()
	s := newSite(t, commands(t))
	f := newFleet(t)
	var addresses, ids []string
	for _, r := range s.registries {
		addresses = append(addresses, r.GRPC)
	}
	for i := range producers {
		ids = append(ids, fmt.Sprintf("fleet-%d", i))
	}
	l := newLoad(t, addresses, f.url)
	for _, step := range []func() error{
		func() error { return until(t.Context(), s.settled) },
		func() error { return l.registerFleet(t.Context(), ids) },
		func() error { return f.await(t.Context(), ids, 3) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	from := time.Now()
	end(s.etcd)
	gone := time.NewTimer(*away)
	defer gone.Stop()
	<-gone.C
	for _, address := range addresses {
		refuses(t, l, address, ids[0])
	}
	for i, c := range s.etcd {
		again, err := child.Start(c.Service)
		if err != nil {
			t.Fatal(err)
		}
		s.etcd[i] = again
	}
	back := time.Now()
	if err := child.AwaitReady(t.Context(), append(append([]*child.Child(nil), s.etcd...), s.registries...)...); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []func(context.Context) error{s.settled, s.unheld} {
		if err := until(t.Context(), wrong); err != nil {
			t.Error(err)
		}
	}
	healed := time.Since(back)
	ctx, cancel := context.WithTimeout(t.Context(), callTime)
	defer cancel()
	if _, err := l.replicas[1].RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: l.producer("late", "late")}); err != nil {
		t.Errorf("register afterwards: %v", err)
	}
	longest, who, often := f.check(ids, from, time.Now())
	if most := 2*interval + *late; longest > most {
		t.Errorf("%s waited %v for a pull, want %v at most", who, longest, most)
	}
	for _, fault := range often {
		t.Error(fault)
	}
	t.Logf("etcd was away for %v: the longest wait for a pull %v; all was well %v after its start",
		away, longest.Round(time.Millisecond), healed.Round(time.Millisecond))
	if t.Failed() {
		s.keepLogs(t)
	}
}

// refuses checks what a registry says whose store is away.
func refuses(t *testing.T, l *load, address, id string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*callTime)
	defer cancel()
	producers := registryv1.NewProducerServiceClient(conn)
	_, err = producers.RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: l.producer("new", "new")})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%s: register: %v", address, err)
	}
	_, err = producers.DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: id})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%s: deregister: %v", address, err)
	}
	stream, err := registryv1.NewAssignmentServiceClient(conn).Subscribe(ctx, &registryv1.SubscribeRequest{CollectorId: "collector-0", Observe: true})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%s: subscribe: %v", address, err)
	}
	got, err := producers.GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: id})
	if err != nil || !got.GetStale() {
		t.Errorf("%s: get: stale %v, %v", address, got.GetStale(), err)
	}
}
