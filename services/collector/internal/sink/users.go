package sink

import "sync"

// users counts who is at work in a store, so that it is closed under nobody.
// The zero value is open.
type users struct {
	mu        sync.Mutex
	n         int
	dismissed bool
	empty     chan struct{} // Made by dismiss, closed when n is zero.
}

// enter says whether the caller may work; if so, leave must follow.
func (u *users) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dismissed {
		return false
	}
	u.n++
	return true
}

func (u *users) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n--
	if u.dismissed && u.n == 0 {
		close(u.empty)
	}
}

// dismiss lets nobody enter any more. The channel is closed when the last one
// has left. It is called once.
func (u *users) dismiss() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dismissed = true
	u.empty = make(chan struct{})
	if u.n == 0 {
		close(u.empty)
	}
	return u.empty
}
