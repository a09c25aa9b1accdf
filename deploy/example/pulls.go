package main

import "sync"

// pulls remember when one producer was pulled: the last ones, up to a bound.
type pulls struct {
	bound int

	mu    sync.Mutex
	times []int64 // unix ms; when full, a ring whose oldest is at next
	next  int
	total int64
}

// A memory is what a producer tells of its pulls.
type memory struct {
	// Total is how many there were since the process started or was told to
	// forget; those of them that are not in Times are too long ago.
	Total int64 `json:"total"`

	// Times are the last pulls, oldest first, in unix milliseconds.
	Times []int64 `json:"times"`
}

// add remembers a pull. The time is taken under the lock, so that times are in
// order.
func (p *pulls) add(now func() int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total++
	if len(p.times) < p.bound {
		p.times = append(p.times, now())
		return
	}
	p.times[p.next] = now()
	p.next = (p.next + 1) % p.bound
}

// tell returns what is remembered.
func (p *pulls) tell() memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	times := make([]int64, 0, len(p.times)) // in JSON, none is [] and not null
	return memory{Total: p.total, Times: append(append(times, p.times[p.next:]...), p.times[:p.next]...)}
}

// forget forgets all pulls.
func (p *pulls) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times, p.next, p.total = nil, 0, 0
}
