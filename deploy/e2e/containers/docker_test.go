//go:build e2e

package containers_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	tag      = flag.String("tag", "dev", "the tag of the images rollcall/NAME")
	logs     = flag.String("logs", os.TempDir(), "the directory for the logs of tests that failed")
	severed  = flag.Duration("partition", 2*time.Minute, "TestPartition: how long no collector reaches a registry")
	lossy    = flag.Duration("loss", 30*time.Second, "TestLoss, TestProxy: how long the network is bad")
	cgroup   = flag.String("cgroup-parent", "", "the control group of the containers; on a busy machine, one with a weight of its own")
	killings = flag.Int("kills", 2, "how often each process is killed")
)

// label marks everything that these tests make, with the process that made it.
const label = "rollcall.e2e"

// marks are the options that mark what a site makes.
func marks(prefix string) []string {
	return []string{"--label", label + "=" + strconv.Itoa(os.Getpid()), "--label", label + ".site=" + prefix}
}

// commandLimit bounds one command, or one block of the runbook, on a machine that is
// busy.
const commandLimit = 5 * time.Minute

// docker runs the command and returns what it printed.
func docker(ctx context.Context, args ...string) (string, error) {
	return command(ctx, nil, "docker", args...)
}

// command runs a program with an input and returns what it printed.
func command(ctx context.Context, input []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// must runs docker and fails the test when that fails.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// missing skips a test for want of something, or fails it when nothing may be
// missing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf(format+", and ROLLCALL_REQUIRE_ALL=1 requires it", args...)
	}
	t.Skipf(format, args...)
}

// sweep removes what runs that were killed have left, but nothing of another one
// that runs.
var sweep = sync.OnceValue(func() error {
	ctx := context.Background()
	var all []error
	for _, kind := range []string{"ps --all", "network ls", "volume ls"} {
		out, err := docker(ctx, append(strings.Fields(kind), "--filter", "label="+label, "--format", `{{.Label "`+label+`"}}`)...)
		all = append(all, err)
		for _, pid := range slices.Compact(slices.Sorted(slices.Values(strings.Fields(out)))) {
			if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
				_ = remove(ctx, label+"="+pid) // docker loses an endpoint at times, and keeps its network until it is restarted
			}
		}
	}
	out, err := docker(ctx, "ps", "--all", "--filter", "label="+composed, "--format", `{{.Label "`+composed+`"}}`)
	all = append(all, err)
	for _, project := range slices.Compact(slices.Sorted(slices.Values(strings.Fields(out)))) {
		pid, ours := strings.CutPrefix(project, composePrefix)
		if pid, _, _ = strings.Cut(pid, "-"); !ours {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, os.ErrNotExist) {
			_ = remove(ctx, composed+"="+project) // as above
		}
	}
	return errors.Join(all...)
})

// Compose labels what it makes with the project; ours are named by the process.
const (
	composed      = "com.docker.compose.project"
	composePrefix = "rce2e-pid"
)

// remove removes the containers, networks and volumes that have a label.
func remove(ctx context.Context, label string) error {
	var all []error
	for _, kind := range [][2]string{
		{"ps --all --quiet", "rm --force --volumes"},
		{"network ls --quiet", "network rm"},
		{"volume ls --quiet", "volume rm --force"},
	} {
		out, err := docker(ctx, append(strings.Fields(kind[0]), "--filter", "label="+label)...)
		if ids := strings.Fields(out); err == nil && len(ids) > 0 {
			err = insist(func() error {
				_, err := docker(ctx, append(strings.Fields(kind[1]), ids...)...)
				return err
			})
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

// insist tries again, for half a minute: docker removes no network while it still
// takes a container off it.
func insist(try func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	err := try()
	for err != nil && !strings.Contains(err.Error(), "No such ") && time.Now().Before(deadline) {
		<-time.After(time.Second)
		err = try()
	}
	return err
}

// need skips the test when docker does not answer or an image is missing.
func need(t *testing.T, images ...string) {
	t.Helper()
	if err := sweep(); err != nil {
		missing(t, "docker does not answer (%v)", err)
	}
	for _, image := range images {
		if _, err := docker(t.Context(), "image", "inspect", "--format", "{{.Id}}", image); err != nil {
			missing(t, "the image %s is missing (make images)", image)
		}
	}
}

// tool skips the test when a program is missing.
func tool(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, "%s is missing", name)
		}
	}
}

// image names one of ours.
func image(name string) string { return "rollcall/" + name + ":" + *tag }

// keepLogs writes the logs of a site's containers where they can be found.
func keepLogs(ctx context.Context, t *testing.T, s *site) {
	t.Helper()
	dir := filepath.Join(*logs, s.prefix)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Log(err)
		return
	}
	for _, c := range s.all() {
		out, err := exec.CommandContext(ctx, "docker", "logs", "--timestamps", c.name).CombinedOutput() //nolint:gosec // our own name
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, c.alias+".log"), out, 0o600)
		}
		if err != nil {
			t.Log(err)
		}
	}
	t.Logf("the logs are in %s", dir)
}

// pollEvery is how often await looks.
const pollEvery = 200 * time.Millisecond

// await looks every 200 ms whether what is awaited has come, for at most limit. It
// returns how long that took.
func await(t *testing.T, what string, limit time.Duration, has func() error) time.Duration {
	t.Helper()
	began := time.Now()
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		err := has()
		took := time.Since(began)
		switch {
		case err == nil:
			return took
		case took > limit:
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// hold lets time pass in which a fault lasts. It is the fault's length, and
// synchronises nothing.
func hold(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}
