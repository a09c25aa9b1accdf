package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// docker runs docker and returns what it printed.
func docker(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// needDocker skips a test where no docker answers.
func needDocker(t *testing.T) {
	t.Helper()
	switch {
	case dockerAnswers(t.Context()):
	case os.Getenv("ROLLCALL_REQUIRE_ALL") == "1":
		t.Fatal("no docker answers, and ROLLCALL_REQUIRE_ALL=1 requires it")
	default:
		t.Skip("no docker answers")
	}
}

// TestTheRegistryBecomesHealthy loads the registry's image and runs it as the
// compose files do: as nobody, with nothing writable but a new volume.
func TestTheRegistryBecomesHealthy(t *testing.T) {
	needDocker(t)
	o := order{repository: repository, out: t.TempDir(), tag: fmt.Sprintf("test-%d", os.Getpid()), stamp: testStamp, only: []string{"registry"}, load: true}
	var said strings.Builder
	if err := o.fill(t.Context(), &said); err != nil {
		t.Fatal(err)
	}
	image, name := "rollcall/registry:"+o.tag, "rollcall-images-"+o.tag
	t.Cleanup(func() { remove(t, image, name) })
	begun := fmt.Sprint(time.Now().Unix() - 1)
	docker(t, "run", "--detach", "--name", name, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--network", "none", "--health-interval", "1s", "--volume", name+":"+dataDir, "--env", "ROLLCALL_DATA_DIR="+dataDir,
		"--env", "ROLLCALL_INSECURE=true", "--env", "ROLLCALL_ADVERTISE_HTTP=registry:7471", image)
	if state := firstHealth(t, name, begun); !strings.HasSuffix(state, "healthy") || strings.HasSuffix(state, "unhealthy") {
		t.Errorf("it became %q\n%s", state, docker(t, "logs", name))
	}
	if version := docker(t, "exec", name, "/registry", "--version"); !strings.Contains(version, testStamp.version) || !strings.Contains(version, testStamp.revision) {
		t.Errorf("it says %q of itself", version)
	}
	docker(t, "stop", "--time", "60", name)
	if code := docker(t, "inspect", "--format", "{{.State.ExitCode}}", name); code != "0" {
		t.Errorf("it stopped with %s\n%s", code, docker(t, "logs", name))
	}
}

// firstHealth waits for the first verdict of the health check.
func firstHealth(t *testing.T, name, since string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	events := exec.CommandContext(ctx, "docker", "events", "--since", since, "--filter", "container="+name, //nolint:gosec // a name of this test
		"--filter", "event=health_status", "--format", "{{.Status}}")
	out, err := events.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n') // "" if the time is over
	cancel()
	_ = events.Wait() // it was killed
	return strings.TrimSpace(line)
}

// remove leaves nothing of the test in docker.
func remove(t *testing.T, image, name string) {
	t.Helper()
	for _, arguments := range [][]string{{"rm", "--force", name}, {"volume", "rm", name}, {"image", "rm", image}} {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "docker", arguments...).CombinedOutput(); err != nil { //nolint:gosec // names of this test
			t.Errorf("docker %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
	}
}
