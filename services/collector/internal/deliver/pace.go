package deliver

import "time"

const (
	// growPause is the time between two growths of the concurrency above what the
	// receiver has been too slow for.
	growPause = time.Second

	// growAfter is the number of full requests after which, once one was too large,
	// a larger one is tried.
	growAfter = 100
)

// What is sent again, to find what of a rejected request is wrong, is at most
// creditRate times what is taken, which is enough for two wrong records in each
// request, and maxCredit full requests in a row.
const (
	creditRate = 3
	maxCredit  = 8
)

// codeTimeout is the code of a try without an answer. It asks for less, too.
const codeTimeout = "timeout"

// A pace settles how much is sent at a time, and when. It takes the time as an
// argument. It is not safe for concurrent use.
type pace struct {
	config *Config

	// concurrency is how many requests may be at work. Below threshold it grows
	// with each good answer, above it with the time.
	concurrency, threshold int
	changed                time.Time // grown above threshold, or shrunk

	// round counts the halvings, and halvable says that there was an answer
	// since: what was sent before a halving does not ask for another.
	round    int
	halvable bool

	// limit is how many samples a request may have; full counts the full ones that
	// were taken with it.
	limit, full int

	// credit is how many samples of rejected requests may be sent again, in smaller
	// requests.
	credit int

	// down says that the last answer was none: one try at a time, the next at
	// probeAt. failures counts these.
	down     bool
	probing  bool
	failures int
	probeAt  time.Time

	// notBefore is when the receiver wants to hear more.
	notBefore time.Time
}

func newPace(c *Config) pace {
	return pace{
		config: c, concurrency: 1, threshold: c.MaxConcurrency, halvable: true, limit: c.MaxSamplesPerSend,
		credit: maxCredit * c.MaxSamplesPerSend,
	}
}

// backoff is the wait before a try, after a number of failures.
func (p *pace) backoff(failures int) time.Duration {
	d := p.config.MaxBackoff
	if n := failures - 1; n < 62 && p.config.MinBackoff <= p.config.MaxBackoff>>n {
		d = p.config.MinBackoff << n
	}
	return p.config.jitter(d)
}

// answered says that the receiver has judged a request: it is there.
func (p *pace) answered() {
	p.down, p.failures, p.halvable = false, 0, true
}

// took says that the receiver has taken a request. backlog says that more full
// requests wait than may be at work.
func (p *pace) took(now time.Time, samples int, backlog bool) {
	p.answered()
	p.credit = min(p.credit+creditRate*samples, maxCredit*p.config.MaxSamplesPerSend)
	if backlog && p.concurrency < p.config.MaxConcurrency {
		switch {
		case p.concurrency < p.threshold:
			p.concurrency++
		case now.Sub(p.changed) >= growPause:
			p.concurrency++
			p.threshold, p.changed = p.concurrency, now
		}
	}
	if p.limit < p.config.MaxSamplesPerSend && samples > p.limit/2 {
		if p.full++; p.full >= growAfter {
			p.limit, p.full = min(p.limit+p.limit/8+1, p.config.MaxSamplesPerSend), 0
		}
	}
}

// spare says that a request was sent that is not full, and that nothing waits
// beside it: fewer and larger ones do.
func (p *pace) spare(now time.Time) {
	if p.concurrency > 1 && now.Sub(p.changed) >= growPause {
		p.concurrency--
		p.changed = now
	}
}

// tooLarge says that a request of so many samples was too large.
func (p *pace) tooLarge(samples int) {
	p.answered()
	if samples <= p.limit {
		p.limit, p.full = max(samples/2, 1), 0
	}
}

// rejected says that a request of so many samples was rejected, and answers
// whether it may be tried in halves.
func (p *pace) rejected(samples int) bool {
	p.answered()
	if p.credit < samples {
		return false
	}
	p.credit -= samples
	return true
}

// failed says that the receiver has not taken what a job sent, and settles when
// the job may be tried again.
func (p *pace) failed(now time.Time, j *job, o *Outcome) {
	if wait := min(o.RetryAfter, maxRetryAfter); wait > 0 {
		p.notBefore = later(p.notBefore, now.Add(wait))
	}
	halved := false
	if (o.Overloaded || o.Code == codeTimeout) && j.round == p.round && p.halvable {
		p.concurrency = max(p.concurrency/2, 1)
		p.threshold, p.changed = p.concurrency, now
		p.round++
		p.halvable, halved = false, true
	}
	j.tries++
	switch {
	case j.probe:
		p.failures++
		p.probeAt = now.Add(p.backoff(p.failures))
	case p.down:
		// It was sent before the receiver went, and waits with the others.
	case o.Overloaded && o.Code != codeTimeout && (halved || j.round < p.round):
		// It is there, and wants less.
		j.failures++
		j.due = now.Add(p.backoff(j.failures))
	default:
		j.failures++
		j.due = now.Add(p.backoff(j.failures))
		p.down, p.failures, p.probeAt = true, 1, j.due
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
