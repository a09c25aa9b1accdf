package feed

// Sets is the number of sets that are kept.
func (f *Feed) Sets() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.sets)
}

// Pending is the number of changes that wait for the subscriber.
func (s *Subscription) Pending() int {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	return len(s.pending)
}
