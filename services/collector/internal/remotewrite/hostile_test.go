package remotewrite_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	promconfig "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// TestAnUpgradeAmongOthers has a request of 1.0 on its way while the one that
// tries 2.0 again is confirmed: what comes back of the former says nothing new.
func TestAnUpgradeAmongOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{t: t, knows: old204}
		hold := make(chan struct{})
		r, c := bubble(t, func(w http.ResponseWriter, got call) {
			s.mu.Lock()
			wait := s.knows == modern && !got.v2()
			s.mu.Unlock()
			if wait {
				<-hold
			}
			s.answer(w, got)
		}, nil)
		c.Send(t.Context(), request(c, values(3)...))
		time.Sleep(29 * time.Minute)
		s.be(modern)
		var wg sync.WaitGroup
		wg.Go(func() { c.Send(t.Context(), request(c, values(3)...)) })
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		c.Send(t.Context(), request(c, values(3)...))
		if got := c.Protocol(); got != name2 {
			t.Errorf("speaks %q", got)
		}
		close(hold)
		wg.Wait()
		if got := c.Protocol(); got != name2 {
			t.Errorf("after an answer to what was sent before, speaks %q", got)
		}
		r.stop()
	})
}

// TestWhatProducersWriteIsNoReason has the receiver tell a series that a hostile
// producer has made, as Prometheus does.
func TestWhatProducersWriteIsNoReason(t *testing.T) {
	for _, words := range []string{
		"request body too large", "message larger than max", "native histograms are disabled", "unsupported",
		"} request body too large", "\"} request body too large", "\\\"} native histograms are disabled", "mimir",
	} {
		for _, status := range []int{400, 500} {
			for _, p := range []remotewrite.Protocol{remotewrite.V2, remotewrite.V1} {
				r := listen(t, func(w http.ResponseWriter, got call) {
					if got.v2() {
						written(w, 1, 0)
					}
					http.Error(w, fmt.Sprintf("out of order sample for series {__name__=\"x\", evil=%q}", words), status)
				})
				c := newClient(t, r.url, func(c *remotewrite.Config) { c.Protocol = p })
				o := c.Send(t.Context(), request(c, values(2)...))
				want := deliver.Outcome{Result: deliver.Retry}
				switch {
				case status == 400 && p == remotewrite.V2:
					want = deliver.Outcome{Result: deliver.Delivered, Refused: 1, Reason: deliver.ReasonOutOfOrder}
				case status == 400:
					want = deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonOutOfOrder, Divisible: true}
				}
				if o.Result != want.Result || o.Refused != want.Refused || o.Reason != want.Reason || o.Divisible != want.Divisible || len(r.take()) != 1 {
					t.Errorf("%q, %d, %v: %+v", words, status, p, o)
				}
			}
		}
	}
}

// TestNotSupportedIsNotAboutHistograms has something else be unsupported.
func TestNotSupportedIsNotAboutHistograms(t *testing.T) {
	r := listen(t, func(w http.ResponseWriter, _ call) {
		http.Error(w, "label names with dots are not supported", http.StatusBadRequest)
	})
	c := newClient(t, r.url, func(c *remotewrite.Config) { c.Protocol = remotewrite.V1 })
	if o := c.Send(t.Context(), request(c, append(values(2), histograms()...)...)); o.Result != deliver.Rejected || len(r.take()) != 1 {
		t.Errorf("%+v", o)
	}
}

// TestTwoReceiversBehindOneAddress has one that reads 2.0 as empty, and one that
// refuses 1.0. A request that meets them in this order has not arrived.
func TestTwoReceiversBehindOneAddress(t *testing.T) {
	s := &store{t: t, knows: strict2}
	r := listen(t, func(w http.ResponseWriter, got call) {
		if s.answer(w, got); s.knows == old204 {
			s.be(strict2)
		}
	})
	c := newClient(t, r.url, nil)
	for i, knows := range []string{strict2, old204, strict2, old204} {
		s.be(knows)
		o := c.Send(t.Context(), request(c, values(3)...))
		if _, held := s.take(); (o.Result == deliver.Delivered) != (held == 3) {
			t.Errorf("%d: %+v, and the receivers have %d", i, o, held)
		}
	}
}

// TestABadRequestIsNotTheProtocols has a receiver of 2.0 refuse a request as
// either, without counts.
func TestABadRequestIsNotTheProtocols(t *testing.T) {
	bad := false
	r := listen(t, func(w http.ResponseWriter, _ call) {
		switch {
		case bad:
			http.Error(w, "no", http.StatusBadRequest)
		default:
			written(w, 3, 0)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	c := newClient(t, r.url, nil)
	c.Send(t.Context(), request(c, values(3)...))
	bad = true
	if o := c.Send(t.Context(), request(c, values(3)...)); o.Result != deliver.Rejected || c.Protocol() != name2 {
		t.Errorf("%+v, speaks %q", o, c.Protocol())
	}
}

// TestCredentialsOfTheClientAreNotTold: those that the HTTP client adds.
func TestCredentialsOfTheClientAreNotTold(t *testing.T) {
	r := listen(t, func(w http.ResponseWriter, got call) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte("no to " + got.header.Get("Authorization") + ", that is sesame-password"))
	})
	for _, set := range []func(*http.Request){
		func(r *http.Request) { r.Header.Set("Authorization", "Bearer sesame-token") },
		func(r *http.Request) { r.SetBasicAuth("user", "sesame-password") },
	} {
		c := newClient(t, r.url, func(c *remotewrite.Config) {
			inner := c.HTTP.Transport
			c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				r = r.Clone(r.Context())
				set(r)
				return inner.RoundTrip(r)
			})}
		})
		o := c.Send(t.Context(), request(c, values(1)...))
		sent := r.take()[0].header.Get("Authorization")
		_, sent, _ = strings.Cut(sent, " ")
		if text := o.Err.Error(); strings.Contains(text, sent) || strings.HasPrefix(sent, "dXNlc") && strings.Contains(text, "sesame") {
			t.Errorf("an answer is shown as %q", text)
		}
	}
}

// TestWhatALoginSaysIsNotTold: it was told the secret for the token.
func TestWhatALoginSaysIsNotTold(t *testing.T) {
	login := listen(t, nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		http.Error(w, "no to "+r.Header.Get("Authorization")+string(body)+" sesame", http.StatusInternalServerError)
	}))
	defer server.Close()
	client, err := promconfig.NewClientFromConfig(promconfig.HTTPClientConfig{
		OAuth2: &promconfig.OAuth2{ClientID: "me", ClientSecret: "sesame", TokenURL: server.URL},
	}, "test")
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, login.url, func(c *remotewrite.Config) { c.HTTP = client })
	o := c.Send(t.Context(), request(c, values(1)...))
	if text := o.Err.Error(); o.Result != deliver.Retry || strings.Contains(text, "sesame") || !strings.Contains(text, "cannot fetch token: 500") {
		t.Errorf("%+v", o)
	}
}

// TestALongLabelInEachSample is of 1.0, which writes a label as often as there are
// samples: what is not going to be sent is not written either.
func TestALongLabelInEachSample(t *testing.T) {
	const size, most = 1 << 20, 32 << 20
	r := &deliver.Request{Series: remotewrite.NewSeries()}
	for _, name := range []string{"a", "b"} {
		r.Series.Add(labels.FromStrings("__name__", name, "l", strings.Repeat("v", size)), nil)
	}
	for i := range 100 {
		r.Items = append(r.Items, deliver.Item{Index: uint32(i % 2), Point: sample.Point{Time: int64(i)}})
	}
	if n, refused := remotewrite.RawSize(remotewrite.V1, r); n > most+2*size || !refused {
		t.Errorf("1.0: %d bytes are written, refused: %t", n, refused)
	}
	if n, refused := remotewrite.RawSize(remotewrite.V2, r); n > 2*size || refused {
		t.Errorf("2.0: %d bytes are written, refused: %t", n, refused)
	}
}

// TestAnotherProtocol has something else live at the address: no context ends a read
// of what it says.
func TestAnotherProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := bubble(t, func(w http.ResponseWriter, _ call) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(io.Discard, conn)
		}, nil)
		if o := c.Send(t.Context(), request(c, values(3)...)); o.Result != deliver.Retry || o.Code != "101" {
			t.Errorf("%+v", o)
		}
		r.stop()
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
