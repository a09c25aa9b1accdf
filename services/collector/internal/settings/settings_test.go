package settings_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
)

// pair is a certificate and its key, in PEM.
func pair(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

const whole = `
relabel_configs:
- source_labels: [job]
  regex: gone
  action: drop
metric_relabel_configs:
- regex: noise
  action: labeldrop
limits:
  body_size_limit: 4MB
  sample_limit: 1000
credentials:
  basic: {basic_auth: {username: ann, password_file: password}, hosts: [node]}
  bearer: {bearer_token: hunter2-token, hosts: ["*.example.com"], allow_http: true}
  mutual:
    authorization: {type: Token, credentials: hunter2-auth}
    tls_config: {ca_file: ca.pem, cert_file: ca.pem, key_file: key.pem, server_name: x, min_version: TLS13}
    hosts: [10.0.0.0/8]
`

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t)
	write(t, dir, "ca.pem", cert)
	write(t, dir, "key.pem", key)
	write(t, dir, "password", "hunter2-password\n")
	path := write(t, dir, "collector.yaml", whole)
	s, err := settings.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Targets) != 1 || len(s.Series) != 1 || s.Limits.BodyBytes != 4<<20 || s.Limits.Samples != 1000 {
		t.Errorf("got %+v", s)
	}
	basic, bearer, mutual := s.Credentials["basic"], s.Credentials["bearer"], s.Credentials["mutual"]
	if basic.Authorization != "Basic YW5uOmh1bnRlcjItcGFzc3dvcmQ=" || basic.AllowHTTP || basic.TLS != nil || basic.TLSDigest != "" {
		t.Errorf("basic: %q", string(basic.Authorization))
	}
	if bearer.Authorization != "Bearer hunter2-token" || !bearer.AllowHTTP {
		t.Errorf("bearer: %q", string(bearer.Authorization))
	}
	if mutual.Authorization != "Token hunter2-auth" || mutual.TLS == nil || mutual.TLS.ServerName != "x" ||
		mutual.TLS.RootCAs == nil || mutual.TLS.GetClientCertificate == nil || mutual.TLSDigest == "" {
		t.Errorf("mutual: %+v", mutual.TLS)
	}

	for _, shown := range []string{s.Text, fmt.Sprintf("%v %+v %#v", s, s, s.Credentials)} {
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, "YW5u") || strings.Contains(shown, "PRIVATE") {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
	if !strings.Contains(s.Text, "<secret>") || !strings.Contains(s.Text, "password_file: password") {
		t.Errorf("shown as %s", s.Text)
	}

	again, err := settings.Load(path)
	if err != nil || again.Credentials["mutual"].TLSDigest != mutual.TLSDigest {
		t.Errorf("the same files make another digest, or %v", err)
	}
	cert, key = pair(t)
	write(t, dir, "ca.pem", cert)
	write(t, dir, "key.pem", key)
	if again, err = settings.Load(path); err != nil || again.Credentials["mutual"].TLSDigest == mutual.TLSDigest {
		t.Errorf("other certificates make the same digest, or %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	cert, key := pair(t)
	read := func(path string) ([]byte, error) {
		switch filepath.Base(path) {
		case "cert":
			return []byte(cert), nil
		case "key":
			return []byte(key), nil
		case "empty":
			return nil, nil
		case "odd":
			return []byte("a\nhunter2"), nil
		}
		return nil, fs.ErrNotExist
	}
	for _, c := range []struct{ text, want string }{
		{"foo: 1", "line 1: field foo not found"},
		{"limits:\n  foo: 1", "line 2: field foo not found"},
		{"limits: {sample_limit: 1}\nlimits: {}", "limits"},
		{"limits: {sample_limit: -1}", "sample_limit"},
		{"limits: {body_size_limit: 2GiB}", "body_size_limit"},
		{"limits: {label_value_length_limit: 2000000}", "label_value_length_limit"},
		{"---\n---\n", "more than one document"},
		{"a: [", "yaml"},
		{"relabel_configs: [~]", "rule 1 is empty"},
		{"relabel_configs: [{action: wrong}]", "action"},
		{"relabel_configs: [{regex: '('}]", "regex"},
		{"relabel_configs: [{target_label: __scrape_interval__}]", "registry"},
		{"relabel_configs: [{target_label: __scrape_timeout__}]", "registry"},
		{"metric_relabel_configs: [{action: hashmod, target_label: x}]", "modulus"},
		{"credentials: {x: ~}", "x is empty"},
		{"credentials: {'a b': {hosts: [a]}}", "a b"},
		{"credentials: {-x: {hosts: [a]}}", "-x"},
		{"credentials: {x: {hosts: [a], bearer_token: hunter2\u00e9}}", "ASCII"},
		{"credentials: {x: {}}", "hosts"},
		{"credentials: {x: {hosts: ['a b']}}", "hosts"},
		{"credentials: {x: hunter2}", "line 1"},
		{"credentials: {x: {bearer_token: [hunter2]}}", "line 1"},
		{"credentials: {x: {basic_auth: hunter2, hosts: [a]}}", "line 1"},
		{"credentials: {x: {basic_auth: 'hun`hunter2', hosts: [a]}}", "line 1"},
		{"credentials: {x: {hosts: [a], bearer_token: hunter2, basic_auth: {username: u}}}", "at most one"},
		{"credentials: {x: {hosts: [a], bearer_token: hunter2, bearer_token_file: f}}", "at most one"},
		{"credentials: {x: {hosts: [a], bearer_token_file: missing}}", "not exist"},
		{"credentials: {x: {hosts: [a], bearer_token_file: empty}}", "empty"},
		{"credentials: {x: {hosts: [a], bearer_token_file: odd}}", "control"},
		{"credentials: {x: {hosts: [a], authorization: {credentials_ref: r}}}", "secret manager"},
		{"credentials: {x: {hosts: [a], authorization: {}}}", "missing"},
		{"credentials: {x: {hosts: [a], authorization: {type: 'a b', credentials: hunter2}}}", "single word"},
		{"credentials: {x: {hosts: [a], authorization: {type: Basic, credentials: hunter2}}}", "basic"},
		{"credentials: {x: {hosts: [a], basic_auth: {username: 'a:b', password: hunter2}}}", "colon"},
		{"credentials: {x: {hosts: [a], basic_auth: {username: a, password: \"hunter2\\n\"}}}", "control"},
		{"credentials: {x: {hosts: [a], tls_config: {ca: hunter2}}}", "ca"},
		{"credentials: {x: {hosts: [a], tls_config: {key: hunter2}}}", "client key"},
		{"credentials: {x: {hosts: [a], tls_config: {cert_file: cert, key: hunter2}}}", "pair"},
		{"credentials: {x: {hosts: [a], tls_config: {cert_file: cert, key_file: cert}}}", "pair"},
		{"credentials: {x: {hosts: [a], tls_config: {key: hunter2, key_file: key, cert_file: cert}}}", "key"},
		{"credentials: {x: {hosts: [a], tls_config: {server_name: 'a b'}}}", "server_name"},
		{"credentials: {x: {hosts: [a], tls_config: {min_version: TLS13, max_version: TLS12}}}", "versions"},
		{"credentials: {x: {hosts: [a], proxy_url: 'http://p'}}", "proxy_url"},
		{"credentials: {x: {hosts: [a], oauth2: {}}}", "oauth2"},
		{"credentials: {x: {hosts: [a], follow_redirects: true}}", "follow_redirects"},
		{strings.Repeat("#", 1<<20+1), "larger"},
	} {
		_, err := settings.Parse([]byte(c.text), "/etc", read)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.100s: %v, want %q", c.text, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%.100s: %v repeats the secret", c.text, err)
		}
	}
	for _, text := range []string{"", "# nothing\n", "{}", "credentials: {}", "limits: ~"} {
		if _, err := settings.Parse([]byte(text), "", read); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := settings.Load(dir); err == nil {
		t.Error("a directory was read")
	}
	if _, err := settings.Load(os.DevNull); err == nil {
		t.Error("a device was read")
	}
	if _, err := settings.Load(write(t, dir, "big", strings.Repeat("#", 1<<20+1))); err == nil {
		t.Error("a file over the bound was read")
	}
	if _, err := settings.Load(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// FuzzSettings: nothing panics, and what is taken can be shown, is taken again
// as it is shown, and has nothing that a collection could not be run with.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("relabel_configs: [{action: labelmap, regex: 'a(.*)', replacement: '$1'}]"))
	f.Add([]byte("a: &a [x, x]\nb: &b [*a, *a]\nlimits: *b"))
	cert, key := pair(f)
	read := func(path string) ([]byte, error) {
		if strings.Contains(path, "key") {
			return []byte(key), nil
		}
		return []byte(cert), nil
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := settings.Parse(data, "/etc", read)
		if err != nil {
			return
		}
		if s.Limits.Samples < 0 || s.Limits.BodyBytes < 0 {
			t.Errorf("limits %+v", s.Limits)
		}
		for _, rule := range append(s.Targets, s.Series...) {
			if err := rule.Validate(model.UTF8Validation); err != nil {
				t.Error(err)
			}
		}
		for name, c := range s.Credentials {
			if c.Hosts.String() == "" {
				t.Errorf("credential %q is for no host", name)
			}
		}
	})
}
