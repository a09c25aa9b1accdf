package deliver

import "time"

// WithJitter is c with another way to pick a wait between 0 and d.
func WithJitter(c Config, jitter func(d time.Duration) time.Duration) Config {
	c.jitter = jitter
	return c
}

// Window is what has been read and is not committed, as WindowSamples counts.
func (s *Sink) Window() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.cost
}

// Limit is how many samples a request may have, just now.
func (s *Sink) Limit() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pace.limit
}

// Series is how many series were compiled for what is in the window.
func (s *Sink) Series() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.series
}
