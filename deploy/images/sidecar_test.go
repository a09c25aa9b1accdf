package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// variable is one with its value, as pages have it.
var variable = regexp.MustCompile("`(ROLLCALL_[A-Z_]+=[^`]+)`")

// documented are the variables with which operators are told to run the sidecar's
// image.
func documented(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(repository, "deploy", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "**With Docker**")
	text, _, _ = strings.Cut(text, "\n\n")
	var all []string
	for _, found := range variable.FindAllStringSubmatch(text, -1) {
		all = append(all, found[1])
	}
	return all
}

// TestTheSidecarStartsAsDocumented, with what its image sets: that has it listen for
// others, so the page has to say by what right.
func TestTheSidecarStartsAsDocumented(t *testing.T) {
	path := filepath.Join(t.TempDir(), "producer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./services/cmd/producer")
	build.Dir = repository
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	i := slices.IndexFunc(catalog(), func(r recipe) bool { return r.name == "producer" })
	cmd := exec.CommandContext(t.Context(), path)
	for _, set := range catalog()[i].env {
		set = set[:strings.LastIndex(set, ":")] // whatever port is free
		cmd.Env = append(cmd.Env, set+":0")
	}
	cmd.Env = append(cmd.Env, documented(t)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		said = append(said, lines.Text())
		if strings.Contains(lines.Text(), `"msg":"listening"`) {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s\n%s", err, strings.Join(cmd.Env, "\n"), strings.Join(said, "\n"))
	}
}
