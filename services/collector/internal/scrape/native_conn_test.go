package scrape_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	exposer "github.com/rollcall-metrics/rollcall/services/producer"
)

// counting counts what is dialled, and what of it is open.
type counting struct {
	dial          func(context.Context, string, string) (net.Conn, error)
	dialled, open atomic.Int64
}

type countedConn struct {
	net.Conn

	of     *counting
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if !c.closed.Swap(true) {
		c.of.open.Add(-1)
	}
	return c.Conn.Close()
}

func (c *counting) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.dialled.Add(1)
	c.open.Add(1)
	return &countedConn{Conn: conn, of: c}, nil
}

// counted is a rig whose connections are counted.
func counted(t *testing.T, register func(grpc.ServiceRegistrar), change func(*scrape.Config)) (*nativeRig, *counting) {
	t.Helper()
	c := &counting{}
	r := newNativeRig(t, func(cfg *scrape.Config) {
		c.dial, cfg.DialContext = cfg.DialContext, c.connect
		if change != nil {
			change(cfg)
		}
	}, register)
	return r, c
}

func at(endpoint string, interval time.Duration) *assignment.Assignment {
	a := nativeProducer()
	a.Endpoint, a.Interval = endpoint, interval
	return a
}

// A connection is used again, also by the neighbour behind the address, and is
// closed when it was idle for two minutes. One of a producer that is collected
// less often is closed at once.
func TestChannelsAreKeptWhileTheyAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := runtime.NumGoroutine()
		r, c := counted(t, exposing(newZoo()), nil)
		first, second := r.open(at("grpc://node1:9100", time.Minute)), r.open(at("grpc://node1:9100", time.Minute))
		for range 5 {
			r.good(first)
			r.good(second)
			time.Sleep(time.Minute)
		}
		if c.dialled.Load() != 1 || c.open.Load() != 1 {
			t.Errorf("%d dialled, %d open; want 1", c.dialled.Load(), c.open.Load())
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if c.open.Load() != 0 {
			t.Errorf("%d open after two minutes", c.open.Load())
		}
		r.good(r.open(at("grpc://node2:9100", 2*time.Minute)))
		synctest.Wait()
		if c.open.Load() != 0 {
			t.Errorf("%d open of a producer that is collected seldom", c.open.Load())
		}
		if n := runtime.NumGoroutine(); n > before+10 {
			t.Errorf("%d goroutines, %d before", n, before)
		}
	})
}

// No more than so many are kept, the longest idle go first.
func TestIdleChannelsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := counted(t, exposing(newZoo()), func(cfg *scrape.Config) { cfg.MaxIdleConns = 3 })
		for i := range 10 {
			r.good(r.open(at(fmt.Sprintf("grpc://node%d:9100", i), 15*time.Second)))
		}
		synctest.Wait()
		if c.dialled.Load() != 10 || c.open.Load() != 3 {
			t.Errorf("%d dialled, %d open; want 10 and 3", c.dialled.Load(), c.open.Load())
		}
		r.good(r.open(at("grpc://node9:9100", 15*time.Second)))
		r.good(r.open(at("grpc://node0:9100", 15*time.Second)))
		if c.dialled.Load() != 11 {
			t.Errorf("%d dialled, want 11: node9 is kept and node0 is not", c.dialled.Load())
		}
		r.scraper.Close()
		synctest.Wait()
		if c.open.Load() != 0 {
			t.Errorf("%d open after Close", c.open.Load())
		}
	})
}

// A connection that fell silent is not used again.
func TestSilentChannelIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := true
		r, c := counted(t, answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			if silent {
				<-s.Context().Done()
				return s.Context().Err()
			}
			return s.Send(whole())
		}), nil)
		col := r.open(nativeProducer())
		if _, _, result := r.collect(col); result.Reason != schedule.ReasonTimeout {
			t.Fatalf("%+v", result)
		}
		synctest.Wait()
		if c.open.Load() != 0 {
			t.Errorf("%d open", c.open.Load())
		}
		silent = false
		r.good(col)
		if c.dialled.Load() != 2 {
			t.Errorf("%d dialled", c.dialled.Load())
		}
	})
}

// The dial policy holds for gRPC as for HTTP.
func TestChannelsHeedTheDialPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted(t, exposing(newZoo()), func(cfg *scrape.Config) {
			dial := cfg.DialContext
			cfg.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := dial(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return remoteConn{conn}, nil
			}
			cfg.CheckAddr = func(addr netip.Addr) error { return fmt.Errorf("address %s is not allowed", addr) }
		})
		_, _, result := r.collect(r.open(nativeProducer()))
		if result.Reason != schedule.ReasonUnreachable || !strings.Contains(result.Message, "169.254.169.254 is not allowed") {
			t.Errorf("%+v", result)
		}
	})
}

// A remoteConn is one to where clouds keep their secrets.
type remoteConn struct{ net.Conn }

func (remoteConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(169, 254, 169, 254), Port: 80}
}

// What the collector cancels is no failure, and stores nothing.
func TestCancelledCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newNativeRig(t, nil, answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			<-s.Context().Done()
			return s.Context().Err()
		}))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		r.open(nativeProducer()).Collect(ctx, time.Now())
		if n := len(r.sink.take()); n != 0 {
			t.Errorf("%d batches", n)
		}
	})
}

// Texts and headers of a producer are cut, or end the call.
func TestBombsInHeaders(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(grpc.ServerStreamingServer[producerv1.CollectResponse]) error
		reason schedule.Reason
	}{
		"text": {func(grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return status.Error(codes.Internal, strings.Repeat("x", 30_000))
		}, schedule.ReasonStatus},
		"text beyond the bound": {func(grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return status.Error(codes.Internal, strings.Repeat("x", 1<<20))
		}, schedule.ReasonStatus},
		"header": {func(s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			return s.SendHeader(metadata.Pairs("bomb", strings.Repeat("x", 1<<20)))
		}, schedule.ReasonStatus},
		"trailer": {func(s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
			s.SetTrailer(metadata.Pairs("bomb", strings.Repeat("x", 1<<20)))
			return s.Send(whole())
		}, schedule.ReasonStatus},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newNativeRig(t, nil, answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
					return c.answer(s)
				}))
				_, _, result := r.collect(r.open(nativeProducer()))
				if result.Reason == schedule.ReasonNone || len(result.Message) > 400 {
					t.Errorf("%v, %d bytes: %.100s", result.Reason, len(result.Message), result.Message)
				}
			})
		})
	}
}

// A server that says goodbye to every connection, and one that only hangs up,
// cost one dial for each collection, or two where gRPC knows that the call was
// not seen.
func TestGoodbyes(t *testing.T) {
	for name, play := range map[string]func(net.Conn){
		"goaway": func(conn net.Conn) {
			f := http2.NewFramer(conn, conn)
			_ = f.WriteSettings()
			_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
			conn.Close()
		},
		"hangs up": func(conn net.Conn) { conn.Close() },
		"speaks HTTP/1": func(conn net.Conn) {
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counting{dial: func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					go func() {
						buf := make([]byte, 24) // the preface
						_, _ = server.Read(buf)
						play(server)
					}()
					return client, nil
				}}
				out := &sink{t: t}
				s := scrape.New(scrape.Config{Sink: out, DialContext: c.connect})
				defer s.Close()
				col, err := s.Open(nativeProducer())
				if err != nil {
					t.Fatal(err)
				}
				for range 5 {
					result := col.Collect(t.Context(), time.Now())
					if result.Reason != schedule.ReasonUnreachable && result.Reason != schedule.ReasonTimeout {
						t.Errorf("%+v", result)
					}
					time.Sleep(15 * time.Second)
				}
				if n := c.dialled.Load(); n > 60 {
					t.Errorf("%d dialled for 5 collections", n)
				} else {
					t.Logf("%d dialled for 5 collections", n)
				}
			})
		})
	}
}

// TLS is that of the configuration.
func TestChannelsOverTLS(t *testing.T) {
	// A server of the standard library lends its certificate.
	web := httptest.NewTLSServer(nil)
	web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: web.TLS.Certificates})))
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "a", Help: "A gauge."}))
	exposer.Expose(server, "p1", r)
	served := make(chan struct{})
	go func() { _ = server.Serve(lis); close(served) }()
	defer func() { server.Stop(); <-served }()
	for name, c := range map[string]struct {
		tls    *tls.Config
		scheme string
		reason schedule.Reason
	}{
		"trusted":      {&tls.Config{RootCAs: roots}, "grpcs", schedule.ReasonNone},
		"system roots": {nil, "grpcs", schedule.ReasonUnreachable},
		"plain":        {nil, "grpc", schedule.ReasonUnreachable},
		"other name":   {&tls.Config{RootCAs: roots, ServerName: "elsewhere"}, "grpcs", schedule.ReasonUnreachable},
	} {
		s := scrape.New(scrape.Config{Sink: &discard{}, TLS: func() *tls.Config { return c.tls }})
		col, err := s.Open(at(c.scheme+"://"+lis.Addr().String(), 15*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if result := col.Collect(t.Context(), time.Now()); result.Reason != c.reason {
			t.Errorf("%s: %+v, want %v", name, result, c.reason)
		}
		s.Close()
	}
}

// A credential's header, certificate and server name are used for gRPC as for
// HTTP, and its secret is in no message.
func TestChannelsOfCredentials(t *testing.T) {
	ca := newAuthority(t)
	client := ca.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	server := ca.sign(&x509.Certificate{DNSNames: []string{"producer.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var authorization atomic.Value
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{*server}, ClientCAs: ca.pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	answering(func(_ *producerv1.CollectRequest, s grpc.ServerStreamingServer[producerv1.CollectResponse]) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		authorization.Store(strings.Join(md.Get("authorization"), ","))
		return status.Error(codes.Unauthenticated, "go away")
	})(srv)
	served := make(chan struct{})
	go func() { _ = srv.Serve(lis); close(served) }()
	defer func() { srv.Stop(); <-served }()
	for name, c := range map[string]struct {
		with   []tls.Certificate
		server string
		reason schedule.Reason
	}{
		"all is right":       {[]tls.Certificate{*client}, "producer.test", schedule.ReasonStatus},
		"no certificate":     {nil, "producer.test", schedule.ReasonUnreachable},
		"another server":     {[]tls.Certificate{*client}, "other.test", schedule.ReasonUnreachable},
		"no name of its own": {[]tls.Certificate{*client}, "", schedule.ReasonUnreachable},
	} {
		authorization.Store("")
		s := scrape.New(scrape.Config{Sink: &discard{}, Setup: scrape.Setup{Credentials: map[string]scrape.Credential{
			"c": {Authorization: secret, TLS: &tls.Config{RootCAs: ca.pool, Certificates: c.with}, TLSDigest: "1", Hosts: hosts(t, "127.0.0.1")},
		}}})
		a := at("grpcs://"+lis.Addr().String(), 15*time.Second)
		a.Credential, a.TLSServerName = "c", c.server
		col, err := s.Open(a)
		if err != nil {
			t.Fatal(err)
		}
		result := col.Collect(t.Context(), time.Now())
		if result.Reason != c.reason || strings.Contains(result.Message, "hunter2") {
			t.Errorf("%s: %+v, want %v", name, result, c.reason)
		}
		if got := authorization.Load(); (got == secret) != (c.reason == schedule.ReasonStatus) {
			t.Errorf("%s: sent %q", name, got)
		}
		s.Close()
	}
}
