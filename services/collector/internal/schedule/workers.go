package schedule

// maxSpare bounds the goroutines that wait for the next collection. More than
// these run only while there is more to do at a time, and then end.
const maxSpare = 16

// run runs a collection on a goroutine that has run others, if one is spare: its
// stack has grown to what a collection needs, and growing it anew each time costs
// a fifteenth of a collection. mu is held.
func (s *Schedule) run(work func()) {
	if last := len(s.spare) - 1; last >= 0 {
		worker := s.spare[last]
		s.spare = s.spare[:last]
		worker <- work // it has room
		return
	}
	s.running.Go(func() {
		worker := make(chan func(), 1)
		for ok := true; ok; {
			work()
			if !s.rest(worker) {
				return
			}
			work, ok = <-worker
		}
	})
}

// rest makes a worker a spare one, unless there are enough or no more is to run.
func (s *Schedule) rest(worker chan func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.launch == nil || len(s.spare) >= maxSpare {
		return false
	}
	s.spare = append(s.spare, worker)
	return true
}

// dismiss ends the spare workers. mu is held, and launch is nil.
func (s *Schedule) dismiss() {
	for _, worker := range s.spare {
		close(worker)
	}
	s.spare = nil
}
