package settings

import (
	"fmt"
	"net/url"

	"github.com/prometheus/common/config"
	"go.yaml.in/yaml/v2"
)

// secret stands for what is not shown, as in Prometheus.
const secret = "<secret>"

// shown is the file as people may see it. What has the type of a secret hides
// itself; what receivers are told in a URL, or to get a token, is no less of one.
// The file is good for nothing else thereafter.
func (f *file) shown() (string, error) {
	for _, one := range f.Sinks {
		if w := one.RemoteWrite; w != nil {
			w.hide()
		}
	}
	text, err := yaml.Marshal(f)
	if err != nil {
		return "", fmt.Errorf("it cannot be shown: %w", err)
	}
	return string(text), nil
}

// hide takes secrets out. What it changes is a copy: a Sink has the other.
func (r *remoteWrite) hide() {
	r.URL = &config.URL{URL: withoutQuery(r.URL.URL)}
	if r.HTTP.OAuth2 == nil {
		return
	}
	o := *r.HTTP.OAuth2
	if u, err := url.Parse(o.TokenURL); err == nil {
		o.TokenURL = withoutQuery(u).Redacted()
	} else {
		o.TokenURL = secret
	}
	params := make(map[string]string, len(o.EndpointParams))
	for name := range o.EndpointParams {
		params[name] = secret
	}
	o.EndpointParams = params
	r.HTTP.OAuth2 = &o
}

// withoutQuery is a URL whose query is not told. The password is for Redacted.
func withoutQuery(u *url.URL) *url.URL {
	hidden := *u
	if hidden.RawQuery != "" {
		hidden.RawQuery = secret
	}
	return &hidden
}
