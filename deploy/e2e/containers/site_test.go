//go:build e2e

package containers_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The networks of a site. What is not on one together cannot meet.
const (
	storeNet   = "store"   // etcd and registries
	controlNet = "control" // registries and collectors
	dataNet    = "data"    // collectors and producers
	rollNet    = "roll"    // producers and registries
)

// interval is that of the producers, pullTimeout what each pull may take: one that is
// slow does not take the next one's turn.
const (
	interval    = time.Second
	pullTimeout = interval / 2
)

// lease is that of the producers. They renew it three times as often.
const lease = 90 * time.Second

// startLimit is how long a fleet may take until everybody is collected, on a
// machine that is busy.
const startLimit = 90 * time.Second

// A plan says what a site is made of.
type plan struct {
	registries int // with more than one, over three members of etcd
	collectors int
	producers  int
	grace      time.Duration // of collectors; zero: the default

	registryImage, collectorImage string // empty: ours
	registryEnv, collectorEnv     []string

	// through tells the collectors another address of the registry.
	through func(*site, *container) string

	// volumes are options of docker volume create, by alias of the container.
	volumes map[string][]string
}

// A container is one that was made, running or not.
type container struct {
	name, alias, image string
	networks           []string // the first one is where the test reaches it
	env, args          []string
	volume             string // at /var/lib/rollcall; empty: none
}

// A site is a fleet in containers.
type site struct {
	t      *testing.T
	prefix string
	plan   plan

	// interval is that of the producers; published are the ports on this machine, by
	// alias and port, of containers that others than this test connect.
	interval  time.Duration
	published map[string]map[int]string

	// reader and operator are who the test is; nil: nobody, in plain text.
	reader, operator *tls.Config

	mu        sync.Mutex
	addresses map[string]string // by container and network, until it starts, stops or moves; under mu
	late      lateness          // under mu

	etcd, registries, collectors []*container
	example                      *container
	ids                          []string // of the producers that the example registers
	fault                        time.Time
}

var sites atomic.Int64

// build makes a site, starts it, and waits until everybody is collected.
func build(t *testing.T, p plan) *site {
	t.Helper()
	p.registryImage, p.collectorImage = or(p.registryImage, image("registry")), or(p.collectorImage, image("collector"))
	images := []string{p.registryImage, p.collectorImage, image("example")}
	if p.registries > 1 {
		images = append(images, image("etcd"))
	}
	need(t, images...)
	s := &site{t: t, plan: p, interval: interval, prefix: prefix()}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			keepLogs(ctx, t, s)
		}
		if err := remove(ctx, label+".site="+s.prefix); err != nil {
			t.Logf("could not clean up: %v", err) // docker's affair; the next run tries again
		}
	})
	for _, n := range []string{storeNet, controlNet, dataNet, rollNet} {
		must(t, append(append([]string{"network", "create"}, marks(s.prefix)...), s.net(n))...)
	}
	s.plot()
	for _, c := range s.all() {
		if c == s.example && len(s.collectors) > 0 { // else the first collector to come gets all
			await(t, "all collectors follow a registry", startLimit, func() error { return s.subscribed(true) })
		}
		s.start(c)
	}
	s.observe()
	s.steady(startLimit)
	return s
}

// observe asks the producers as collectors do, until the test ends, and notes when
// an answer takes half of what collectors wait, and when it could not even ask in time:
// a collector has more to do than that.
func (s *site) observe() {
	if s.plan.producers == 0 {
		return
	}
	const every = pullTimeout / 5
	ctx, cancel := context.WithCancel(s.t.Context())
	var done sync.WaitGroup
	s.t.Cleanup(func() { cancel(); done.Wait() })
	note := func(at time.Time) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = append(s.late, at.UnixMilli())
	}
	done.Go(func() {
		next := time.Now()
		for ctx.Err() == nil {
			begun := time.Now()
			if begun.Sub(next) > every {
				note(begun)
			}
			done.Go(func() {
				bounded, cancel := context.WithTimeout(ctx, pullTimeout/2)
				defer cancel()
				if _, err := s.ask(bounded, s.example, examplePort, "/metrics"); err != nil && ctx.Err() == nil {
					note(begun)
				}
			})
			next = begun.Add(every)
			select {
			case <-time.After(time.Until(next)):
			case <-ctx.Done():
			}
		}
	})
}

func (s *site) lateness() lateness {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.late))
}

// prefix begins the names of all that a site makes.
func prefix() string {
	return fmt.Sprintf("rce2e-%s-%d", strconv.FormatInt(time.Now().UnixMilli()%1e8, 36), sites.Add(1))
}

// plot says what containers there are.
func (s *site) plot() {
	var endpoints, addresses []string
	if s.plan.registries > 1 {
		endpoints = s.plotEtcd()
	}
	for i := range s.plan.registries {
		c := s.add(fmt.Sprintf("registry-%d", i+1), s.plan.registryImage, rollNet, controlNet, storeNet)
		s.registries = append(s.registries, c)
		addresses = append(addresses, c.alias+":7470")
		c.env = append(slices.Concat(c.env, s.plan.registryEnv), serve(7470, 7471)...)
		c.env = append(c.env, "ROLLCALL_NAME="+c.alias, "ROLLCALL_ADVERTISE_HTTP="+c.alias+":7471")
		if s.plan.grace > 0 {
			c.env = append(c.env, "ROLLCALL_COLLECTOR_GRACE="+s.plan.grace.String())
		}
		if endpoints == nil {
			s.keep(c)
			continue
		}
		c.env = append(c.env, "ROLLCALL_DATA_DIR=", "ROLLCALL_ETCD_ENDPOINTS="+strings.Join(endpoints, ","))
	}
	for i := range s.plan.collectors {
		c := s.add(fmt.Sprintf("collector-%d", i+1), s.plan.collectorImage, dataNet, controlNet)
		s.collectors = append(s.collectors, c)
		s.keep(c)
		follow := strings.Join(addresses, ",")
		if s.plan.through != nil {
			follow = s.plan.through(s, s.registries[0])
		}
		// The last one of a name counts.
		c.env = append(slices.Concat(c.env, serve(7480, 7481)), "ROLLCALL_ID="+c.alias, "ROLLCALL_REGISTRY="+follow,
			"ROLLCALL_ADVERTISE="+c.alias+":7480", "ROLLCALL_ADVERTISE_HTTP="+c.alias+":7481")
		c.env = append(c.env, s.plan.collectorEnv...)
	}
	s.plotExample(addresses)
}

func (s *site) plotEtcd() (endpoints []string) {
	var peers []string
	for i := range 3 {
		name := fmt.Sprintf("etcd-%d", i+1)
		peers = append(peers, name+"=http://"+name+":2380")
		endpoints = append(endpoints, "http://"+name+":2379")
	}
	for i := range 3 {
		c := s.add(fmt.Sprintf("etcd-%d", i+1), image("etcd"), storeNet)
		s.etcd = append(s.etcd, c)
		s.keep(c)
		c.args = []string{
			"--name", c.alias, "--initial-cluster", strings.Join(peers, ","),
			"--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", "http://" + c.alias + ":2379",
			"--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", "http://" + c.alias + ":2380",
			"--auto-compaction-retention", "10m",
		}
	}
	return endpoints
}

func (s *site) plotExample(registries []string) {
	s.example = s.add("example-1", image("example"), dataNet, rollNet)
	s.example.env = append(s.example.env, "ROLLCALL_REGISTRY="+strings.Join(registries, ","),
		"ROLLCALL_PRODUCERS="+strconv.Itoa(s.plan.producers), "ROLLCALL_INTERVAL="+interval.String(),
		"ROLLCALL_TIMEOUT="+pullTimeout.String(), "ROLLCALL_LEASE="+lease.String(),
		fmt.Sprintf("ROLLCALL_HTTP_LISTEN=0.0.0.0:%d", examplePort), fmt.Sprintf("ROLLCALL_ADVERTISE_HTTP=example-1:%d", examplePort), "ROLLCALL_INSECURE=true")
	for i := range s.plan.producers {
		s.ids = append(s.ids, fmt.Sprintf("example-%d", i+1))
	}
}

func serve(grpc, http int) []string {
	return []string{
		fmt.Sprintf("ROLLCALL_LISTEN=0.0.0.0:%d", grpc), fmt.Sprintf("ROLLCALL_HTTP_LISTEN=0.0.0.0:%d", http),
		"ROLLCALL_INSECURE=true", "ROLLCALL_DATA_DIR=/var/lib/rollcall",
	}
}

func (s *site) add(alias, image string, networks ...string) *container {
	return &container{name: s.prefix + "-" + alias, alias: alias, image: image, networks: networks}
}

// keep gives a container a volume.
func (s *site) keep(c *container) {
	c.volume = s.prefix + "-" + c.alias
	s.volume(c)
}

func (s *site) volume(c *container) {
	s.t.Helper()
	must(s.t, slices.Concat([]string{"volume", "create"}, marks(s.prefix), s.plan.volumes[c.alias], []string{c.volume})...)
}

func (s *site) net(name string) string { return s.prefix + "-" + name }

func (s *site) all() []*container {
	all := slices.Concat(s.etcd, s.registries, s.collectors)
	if s.example != nil {
		all = append(all, s.example)
	}
	return all
}

// start makes a container and starts it.
func (s *site) start(c *container) {
	s.t.Helper()
	args := append([]string{"create"}, marks(s.prefix)...)
	args = append(args,
		"--name", c.name, "--hostname", c.alias,
		"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--no-healthcheck",
		"--network", s.net(c.networks[0]), "--network-alias", c.alias,
	)
	if *cgroup != "" {
		args = append(args, "--cgroup-parent", *cgroup)
	}
	if c.volume != "" {
		args = append(args, "--volume", c.volume+":/var/lib/rollcall")
	}
	for _, e := range c.env {
		args = append(args, "--env", e)
	}
	must(s.t, append(append(args, c.image), c.args...)...)
	for _, n := range c.networks[1:] {
		s.join(c, n)
	}
	s.again(c)
}

// replace removes a container and starts another one of an image, with the same
// volume: an upgrade.
func (s *site) replace(c *container, image string) {
	s.t.Helper()
	s.stop(c)
	must(s.t, "rm", c.name)
	c.image = image
	s.start(c)
}

// join connects a container to a network, under its alias.
func (s *site) join(c *container, network string) {
	s.t.Helper()
	must(s.t, "network", "connect", "--alias", c.alias, s.net(network), c.name)
	s.forget(c)
}

// leave takes a container off a network: what was sent to it there gets lost.
func (s *site) leave(c *container, network string) {
	s.t.Helper()
	must(s.t, "network", "disconnect", s.net(network), c.name)
	s.forget(c)
}

// kill ends a container by SIGKILL.
func (s *site) kill(c *container) {
	s.t.Helper()
	must(s.t, "kill", "--signal", "KILL", c.name)
	s.forget(c)
}

// stop ends a container by SIGTERM, within its stop's grace and some more.
func (s *site) stop(c *container) {
	s.t.Helper()
	must(s.t, "stop", "--time", "40", c.name)
	s.forget(c)
}

// again starts one that was killed or stopped.
func (s *site) again(c *container) {
	s.t.Helper()
	must(s.t, "start", c.name)
	s.forget(c)
}

// address is where the test reaches a port of a container: the bridge of the first
// network is an interface of this machine.
func (s *site) address(ctx context.Context, c *container, port int) (string, error) {
	if own, ok := s.published[c.alias][port]; ok {
		return own, nil
	}
	return s.addressOn(ctx, c, c.networks[0], port)
}

func (s *site) addressOn(ctx context.Context, c *container, network string, port int) (string, error) {
	// Asking docker each time is most of what a test costs the machine.
	key := c.name + " " + network
	s.mu.Lock()
	ip := s.addresses[key]
	s.mu.Unlock()
	if ip != "" {
		return fmt.Sprintf("%s:%d", ip, port), nil
	}
	format := fmt.Sprintf("{{(index .NetworkSettings.Networks %q).IPAddress}}", s.net(network))
	ip, err := docker(ctx, "inspect", "--format", format, c.name)
	if err == nil && ip == "" {
		err = fmt.Errorf("%s has no address: it does not run", c.alias)
	}
	if err == nil {
		s.mu.Lock()
		if s.addresses == nil {
			s.addresses = map[string]string{}
		}
		s.addresses[key] = ip
		s.mu.Unlock()
	}
	return fmt.Sprintf("%s:%d", ip, port), err
}

// forget is called when a container may have another address, or none.
func (s *site) forget(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range c.networks {
		delete(s.addresses, c.name+" "+n)
	}
}

// pid is the process of a container, as this machine numbers it.
func (s *site) pid(c *container) string {
	s.t.Helper()
	return must(s.t, "inspect", "--format", "{{.State.Pid}}", c.name)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
