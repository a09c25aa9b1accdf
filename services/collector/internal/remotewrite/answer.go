package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// The headers of the protocol.
const (
	versionHeader           = "X-Prometheus-Remote-Write-Version"
	writtenSamplesHeader    = "X-Prometheus-Remote-Write-Samples-Written"
	writtenHistogramsHeader = "X-Prometheus-Remote-Write-Histograms-Written"
	writtenExemplarsHeader  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

const (
	// maxText is how much of an answer's body is read, and maxShown how much of it
	// people see, in bytes.
	maxText  = 4 << 10
	maxShown = 512

	// maxDrain is how much more is read so that the connection can be used again.
	maxDrain = 64 << 10

	// maxWait bounds what a receiver may ask for by Retry-After.
	maxWait = 10 * time.Minute
)

// An answer is what came back of one try.
type answer struct {
	err error // there is no answer, for this reason

	status int

	// counted says that the receiver told how many samples it wrote, which is
	// written, histograms among them.
	counted bool
	written int

	wait time.Duration // that it asks for
	text string        // the beginning of the body

	secrets []string // that the receiver was told
}

// read takes in an answer.
func read(resp *http.Response) *answer {
	a := &answer{status: resp.StatusCode, wait: waitOf(resp.Header, time.Now())}
	a.written, a.counted = writtenOf(resp.Header)
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a // nothing ends a read of what follows: it is the connection itself
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // what there is of it
	a.text = string(text)
	if len(text) == maxText {
		_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	}
	return a
}

// writtenOf is how many samples the headers say were written, and whether they
// say anything at all. A header that is not a number says nothing; one of 2.0
// that is missing beside another is 0.
func writtenOf(h http.Header) (int, bool) {
	written, counted := 0, false
	for _, name := range []string{writtenSamplesHeader, writtenHistogramsHeader, writtenExemplarsHeader} {
		n, err := strconv.ParseUint(strings.TrimSpace(h.Get(name)), 10, 31)
		if err != nil {
			continue
		}
		counted = true
		if name != writtenExemplarsHeader {
			written += int(n)
		}
	}
	return written, counted
}

// waitOf is what Retry-After asks for: seconds, or a date, which is compared with
// the receiver's own clock if it tells it.
func waitOf(h http.Header, now time.Time) time.Duration {
	text := strings.TrimSpace(h.Get("Retry-After"))
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if !(seconds > 0) { // not a number is not, either
			return 0
		}
		return time.Duration(math.Min(seconds, maxWait.Seconds()) * float64(time.Second))
	}
	date, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if theirs, err := http.ParseTime(h.Get("Date")); err == nil {
		now = theirs
	}
	return min(max(date.Sub(now), 0), maxWait)
}

func (a *answer) success() bool { return a.err == nil && a.status/100 == 2 }

// judged reports whether the receiver has read the request: it took it, or found
// fault with what is in it.
func (a *answer) judged() bool {
	if a.err != nil {
		return false
	}
	switch a.result() {
	case deliver.Retry:
		return false
	default:
		return true
	}
}

// result is what a status means for the request.
//
// What an operator can mend at the receiver, in front of it or in our own
// configuration is waited for: wrong credentials, a wrong path, a redirect, a
// method or a type that is not taken. The queue holds the samples meanwhile, up
// to its bound. Dropping them, as Prometheus does, would make a mistyped token
// a loss of everything.
func (a *answer) result() deliver.Result {
	switch {
	case a.success():
		return deliver.Delivered
	case a.status == http.StatusRequestEntityTooLarge:
		return deliver.TooLarge
	case a.status == http.StatusInternalServerError:
		// Some say with it what no retry mends.
		switch {
		case tooLarge(a.text):
			return deliver.TooLarge
		case unsupported(a.text):
			return deliver.Rejected
		}
		return deliver.Retry
	case a.status/100 != 4:
		return deliver.Retry
	}
	switch a.status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusProxyAuthRequired, http.StatusRequestTimeout,
		http.StatusGone, http.StatusLengthRequired, http.StatusUnsupportedMediaType, http.StatusMisdirectedRequest, http.StatusLocked,
		http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusTooManyRequests,
		http.StatusRequestHeaderFieldsTooLarge, http.StatusUnavailableForLegalReasons:
		return deliver.Retry
	}
	if tooLarge(a.text) {
		return deliver.TooLarge
	}
	return deliver.Rejected
}

// outcome is what an answer to a request of that protocol means, of which t was
// sent.
func (c *Client) outcome(p Protocol, a *answer, t tally) deliver.Outcome {
	if a.err != nil {
		return deliver.Outcome{Result: deliver.Retry, Code: codeOf(a.err), Err: c.fault(a.err)}
	}
	o := deliver.Outcome{Result: a.result(), Code: a.code(), RetryAfter: a.wait}
	o.Overloaded = a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable
	if !a.success() {
		o.Err = c.said(a)
	}
	switch {
	case p == V2 && a.success() && !a.counted && c.talk.forced == V2:
		o.Result, o.Err = deliver.Retry, errors.New("the receiver answers without telling what it has written: it may know only remote write 1.0")
		return o
	case p == V2 && a.counts(t.sent) && (o.Result == deliver.Delivered || o.Result == deliver.Rejected):
		o.Refused = max(t.sent-a.written, 0)
		if o.Refused < t.sent {
			o.Result = deliver.Delivered
		} else if o.Result == deliver.Rejected {
			o.Refused = 0
		}
		if o.Refused > 0 && o.Err == nil {
			o.Err = fmt.Errorf("the receiver took %d of %d samples and does not say why", t.sent-o.Refused, t.sent)
		}
	}
	if o.Refused > 0 || o.Result == deliver.Rejected {
		o.Reason = reasonOf(a.text)
	}
	if o.Result == deliver.Rejected && t.sent > 1 {
		o.Divisible = p == V1 && undone(a) || unsupported(a.text)
	}
	if o.Result == deliver.TooLarge && t.sent+t.omitted == 1 {
		o.Result, o.Reason = deliver.Rejected, deliver.ReasonTooLarge
	}
	// The omitted ones are in Refused, too; if there are others, theirs is the
	// reason that people need.
	if o.Result == deliver.Delivered && t.omitted > 0 {
		o.Refused += t.omitted
		if o.Reason == "" {
			o.Reason = deliver.ReasonUnsupported
		}
	}
	return o
}

// counts reports whether what the receiver says it has written of so many samples
// is so. Mimir says it before its ingesters have refused any. With a refusal,
// all can be written only where it is of exemplars.
func (a *answer) counts(sent int) bool {
	if !a.counted || a.success() {
		return a.counted
	}
	return !distributed(a.text) && (a.written < sent || strings.Contains(strings.ToLower(withoutSeries(a.text)), "exemplar"))
}

// code is the status as a label, of which there are few.
func (a *answer) code() string {
	if a.status < 100 || a.status > 599 {
		return "invalid"
	}
	return strconv.Itoa(a.status)
}

// said is an answer for people.
func (c *Client) said(a *answer) error {
	text := strings.TrimSpace(c.shown(a.text, a.secrets))
	if a.status/100 == 3 {
		return fmt.Errorf("%s answers %d, a redirect, which is not followed: configure where it leads", c.target, a.status)
	}
	if text == "" {
		return fmt.Errorf("%s answers %d %s", c.target, a.status, http.StatusText(a.status))
	}
	return fmt.Errorf("%s answers %d: %s", c.target, a.status, text)
}

// fault is why there is no answer, for people.
func (c *Client) fault(err error) error {
	// Where a token cannot be fetched, who was told the secret for it has the last
	// word.
	text, _, _ := strings.Cut(err.Error(), "\nResponse:")
	// An url.Error tells the whole URL, its query too; ours is within others when
	// a token is fetched.
	for e := err; e != nil; e = errors.Unwrap(e) {
		var at *url.Error
		if !errors.As(e, &at) {
			break
		}
		shown := "a URL"
		if u, perr := url.Parse(at.URL); perr == nil {
			shown = withoutSecrets(u)
		}
		text = strings.ReplaceAll(text, strconv.Quote(at.URL), shown)
		text = strings.ReplaceAll(text, at.URL, shown)
		e = at
	}
	return errors.New(c.shown(text, nil))
}

// shown is a text that others wrote, bounded, in one line and without secrets.
func (c *Client) shown(text string, secrets []string) string {
	for _, all := range [][]string{c.secrets, secrets} {
		for _, secret := range all {
			text = strings.ReplaceAll(text, secret, "<hidden>")
		}
	}
	if len(text) > maxShown {
		text = text[:maxShown] + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, valid(text))
}

// codeOf names why there is no answer.
func codeOf(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	default:
		return "unreachable"
	}
}
