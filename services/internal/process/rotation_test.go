package process_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/protobuf/types/known/emptypb"
)

// TestRotationUnderLoad: from one authority to the next, in the order that works:
// trust both, issue anew, trust the new one only. No call fails meanwhile, on either
// port, and a stream from the beginning is there at the end.
func TestRotationUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, newer := newAuthority(t), newAuthority(t)
		ofServer, ofClient, end := t.TempDir(), t.TempDir(), make(chan struct{})
		h := serveTLS(t, write(t, ofServer, issue(t, older, nil, 0), older.Certificate()), 100, func(ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				<-end
			}
			return nil
		})
		shown, err := process.LoadIdentity(write(t, ofClient, issue(t, older, nil, 0), older.Certificate()))
		if err != nil {
			t.Fatal(err)
		}
		go shown.Watch(t.Context(), 7*time.Second, slog.New(slog.DiscardHandler))
		stream, err := hold(t, dialToy(t, h, shown.Client()))
		if err != nil {
			t.Fatal(err)
		}
		calls, done := 0, make(chan struct{})
		var stop atomic.Bool
		go func() {
			defer close(done)
			for ; !stop.Load(); calls++ {
				named := shown.Client()().Clone()
				named.ServerName = "server"
				if err := askWithin(t, h, shown.Client(), time.Second); err != nil {
					t.Errorf("call %d: %v", calls, err)
				}
				if err := get(t, h, "https", named); err != nil {
					t.Errorf("request %d: %v", calls, err)
				}
				time.Sleep(500 * time.Millisecond)
			}
		}()
		both := slices.Concat(older.Certificate(), newer.Certificate())
		for _, step := range []struct {
			of *authority.Authority
			ca []byte
		}{{older, both}, {newer, both}, {newer, newer.Certificate()}} {
			write(t, ofServer, issue(t, step.of, nil, 0), step.ca)
			time.Sleep(3 * time.Second)
			write(t, ofClient, issue(t, step.of, nil, 0), step.ca)
			time.Sleep(2 * process.DefaultRefresh)
		}
		stop.Store(true)
		<-done
		close(end)
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil || calls < 100 {
			t.Errorf("after %d calls the stream ends with %v", calls, err)
		}
	})
}

// askWithin is ask with a bound.
func askWithin(t *testing.T, h *host, c process.ClientTLS, limit time.Duration) error {
	t.Helper()
	conn := dialToy(t, h, c)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stream, err := holdIn(ctx, conn)
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	return err
}

// TestProducersAreAnybodys: they may have a certificate of the fleet or of the
// system's authorities, and ours is only for who asks for it.
func TestProducersAreAnybodys(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	i, err := process.LoadIdentity(write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()))
	if err != nil {
		t.Fatal(err)
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		system = x509.NewCertPool()
	}
	system.AppendCertsFromPEM(a.Certificate())
	if !i.Producers()().RootCAs.Equal(system) || i.Client()().RootCAs.Equal(system) && !system.Equal(x509.NewCertPool()) {
		t.Error("other authorities are trusted")
	}
	for _, test := range []struct {
		asks  *authority.Authority
		shows int
	}{{a, 1}, {other, 0}, {nil, 1}} {
		request := &tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
		if test.asks != nil {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(test.asks.Certificate())
			request.AcceptableCAs = pool.Subjects() //nolint:staticcheck // the pool is not the system's
		}
		shown, err := i.Producers()().GetClientCertificate(request)
		if err != nil || len(shown.Certificate) != test.shows {
			t.Errorf("%v: shows %d, %v", test, len(shown.Certificate), err)
		}
	}
}

// TestTheInsideIsShownOnlyIfAsked, and no profile is taken for long.
func TestTheInsideIsShownOnlyIfAsked(t *testing.T) {
	for _, shown := range []bool{false, true} {
		srv, _ := process.NewGRPCServer(process.GRPCConfig{
			Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Introspection: shown,
		})
		_, reflects := srv.GetServiceInfo()["grpc.reflection.v1.ServerReflection"]
		_, channelz := srv.GetServiceInfo()["grpc.channelz.v1.Channelz"]
		if reflects != shown || channelz != shown {
			t.Errorf("%v: reflection %v, channelz %v", shown, reflects, channelz)
		}
		srv.Stop()
	}
	mux := http.NewServeMux()
	process.AddProfiles(mux)
	for path, want := range map[string]int{
		"/debug/pprof/":                    http.StatusOK,
		"/debug/pprof/goroutine?debug=1":   http.StatusOK,
		"/debug/pprof/cmdline":             http.StatusOK,
		"/debug/pprof/profile?seconds=61":  http.StatusBadRequest,
		"/debug/pprof/profile?seconds=1e9": http.StatusBadRequest,
		"/debug/pprof/trace?seconds=NaN":   http.StatusBadRequest,
		"/debug/pprof/heap?seconds=-1":     http.StatusBadRequest,
		"/debug/pprof/heap?seconds=61":     http.StatusBadRequest,
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
