package deliver

const (
	// chokeFailures is how often in a row a request is answered with an error,
	// while others are taken between any two of these answers, until it is found to
	// be what the receiver chokes on: with the default backoff that takes minutes.
	chokeFailures = 20

	// chokeDrop is how often after that a single record is tried.
	chokeDrop = 3

	// maxAhead is how many full requests the window may have more for that.
	maxAhead = 4 * chokeFailures

	// codeChoke is the code of the answers that count: an error of the receiver
	// itself, which the request may have caused. Gateways have others.
	codeChoke = "500"
)

// chokes tells of a request that has just failed whether it holds up all others,
// and the receiver takes these: then the request is to be cut, or dropped when it
// is one record. Without that, one record would be all that is ever tried, and
// the sink would stand still. mu is held.
func (s *Sink) chokes(j *job, o *Outcome) bool {
	if o.Code != codeChoke || o.Overloaded {
		j.choked = 0
		return false
	}
	if s.takes == j.takes {
		return false // perhaps it takes nothing at all
	}
	j.takes = s.takes
	if j.choked++; !s.starved {
		return false
	}
	// Let a few others in, to see whether they are taken.
	s.ahead = min(s.ahead+s.config.MaxSamplesPerSend, maxAhead*s.config.MaxSamplesPerSend)
	s.nudge(s.space)
	switch {
	case j.choked < chokeFailures && !j.chokes:
		return false
	case len(j.parts[0].Ends) > 1:
		j.chokes = true
		return true
	case !j.chokes:
		j.chokes, j.choked = true, 0
		return false
	default:
		return j.choked >= chokeDrop
	}
}
