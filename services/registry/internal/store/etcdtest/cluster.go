// Package etcdtest runs clusters of real etcd members in a test's process, which
// can be killed and started again.
//
// Its invariant: who is killed says no goodbye. Its clients' connections break
// and it hands over no leadership, as when its machine loses power; its files
// stay as they are.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Members of a busy test machine must not take each other for dead.
const (
	tickMilliseconds     = 100
	electionMilliseconds = 1000
)

// bcryptCost is the least: etcd hashes passwords for each stream, which the race
// detector makes slow.
const bcryptCost = 4

// patience bounds the wait for a member to be ready.
const patience = time.Minute

// Options say how a cluster is run. The zero value is one that speaks plaintext.
type Options struct {
	// Members is how many there are; 0: three.
	Members int

	// TLS, if not empty, is with what the members meet their clients.
	TLS transport.TLSInfo
}

// A Cluster is a running one. Its methods are for one goroutine at a time.
type Cluster struct {
	members []*member
}

// A member has an address for clients that stays, behind which it lives and dies.
type member struct {
	config *embed.Config
	door   *door
	kept   net.PacketConn // keeps the port of its peers' address for it
	etcd   *embed.Etcd    // nil: it is dead
}

// Start starts a cluster and returns when all members are ready. It ends with
// the test.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Members == 0 {
		o.Members = 3
	}
	c := &Cluster{}
	dir := t.TempDir()
	logger := newLogger(t)
	t.Cleanup(func() {
		c.KillAll()
		for _, m := range c.members {
			m.door.close()
			_ = m.kept.Close()
		}
	})
	var peers []string
	for i := range o.Members {
		m, err := newMember(t.Context(), dir, i, o, logger)
		if err != nil {
			t.Fatal(err)
		}
		c.members = append(c.members, m)
		peers = append(peers, m.config.Name+"="+m.config.AdvertisePeerUrls[0].String())
	}
	for _, m := range c.members {
		m.config.InitialCluster = strings.Join(peers, ",")
	}
	c.StartAll(t)
	return c
}

// Restart kills all members and starts them again.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	c.KillAll()
	c.StartAll(t)
}

// KillAll ends all members, without a goodbye.
func (c *Cluster) KillAll() {
	for i := range c.members {
		c.Kill(i)
	}
}

// StartAll starts all members, which are dead, at once: the first is ready only
// with the second.
func (c *Cluster) StartAll(t testing.TB) {
	t.Helper()
	all := make(chan error, len(c.members))
	for _, m := range c.members {
		go func() { all <- m.start() }()
	}
	var errs []error
	for range c.members {
		errs = append(errs, <-all)
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Endpoints are the URLs of all members for clients.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.config.AdvertiseClientUrls[0].String())
	}
	return all
}

// Leader is the number of the member that leads; -1 while nobody does.
func (c *Cluster) Leader() int {
	for i, m := range c.members {
		if m.etcd != nil && m.etcd.Server.Lead() == uint64(m.etcd.Server.MemberID()) {
			return i
		}
	}
	return -1
}

// Kill ends a member, without a goodbye, if it is alive.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	if m.etcd == nil {
		return
	}
	m.door.shut()
	m.etcd.Server.HardStop()
	m.etcd.Close()
	m.etcd = nil
}

// Cut breaks the connections of all clients to a member, which lives on: what they
// have asked for may be done, and the answers are lost.
func (c *Cluster) Cut(i int) {
	c.members[i].door.shut()
	if c.members[i].etcd != nil {
		c.members[i].door.open()
	}
}

// Start starts a member that is dead, on the files that it left, and returns when
// it is ready.
func (c *Cluster) Start(t testing.TB, i int) {
	t.Helper()
	if err := c.members[i].start(); err != nil {
		t.Fatal(err)
	}
}

func newMember(ctx context.Context, parent string, i int, o Options, logger *zap.Logger) (*member, error) {
	dir := filepath.Join(parent, strconv.Itoa(i))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := newDoor(ctx, filepath.Join(dir, "s"))
	if err != nil {
		return nil, err
	}
	scheme := "http"
	if !o.TLS.Empty() {
		scheme = "https"
	}
	peer, kept, err := freeAddress(ctx, i)
	if err != nil {
		d.close()
		return nil, err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = fmt.Sprintf("m%d", i), filepath.Join(dir, "data")
	c.ListenPeerUrls = []url.URL{{Scheme: "http", Host: peer}}
	c.AdvertisePeerUrls = c.ListenPeerUrls
	c.ListenClientUrls = []url.URL{{Scheme: map[string]string{"http": "unix", "https": "unixs"}[scheme], Path: d.behind}}
	c.AdvertiseClientUrls = []url.URL{{Scheme: scheme, Host: d.listener.Addr().String()}}
	c.ClientTLSInfo = o.TLS
	c.TickMs, c.ElectionMs = tickMilliseconds, electionMilliseconds
	c.EnableGRPCGateway = false
	c.BcryptCost = bcryptCost
	c.UnsafeNoFsync = true // the process is not killed, and so is the kernel not
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	return &member{config: c, door: d, kept: kept}, nil
}

func (m *member) start() error {
	server, err := embed.StartEtcd(m.config)
	if err != nil {
		return fmt.Errorf("start member %s: %w", m.config.Name, err)
	}
	m.etcd = server
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-server.Server.ReadyNotify():
		m.door.open()
		return nil
	case err := <-server.Err():
		return fmt.Errorf("member %s: %w", m.config.Name, err)
	case <-timer.C:
		return fmt.Errorf("member %s is not ready after %v", m.config.Name, patience)
	}
}

// freeAddress is one on which nobody listens, and whose port the system gives to
// nobody by itself, as it does to whoever dials: it has to stay free while the
// member is dead. Different members get different ones, and so do all who ask, here
// or in another process, until kept is closed: it has the UDP port of that number.
func freeAddress(ctx context.Context, member int) (address string, kept net.PacketConn, err error) {
	const lowest, ports, tries = 10_000, 1_000, 100
	first := lowest + member*ports
	var config net.ListenConfig
	for range tries {
		address = net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(ports)))
		if kept, err = config.ListenPacket(ctx, "udp", address); err != nil {
			continue
		}
		var listener net.Listener
		if listener, err = config.Listen(ctx, "tcp", address); err == nil {
			return address, kept, listener.Close()
		}
		_ = kept.Close()
	}
	return "", nil, err
}

// newLogger hands on what members call an error, by the test's output.
func newLogger(t testing.TB) *zap.Logger {
	t.Helper()
	encoder := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(encoder, zapcore.AddSync(t.Output()), zapcore.DPanicLevel))
}
