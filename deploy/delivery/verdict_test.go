package delivery_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

// A verdict counts samples, but for answers.
type verdict struct {
	answers int // that are judged
	judged  int // samples of these
	lost    int // have never arrived
	torn    int // answers of which some samples arrived, and some did not
	failed  int // samples of answers that the agent calls failed collections
	again   int // arrivals of what was there

	// examples are some of the answers that are lost, or a part of which is.
	examples []string
}

// maxExamples bounds them.
const maxExamples = 5

// judge looks for the samples of all answers that a test counts.
func judge(p *producers, l *receiver.Ledger, counts func(answer) bool) verdict {
	var v verdict
	for name, answers := range p.all() {
		for number, a := range answers {
			if a.sent.IsZero() || !counts(a) {
				continue
			}
			arrived, again := l.Arrived(name, number, p.samples)
			missing := p.samples - arrived
			// The time of the collection is at most an interval before its request.
			if arrived == 0 && l.Down(name, a.began.Add(-interval).UnixMilli(), a.sent.UnixMilli()) {
				v.failed += missing
				continue
			}
			v.answers++
			v.judged += p.samples
			v.lost += missing
			v.again += again
			if missing > 0 && arrived > 0 {
				v.torn++
			}
			if missing > 0 && len(v.examples) < maxExamples {
				v.examples = append(v.examples, fmt.Sprintf("answer %d of %s, sent at %s after %v",
					number, name, a.sent.Format("15:04:05.000"), a.sent.Sub(a.began)))
			}
		}
	}
	return v
}

// A row is what is told of one run.
type row struct {
	name, story string
	ended       []string // when the agent was stopped or killed
	verdict
	summary  receiver.Summary
	settled  time.Duration // from the receiver's return until all judged had arrived, or the wait was given up
	protocol string
}

// table is rows as text.
func table(rows []row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-12s %-8s %9s %9s %8s %7s %9s %8s %6s %8s %9s  %s\n",
		"agent", "story", "judged", "lost", "lost %", "torn", "twice", "twice %", "failed", "disorder", "settled", "protocol")
	for _, r := range rows {
		fmt.Fprintf(&b, "%-12s %-8s %9d %9d %8.2f %7d %9d %8.2f %6d %8d %9s  %s\n", r.name, r.story, r.judged, r.lost, share(r.lost, r.judged),
			r.torn, r.again, share(r.again, r.judged), r.failed, r.summary.Disordered, r.settled.Round(100*time.Millisecond), r.protocol)
	}
	return b.String()
}

// share is in percent.
func share(part, of int) float64 { return 100 * float64(part) / float64(max(of, 1)) }
