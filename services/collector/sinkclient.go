package collector

import (
	"context"
	"net"
	"net/http"
	"time"

	promconfig "github.com/prometheus/common/config"
)

// A dialer makes a connection.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// minLogin is how long a token is waited for at least: it is kept, so that one that
// takes longer than a request may is no loss.
const minLogin = 10 * time.Second

// sinkClient is the HTTP client of a sink's configuration; nil dials TCP. A token is
// waited for no longer than an answer of the receiver, or minLogin: whoever fetches one
// does not heed the context of the request that needs it, so without a bound a
// server that never answers would hold up the sink for ever, and in silence.
func sinkClient(c promconfig.HTTPClientConfig, name string, timeout time.Duration, dial dialer) (*http.Client, error) {
	var options []promconfig.HTTPClientOption
	if dial != nil {
		options = append(options, promconfig.WithDialContextFunc(dial))
	} else {
		dial = (&net.Dialer{}).DialContext
	}
	oauth := c.OAuth2
	c.OAuth2 = nil
	client, err := promconfig.NewClientFromConfig(c, name, options...)
	if err != nil || oauth == nil {
		return client, err
	}
	// One connection for each token, as its end is told when it begins. Half of the
	// time for each: where the first does not give one, the client tells who it is in
	// another way.
	client.Transport = promconfig.NewOAuth2RoundTripper(oauthSecret(oauth), oauth, client.Transport,
		promconfig.WithDialContextFunc(bounded(dial, max(timeout, minLogin)/2)), promconfig.WithKeepAlivesDisabled())
	return client, nil
}

// oauthSecret is what the grant asks for. The settings have refused references.
func oauthSecret(o *promconfig.OAuth2) promconfig.SecretReader {
	text, file := o.ClientSecret, o.ClientSecretFile
	if o.GrantType == "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		text, file = o.ClientCertificateKey, o.ClientCertificateKeyFile
	}
	if text == "" && file != "" {
		return promconfig.NewFileSecret(file)
	}
	return promconfig.NewInlineSecret(string(text))
}

// bounded makes connections that end after some time, whatever is done with them.
func bounded(dial dialer, limit time.Duration) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		end := time.Now().Add(limit)
		ctx, cancel := context.WithDeadline(ctx, end)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if err := conn.SetDeadline(end); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}
