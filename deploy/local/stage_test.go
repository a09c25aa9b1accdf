package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// patience bounds every wait, also on a machine that is busy with other things.
const patience = 90 * time.Second

// await polls until try returns nil.
func await(t *testing.T, what string, try func() error) time.Duration {
	t.Helper()
	start := time.Now()
	err := try()
	for err != nil {
		if time.Since(start) > patience {
			t.Fatalf("%s: still after %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
		err = try()
	}
	return time.Since(start)
}

// A stage is a directory with the commands in bin, as make run leaves it.
type stage struct {
	dir  string
	port int
}

// build makes the commands once for all tests, by go build.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rollcall-local")
	if err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", dir}, buildFlags...)
	cmd := exec.Command("go", append(args, "../../services/cmd/...", ".")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%w: %s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	// Else each command takes a second to end under the race detector.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	code := m.Run()
	if dir, err := build(); dir != "" {
		_ = errors.Join(err, os.RemoveAll(dir)) // the tests have told the error
	}
	os.Exit(code)
}

// Stages have ports of their own, of those that the system gives to nobody by
// itself.
var (
	firstPort = 10_000 + rand.IntN(2_000)
	stages    atomic.Int64
)

func newStage(t *testing.T) *stage {
	t.Helper()
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{dir: t.TempDir()}
	err = os.Mkdir(filepath.Join(s.dir, "bin"), 0o700)
	for _, name := range []string{"local", "registry", "collector", "rollcall"} {
		err = errors.Join(err, os.Link(filepath.Join(bin, name), filepath.Join(s.dir, "bin", name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	await(t, "free ports", func() error {
		s.port = firstPort + 20*int(stages.Add(1)%1000)
		var errs []error
		for _, offset := range []int{0, 1, 10, 11, 12, 13} {
			lis, err := net.Listen("tcp", s.address(offset))
			if err == nil {
				err = lis.Close()
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return s
}

// address is that of an offset to the first port.
func (s *stage) address(offset int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port+offset))
}

// The HTTP addresses, by their offsets.
const (
	registryHTTP   = 1
	collector1HTTP = 11
	collector2HTTP = 13
)

// A running process, and what it has printed.
type running struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes output.
func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

// printed is all output so far.
func (r *running) printed() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// start starts a command line in the stage's directory, killed at the test's
// end if it still runs.
func (s *stage) start(t *testing.T, line string) *running {
	t.Helper()
	r := &running{cmd: exec.Command("sh", "-c", "exec "+line), done: make(chan struct{})}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = s.dir, r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill() // it may have ended
		<-r.done
		if t.Failed() {
			t.Logf("%s printed:\n%s", line, r.printed())
		}
	})
	return r
}

// local starts the command and waits until everything runs.
func (s *stage) local(t *testing.T) *running {
	t.Helper()
	r := s.start(t, fmt.Sprintf("bin/local --first-port %d --status 100ms", s.port))
	r.expect(t, "Ctrl-C stops everything")
	return r
}

// expect waits until a text is printed.
func (r *running) expect(t *testing.T, text string) {
	t.Helper()
	await(t, "waiting for "+strconv.Quote(text), func() error {
		if strings.Contains(r.printed(), text) {
			return nil
		}
		select {
		case <-r.done:
			t.Fatalf("ended with %v before it printed %q:\n%s", r.err, text, r.printed())
		default:
		}
		return errors.New("not printed")
	})
}

// pid is the process id that was printed for a service.
func (r *running) pid(t *testing.T, name string) int {
	t.Helper()
	found := regexp.MustCompile(regexp.QuoteMeta(name) + ` +pid (\d+)`).FindStringSubmatch(r.printed())
	if found == nil {
		t.Fatalf("no pid of %s is printed", name)
	}
	pid, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// killed kills a service and returns the command line that is printed for
// starting it again.
func (r *running) killed(t *testing.T, name string) string {
	t.Helper()
	if err := syscall.Kill(r.pid(t, name), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile(regexp.QuoteMeta(name) + ` has died \(signal: killed; log [^)]+\)\. Start it again with\n +(bin/.*)\n`)
	var line string
	await(t, "the death of "+name, func() error {
		found := told.FindStringSubmatch(r.printed())
		if found == nil {
			return errors.New("not told")
		}
		line = found[1]
		return nil
	})
	return line
}

// stop sends a signal and expects a clean end.
func (r *running) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
		if r.err != nil {
			t.Errorf("stopped with %v", r.err)
		}
	case <-time.After(patience):
		t.Fatalf("still runs %v after %v", patience, signal)
	}
}

// metrics reads the metrics behind an HTTP address.
func (s *stage) metrics(t *testing.T, offset int) map[string]float64 {
	t.Helper()
	var m map[string]float64
	await(t, "metrics", func() (err error) {
		m, err = child.Scrape(context.Background(), "http://"+s.address(offset)+"/metrics")
		return err
	})
	return m
}

// sum adds the series of one name.
func sum(metrics map[string]float64, name string) float64 {
	var total float64
	for series, value := range metrics {
		if series == name || strings.HasPrefix(series, name+"{") {
			total += value
		}
	}
	return total
}

// refusing waits until nobody listens on the stage's ports.
func (s *stage) refusing(t *testing.T) {
	t.Helper()
	for _, offset := range []int{0, 1, 10, 11, 12, 13} {
		await(t, s.address(offset), func() error {
			conn, err := net.Dial("tcp", s.address(offset))
			if err != nil {
				return nil //nolint:nilerr // what is waited for
			}
			return errors.Join(errors.New("somebody listens"), conn.Close())
		})
	}
}

// run runs a command line to its end and returns what it printed.
func (s *stage) run(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}
