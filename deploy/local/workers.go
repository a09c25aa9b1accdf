package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// workers are the processes. One goroutine uses them.
type workers struct {
	out      io.Writer
	children []*child.Child
	died     chan *child.Child // each that has ended, once
}

// start starts a service, as child.Start does.
func (w *workers) start(s *child.Service) error {
	c, err := child.Start(s)
	if err != nil {
		return err
	}
	w.children = append(w.children, c)
	go func() {
		<-c.Done()
		w.died <- c
	}()
	return nil
}

// watch tells how things are doing every so often, and who has died, until ctx
// ends.
func (w *workers) watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case c := <-w.died:
			fmt.Fprint(w.out, say("%s has died (%s; log %s). Start it again with", c.Name, c.How(), c.Log)+
				"          "+c.CommandLine()+"\n")
		case <-tick.C:
			fmt.Fprint(w.out, say("%s", w.status(ctx)))
		case <-ctx.Done():
			return
		}
	}
}

// stop asks all that still run to stop, and waits for that within a bound.
func (w *workers) stop() error {
	fmt.Fprint(w.out, "\n"+say("stopping"))
	var running []*child.Child
	for _, c := range w.children {
		if !c.Ended() {
			c.Terminate()
			running = append(running, c)
		}
	}
	var errs []error
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	for _, c := range running {
		select {
		case <-c.Done():
		case <-limit.C:
			return errors.Join(append(errs, fmt.Errorf("%s did not stop within %v and is killed", c.Name, stopLimit))...)
		}
		if c.Err() != nil {
			errs = append(errs, fmt.Errorf("%s stopped with %s (see %s)", c.Name, c.How(), c.Log))
			continue
		}
		fmt.Fprint(w.out, say("%s stopped", c.Name))
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if len(running) < len(w.children) {
		fmt.Fprint(w.out, say("what you started by hand is yours to stop"))
	} else {
		fmt.Fprint(w.out, say("all stopped"))
	}
	return nil
}

// kill kills whoever still runs.
func (w *workers) kill() {
	for _, c := range w.children {
		c.Kill()
	}
}
