package registrar_test

import (
	"errors"
	"slices"
	"sync"
)

var errStore = errors.New("the store is struck by the test")

// A door stands between a process and its store. It is made in the bubble.
type door struct {
	mu     sync.Mutex
	shut   []string      // operations that wait
	broken []string      // operations that fail
	opened chan struct{} // closed when those that wait may go on
	asked  int           // operations that waited
}

func (d *door) check(op string) error {
	d.mu.Lock()
	shut, opened := slices.Contains(d.shut, op), d.opened
	if shut {
		d.asked++
	}
	d.mu.Unlock()
	if shut {
		<-opened
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.broken, op) {
		return errStore
	}
	return nil
}

// close has the operations wait until open.
func (d *door) close(ops ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut, d.opened = ops, make(chan struct{})
}

// open lets everything go on.
func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened != nil {
		close(d.opened)
	}
	d.shut, d.opened = nil, nil
}

// fail has the operations fail; none: nothing fails any more.
func (d *door) fail(ops ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken = ops
}

// waited is how many operations have waited so far.
func (d *door) waited() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}
