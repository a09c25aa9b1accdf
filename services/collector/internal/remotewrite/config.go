package remotewrite

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// A Protocol is which remote write is spoken.
type Protocol int

// The protocols.
const (
	// Auto is 2.0 where the receiver confirms it, else 1.0.
	Auto Protocol = iota

	// V2 is 2.0 only. A receiver that does not confirm what it wrote is waited
	// for, as for one that is down.
	V2

	// V1 is 1.0 only.
	V1
)

// String is how people call it.
func (p Protocol) String() string {
	switch p {
	case V2:
		return "remote write 2.0"
	case V1:
		return "remote write 1.0"
	default:
		return "remote write"
	}
}

// Config is what a Client needs.
type Config struct {
	// Name is the sink's, for the log.
	Name string

	// URL is where requests are posted; http or https. A password in it is sent
	// as basic authentication, and never shown.
	URL string

	// HTTP sends the requests; it brings authentication, TLS and proxies. Its
	// transport should keep as many idle connections as there may be requests at
	// a time. Its rule for redirects is not used: none is followed.
	HTTP *http.Client

	// Headers are sent with every request, X-Scope-OrgID for one. Those that the
	// protocol sets itself are refused.
	Headers map[string]string

	// Protocol is Auto unless an operator knows better.
	Protocol Protocol

	// OmitExemplars sends none.
	OmitExemplars bool

	// OmitNativeHistograms sends none; they count as refused, unsupported.
	OmitNativeHistograms bool

	// UserAgent is sent as such; "rollcall" when empty.
	UserAgent string

	// Logger is told of changes of the protocol; nil for none.
	Logger *slog.Logger
}

// A Client is a deliver.Transport to one receiver. It is safe for concurrent
// use.
type Client struct {
	http     *http.Client
	url      string
	target   string // the URL without secrets
	secrets  []string
	headers  http.Header
	encoding options
	talk     *talk
	logger   *slog.Logger

	// plainUntil is until when native histograms are left out, since the receiver
	// does not take them; nil when it was never found out. Its reading of the
	// monotonic clock is what counts: a clock that is set changes nothing.
	plainUntil atomic.Pointer[time.Time]

	scratch sync.Pool // of *scratch
	bodies  sync.Pool // of *body
}

var _ deliver.Transport = (*Client)(nil)

// New makes a client. It does not connect.
func New(config Config) (*Client, error) {
	target, err := url.Parse(config.URL)
	if err != nil {
		// The text of the error would hold the URL, with its secrets.
		return nil, errors.New("remotewrite: the URL cannot be parsed")
	}
	if target.Scheme != "http" && target.Scheme != "https" || target.Host == "" {
		return nil, errors.New("remotewrite: the URL is not one of http or https, with a host")
	}
	if config.HTTP == nil {
		return nil, errors.New("remotewrite: no HTTP client")
	}
	headers, err := headersOf(config)
	if err != nil {
		return nil, err
	}
	logger := config.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	client := *config.HTTP
	// A redirect of a POST is either made a GET without a body, which loses the
	// samples, or sends them and the credentials to where nobody configured.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{
		http:     &client,
		url:      config.URL,
		target:   withoutSecrets(target),
		secrets:  secretsOf(target, headers),
		headers:  headers,
		encoding: options{exemplars: !config.OmitExemplars, histograms: !config.OmitNativeHistograms},
		logger:   logger.With("sink", config.Name),
	}
	c.talk = newTalk(config.Protocol)
	c.scratch.New = func() any { return new(scratch) }
	c.bodies.New = func() any { return new(body) }
	return c, nil
}

// NewSeries makes what the series of one table are compiled into.
func (c *Client) NewSeries() deliver.Series { return NewSeries() }

// Protocol names the protocol that is spoken now; it is empty before the first
// answer that tells.
func (c *Client) Protocol() string { return c.talk.name() }

// Target is where the receiver is, without secrets.
func (c *Client) Target() string { return c.target }

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// headersOf are the headers of every request, whatever its protocol.
func headersOf(config Config) (http.Header, error) {
	h := http.Header{}
	for name, value := range config.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("remotewrite: the header %q is not one", name)
		}
		switch canonical {
		case "Content-Encoding", "Content-Length", "Content-Type", "Host", "Transfer-Encoding", "Connection", versionHeader:
			return nil, fmt.Errorf("remotewrite: the header %q is the protocol's own", name)
		}
		h.Set(canonical, value)
	}
	if h.Get("User-Agent") == "" {
		h.Set("User-Agent", "rollcall")
		if config.UserAgent != "" {
			h.Set("User-Agent", config.UserAgent)
		}
	}
	h.Set("Content-Encoding", "snappy")
	return h, nil
}

// headersFor are the headers of a request.
func (c *Client) headersFor(p Protocol) http.Header {
	h := maps.Clone(c.headers)
	if p == V2 {
		h["Content-Type"] = []string{"application/x-protobuf;proto=io.prometheus.write.v2.Request"}
		h[versionHeader] = []string{"2.0.0"}
	} else {
		// As old as 1.0 is, some of its receivers do not know the parameter.
		h["Content-Type"] = []string{"application/x-protobuf"}
		h[versionHeader] = []string{"0.1.0"}
	}
	return h
}

// withoutSecrets is a URL as people may see it.
func withoutSecrets(u *url.URL) string {
	shown := *u
	shown.User = nil
	shown.RawQuery, shown.ForceQuery = "", false
	shown.Fragment, shown.RawFragment = "", ""
	return shown.String()
}

// secretsOf are the texts that a receiver may send back and that must not be
// shown. What the HTTP client adds is not known here.
func secretsOf(u *url.URL, headers http.Header) []string {
	secrets := secretsIn(headers)
	if password, ok := u.User.Password(); ok {
		secrets = addSecret(secrets, password)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			secrets = addSecret(secrets, v)
		}
	}
	return addSecret(secrets, u.RawQuery)
}

// secretsIn are those of headers, the longer ones first: a credential, what is
// behind its scheme, and the password in it.
func secretsIn(headers http.Header) []string {
	var secrets []string
	for name, values := range headers {
		lower := strings.ToLower(name)
		secret := func(word string) bool { return strings.Contains(lower, word) }
		if len(values) == 0 || !slices.ContainsFunc([]string{"auth", "token", "key", "secret", "cookie", "password"}, secret) {
			continue
		}
		secrets = addSecret(secrets, values[0])
		scheme, credential, ok := strings.Cut(values[0], " ")
		if !ok {
			continue
		}
		secrets = addSecret(secrets, credential)
		if raw, err := base64.StdEncoding.DecodeString(credential); err == nil && strings.EqualFold(scheme, "basic") {
			_, password, _ := strings.Cut(string(raw), ":")
			secrets = addSecret(secrets, password)
		}
	}
	return secrets
}

func addSecret(secrets []string, s string) []string {
	if len(s) > 3 {
		return append(secrets, s)
	}
	return secrets
}
