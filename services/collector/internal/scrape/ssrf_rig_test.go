package scrape_test

import (
	"context"
	bytesof "encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
	"golang.org/x/net/dns/dnsmessage"
)

// names is the domain name system of a test: what each name stands for, at each
// time that it is asked for.
type names struct {
	answer func(name string, times int) []netip.Addr

	mu    sync.Mutex
	asked map[string]int // for IPv4 addresses
}

// resolveBy puts names in the place of the resolver of this process, so that the
// collector's own dialer asks them.
func resolveBy(t *testing.T, answer func(name string, times int) []netip.Addr) *names {
	t.Helper()
	n := &names{answer: answer, asked: map[string]int{}}
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.serve(server)
		return client, nil
	}}
	return n
}

// serve answers the queries of one connection, framed as over TCP.
func (n *names) serve(conn net.Conn) {
	defer conn.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, bytesof.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(query) != nil || len(m.Questions) != 1 {
			return
		}
		n.fill(&m)
		packed, err := m.AppendPack([]byte{0, 0})
		if err != nil {
			return
		}
		bytesof.BigEndian.PutUint16(packed, uint16(len(packed)-2))
		if _, err := conn.Write(packed); err != nil {
			return
		}
	}
}

// fill turns a query into its answer.
func (n *names) fill(m *dnsmessage.Message) {
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}
	m.Additionals = nil
	if q.Type != dnsmessage.TypeA {
		return
	}
	name := strings.TrimSuffix(q.Name.String(), ".")
	n.mu.Lock()
	n.asked[name]++
	times := n.asked[name]
	n.mu.Unlock()
	for _, addr := range n.answer(name, times) {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		})
	}
}

// times is how often a name was asked for.
func (n *names) times(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[name]
}

// A canary stands where nobody may come: it counts who does.
type canary struct {
	net.Listener
	came atomic.Int64
}

func newCanary(t *testing.T, address string) *canary {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := &canary{Listener: lis}
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			c.came.Add(1)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		lis.Close()
		if n := c.came.Load(); n != 0 {
			t.Errorf("%d connections came to where none may", n)
		}
	})
	return c
}

// listenAt listens on an address of this machine.
func listenAt(t *testing.T, address string) (lis net.Listener, port string) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(lis.Addr().String())
	return lis, port
}

// probing is a scraper with the collector's own dialer and a policy, of what one
// collection of an endpoint gives.
type probing struct {
	t       *testing.T
	scraper *scrape.Scraper
}

func newProbing(t *testing.T, p endpoint.Policy, change func(*scrape.Config)) *probing {
	t.Helper()
	cfg := scrape.Config{Sink: &sink{t: t}, CheckAddr: p.CheckAddr}
	if change != nil {
		change(&cfg)
	}
	s := scrape.New(cfg)
	t.Cleanup(s.Close)
	return &probing{t, s}
}

func (p *probing) open(url string) schedule.Collection {
	p.t.Helper()
	a := producer()
	a.Endpoint, a.Timeout = url, 5*time.Second
	c, err := p.scraper.Open(a)
	if err != nil {
		p.t.Fatalf("Open(%q): %v", url, err)
	}
	return c
}

// refused collects, which must fail before anything is sent, and returns why it
// did.
func (p *probing) refused(c schedule.Collection, url string) string {
	p.t.Helper()
	r := c.Collect(p.t.Context(), time.Now())
	for _, why := range []string{"bad endpoint: address ", "no such host"} {
		if r.Reason == schedule.ReasonUnreachable && strings.Contains(r.Message, why) {
			return why
		}
	}
	p.t.Errorf("%s: %+v, want it refused", url, r)
	return ""
}

func (p *probing) good(c schedule.Collection) {
	p.t.Helper()
	if r := c.Collect(p.t.Context(), time.Now()); r.Reason != schedule.ReasonNone {
		p.t.Fatalf("%+v", r)
	}
}

// only is a policy that allows one address.
func only(addr string) endpoint.Policy {
	return endpoint.Policy{Allow: []netip.Prefix{netip.MustParsePrefix(addr + "/32")}}
}
