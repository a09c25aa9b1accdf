package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
)

// Bounds of sinks.
const (
	maxSinks        = 16
	maxConcurrency  = 64 // a sink has no more lanes
	maxSamples      = 1_000_000
	minQueueBytes   = 4 << 20
	minMemoryBytes  = 1 << 20
	maxMemoryBytes  = 8 << 30
	maxSinkDuration = time.Hour
)

// A Queue bounds what waits for the sinks; 0 is not told.
type Queue struct {
	// MaxBytes is on disk, for all sinks together.
	MaxBytes units.Base2Bytes `yaml:"max_bytes,omitempty"`

	// MemoryBytes is in memory, while the disk fails.
	MemoryBytes units.Base2Bytes `yaml:"memory_bytes,omitempty"`
}

// A Sink is a place where samples are sent: one of RemoteWrite and OTLP, the
// other is nil.
type Sink struct {
	// Name is in metrics and in files; no two sinks have the same.
	Name string

	RemoteWrite *RemoteWrite
	OTLP        *OTLP

	// ExternalLabels are put on series that do not have them, then Relabel is
	// applied.
	ExternalLabels labels.Labels
	Relabel        []*relabel.Config

	// How samples are sent; 0 is not told.
	MaxSamplesPerSend      int
	MaxConcurrency         int
	BatchDeadline, Timeout time.Duration
	MinBackoff, MaxBackoff time.Duration

	// Digest differs where anything of it does, secrets included. Of the files that
	// it names it has those that are read with it.
	Digest string
}

// A RemoteWrite is a receiver of Prometheus remote write.
type RemoteWrite struct {
	// URL may have a password, which its Redacted hides.
	URL config.URL

	// HTTP is how it is connected to. The files that it names are read anew when
	// they change.
	HTTP config.HTTPClientConfig

	// Headers go with each request.
	Headers map[string]string

	// Protocol is "auto", "1.0" or "2.0".
	Protocol string

	// NoExemplars and NoNativeHistograms leave these out.
	NoExemplars, NoNativeHistograms bool
}

// An OTLP is a receiver of OTLP metrics over gRPC.
type OTLP struct {
	// Endpoint is host:port.
	Endpoint string

	// TLS is nil for a connection in the clear. Its files are read with the
	// configuration; TLSDigest differs where TLS does.
	TLS       *tls.Config
	TLSDigest string

	// Headers are sent as metadata, under names in lower case.
	Headers map[string]config.Secret

	// Compression is "gzip" or "none".
	Compression string
}

// sinkName is what can be a label's value and a file's name.
var sinkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// sink is how the YAML of one is laid out.
type sink struct {
	Name              string            `yaml:"name"`
	RemoteWrite       *remoteWrite      `yaml:"remote_write,omitempty"`
	OTLP              *otlp             `yaml:"otlp,omitempty"`
	ExternalLabels    labels.Labels     `yaml:"external_labels,omitempty"`
	Relabel           []*relabel.Config `yaml:"write_relabel_configs,omitempty"`
	MaxSamplesPerSend int               `yaml:"max_samples_per_send,omitempty"`
	MaxConcurrency    int               `yaml:"max_concurrency,omitempty"`
	BatchDeadline     model.Duration    `yaml:"batch_send_deadline,omitempty"`
	Timeout           model.Duration    `yaml:"timeout,omitempty"`
	MinBackoff        model.Duration    `yaml:"min_backoff,omitempty"`
	MaxBackoff        model.Duration    `yaml:"max_backoff,omitempty"`
}

// remoteWrite has Prometheus's words where it has them.
type remoteWrite struct {
	URL                  *config.URL              `yaml:"url"`
	Protocol             string                   `yaml:"protocol,omitempty"`
	Headers              map[string]config.Secret `yaml:"headers,omitempty"`
	SendExemplars        *bool                    `yaml:"send_exemplars,omitempty"`
	SendNativeHistograms *bool                    `yaml:"send_native_histograms,omitempty"`

	HTTP config.HTTPClientConfig `yaml:",inline"`
}

// UnmarshalYAML is as in Prometheus, but for redirects: one that turns a request
// into a GET is answered with success, and nothing is stored.
func (r *remoteWrite) UnmarshalYAML(unmarshal func(any) error) error {
	r.HTTP = config.DefaultHTTPClientConfig
	r.HTTP.FollowRedirects = false
	type plain remoteWrite
	return unmarshal((*plain)(r))
}

type otlp struct {
	Endpoint    string                   `yaml:"endpoint"`
	Insecure    bool                     `yaml:"insecure,omitempty"`
	TLS         *config.TLSConfig        `yaml:"tls_config,omitempty"`
	Headers     map[string]config.Secret `yaml:"headers,omitempty"`
	Compression string                   `yaml:"compression,omitempty"`
}

// completeSinks checks the sinks and reads the files that they name.
func (f *file) completeSinks(data []byte, from source) ([]Sink, error) {
	digests, err := sinkDigests(data)
	switch {
	case err != nil:
		return nil, err
	case len(f.Sinks) > maxSinks:
		return nil, fmt.Errorf("sinks: %d, at most %d are allowed", len(f.Sinks), maxSinks)
	case len(f.Sinks) != len(digests):
		return nil, errors.New("sinks: want a list")
	}
	var all []Sink
	for i, one := range f.Sinks {
		if one == nil || !sinkName.MatchString(one.Name) || one.Name == "tsdb" {
			return nil, fmt.Errorf("sinks: sink %d: name: want [A-Za-z0-9][A-Za-z0-9._-]{0,63}, and not tsdb, which is the collector's own store", i+1)
		}
		if slices.ContainsFunc(all, func(s Sink) bool { return strings.EqualFold(s.Name, one.Name) }) {
			return nil, fmt.Errorf("sinks: two are named %s", one.Name)
		}
		made, err := one.complete(from)
		if err != nil {
			return nil, fmt.Errorf("sinks: %s: %w", one.Name, err)
		}
		made.Digest = digests[i]
		if made.OTLP != nil {
			made.Digest = digest(digests[i], made.OTLP.TLSDigest)
		}
		all = append(all, made)
	}
	return all, nil
}

func (s *sink) complete(from source) (Sink, error) {
	out := Sink{
		Name: s.Name, ExternalLabels: s.ExternalLabels, Relabel: s.Relabel,
		MaxSamplesPerSend: s.MaxSamplesPerSend, MaxConcurrency: s.MaxConcurrency,
		BatchDeadline: time.Duration(s.BatchDeadline), Timeout: time.Duration(s.Timeout),
		MinBackoff: time.Duration(s.MinBackoff), MaxBackoff: time.Duration(s.MaxBackoff),
	}
	if err := s.check(); err != nil {
		return out, err
	}
	var err error
	switch {
	case s.RemoteWrite != nil && s.OTLP != nil, s.RemoteWrite == nil && s.OTLP == nil:
		return out, errors.New("want one of remote_write and otlp")
	case s.RemoteWrite != nil:
		if out.RemoteWrite, err = s.RemoteWrite.complete(from); err != nil {
			return out, fmt.Errorf("remote_write: %w", err)
		}
	default:
		if out.OTLP, err = s.OTLP.complete(from); err != nil {
			return out, fmt.Errorf("otlp: %w", err)
		}
	}
	return out, nil
}

func (s *sink) check() error {
	if err := checkRules("write_relabel_configs", s.Relabel); err != nil {
		return err
	}
	var bad error
	s.ExternalLabels.Range(func(l labels.Label) {
		if !model.UTF8Validation.IsValidLabelName(l.Name) || l.Name == model.MetricNameLabel || !model.LabelValue(l.Value).IsValid() {
			bad = fmt.Errorf("external_labels: %.100q is no label that can be added", l.Name)
		}
	})
	switch {
	case bad != nil:
		return bad
	case s.MaxSamplesPerSend < 0 || s.MaxSamplesPerSend > maxSamples:
		return fmt.Errorf("max_samples_per_send is %d, want 1 to %d", s.MaxSamplesPerSend, maxSamples)
	case s.MaxConcurrency < 0 || s.MaxConcurrency > maxConcurrency:
		return fmt.Errorf("max_concurrency is %d, want 1 to %d", s.MaxConcurrency, maxConcurrency)
	case s.MinBackoff > s.MaxBackoff && s.MaxBackoff != 0:
		return errors.New("min_backoff is more than max_backoff")
	}
	for word, d := range map[string]model.Duration{
		"batch_send_deadline": s.BatchDeadline, "timeout": s.Timeout, "min_backoff": s.MinBackoff, "max_backoff": s.MaxBackoff,
	} {
		if time.Duration(d) > maxSinkDuration {
			return fmt.Errorf("%s is %v, want at most %v", word, d, maxSinkDuration)
		}
	}
	return nil
}

// reserved reports whether a header is the protocols' own.
func reserved(header string) bool {
	switch textproto.CanonicalMIMEHeaderKey(header) {
	case "Accept-Encoding", "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Host",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Prometheus-Remote-Write-Version":
		return true
	default:
		return false
	}
}

// checkHeaders refuses headers that cannot be added.
func checkHeaders(headers map[string]config.Secret) error {
	seen := map[string]bool{}
	for name, value := range headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		twice := seen[canonical]
		seen[canonical] = true
		switch {
		case twice: // which one is sent would be chance, and may choose a tenant
			return fmt.Errorf("headers: %s is there twice", canonical)
		case name == "" || strings.ContainsFunc(name, oddInName):
			return fmt.Errorf("headers: %.100q is no name of a header", name)
		case reserved(name):
			return fmt.Errorf("headers: %s is not to be set here", name)
		case len(value) > maxSecret || strings.ContainsFunc(string(value), func(r rune) bool { return r < ' ' && r != '\t' || r > '~' }):
			return fmt.Errorf("headers: %s: want printable ASCII of at most %d bytes", name, maxSecret)
		}
	}
	return nil
}

func (r *remoteWrite) complete(from source) (*RemoteWrite, error) {
	if r.URL == nil || r.URL.URL == nil || r.URL.Host == "" || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
		return nil, errors.New("url: want http:// or https:// and a host")
	}
	switch r.Protocol {
	case "":
		r.Protocol = "auto"
	case "auto", "1.0", "2.0":
	default:
		return nil, errors.New("protocol: want auto, 1.0 or 2.0")
	}
	if r.HTTP.FollowRedirects {
		return nil, errors.New("follow_redirects: redirects are not followed")
	}
	if err := checkHeaders(r.Headers); err != nil {
		return nil, err
	}
	r.HTTP.SetDirectory(from.dir)
	if err := r.HTTP.Validate(); err != nil {
		return nil, err
	}
	if err := from.readable(&r.HTTP); err != nil {
		return nil, err
	}
	out := &RemoteWrite{
		URL: *r.URL, HTTP: r.HTTP, Protocol: r.Protocol, Headers: make(map[string]string, len(r.Headers)),
		NoExemplars:        r.SendExemplars != nil && !*r.SendExemplars,
		NoNativeHistograms: r.SendNativeHistograms != nil && !*r.SendNativeHistograms,
	}
	for name, value := range r.Headers {
		out.Headers[name] = string(value)
	}
	return out, nil
}

// readable checks the files that an HTTP configuration names, before anything is
// sent: later they are read when they are needed.
func (s source) readable(c *config.HTTPClientConfig) error {
	files := []string{c.TLSConfig.CAFile, c.TLSConfig.CertFile, c.TLSConfig.KeyFile}
	refs := []string{c.TLSConfig.CARef, c.TLSConfig.CertRef, c.TLSConfig.KeyRef}
	if b := c.BasicAuth; b != nil {
		files, refs = append(files, b.UsernameFile, b.PasswordFile), append(refs, b.UsernameRef, b.PasswordRef)
	}
	if a := c.Authorization; a != nil {
		files, refs = append(files, a.CredentialsFile), append(refs, a.CredentialsRef)
	}
	if o := c.OAuth2; o != nil {
		files = append(files, o.ClientSecretFile, o.ClientCertificateKeyFile, o.TLSConfig.CAFile, o.TLSConfig.CertFile, o.TLSConfig.KeyFile)
		refs = append(refs, o.ClientSecretRef, o.ClientCertificateKeyRef)
	}
	if c.HTTPHeaders != nil {
		for _, h := range c.HTTPHeaders.Headers {
			files = append(files, h.Files...)
		}
	}
	for _, ref := range refs {
		if ref != "" {
			return errors.New("there is no secret manager here for a reference")
		}
	}
	for _, path := range files {
		if path == "" {
			continue
		}
		if _, err := s.read(path); err != nil {
			return err
		}
	}
	// What is in them is checked where it can be: by making the client of them.
	client, err := config.NewClientFromConfig(*c, "check")
	if err != nil {
		return err
	}
	client.CloseIdleConnections()
	return nil
}

func (o *otlp) complete(from source) (*OTLP, error) {
	host, port, err := net.SplitHostPort(o.Endpoint)
	if err != nil || host == "" || port == "" || strings.ContainsAny(o.Endpoint, "/@ ") {
		return nil, errors.New("endpoint: want host:port")
	}
	switch o.Compression {
	case "":
		o.Compression = "gzip"
	case "gzip", "none":
	default:
		return nil, errors.New("compression: want gzip or none")
	}
	if err := checkHeaders(o.Headers); err != nil {
		return nil, err
	}
	out := &OTLP{Endpoint: o.Endpoint, Compression: o.Compression, Headers: make(map[string]config.Secret, len(o.Headers))}
	for name, value := range o.Headers {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "grpc-") || strings.HasSuffix(name, "-bin") {
			return nil, fmt.Errorf("headers: %s is not to be set here", name)
		}
		out.Headers[name] = value
	}
	switch {
	case o.Insecure && o.TLS != nil:
		return nil, errors.New("insecure and tls_config are not for one connection")
	case o.Insecure:
		return out, nil
	case o.TLS == nil:
		o.TLS = &config.TLSConfig{}
	}
	out.TLS, out.TLSDigest, err = completeTLS(*o.TLS, from)
	return out, err
}

func (q *Queue) check() error {
	switch {
	case q.MaxBytes != 0 && q.MaxBytes < minQueueBytes:
		return fmt.Errorf("queue: max_bytes is %d, want at least %d", q.MaxBytes, minQueueBytes)
	case q.MemoryBytes != 0 && (q.MemoryBytes < minMemoryBytes || q.MemoryBytes > maxMemoryBytes):
		return fmt.Errorf("queue: memory_bytes is %d, want %d to %d", q.MemoryBytes, minMemoryBytes, int64(maxMemoryBytes))
	}
	return nil
}
