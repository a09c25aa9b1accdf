package remotewrite

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// Send tries once to deliver a request: as the protocol that is spoken, and at
// once as the other one when the answer leaves a doubt whether the receiver
// understands it.
func (c *Client) Send(ctx context.Context, r *deliver.Request) deliver.Outcome {
	o, text := c.send(ctx, r)
	if o.Result == deliver.Rejected && o.Reason == deliver.ReasonUnsupported && aboutHistograms(text) && c.options().histograms && hasHistograms(r) {
		// One native histogram would else cost all that is beside it.
		c.logger.WarnContext(ctx, "the receiver takes no native histograms: they are left out for now", "for", again, "error", o.Err)
		until := time.Now().Add(again)
		c.plainUntil.Store(&until)
		sent := o.Bytes
		o, _ = c.send(ctx, r)
		o.Bytes += sent
	}
	if o.Result != deliver.Retry {
		c.release(r)
	}
	return o
}

// send is Send but for native histograms. It answers also what the receiver
// wrote.
func (c *Client) send(ctx context.Context, r *deliver.Request) (deliver.Outcome, string) {
	now := time.Now()
	p := c.talk.choose(now)
	first, b, err := c.try(ctx, r, p)
	if err != nil || first == nil {
		return unsent(r, b, err), ""
	}
	sent := len(b.bytes)
	counts, t, told := first, b.tally, p
	var changed bool
	if !c.talk.doubts(p, first) {
		changed = c.talk.settle(p, first)
	} else {
		other := V1
		if p == V1 {
			other = V2
		}
		var second *answer
		second, b, err = c.try(ctx, r, other)
		if err != nil || second == nil {
			return unsent(r, b, err), ""
		}
		sent += len(b.bytes)
		counts, changed = c.talk.decide(p, first, second, now)
		if counts == second {
			t, told = b.tally, other
		}
	}
	if changed {
		c.logger.InfoContext(ctx, "remote write protocol settled", "protocol", c.talk.name(), "status", first.status)
	}
	o := c.outcome(told, counts, t)
	o.Bytes = sent
	return o, counts.text
}

// options are what is sent now.
func (c *Client) options() options {
	o := c.encoding
	until := c.plainUntil.Load()
	o.histograms = o.histograms && (until == nil || !time.Now().Before(*until))
	return o
}

// try posts a request once. The answer is nil when there is nothing to send, or
// it cannot be encoded.
func (c *Client) try(ctx context.Context, r *deliver.Request, p Protocol) (*answer, *body, error) {
	b, err := c.body(r, p)
	if err != nil || b.tally.sent == 0 {
		return nil, b, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, http.NoBody)
	if err != nil {
		return nil, b, errors.New("the request cannot be made") // New has seen the URL
	}
	request.Header = c.headersFor(p)
	b.attach(request)
	return c.ask(request), b, nil
}

// ask sends an HTTP request, and takes in what comes back.
func (c *Client) ask(request *http.Request) *answer {
	resp, err := c.http.Do(request)
	if err != nil {
		return &answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	a := read(resp)
	if resp.Request != nil { // as it was sent, with what the HTTP client has added
		a.secrets = secretsIn(resp.Request.Header)
	}
	return a
}

// unsent is the outcome of a request of which nothing can be sent.
func unsent(r *deliver.Request, b *body, err error) deliver.Outcome {
	switch {
	case errors.Is(err, errTooLarge) && len(r.Items) > 1:
		return deliver.Outcome{Result: deliver.TooLarge, Code: "unsent", Err: err}
	case errors.Is(err, errTooLarge):
		return deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonTooLarge, Code: "unsent", Err: err}
	case err != nil:
		return deliver.Outcome{Result: deliver.Rejected, Reason: deliver.ReasonInvalid, Code: "unsent", Err: err}
	case b.tally.omitted > 0:
		return deliver.Outcome{Refused: b.tally.omitted, Reason: deliver.ReasonUnsupported, Code: "unsent"}
	default:
		return deliver.Outcome{Code: "unsent"} // there was nothing
	}
}
