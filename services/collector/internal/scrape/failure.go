package scrape

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/schedule"
)

// A failure is why a collection failed.
type failure struct {
	reason  schedule.Reason
	message string

	// cancelled says that the schedule ended the collection before its time.
	cancelled bool
}

// maxMessage bounds what a producer can make the collector repeat.
const maxMessage = 300

func fail(reason schedule.Reason, format string, args ...any) *failure {
	return &failure{reason: reason, message: brief(fmt.Sprintf(format, args...))}
}

// brief is a short copy of s in valid UTF-8: parsers quote the whole line, of
// up to a megabyte.
func brief(s string) string {
	cut := s
	if len(cut) > maxMessage {
		cut = cut[:maxMessage]
	}
	cut = strings.ToValidUTF8(strings.Clone(cut), "\uFFFD")
	if len(s) > maxMessage {
		cut += "..."
	}
	return cut
}

// interrupted tells what an error of the network came from: the schedule, the
// time limit or else the network. outer is the collection's context, inner the
// one with the assignment's own timeout.
func interrupted(outer, inner context.Context, err error) *failure {
	if cancelled(outer) {
		// The reason is as good as any; nobody counts this collection.
		return &failure{reason: schedule.ReasonUnreachable, message: "cancelled", cancelled: true}
	}
	var netErr net.Error
	if inner.Err() != nil || errors.As(err, &netErr) && netErr.Timeout() {
		return fail(schedule.ReasonTimeout, "timed out: %v", err)
	}
	return fail(schedule.ReasonUnreachable, "%v", err)
}

// unstored tells that a batch could not be stored. What failed before that, if
// anything, is still the reason.
func unstored(f *failure, err error) *failure {
	if f == nil {
		return fail(schedule.ReasonStore, "not stored: %v", err)
	}
	return fail(f.reason, "%s; not stored: %v", f.message, err)
}

// cancelled reports whether ctx was ended by somebody, not by time.
func cancelled(ctx context.Context) bool {
	return errors.Is(ctx.Err(), context.Canceled)
}
