package producer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	producerv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/producer/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

const (
	// probeTimeout bounds one question, unless a collection may take longer. Whether
	// an answer comes within the timeout of a collection is the collector's affair.
	probeTimeout = 10 * time.Second

	// probeBytes is how much of an answer is read: that it goes on is enough.
	probeBytes = 64 << 10

	// probeMessage bounds a chunk of an answer over gRPC.
	probeMessage = 512 << 10
)

// A probe asks an endpoint whether it answers. It has no credential, so that one
// which asks for one is taken to answer; it sends no secret and believes nothing,
// so that certificates are left to the collectors to verify.
type probe struct {
	id     string
	url    *url.URL
	bound  time.Duration // of one question
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	client *http.Client
	creds  credentials.TransportCredentials
}

func newProbe(r Registration, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*probe, error) {
	u, err := endpoint.Parse(r.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p := &probe{id: r.ID, url: u, bound: max(probeTimeout, r.Timeout), dial: dial}
	if dial == nil {
		p.dial = new(net.Dialer).DialContext
	}
	secured := &tls.Config{ServerName: r.TLSServerName, InsecureSkipVerify: true} //nolint:gosec // see the type
	if p.creds = insecure.NewCredentials(); u.Scheme == "grpcs" {
		p.creds = credentials.NewTLS(secured)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	p.client = &http.Client{
		Transport: &http.Transport{
			DialContext:            p.dial,
			TLSClientConfig:        secured,
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeaders,
			Protocols:              protocols,
		},
		// Collectors do not follow them either.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

// ask returns nil if the endpoint answers.
func (p *probe) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.bound)
	defer cancel()
	ask := p.askHTTP
	if endpoint.Native(p.url) {
		ask = p.askNative
	}
	if err := ask(ctx); err != nil {
		return fmt.Errorf("the endpoint %s does not answer as it should: %s", p.url.Host, clip(err.Error()))
	}
	return nil
}

func (p *probe) askHTTP(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	req.Header.Set("User-Agent", "rollcall-producer")
	resp, err := p.client.Do(req)
	switch {
	case wantsCertificate(err):
		return nil
	case err != nil:
		if where, ok := errors.AsType[*url.Error](err); ok { // whose text would tell the query of the URL
			err = where.Err
		}
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("status %d, want 2xx", resp.StatusCode)
	}
	if id := resp.Header.Get(Header); id != "" && id != p.id {
		return fmt.Errorf("it is the producer %q", clip(id))
	}
	if _, err = io.CopyN(io.Discard, resp.Body, probeBytes); err == io.EOF { //nolint:errorlint // CopyN returns it bare
		err = nil
	}
	return err
}

// wantsCertificate reports whether a peer ended a TLS handshake for want of a
// certificate of ours. Older peers say no more than that the handshake failed. The
// alert has no exported type, so that its text has to do.
func wantsCertificate(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return false
	}
	switch op.Err.Error() {
	case "tls: certificate required", "tls: bad certificate", "tls: handshake failure":
		return true
	default:
		return false
	}
}

func (p *probe) askNative(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+p.url.Host,
		grpc.WithTransportCredentials(p.creds),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(probeMessage)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return p.dial(ctx, "tcp", address) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := producerv1.NewExpositionServiceClient(conn).Collect(ctx, &producerv1.CollectRequest{ProducerId: p.id})
	if err != nil {
		return err
	}
	chunk, err := stream.Recv()
	switch code := status.Code(err); {
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		return nil
	case err != nil:
		return err
	case chunk.GetBegin().GetProducerId() != p.id:
		return fmt.Errorf("it is the producer %q", clip(chunk.GetBegin().GetProducerId()))
	}
	return nil
}
