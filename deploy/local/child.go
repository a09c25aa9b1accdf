package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A child is a running process.
type child struct {
	*service
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// workers are the processes. One goroutine uses them.
type workers struct {
	out      io.Writer
	children []*child
	died     chan *child // each that has ended, once
}

// start starts a service with its output in its log file. Every call is to be
// made by the same locked thread.
func (w *workers) start(s *service) error {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	c := &child{service: s, done: make(chan struct{})}
	// Not bound to a context: it is stopped, not killed.
	c.cmd = exec.Command(s.args[0], s.args[1:]...) //nolint:gosec,noctx // our own command; see above
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = detached()
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	w.children = append(w.children, c)
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
		w.died <- c
	}()
	return nil
}

// ended tells whether a child has ended.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// how tells how a child ended.
func (c *child) how() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// awaitReady waits until all are ready, or ctx ends.
func (w *workers) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, c := range w.children {
		for !answers(ctx, "http://"+c.http+"/readyz") {
			select {
			case d := <-w.died:
				return fmt.Errorf("%s ended at its start: %s: %s (see %s)", d.name, d.how(), lastLine(d.log), d.log)
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return fmt.Errorf("%s was not ready within %v: %s (see %s)", c.name, startLimit, lastLine(c.log), c.log)
				}
				return nil
			case <-tick.C:
			}
		}
	}
	return nil
}

// answers tells whether a URL answers 200.
func answers(ctx context.Context, url string) bool {
	body, err := fetch(ctx, url)
	if err != nil {
		return false
	}
	return body.Close() == nil
}

// fetch gets a URL; the caller closes the body.
func fetch(ctx context.Context, url string) (io.ReadCloser, error) {
	client := &http.Client{Timeout: 2 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("status %s", resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// lastLine is the last line of a file, shortened.
func lastLine(path string) string {
	const most = 4096
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd)
	}
	tail, _ := io.ReadAll(io.LimitReader(file, most))
	lines := bytes.Split(bytes.TrimSpace(tail), []byte("\n"))
	return strings.TrimSpace(string(lines[len(lines)-1]))
}

// watch tells how things are doing every so often, and who has died, until ctx
// ends.
func (w *workers) watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case c := <-w.died:
			fmt.Fprint(w.out, say("%s has died (%s; log %s). Start it again with", c.name, c.how(), c.log)+
				"          "+c.commandLine()+"\n")
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
	var running []*child
	for _, c := range w.children {
		if !c.ended() {
			_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
			running = append(running, c)
		}
	}
	var errs []error
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	for _, c := range running {
		select {
		case <-c.done:
		case <-limit.C:
			return errors.Join(append(errs, fmt.Errorf("%s did not stop within %v and is killed", c.name, stopLimit))...)
		}
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s stopped with %s (see %s)", c.name, c.how(), c.log))
			continue
		}
		fmt.Fprint(w.out, say("%s stopped", c.name))
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
		if !c.ended() {
			_ = c.cmd.Process.Kill() // it may have ended just now
			<-c.done
		}
	}
}
