package schedule

// A queue is entries in the order in which they came; the links are in the
// entries, so that one can leave from the middle. An entry is in one queue at
// most.
type queue struct{ head, tail *entry }

func (q *queue) push(e *entry) {
	e.before = q.tail
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.behind = e
	}
	q.tail = e
}

func (q *queue) remove(e *entry) {
	if e.before == nil {
		q.head = e.behind
	} else {
		e.before.behind = e.behind
	}
	if e.behind == nil {
		q.tail = e.before
	} else {
		e.behind.before = e.before
	}
	e.before, e.behind = nil, nil
}
