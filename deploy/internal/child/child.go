// Package child runs the services as processes of this machine, for the commands
// of deploy/ that show them at work.
//
// Its invariant: it ends no process that it has not started; where the kernel
// can, it has them ended should its own process die.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startLimit bounds the wait for a child to be ready.
const startLimit = time.Minute

// A Service is a process to run.
type Service struct {
	Name string
	GRPC string // host:port
	HTTP string // host:port
	Log  string // path
	Args []string

	// Ready is the path at HTTP that answers 200 when it is ready; /readyz if it is
	// empty.
	Ready string
}

func (s *Service) readyURL() string {
	if s.Ready == "" {
		return "http://" + s.HTTP + "/readyz"
	}
	return "http://" + s.HTTP + s.Ready
}

// CommandLine is what starts the service by hand.
func (s *Service) CommandLine() string { return strings.Join(s.Args, " ") }

// Plan is how a command is run with its data and its log in a directory, and
// with the flags that it has beside those.
func Plan(command, name, dir, grpc, http string, more ...string) *Service {
	s := &Service{Name: name, GRPC: grpc, HTTP: http, Log: filepath.Join(dir, name+".log")}
	s.Args = append([]string{command, "--data-dir", filepath.Join(dir, name)}, more...)
	s.Args = append(s.Args, "--listen", grpc, "--http-listen", http, "--log-format", "text")
	return s
}

// Commands is the directory of this command and of those that it starts, seen
// from here, so that what is printed can be pasted.
func Commands() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	bin := filepath.Dir(self)
	for _, name := range []string{"registry", "collector"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return "", fmt.Errorf("the command %s is missing beside this one (make build): %w", name, err)
		}
	}
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, bin); err == nil && !strings.HasPrefix(rel, "..") {
			return rel, nil
		}
	}
	return bin, nil
}

// A Child is a process that was started.
type Child struct {
	*Service
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// Start starts a service with its output in its log file. Every call is to be
// made by the same locked thread, which ends last: the kernel tells the children
// of its end.
func Start(s *Service) (*Child, error) {
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	c := &Child{Service: s, done: make(chan struct{})}
	// Not bound to a context: it is stopped, not killed.
	c.cmd = exec.Command(s.Args[0], s.Args[1:]...) //nolint:gosec,noctx // our own command; see above
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = detached()
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// PID is its process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when it has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// Ended tells whether it has ended.
func (c *Child) Ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// Err is how a child ended that has ended, nil for exit status 0.
func (c *Child) Err() error { return c.err }

// How tells how a child ended that has ended.
func (c *Child) How() string {
	if c.err == nil {
		return "exit status 0"
	}
	return c.err.Error()
}

// Terminate asks it to stop, and does not wait for that.
func (c *Child) Terminate() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
}

// Kill kills it if it still runs, and waits.
func (c *Child) Kill() {
	if !c.Ended() {
		_ = c.cmd.Process.Kill() // it may have ended just now
		<-c.done
	}
}

// AwaitReady waits until all are ready, or ctx ends. It fails when one ends or
// takes too long.
func AwaitReady(ctx context.Context, all ...*Child) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, c := range all {
		for !answers(ctx, c.readyURL()) {
			for _, d := range all {
				if d.Ended() {
					return fmt.Errorf("%s ended at its start: %s: %s (see %s)", d.Name, d.How(), lastLine(d.Log), d.Log)
				}
			}
			select {
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return fmt.Errorf("%s was not ready within %v: %s (see %s)", c.Name, startLimit, lastLine(c.Log), c.Log)
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
	body, err := Fetch(ctx, url)
	if err != nil {
		return false
	}
	return body.Close() == nil
}

// Fetch gets a URL; the caller closes the body.
func Fetch(ctx context.Context, url string) (io.ReadCloser, error) {
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
