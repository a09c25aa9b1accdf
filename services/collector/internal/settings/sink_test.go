package settings_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
)

const sinks = `
queue: {max_bytes: 2GiB, memory_bytes: 16MiB}
sinks:
- name: mimir
  remote_write:
    url: https://user:hunter2-url@mimir.example.com/api/v1/push
    headers: {x-scope-orgid: hunter2-tenant}
    basic_auth: {username: ann, password_file: password}
    protocol: "2.0"
    send_exemplars: false
  external_labels: {region: eu}
  write_relabel_configs:
  - {regex: debug, source_labels: [__name__], action: drop}
  max_samples_per_send: 500
  max_concurrency: 4
  batch_send_deadline: 2s
  timeout: 5s
  min_backoff: 50ms
  max_backoff: 10s
- name: otel
  otlp:
    endpoint: otel.example.com:4317
    headers: {X-Token: hunter2-token}
    tls_config: {server_name: other.example.com}
`

func parseSinks(t testing.TB, text string) (*settings.Settings, error) {
	t.Helper()
	return settings.Parse([]byte(text), "dir", func(path string) ([]byte, error) {
		if path == "dir/password" {
			return []byte("hunter2-file\n"), nil
		}
		return nil, fs.ErrNotExist
	})
}

func TestSinks(t *testing.T) {
	s, err := parseSinks(t, sinks)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.Text, "hunter2") {
		t.Errorf("secrets are shown:\n%s", s.Text)
	}
	if s.Queue.MaxBytes != 2<<30 || s.Queue.MemoryBytes != 16<<20 {
		t.Errorf("queue %+v", s.Queue)
	}
	mimir, otel := s.Sinks[0], s.Sinks[1]
	if diff := cmp.Diff(map[string]string{"x-scope-orgid": "hunter2-tenant"}, mimir.RemoteWrite.Headers); diff != "" {
		t.Error(diff)
	}
	switch w := mimir.RemoteWrite; {
	case w.URL.String() != "https://user:hunter2-url@mimir.example.com/api/v1/push", w.Protocol != "2.0",
		!w.NoExemplars, w.NoNativeHistograms, w.HTTP.FollowRedirects,
		w.HTTP.BasicAuth.PasswordFile != "dir/password":
		t.Errorf("remote write %+v", w)
	}
	switch {
	case !labels.Equal(mimir.ExternalLabels, labels.FromStrings("region", "eu")), len(mimir.Relabel) != 1,
		mimir.MaxSamplesPerSend != 500, mimir.MaxConcurrency != 4, mimir.BatchDeadline != 2*time.Second,
		mimir.Timeout != 5*time.Second, mimir.MinBackoff != 50*time.Millisecond, mimir.MaxBackoff != 10*time.Second:
		t.Errorf("sink %+v", mimir)
	}
	switch o := otel.OTLP; {
	case o.Endpoint != "otel.example.com:4317", o.TLS.ServerName != "other.example.com", o.Compression != "gzip",
		string(o.Headers["x-token"]) != "hunter2-token":
		t.Errorf("otlp %+v", o)
	}
}

// A reload restarts a sink whose digest is another one, and no other.
func TestSinkDigests(t *testing.T) {
	digests := func(text string) [2]string {
		s, err := parseSinks(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return [2]string{s.Sinks[0].Digest, s.Sinks[1].Digest}
	}
	before := digests(sinks)
	if after := digests(strings.ReplaceAll(sinks, ": ", ":   ") + "# a comment\n"); after != before {
		t.Error("the digest is of the spelling")
	}
	for _, secret := range []string{"hunter2-url", "hunter2-tenant", "500"} {
		if after := digests(strings.ReplaceAll(sinks, secret, "7")); after[0] == before[0] || after[1] != before[1] {
			t.Errorf("another %s: %t %t", secret, after[0] == before[0], after[1] == before[1])
		}
	}
}

func TestSinksRefused(t *testing.T) {
	const write = "remote_write: {url: http://x/w}"
	for name, text := range map[string]string{
		"no name":                   "sinks: [{" + write + "}]",
		"a name with a slash":       "sinks: [{name: a/b, " + write + "}]",
		"the store's name":          "sinks: [{name: tsdb, " + write + "}]",
		"a name twice":              "sinks: [{name: a, " + write + "}, {name: A, " + write + "}]",
		"an empty one":              "sinks: [null]",
		"neither kind":              "sinks: [{name: a}]",
		"both kinds":                "sinks: [{name: a, " + write + ", otlp: {endpoint: 'x:1'}}]",
		"no url":                    "sinks: [{name: a, remote_write: {}}]",
		"another scheme":            "sinks: [{name: a, remote_write: {url: ftp://x/w}}]",
		"no host":                   "sinks: [{name: a, remote_write: {url: 'http:///w'}}]",
		"an unknown protocol":       "sinks: [{name: a, remote_write: {url: http://x/w, protocol: '3.0'}}]",
		"an unknown word":           "sinks: [{name: a, remote_write: {url: http://x/w, color: red}}]",
		"a protocol's header":       "sinks: [{name: a, remote_write: {url: http://x/w, headers: {content-type: x}}}]",
		"a header of two lines":     `sinks: [{name: a, remote_write: {url: http://x/w, headers: {x-a: "x\ny"}}}]`,
		"a header twice":            "sinks: [{name: a, remote_write: {url: http://x/w, headers: {X-Scope-OrgID: a, x-scope-orgid: b}}}]",
		"redirects":                 "sinks: [{name: a, remote_write: {url: http://x/w, follow_redirects: true}}]",
		"a missing file":            "sinks: [{name: a, remote_write: {url: http://x/w, authorization: {credentials_file: none}}}]",
		"a reference":               "sinks: [{name: a, remote_write: {url: http://x/w, authorization: {credentials_ref: none}}}]",
		"two authorizations":        "sinks: [{name: a, remote_write: {url: http://x/w, bearer_token: a, basic_auth: {username: b}}}]",
		"a bad rule":                "sinks: [{name: a, " + write + ", write_relabel_configs: [{action: sing}]}]",
		"a name as external label":  "sinks: [{name: a, " + write + ", external_labels: {__name__: x}}]",
		"too many samples":          "sinks: [{name: a, " + write + ", max_samples_per_send: 10000000}]",
		"too much at a time":        "sinks: [{name: a, " + write + ", max_concurrency: 65}]",
		"a backoff upside down":     "sinks: [{name: a, " + write + ", min_backoff: 2s, max_backoff: 1s}]",
		"a timeout of a day":        "sinks: [{name: a, " + write + ", timeout: 1d}]",
		"an endpoint with a scheme": "sinks: [{name: a, otlp: {endpoint: 'http://x:1'}}]",
		"an endpoint without port":  "sinks: [{name: a, otlp: {endpoint: x}}]",
		"insecure and TLS":          "sinks: [{name: a, otlp: {endpoint: 'x:1', insecure: true, tls_config: {server_name: y}}}]",
		"an unknown compression":    "sinks: [{name: a, otlp: {endpoint: 'x:1', compression: lz4}}]",
		"a binary header":           "sinks: [{name: a, otlp: {endpoint: 'x:1', headers: {a-bin: x}}}]",
		"too many":                  "sinks: [" + strings.Repeat("{name: a, "+write+"}, ", 17) + "]",
		"a map":                     "sinks: {name: a}",
		"a small queue":             "queue: {max_bytes: 1KiB}",
		"a small memory":            "queue: {memory_bytes: 1KiB}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseSinks(t, text); err == nil {
				t.Error("taken")
			} else if errors.Is(err, fs.ErrNotExist) != (name == "a missing file") {
				t.Error(err)
			}
		})
	}
}
