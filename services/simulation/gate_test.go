package simulation

import (
	"errors"
	"sync"
	"time"
)

// A gate is what stands between one registry and its store.
type gate struct {
	mu   sync.Mutex
	mode gateMode
	lag  time.Duration // of what the store tells by itself
	open chan struct{} // closed while nobody has to wait
}

type gateMode int

const (
	gateOpen   gateMode = iota
	gateFrozen          // everything waits
	gateCut             // everything fails
	gateDead            // everything fails, for ever
)

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) set(mode gateMode, lag time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mode == gateDead {
		return
	}
	if g.mode == gateFrozen && mode != gateFrozen {
		close(g.open)
	}
	if g.mode != gateFrozen && mode == gateFrozen {
		g.open = make(chan struct{})
	}
	g.mode, g.lag = mode, lag
}

// isOpen tells whether nobody waits and nothing fails.
func (g *gate) isOpen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mode == gateOpen
}

var errGate = errors.New("the store cannot be reached")

// check is asked before each operation.
func (g *gate) check(op string) error {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	<-open
	g.mu.Lock()
	mode, lag := g.mode, g.lag
	g.mu.Unlock()
	if mode != gateOpen {
		return errGate
	}
	if op == "deliver" && lag > 0 {
		time.Sleep(lag)
	}
	return nil
}
