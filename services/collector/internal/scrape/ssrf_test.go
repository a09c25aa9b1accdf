package scrape_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

// TestNoSpellingReachesTheMetadataService: not as a number, not as a name, not
// within another address, over no scheme. The resolver of the test says of every
// name that it is the metadata service, as that of the C library says of numbers.
func TestNoSpellingReachesTheMetadataService(t *testing.T) {
	resolveBy(t, func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("169.254.169.254")} })
	p := newProbing(t, endpoint.Policy{}, nil)
	counts := map[string]int{}
	hosts := []string{
		"169.254.169.254", "2852039166", "0xa9fea9fe", "0XA9FEA9FE", "025177524776", "0251.0376.0251.0376", "0xa9.0xfe.0xa9.0xfe", "169.254.43518",
		"169.16689662", "169.254.169.254.", "metadata.google.internal", "METADATA", "169.254.169.254.nip.example", "４.example", "xn--a.example",
		"[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[::169.254.169.254]", "[::ffff:0:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]",
		"[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[2001:0:a9fe:a9fe::1]", "[2001:db8::5efe:a9fe:a9fe]", "[fe80::1]", "[fd00:ec2::254]",
		"[fd20:ce::254]", "100.100.100.200", "168.63.129.16", "127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "255.255.255.255",
		"224.0.0.1", "[ff02::1]", "localhost.example",
	}
	for _, host := range hosts {
		for _, url := range []string{"http://" + host + "/", "https://" + host + ":8443/latest/meta-data", "grpc://" + host + ":7480", "grpcs://" + host + ":7480"} {
			counts[p.refused(p.open(url), url)]++
		}
	}
	t.Logf("%d spellings, 4 schemes: all refused before a packet: %v", len(hosts), counts)
}

// rebinding names, and what they are when they are asked for again.
var rebinding = map[string][]string{
	"loopback": {"127.0.0.1"}, "metadata": {"169.254.169.254"}, "both": {"169.254.169.254", "127.0.0.1"},
}

// TestRebinding: a name that was a producer when it was dialled first is the
// collector's own machine when it is dialled again. What is kept is a connection,
// not the permission to make another one.
func TestRebinding(t *testing.T) {
	for kind, next := range rebinding {
		for _, scheme := range []string{"http", "grpc"} {
			t.Run(kind+" "+scheme, func(t *testing.T) {
				n := resolveBy(t, func(_ string, times int) []netip.Addr {
					if times == 1 {
						return []netip.Addr{netip.MustParseAddr("127.0.0.2")}
					}
					var all []netip.Addr
					for _, s := range next {
						all = append(all, netip.MustParseAddr(s))
					}
					return all
				})
				port, hangUp := exposeAt(t, scheme)
				newCanary(t, "127.0.0.1:"+port)
				p := newProbing(t, only("127.0.0.2"), nil)
				url := scheme + "://rebind.example:" + port
				c := p.open(url)
				for range 3 {
					p.good(c)
				}
				if asked := n.times("rebind.example"); asked != 1 {
					t.Errorf("resolved %d times for 3 collections on one connection", asked)
				}
				hangUp()
				for range 3 {
					if r := c.Collect(t.Context(), time.Now()); r.Reason != schedule.ReasonUnreachable {
						t.Errorf("%+v", r)
					}
				}
				if why := p.refused(c, url); why == "no such host" {
					t.Error("it was not resolved again")
				}
			})
		}
	}
}

// exposeAt answers collections on 127.0.0.2, until its connections and it are cut.
func exposeAt(t *testing.T, scheme string) (port string, hangUp func()) {
	t.Helper()
	lis, port := listenAt(t, "127.0.0.2:0")
	if scheme == "grpc" {
		server := grpc.NewServer()
		answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return s.Send(whole())
		})(server)
		go func() { _ = server.Serve(lis) }()
		t.Cleanup(server.Stop)
		return port, server.Stop
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a 1\n") })}
	go func() { _ = server.Serve(lis) }()
	t.Cleanup(func() { server.Close() })
	return port, func() { server.Close() }
}

// TestADeniedAddressBesideAGoodOne: of a name with several addresses, only those
// that may be dialled are.
func TestADeniedAddressBesideAGoodOne(t *testing.T) {
	resolveBy(t, func(string, int) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
	})
	port, _ := exposeAt(t, "http")
	newCanary(t, "127.0.0.1:"+port)
	p := newProbing(t, only("127.0.0.2"), nil)
	p.good(p.open("http://many.example:" + port))
}

// TestRedirectsAreNotFollowed: an endpoint that is allowed does not send the
// collector to one that is not, by no status and no version of HTTP.
func TestRedirectsAreNotFollowed(t *testing.T) {
	c := newCanary(t, "127.0.0.1:0")
	target := "http://" + c.Addr().String() + "/latest/meta-data"
	var protocol atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(int64(r.ProtoMajor))
		w.Header().Set("Location", target)
		w.Header().Set("Refresh", "0; url="+target)
		w.Header().Set("Alt-Svc", `http/1.1="`+c.Addr().String()+`"; ma=1`)
		var status int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.WriteHeader(max(status, 300))
	})
	for _, version := range []int64{1, 2} {
		server := httptest.NewUnstartedServer(handler)
		server.EnableHTTP2 = version == 2
		server.StartTLS()
		t.Cleanup(server.Close)
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		p := newProbing(t, endpoint.Policy{Loopback: true}, func(cfg *scrape.Config) { cfg.TLS = func() *tls.Config { return &tls.Config{RootCAs: roots} } })
		for _, status := range []int{300, 301, 302, 303, 305, 307, 308} {
			r := p.open(fmt.Sprintf("%s/%d", server.URL, status)).Collect(t.Context(), time.Now())
			if r.Reason != schedule.ReasonStatus || !strings.Contains(r.Message, fmt.Sprint(status)) {
				t.Errorf("HTTP/%d, %d: %+v", version, status, r)
			}
			if protocol.Load() != version {
				t.Errorf("HTTP/%d was spoken, want %d", protocol.Load(), version)
			}
		}
	}
	t.Run("grpc", func(t *testing.T) {
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		lis, port := listenAt(t, "127.0.0.2:0")
		server := &http.Server{Handler: handler, Protocols: protocols}
		go func() { _ = server.Serve(lis) }()
		t.Cleanup(func() { server.Close() })
		p := newProbing(t, only("127.0.0.2"), nil)
		if r := p.open("grpc://127.0.0.2:"+port).Collect(t.Context(), time.Now()); r.Reason == schedule.ReasonNone {
			t.Errorf("%+v", r)
		}
	})
}

// TestNoProxyOfTheEnvironment is used, by no scheme: it would resolve the name and
// dial the address in the collector's place.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	proxy := newCanary(t, "127.0.0.1:0")
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://"+proxy.Addr().String())
		t.Setenv(strings.ToLower(name), "http://"+proxy.Addr().String())
	}
	t.Setenv("NO_PROXY", "")
	t.Setenv("no_proxy", "")
	resolveBy(t, func(string, int) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.2")} })
	p := newProbing(t, only("127.0.0.2"), nil)
	for _, scheme := range []string{"http", "grpc"} {
		port, _ := exposeAt(t, scheme)
		p.good(p.open(scheme + "://producer.example:" + port))
	}
	for _, scheme := range []string{"https", "grpcs"} { // nobody speaks TLS there, but it is they who are asked
		lis, port := listenAt(t, "127.0.0.2:0")
		t.Cleanup(func() { lis.Close() })
		came := make(chan struct{}, 1)
		go func() {
			if conn, err := lis.Accept(); err == nil {
				came <- struct{}{}
				conn.Close()
			}
		}()
		p.open(scheme+"://producer.example:"+port).Collect(t.Context(), time.Now())
		select {
		case <-came:
		default:
			t.Errorf("%s: the producer was not asked", scheme)
		}
	}
}

// TestNothingIsInjected: what an endpoint's path has makes no line of its own in
// the request.
func TestNothingIsInjected(t *testing.T) {
	sent := []string{"Accept", "Accept-Encoding", "User-Agent", "X-Prometheus-Scrape-Timeout-Seconds", "Rollcall-Collector"}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(cfg *scrape.Config) { cfg.CollectorID = "c1" })
		r.text("a 1\n")
		for _, path := range []string{
			"/a%0d%0aX-Evil:%201", "/?a=%0d%0aX-Evil:%201", "/%0d%0a%0d%0aGET%20/admin%20HTTP/1.1%0d%0a", "/%00", "/\\r\\n", "/ä\u2029"[:3],
			"/..%2f..%2fadmin", "//evil.example/", "/?" + strings.Repeat("%0a", 600),
		} {
			a := producer()
			a.Endpoint = "http://node1:9100" + path
			r.good(r.open(a))
			req := <-r.requests
			for name := range req.Header {
				if !slices.Contains(sent, name) {
					t.Errorf("%q: header %q", path, name)
				}
			}
			if req.Method != http.MethodGet || req.Host != "node1:9100" || strings.ContainsAny(req.RequestURI, "\r\n\x00 ") {
				t.Errorf("%q: %s %q of %q", path, req.Method, req.RequestURI, req.Host)
			}
			if len(r.requests) != 0 {
				t.Errorf("%q: one more request", path)
			}
		}
		for _, url := range []string{
			"http://node1:9100/a\r\nX-Evil: 1", "http://node1\r\n/", "http://u:p@node1/", "http://node1\x00/", "http://node1:9100/a b", "http://node1%0d%0a/", "http://node1#@evil/",
		} {
			a := producer()
			a.Endpoint = url
			if _, err := r.scraper.Open(a); err == nil {
				t.Errorf("%q is taken", url)
			}
		}
	})
}

var _ net.Listener = (*canary)(nil)
