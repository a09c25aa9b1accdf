package process_test

import (
	"context"
	"crypto/tls"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

func answer(context.Context) error { return nil }

// alert is what a client reads that says nothing itself.
func alert(t *testing.T, lis *bufconn.Listener, c *tls.Config) error {
	t.Helper()
	raw, err := lis.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	_, err = io.ReadAll(tls.Client(raw, c))
	return err
}

// TestCertificatesThatAreRefused: the log tells why, the peer always the same.
func TestCertificatesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, answer)
		for reason, pair := range map[string]authority.Pair{
			"unknown_authority": issue(t, newAuthority(t), nil, 0),
			"expired":           issue(t, a, nil, 31),
			"not_yet_valid":     issue(t, a, nil, -1),
			"self_signed":       issue(t, a, func(r *authority.Request) { r.SelfSigned = true }, 0),
			"wrong_usage":       issue(t, a, func(r *authority.Request) { r.ServerOnly = true }, 0),
		} {
			time.Sleep(time.Minute) // for the bound of the log
			shown := client(t, pair, a)
			for port, lis := range map[string]*bufconn.Listener{"gRPC": h.grpc, "HTTP": h.web} {
				if err := alert(t, lis, shown); err == nil || err.Error() != "remote error: tls: bad certificate" {
					t.Errorf("%s, %s: %v", reason, port, err)
				}
			}
			if ask(t, h, static(shown)) == nil || get(t, h, "https", shown) == nil {
				t.Errorf("%s: it is served", reason)
			}
			synctest.Wait()
			if got := value(t, h.metrics, "rollcall_tls_refused_total", reason); got != 4 {
				t.Errorf("%s: counted %v", reason, got)
			}
			if n := lines(h.log.String(), "reason="+reason+" address=bufconn subject=\"CN=collector c-1\" names=\"server spiffe://rollcall.test/rollcall/collector/c-1\""); n != 4 {
				t.Errorf("%s: %d lines in %s", reason, n, h.log)
			}
		}
		for name, pair := range map[string]authority.Pair{"good": issue(t, a, nil, 0), "none": {}} {
			if err := ask(t, h, static(client(t, pair, a))); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := get(t, h, "https", client(t, pair, a)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestALoggedRefusalIsBounded: whoever fails often does not fill the disk.
func TestALoggedRefusalIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 1000, answer)
		bad := client(t, issue(t, a, nil, 31), a)
		for range 50 {
			if get(t, h, "https", bad) == nil {
				t.Fatal("taken")
			}
		}
		synctest.Wait()
		if n := lines(h.log.String(), "a connection was refused"); n != 10 {
			t.Errorf("%d lines", n)
		}
		time.Sleep(time.Minute)
		_ = get(t, h, "https", bad)
		synctest.Wait()
		if !strings.Contains(h.log.String(), "untold=40") || value(t, h.metrics, "rollcall_tls_refused_total", "expired") != 51 {
			t.Errorf("not told: %s", h.log)
		}
	})
}

// TestAServerIsVerified: by its name or address, also where that is no name which
// TLS tells the server, and against the authorities of the files.
func TestAServerIsVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		h := serveTLS(t, write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()), 100, answer)
		trusts := func(a *authority.Authority) process.ClientTLS {
			i, err := process.LoadIdentity(write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate()))
			if err != nil {
				t.Fatal(err)
			}
			return i.Client()
		}
		if err := ask(t, h, trusts(a)); err != nil {
			t.Error(err)
		}
		if err := ask(t, h, trusts(newAuthority(t))); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("another authority: %v", err)
		}
		for _, address := range []string{"other:1", "192.0.2.1:1"} {
			raw, err := h.grpc.Dial()
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := trusts(a).Credentials().ClientHandshake(t.Context(), address, raw); err == nil {
				t.Errorf("the server is taken for %s", address)
			}
			_ = raw.Close()
		}
	})
}

// TestNothingIsResumed: a session would outlive the certificate that began it.
func TestNothingIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		files := write(t, t.TempDir(), issue(t, a, nil, 0), a.Certificate())
		files.MinVersion = tls.VersionTLS12
		h := serveTLS(t, files, 100, answer)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := client(t, issue(t, a, nil, 0), a)
			c.ClientSessionCache, c.MaxVersion = tls.NewLRUClientSessionCache(10), version
			c.NextProtos = []string{"http/1.1"}
			for range 2 {
				raw, err := h.web.Dial()
				if err != nil {
					t.Fatal(err)
				}
				conn := tls.Client(raw, c)
				if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(conn); err != nil { // reads the tickets, too
					t.Fatal(err)
				}
				if s := conn.ConnectionState(); s.DidResume || s.Version != version {
					t.Errorf("%+v", s)
				}
				_ = conn.Close()
			}
		}
	})
}

// TestFilesAreReplaced: streams stay, new connections get what is new, and a file
// of no use changes nothing.
func TestFilesAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, newer := newAuthority(t), newAuthority(t)
		dir, end := t.TempDir(), make(chan struct{})
		files := write(t, dir, issue(t, older, nil, 0), older.Certificate())
		h := serveTLS(t, files, 100, func(context.Context) error { <-end; return nil })
		stream, err := hold(t, dialToy(t, h, static(client(t, issue(t, older, nil, 0), older))))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect := func(what string, a *authority.Authority, pair authority.Pair, want bool) {
			t.Helper()
			if err := get(t, h, "https", client(t, pair, a)); (err == nil) != want {
				t.Errorf("%s: %v", what, err)
			}
		}
		ofOlder, ofNewer := issue(t, older, nil, 0), issue(t, newer, nil, 0)
		expect("too early", older, ofNewer, false)

		both := append(append([]byte{}, older.Certificate()...), newer.Certificate()...)
		write(t, dir, issue(t, older, nil, 0), both)
		expect("before it was looked at", older, ofNewer, false)
		time.Sleep(process.DefaultRefresh)
		synctest.Wait()
		expect("old", older, ofOlder, true)
		expect("new", older, ofNewer, true)

		renewed := issue(t, newer, func(r *authority.Request) { r.Days = 60 }, 0)
		write(t, dir, renewed, both)
		time.Sleep(process.DefaultRefresh)
		synctest.Wait()
		expect("the new certificate", newer, ofOlder, true)
		expect("the old certificate", older, ofOlder, false)
		if got, want := value(t, h.metrics, "rollcall_tls_certificate_not_after_seconds", ""), time.Now().AddDate(0, 0, 59).Unix(); got < float64(want) {
			t.Errorf("not after %v", got)
		}

		for name, pair := range map[string]authority.Pair{
			"another key": {Certificate: renewed.Certificate, Key: ofOlder.Key},
			"expired":     issue(t, newer, nil, 31),
			"nothing":     {},
		} {
			before := lines(h.log.String(), "level=ERROR")
			write(t, dir, pair, newer.Certificate())
			time.Sleep(5 * process.DefaultRefresh)
			synctest.Wait()
			expect(name, newer, ofOlder, true)
			if value(t, h.metrics, "rollcall_tls_reload_failing", "") != 1 || lines(h.log.String(), "level=ERROR") != before+1 {
				t.Errorf("%s: %s", name, h.log)
			}
		}
		write(t, dir, renewed, newer.Certificate())
		time.Sleep(process.DefaultRefresh)
		synctest.Wait()
		expect("the old authority is gone", newer, ofOlder, false)
		expect("the new authority", newer, ofNewer, true)
		if value(t, h.metrics, "rollcall_tls_reload_failing", "") != 0 {
			t.Error("it still fails")
		}
		close(end)
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			t.Errorf("the stream: %v", err)
		}
	})
}

func TestLoadIdentityRefuses(t *testing.T) {
	a := newAuthority(t)
	good, other := issue(t, a, nil, 0), issue(t, a, nil, 0)
	old, _, err := authority.New("old.test", time.Now().AddDate(0, 0, -10), 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pair authority.Pair
		ca   []byte
		want string
	}{
		"good":           {good, a.Certificate(), ""},
		"other key":      {authority.Pair{Certificate: good.Certificate, Key: other.Key}, a.Certificate(), "private key does not match"},
		"no certificate": {authority.Pair{Key: good.Key}, a.Certificate(), "failed to find any PEM data"},
		"no key":         {authority.Pair{Certificate: good.Certificate}, a.Certificate(), "failed to find any PEM data"},
		"expired":        {issue(t, a, nil, 31), a.Certificate(), "expired at"},
		"no authority":   {good, []byte("hello"), "no certificate is in it"},
		"key for it":     {good, good.Key, "no certificate is in it"},
		"malformed":      {good, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1 is malformed"},
		"old authority":  {good, old.Certificate(), "has expired"},
		"too long":       {good, make([]byte, 1<<20+1), "more than"},
	} {
		files := write(t, t.TempDir(), test.pair, test.ca)
		_, err := process.LoadIdentity(files)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, refused := err.(*process.RefusedError); err != nil && !refused { //nolint:errorlint // it is not wrapped
			t.Errorf("%s: %T", name, err)
		}
		if err := os.Remove(files.CA); err != nil {
			t.Fatal(err)
		}
		if _, err := process.LoadIdentity(files); err == nil || !strings.Contains(err.Error(), "--tls-ca: open") {
			t.Errorf("%s, without a file: %v", name, err)
		}
	}
}

// TestABearerIsShown, as it is in the file now, and not in plain text.
func TestABearerIsShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"", "\n", "a b", "a\nb", "ü", strings.Repeat("a", 5000)} {
		put(bad)
		if _, err := process.NewBearerFile(path, false); err == nil {
			t.Errorf("%.20q is taken", bad)
		}
	}
	put("one\n")
	b, err := process.NewBearerFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"one", "two"} {
		put(token + "\n")
		md, err := b.GetRequestMetadata(t.Context())
		if err != nil || md["authorization"] != "Bearer "+token {
			t.Errorf("%v, %v", md, err)
		}
	}
	if open, err := process.NewBearerFile(path, true); err != nil || !b.RequireTransportSecurity() || open.RequireTransportSecurity() {
		t.Errorf("shown in plain text: %v", err)
	}
}
