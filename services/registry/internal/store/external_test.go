package store_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/etcdtest"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store/storetest"
)

// rawClient is one for what is beside the Store.
func rawClient(t testing.TB, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func openExternal(t testing.TB, config store.ExternalConfig) *store.Store {
	t.Helper()
	s, err := store.OpenExternal(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// TestExternal holds the exam for registries that share a cluster of three. The
// parts share it, too, one after the other, and find it empty.
func TestExternal(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	client := rawClient(t, cluster)
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	server := storetest.Server{
		Open: func(t *testing.T) storetest.Process {
			t.Helper()
			s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
			return storetest.Process{Store: s, Close: s.Close, Kill: func() { store.Disconnect(s) }}
		},
		Restart: func(t *testing.T) {
			t.Helper()
			cluster.Restart(t)
		},
		Compact: func(t *testing.T, at assignment.Revision) {
			t.Helper()
			_, err := client.Compact(background(t), int64(at), clientv3.WithCompactPhysical())
			must(t, err)
		},
		Put: func(t *testing.T, key string, value []byte) {
			t.Helper()
			_, err := client.Put(background(t), key, string(value))
			must(t, err)
		},
		Delete: func(t *testing.T, key string) {
			t.Helper()
			_, err := client.Delete(background(t), key)
			must(t, err)
		},
		LeaseTTL: leaseTTL,
	}
	storetest.Run(t, func(t *testing.T, part func(*testing.T, storetest.Server)) {
		t.Helper()
		_, err := client.Delete(background(t), "", clientv3.WithPrefix())
		must(t, err)
		part(t, server)
	})
}

// TestExternalComesLater opens a Store before its etcd is there.
func TestExternalComesLater(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 1})
	cluster.Kill(0)
	s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Commit(short, []roster.Txn{create("early")}); err == nil {
		t.Error("committed to nobody")
	}
	if err := s.HoldLease(t.Context(), time.Second, func() {}); err == nil || !strings.Contains(err.Error(), "latest balancer error") {
		t.Errorf("a lease of nobody: %v", err)
	}
	loaded := make(chan error, 1)
	go func() {
		_, err := s.Load(background(t), func(roster.Found) error { return nil })
		loaded <- err
	}()
	cluster.Start(t, 0)
	if err := <-loaded; err != nil {
		t.Error(err)
	}
}

// TestExternalWithUsers has an etcd that knows its users, one that may do what a
// registry needs, and a Store that is opened before that etcd is there. All goes
// on after a restart, by which etcd forgets every token.
func TestExternalWithUsers(t *testing.T) {
	t.Parallel()
	const user, password = "rollcall", "a secret"
	cluster := etcdtest.Start(t, etcdtest.Options{})
	enableUsers(t, cluster, user, password)
	config := store.ExternalConfig{Endpoints: cluster.Endpoints(), Username: user, Password: password}
	cluster.KillAll()
	s := openExternal(t, config)
	cluster.StartAll(t)
	held := make(chan struct{}, 1)
	lease := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for { // as registrars do, while the members still find each other
			err := s.HoldLease(ctx, 10*time.Second, func() { held <- struct{}{} })
			if ctx.Err() != nil {
				lease <- err
				return
			}
		}
	}()
	select {
	case <-held:
	case <-background(t).Done():
		t.Fatal("no lease is granted")
	}
	session := &roster.Session{Collector: "c"}
	if _, err := s.Commit(background(t), []roster.Txn{create("a"), {{Key: session.Key(), Record: session, Leased: true}}}); err != nil {
		t.Fatal(err)
	}
	sees := func() {
		t.Helper()
		ctx := background(t)
		for { // a member that lags does not know the token yet; registrars try again, too
			events := 0
			err := s.Watch(ctx, 1, func(b roster.Batch) error {
				if events += len(b.Events); events >= 2 {
					return errStop
				}
				return nil
			})
			switch {
			case errors.Is(err, errStop):
				return
			case ctx.Err() != nil:
				t.Errorf("watch: %v", err)
				return
			}
		}
	}
	sees()
	began := time.Now()
	cancel()
	if err := <-lease; !errors.Is(err, context.Canceled) {
		t.Errorf("the lease ended with %v", err)
	}
	n, slow := count(t, s), time.Since(began) >= time.Second
	for waiting := background(t); n != 1 && slow && waiting.Err() == nil; {
		n = count(t, s) // it could not be given up in time, and runs out
	}
	if n != 1 {
		t.Errorf("%d records stand without the lease", n)
	}
	cluster.Restart(t)
	sees()
	if _, err := s.Commit(background(t), []roster.Txn{create("b")}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for name, wrong := range map[string]store.ExternalConfig{
		"password": {Endpoints: cluster.Endpoints(), Username: user, Password: "none"},
		"nobody":   {Endpoints: cluster.Endpoints()},
	} {
		if _, err := openExternal(t, wrong).Sync(background(t)); err == nil {
			t.Errorf("wrong %s: taken", name)
		}
	}
}

func enableUsers(t *testing.T, cluster *etcdtest.Cluster, user, password string) {
	t.Helper()
	client := rawClient(t, cluster)
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.UserAdd(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := client.RoleAdd(ctx, "registry"); return err },
		func(ctx context.Context) error {
			_, err := client.RoleGrantPermission(ctx, "registry", "/rollcall/v1/", clientv3.GetPrefixRangeEnd("/rollcall/v1/"),
				clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := client.UserAdd(ctx, user, password); return err },
		func(ctx context.Context) error { _, err := client.UserGrantRole(ctx, user, "registry"); return err },
		func(ctx context.Context) error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(background(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExternalConfigIsRefused(t *testing.T) {
	for name, c := range map[string]store.ExternalConfig{
		"no endpoints":     {},
		"no scheme":        {Endpoints: []string{"127.0.0.1:2379"}},
		"no port":          {Endpoints: []string{"http://127.0.0.1"}},
		"a path":           {Endpoints: []string{"http://127.0.0.1:2379/v3"}},
		"a user":           {Endpoints: []string{"http://a:b@127.0.0.1:2379"}},
		"other scheme":     {Endpoints: []string{"unix:///s"}},
		"both schemes":     {Endpoints: []string{"http://127.0.0.1:1", "https://127.0.0.1:2"}},
		"no password":      {Endpoints: []string{"http://127.0.0.1:1"}, Username: "u"},
		"no user":          {Endpoints: []string{"http://127.0.0.1:1"}, Password: "p"},
		"negative timeout": {Endpoints: []string{"http://127.0.0.1:1"}, DialTimeout: -1},
	} {
		s, err := store.OpenExternal(t.Context(), c)
		if err == nil {
			t.Errorf("%s: taken", name)
			_ = s.Close()
		} else if strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: %v tells a password", name, err)
		}
	}
}

// TestExternalWithTLS has an etcd that lets nobody in without a certificate.
func TestExternalWithTLS(t *testing.T) {
	t.Parallel()
	members, clients := etcdtest.NewTLS(t)
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 1, TLS: members})
	if _, err := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints(), TLS: func() *tls.Config { return clients }}).
		Commit(background(t), []roster.Txn{create("a")}); err != nil {
		t.Error(err)
	}
	stranger := clients.Clone()
	stranger.Certificates = nil
	for name, config := range map[string]process.ClientTLS{
		"nobody's certificate": func() *tls.Config { return stranger }, "nobody's authority": nil,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		if _, err := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints(), TLS: config}).Sync(ctx); err == nil {
			t.Errorf("%s: let in", name)
		}
		cancel()
	}
	// What was replaced is used by the next connection.
	var now atomic.Pointer[tls.Config]
	now.Store(stranger)
	s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints(), TLS: now.Load})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Sync(ctx); err == nil {
		t.Error("let in")
	}
	now.Store(clients)
	if _, err := s.Sync(background(t)); err != nil {
		t.Error(err)
	}
}

// TestExternalLoadsLargePages loads pages that are larger than what grpc takes
// unless told.
func TestExternalLoadsLargePages(t *testing.T) {
	t.Parallel()
	const records, size = 48, 900_000
	cluster := etcdtest.Start(t, etcdtest.Options{Members: 1})
	s := openExternal(t, store.ExternalConfig{Endpoints: cluster.Endpoints()})
	for i := range records {
		r := record(fmt.Sprint(i), strings.Repeat("x", size))
		if _, err := s.Commit(background(t), []roster.Txn{{{Key: r.Key(), Record: r}}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(t, s); n != records {
		t.Errorf("%d records are loaded", n)
	}
}
