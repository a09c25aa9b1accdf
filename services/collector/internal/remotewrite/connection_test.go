package remotewrite_test

import (
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/common/config"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
)

// TestConnectionsAreKept sends by the HTTP client that a configuration makes,
// over TLS and with a token, in HTTP/1.1 and 2.
func TestConnectionsAreKept(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		var opened, over2, allowed atomic.Int64
		r := &receiver{}
		handler := r.handler(t, confirm(t))
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.ProtoMajor == 2 {
				over2.Add(1)
			}
			if req.Header.Get("Authorization") == "Bearer open-sesame" {
				allowed.Add(1)
			}
			handler.ServeHTTP(w, req)
		}))
		server.EnableHTTP2 = http2
		server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
			if s == http.StateNew {
				opened.Add(1)
			}
		}
		server.StartTLS()
		h := config.DefaultHTTPClientConfig
		h.EnableHTTP2 = http2
		h.BearerToken = "open-sesame"
		h.TLSConfig.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
		client, err := config.NewClientFromConfig(h, "test")
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, server.URL, func(c *remotewrite.Config) { c.HTTP = client })
		const lanes, each = 8, 25
		var wg sync.WaitGroup
		for range lanes {
			wg.Go(func() {
				for range each {
					if o := c.Send(t.Context(), request(c, values(100)...)); o.Result != deliver.Delivered || o.Refused != 0 {
						t.Errorf("%+v", o)
					}
				}
			})
		}
		wg.Wait()
		// Some more than there are requests are dialled at first.
		if n := opened.Load(); n > 2*lanes {
			t.Errorf("HTTP/2 %v: %d connections for %d requests at a time", http2, n, lanes)
		}
		if allowed.Load() != lanes*each || (over2.Load() == lanes*each) != http2 {
			t.Errorf("HTTP/2 %v: %d requests with the token, %d by HTTP/2", http2, allowed.Load(), over2.Load())
		}
		c.Close()
		server.Close()
	}
}

// TestEarlyAnswers has a receiver answer before it has read the request, so that
// a body is still on its way when its request has ended; those that arrive whole
// must be whole.
func TestEarlyAnswers(t *testing.T) {
	var n atomic.Int64
	whole := &receiver{}
	read := whole.handler(t, confirm(t))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		read.ServeHTTP(w, req)
	}))
	defer server.Close()
	c := newClient(t, server.URL, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				c.Send(t.Context(), request(c, life()...)) // a broken body fails the receiver's test
			}
		})
	}
	wg.Wait()
	for _, call := range whole.take() {
		if got, _ := arrived2(t, call.decode2(t)); len(got) != len(life()) {
			t.Errorf("%d samples arrived", len(got))
		}
	}
}
