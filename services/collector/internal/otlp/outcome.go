package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

const (
	// maxError bounds what is told of a receiver's message, in bytes.
	maxError = 300

	// minSecret is from which length on the value of a header can be a secret, in
	// bytes. To take a tenant's number out would spoil the message.
	minSecret = 4

	// maxRetryAfter bounds how long a receiver can make a sink wait.
	maxRetryAfter = 10 * time.Minute
)

// accepted is the outcome of an answer without an error.
func (c *Client) accepted(m *message, got *answer) deliver.Outcome {
	o := deliver.Outcome{Result: deliver.Delivered, Code: codes.OK.String()}
	if got.rejected > 0 {
		o.Refused = m.samplesOf(got.rejected)
		o.Reason = deliver.ReasonRejected
		o.Err = fmt.Errorf("the receiver refused %d of %d data points: %s", got.rejected, m.points, c.tame(got.message))
	} else if got.message != "" {
		o.Err = fmt.Errorf("the receiver warns: %s", c.tame(got.message))
	}
	return m.local(o)
}

// samplesOf is how many samples are in that many points. A receiver says only
// how many points it refused: where points have several samples each, it is
// their share.
func (m *message) samplesOf(points int64) int {
	sent := m.samples - m.unsupported
	if points >= int64(m.points) {
		return sent
	}
	share := (float64(points)*float64(sent) + float64(m.points) - 1) / float64(m.points)
	return min(sent, int(share))
}

// judge is the outcome of an error. OTLP says which ones to retry. Beyond these,
// what an operator can mend (credentials, an address, a quota) is retried too:
// until then the queue keeps what there is.
func (c *Client) judge(ctx context.Context, err error, reached bool) deliver.Outcome {
	st := status.Convert(err)
	o := deliver.Outcome{
		Result: deliver.Rejected, Reason: deliver.ReasonRejected, Code: nameOf(st.Code()),
		Err: fmt.Errorf("%s: %s", st.Code(), c.tame(st.Message())),
	}
	wait, told := retryInfo(st)
	retry := func() { o.Result, o.Reason, o.RetryAfter = deliver.Retry, "", wait }
	switch st.Code() {
	case codes.Canceled, codes.Aborted, codes.DataLoss,
		codes.Unauthenticated, codes.PermissionDenied, codes.Unimplemented, codes.NotFound:
		retry()
	case codes.OutOfRange:
		if retry(); tooLarge(st.Message()) {
			o.Result, o.Reason = deliver.TooLarge, deliver.ReasonTooLarge
		}
	case codes.ResourceExhausted:
		if strings.Contains(st.Message(), strconv.Itoa(maxAnswer)) {
			break // the answer is too large, which need not be so for less
		}
		if retry(); tooLarge(st.Message()) {
			o.Result, o.Reason = deliver.TooLarge, deliver.ReasonTooLarge
		} else {
			o.Overloaded = true
		}
	case codes.Unavailable:
		retry()
		o.Overloaded = reached && told
		if !reached {
			o.Code = "unreachable"
		}
	case codes.DeadlineExceeded:
		retry()
		o.Code = "timeout"
	case codes.Internal, codes.Unknown:
		if large, other := notTheReceiver(st.Message()); large {
			o.Result, o.Reason = deliver.TooLarge, deliver.ReasonTooLarge
		} else if other {
			retry()
		}
	case codes.InvalidArgument:
		o.Reason = deliver.ReasonInvalid
	default:
	}
	// Whatever came, it may be because the caller has ended it.
	if ctx.Err() != nil && o.Result == deliver.Rejected {
		retry()
	}
	return o
}

// nameOf is a code as a label of metrics: a receiver may answer with any number, and
// those that gRPC does not know are one.
func nameOf(c codes.Code) string {
	if c > codes.Unauthenticated {
		return "invalid"
	}
	return c.String()
}

// notTheReceiver reports whether a message is how gRPC tells of an answer that no
// service has given: something in front of it answered in plain HTTP, or the
// stream broke. In HTTP, what is too large has a status.
func notTheReceiver(message string) (large, other bool) {
	const plain = "unexpected HTTP status code received from server: "
	if code, ok := strings.CutPrefix(message, plain); ok {
		large = strings.HasPrefix(code, strconv.Itoa(http.StatusRequestEntityTooLarge)+" ")
		return large, !large
	}
	return false, strings.HasPrefix(message, "stream terminated by RST_STREAM") ||
		strings.HasPrefix(message, "server closed the stream without sending trailers")
}

// retryInfo is how long a receiver asks to wait, and whether it does.
func retryInfo(st *status.Status) (time.Duration, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			if wait := info.GetRetryDelay(); wait != nil && wait.CheckValid() == nil {
				return min(max(wait.AsDuration(), 0), maxRetryAfter), true
			}
			return 0, true
		}
	}
	return 0, false
}

// tooLarge reports whether a message is how one of the common servers (Go, C++,
// Java, .NET, Rust) refuses a message for its size. They have no code of its own
// for that.
func tooLarge(message string) bool {
	message = strings.ToLower(message)
	for _, phrase := range []string{
		"message larger than max", "message after decompression larger than max", "exceeds maximum size",
		"exceeds the maximum configured message size", "message length too large",
	} {
		if strings.Contains(message, phrase) {
			return true
		}
	}
	return false
}

var errNoMessage = errors.New("without a message")

// tame makes a stranger's message fit for an error: short, printable, and without
// the values of the headers, which it may have been told.
func (c *Client) tame(message string) string {
	message = message[:min(len(message), 16*maxError)]
	for _, s := range c.secrets {
		if len(s) >= minSecret {
			message = strings.ReplaceAll(message, s, "<secret>")
		}
	}
	message = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, valid(message))
	if len(message) > maxError {
		message = valid(message[:maxError]) + "..."
	}
	if message == "" {
		return errNoMessage.Error()
	}
	return message
}
