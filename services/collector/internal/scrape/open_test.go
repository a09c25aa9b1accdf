package scrape_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestUnrunnable(t *testing.T) {
	label := func(name, value string) func(*assignment.Assignment) {
		return func(a *assignment.Assignment) { a.Labels = []assignment.Label{{Name: name, Value: value}} }
	}
	endpoint := func(s string) func(*assignment.Assignment) {
		return func(a *assignment.Assignment) { a.Endpoint = s }
	}
	for name, change := range map[string]func(*assignment.Assignment){
		"no scheme":     endpoint("node1:9100/metrics"),
		"no host":       endpoint("http:///metrics"),
		"empty":         endpoint(""),
		"user info":     endpoint("http://user:secret@node1/metrics"),
		"not a URL":     endpoint("http://node1:9100/%zz"),
		"file":          endpoint("file:///etc/passwd"),
		"label name":    label("a-b", "1"),
		"empty name":    label("", "1"),
		"reserved":      label("__name__", "x"),
		"invalid UTF-8": label("a", "\xff"),
		"large value":   label("a", strings.Repeat("x", 16<<10+1)),
		"twice": func(a *assignment.Assignment) {
			a.Labels = []assignment.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}
		},
		"too many":       func(a *assignment.Assignment) { a.Limits.MaxLabels = 2 },
		"value too long": func(a *assignment.Assignment) { a.Limits.MaxLabelValueBytes = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			s := scrape.New(scrape.Config{Sink: &sink{t: t}, DialContext: func(context.Context, string, string) (net.Conn, error) {
				t.Error("dialled")
				return nil, errors.New("no")
			}})
			good, err := s.Open(producer())
			if err != nil {
				t.Fatal(err)
			}
			a := producer()
			change(a)
			a.ProducerID = "p2"
			_, openErr := s.Open(a)
			a.ProducerID = "p1"
			updateErr := good.Update(a)
			if openErr == nil || updateErr == nil {
				t.Fatalf("Open: %v, Update: %v; want errors", openErr, updateErr)
			}
			if strings.Contains(openErr.Error(), "secret") {
				t.Errorf("tells the secret: %v", openErr)
			}
			if _, ok := s.Find("p2"); ok {
				t.Error("is open")
			}
			t.Log(openErr)
		})
	}
}

func TestInstance(t *testing.T) {
	for url, want := range map[string]string{
		"http://node1/metrics":        "node1:80",
		"https://node1":               "node1:443",
		"http://[2001:db8::1]:9100/m": "[2001:db8::1]:9100",
		"http://node1:7/x?y=z":        "node1:7",
	} {
		s := scrape.New(scrape.Config{Sink: &sink{t: t}})
		a := producer()
		a.Endpoint = url
		c, err := s.Open(a)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := c.(*scrape.Collection)
		if !ok || got.Labels().Get("instance") != want || got.Labels().Get("job") != "node" || got.Labels().Len() != 2 {
			t.Errorf("%s: %v, want instance %s", url, c, want)
		}
	}
}

func TestCollections(t *testing.T) {
	s := scrape.New(scrape.Config{Sink: &sink{t: t}})
	open := func(id assignment.ProducerID) schedule.Collection {
		a := producer()
		a.ProducerID = id
		c, err := s.Open(a)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ids := func() []assignment.ProducerID {
		all := map[assignment.ProducerID]bool{}
		for c := range s.Collections() {
			all[c.ProducerID()] = true
		}
		return slices.Sorted(maps.Keys(all))
	}
	a, old := open("a"), open("b")
	again := open("b") // before the old one has ended
	old.End(time.Now(), false)
	if got := ids(); !slices.Equal(got, []assignment.ProducerID{"a", "b"}) {
		t.Errorf("got %v", got)
	}
	a.End(time.Now(), false)
	again.End(time.Now(), true)
	if got := ids(); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

// A mappedConn tells its IPv4 address as IPv6.
type mappedConn struct{ net.Conn }

func (mappedConn) RemoteAddr() net.Addr { return stringAddr("[::ffff:127.0.0.1]:80") }

type stringAddr string

func (stringAddr) Network() string  { return "tcp" }
func (a stringAddr) String() string { return string(a) }

func TestCheckAddr(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for name, tc := range map[string]struct {
		host string
		dial func(context.Context, string, string) (net.Conn, error)
	}{
		"address": {host: "127.0.0.1"},
		"name":    {host: "localhost"},
		"mapped":  {host: "[::ffff:127.0.0.1]"},
		"own dialer": {host: "somewhere", dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1"+port)
		}},
		"own mapped": {host: "somewhere", dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1"+port)
			return mappedConn{c}, err
		}},
		"unknown address": {host: "127.0.0.1", dial: func(context.Context, string, string) (net.Conn, error) { c, _ := net.Pipe(); return c, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, allow := range []bool{false, true} {
				requests = 0
				out := &sink{t: t}
				s := scrape.New(scrape.Config{Sink: out, DialContext: tc.dial, CheckAddr: func(addr netip.Addr) error {
					if addr.Is4In6() {
						t.Errorf("asked about %s", addr)
					}
					if allow {
						return nil
					}
					return errors.New("not here")
				}})
				defer s.Close()
				a := producer()
				a.Endpoint = "http://" + tc.host + port
				c, err := s.Open(a)
				if err != nil {
					t.Fatal(err)
				}
				result := c.Collect(t.Context(), time.Now())
				wantRequests := 1
				if !allow || name == "unknown address" {
					wantRequests = 0
					if result.Reason != schedule.ReasonUnreachable || !strings.Contains(result.Message, "address") && !strings.Contains(result.Message, "not here") {
						t.Errorf("%+v, want unreachable", result)
					}
				} else if result.Reason != schedule.ReasonNone {
					t.Errorf("allowed: %+v", result)
				}
				if requests != wantRequests {
					t.Errorf("allow %v: %d requests, want %d", allow, requests, wantRequests)
				}
			}
		})
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for _, tc := range []struct {
		trusted *x509.CertPool
		want    schedule.Reason
	}{{x509.NewCertPool(), schedule.ReasonUnreachable}, {roots, schedule.ReasonNone}} {
		s := scrape.New(scrape.Config{Sink: &sink{t: t}, TLS: func() *tls.Config {
			return &tls.Config{RootCAs: tc.trusted, MinVersion: tls.VersionTLS13}
		}})
		defer s.Close()
		a := producer()
		a.Endpoint = server.URL
		c, err := s.Open(a)
		if err != nil {
			t.Fatal(err)
		}
		if result := c.Collect(t.Context(), time.Now()); result.Reason != tc.want {
			t.Errorf("%+v, want reason %v", result, tc.want)
		}
	}
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.text("a 1\n")
		r.good(r.open(producer()))
	})
}

// Readers of metadata and the collection are at work at the same time.
func TestMetadataIsSafe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		c := r.open(producer())
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for one := range r.scraper.Collections() {
					for _, m := range one.Metadata() {
						_ = m.Help + one.Labels().String()
					}
				}
			}
		}()
		for i := range 200 {
			r.text("# HELP a " + strings.Repeat("x", i) + "\n# TYPE a gauge\na 1\n")
			r.good(c)
			if i%50 == 0 {
				if err := c.Update(producer()); err != nil {
					t.Error(err)
				}
			}
		}
		close(stop)
		<-done
	})
}

// TestUpdatedBeforeItsFirstCollection: what it was opened with has left no trace.
func TestUpdatedBeforeItsFirstCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.text("a 1\n")
		c := r.open(producer())
		a := producer()
		a.Labels = []assignment.Label{{Name: "job", Value: "other"}}
		if err := c.Update(a); err != nil {
			t.Fatal(err)
		}
		samples, at, result := r.collect(c)
		if result.Reason != schedule.ReasonNone {
			t.Fatalf("failed: %+v", result)
		}
		for _, line := range lines(samples, at) {
			if !strings.Contains(line, `job="other"`) {
				t.Error(line)
			}
		}
	})
}
