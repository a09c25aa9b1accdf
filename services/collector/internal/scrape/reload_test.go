package scrape_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
)

// A new connection has the collector's TLS as it is then: a certificate and
// authorities that were replaced need no restart. A kept one stays.
func TestTLSIsThatOfTheTime(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			ca := newAuthority(t)
			own := ca.sign(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			producerTLS := secure(t, ca, http2, true)
			var now atomic.Pointer[tls.Config]
			now.Store(&tls.Config{RootCAs: x509.NewCertPool()})
			s := scrape.New(scrape.Config{Sink: &discard{}, TLS: now.Load})
			defer s.Close()
			a := producer()
			a.Endpoint, a.TLSServerName = producerTLS.url, "producer.test"
			c, err := s.Open(a)
			if err != nil {
				t.Fatal(err)
			}
			expect := func(what string, want schedule.Reason) {
				t.Helper()
				if result := c.Collect(t.Context(), time.Now()); result.Reason != want {
					t.Errorf("%s: %+v", what, result)
				}
			}
			expect("no authority", schedule.ReasonUnreachable)
			now.Store(&tls.Config{RootCAs: ca.pool})
			expect("no certificate", schedule.ReasonUnreachable)
			now.Store(&tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{*own}})
			expect("certificate", schedule.ReasonNone)
			if seen := producerTLS.seen.Load(); seen.ProtoMajor == 2 != http2 || len(seen.TLS.PeerCertificates) != 1 {
				t.Errorf("asked by %s, %d certificates", seen.Proto, len(seen.TLS.PeerCertificates))
			}
			before := producerTLS.conns.Load()
			now.Store(&tls.Config{RootCAs: x509.NewCertPool()})
			expect("kept", schedule.ReasonNone)
			if after := producerTLS.conns.Load(); after != before {
				t.Errorf("%d new connections", after-before)
			}
			a.TLSServerName = "elsewhere.test"
			now.Store(&tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{*own}})
			if c, err = s.Open(a); err != nil {
				t.Fatal(err)
			}
			expect("other name", schedule.ReasonUnreachable)
		})
	}
}
