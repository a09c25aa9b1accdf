package settings_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
)

// What sinks share by a merge key is each one's.
func TestSinkDigestsOfMergedSinks(t *testing.T) {
	const text = `
sinks:
- &first
  name: a
  remote_write: &write {url: 'http://one/', headers: {x: y}}
- <<: *first
  name: b
- name: c
  remote_write: {<<: *write, protocol: "2.0"}
- <<: *first
  name: d
  remote_write: {protocol: "2.0"}
`
	before, err := parseSinks(t, text)
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseSinks(t, strings.ReplaceAll(text, "http://one/", "http://two/"))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range before.Sinks {
		if other := after.Sinks[i]; s.RemoteWrite.URL.String() == other.RemoteWrite.URL.String() {
			t.Errorf("%s is not merged: %v", s.Name, s.RemoteWrite.URL)
		} else if s.Digest == other.Digest {
			t.Errorf("%s has another URL, and the same digest", s.Name)
		}
	}
}

// The files of a remote write are read when they are needed, those of OTLP with
// the configuration: a sink that is not made anew would go on with the old ones.
func TestSinkDigestsOfFiles(t *testing.T) {
	digests := func() [2]string {
		cert, key := pair(t)
		s, err := settings.Parse([]byte(`
sinks:
- name: write
  remote_write: {url: 'https://x/', tls_config: {cert_file: cert, key_file: key}}
- name: otel
  otlp: {endpoint: 'x:1', tls_config: {cert_file: cert, key_file: key}}
`), writeAll(t, map[string]string{"cert": cert, "key": key}), settings.ReadFile)
		if err != nil {
			t.Fatal(err)
		}
		return [2]string{s.Sinks[0].Digest, s.Sinks[1].Digest}
	}
	before, after := digests(), digests()
	if before[0] != after[0] {
		t.Error("other files, and another digest of a remote write")
	}
	if before[1] == after[1] {
		t.Error("other files, and the same digest of an OTLP sink")
	}
}

// writeAll writes files into a directory.
func writeAll(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	return dir
}

func TestSecretsOfURLs(t *testing.T) {
	s, err := parseSinks(t, `
sinks:
- name: a
  remote_write:
    url: http://ann:hunter2-password@one/write?token=hunter2-token
    proxy_url: http://ann:hunter2-proxy@two/
    oauth2:
      client_id: ann
      client_secret: hunter2-client
      token_url: http://ann:hunter2-password@three/token?key=hunter2-key
      endpoint_params: {password: hunter2-param}
`)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.Text, "hunter2") {
		t.Errorf("secrets are shown:\n%s", s.Text)
	}
	for _, want := range []string{"one/write?", "two/", "three/token?", "password:"} {
		if !strings.Contains(s.Text, want) {
			t.Errorf("%s is not shown:\n%s", want, s.Text)
		}
	}
	w := s.Sinks[0].RemoteWrite
	if w.URL.String() != "http://ann:hunter2-password@one/write?token=hunter2-token" ||
		w.HTTP.OAuth2.TokenURL != "http://ann:hunter2-password@three/token?key=hunter2-key" ||
		w.HTTP.OAuth2.EndpointParams["password"] != "hunter2-param" {
		t.Errorf("what is hidden is not used: %v, %+v", w.URL, w.HTTP.OAuth2)
	}
}

// The errors of net/url quote what they could not parse.
func TestErrorsRepeatNoURL(t *testing.T) {
	for _, url := range []string{"http://ann:50%hunter2@x/", "http://ann:hunter2@x:port/", "http://hunter2:hunter2/ab@x/"} {
		for _, words := range []string{"url: '" + url + "'", "url: http://x/, proxy_url: '" + url + "'"} {
			_, err := settings.Parse([]byte("sinks: [{name: a, remote_write: {"+words+"}}]"), "", func(string) ([]byte, error) { return nil, fs.ErrNotExist })
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "URL") {
				t.Errorf("%s: %v", words, err)
			}
		}
	}
}
