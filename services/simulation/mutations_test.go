package simulation

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var mutate = flag.Bool("mutate", false, "have TestMutations build each bug and run the test that must find it")

// A mutation is a deliberate bug: a patch in testdata/mutations. Before the diff
// it says what the bug is, and which test must turn red:
//
//	Package: ./services/simulation
//	Test: TestStories/full-disk
type mutation struct {
	name, path string
	pkg, test  string
	files      []string // that it changes, from the module's root
}

const moduleRoot = "../.."

func mutations(t *testing.T) []mutation {
	t.Helper()
	paths, err := filepath.Glob("testdata/mutations/*.patch")
	if err != nil || len(paths) < 40 {
		t.Fatalf("%d mutations, want at least 40: %v", len(paths), err)
	}
	var all []mutation
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m := mutation{name: strings.TrimSuffix(filepath.Base(path), ".patch")}
		if m.path, err = filepath.Abs(path); err != nil {
			t.Fatal(err)
		}
		preamble, diff, _ := strings.Cut(string(text), "\ndiff --git ")
		for line := range strings.Lines(preamble) {
			if pkg, ok := strings.CutPrefix(line, "Package: "); ok {
				m.pkg = strings.TrimSpace(pkg)
			}
			if test, ok := strings.CutPrefix(line, "Test: "); ok {
				m.test = strings.TrimSpace(test)
			}
		}
		for line := range strings.Lines(diff) {
			if file, ok := strings.CutPrefix(line, "--- a/"); ok {
				m.files = append(m.files, strings.TrimSpace(file))
			}
		}
		if m.pkg == "" || m.test == "" || len(m.files) == 0 {
			t.Fatalf("%s does not tell its Package and Test, or changes nothing", path)
		}
		all = append(all, m)
	}
	return all
}

// TestMutations checks that each deliberate bug can still be applied, and that the
// test named with it is there. With -mutate, as make mutate does, it builds the bug
// and sees this test, which is green without it, turn red.
func TestMutations(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatal("git is required")
		}
		t.Skip("git is not installed")
	}
	sound := map[string]string{} // test binaries without a bug, by package
	green := map[string]bool{}   // tests that were seen to be, by package and name
	dir := t.TempDir()
	for _, m := range mutations(t) {
		t.Run(m.name, func(t *testing.T) {
			overlay := m.apply(t)
			m.find(t)
			if !*mutate {
				return
			}
			if sound[m.pkg] == "" {
				binary := filepath.Join(dir, filepath.Base(m.pkg)+".test")
				compile(t, binary, m.pkg)
				sound[m.pkg] = binary
			}
			if key := m.pkg + " " + m.test; !green[key] {
				if red, out := m.red(t, sound[m.pkg], 1); red {
					t.Fatalf("%s is red without the bug:\n%s", m.test, out)
				}
				green[key] = true
			}
			binary := filepath.Join(t.TempDir(), "mutated.test")
			compile(t, binary, m.pkg, "-overlay", overlay)
			red, out := m.red(t, binary, tries)
			if !red {
				t.Fatalf("%s does not find it, %d times:\n%s", m.test, tries, out)
			}
			t.Logf("%s finds it: %s", m.test, complaint.FindString(out))
		})
	}
}

// apply applies the patch to copies, and returns an overlay that has the go
// command build them in the place of the files: so nothing is changed here, and
// what the bug does not touch is not built again.
func (m *mutation) apply(t *testing.T) (overlay string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for _, file := range m.files {
		source, err := filepath.Abs(filepath.Join(moduleRoot, file))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		replace[source] = filepath.Join(dir, file)
		write(t, replace[source], text)
	}
	cmd := exec.Command("git", "apply", m.path)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_DIR="+os.DevNull) // whatever repository this is in, or run by
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("it cannot be applied: %v\n%s", err, out)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	write(t, overlay, text)
	return overlay
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// find looks for the test in its package.
func (m *mutation) find(t *testing.T) {
	t.Helper()
	name, _, _ := strings.Cut(m.test, "/")
	paths, err := filepath.Glob(filepath.Join(moduleRoot, m.pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T) {") {
			return
		}
	}
	t.Fatalf("no %s in %s", name, m.pkg)
}

// compile makes the test binary of a package. A bug that cannot be built has not
// been found.
func compile(t *testing.T, binary, pkg string, flags ...string) {
	t.Helper()
	// Without tables for a debugger it is linked in half the time.
	args := slices.Concat([]string{"test", "-c", "-ldflags=-s -w", "-o", binary}, flags, []string{pkg})
	cmd := exec.Command("go", args...)
	cmd.Dir = moduleRoot
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("it cannot be built: %v\n%s", err, out)
	}
}

// complaint is what a test that fails says first.
var complaint = regexp.MustCompile(`(?m)\w+_test\.go:\d+: .*|^panic: .*`)

// tries is how often a test may look for its bug: the order of goroutines is not
// fixed in a bubble, and in some stories the bug shows in every second run.
const tries = 10

// red runs the test so many times, or until it is red. It is red when it fails, also by a panic wherever that is,
// but not when it does not come to an end.
func (m *mutation) red(t *testing.T, binary string, times int) (red bool, output string) {
	t.Helper()
	var pattern []string
	for name := range strings.SplitSeq(m.test, "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(name)+"$")
	}
	cmd := exec.Command(binary, "-test.run", strings.Join(pattern, "/"), "-test.count", strconv.Itoa(times),
		"-test.failfast", "-test.timeout", "10m", "-test.paniconexit0")
	cmd.Dir = filepath.Join(moduleRoot, m.pkg)
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case strings.Contains(text, "panic: test timed out") || strings.Contains(text, "testing: warning: no tests to run"):
		t.Fatalf("%s was not run to its end:\n%s", m.test, text)
	case err == nil:
		return false, text
	case !strings.Contains(text, "--- FAIL: "+m.test+" (") && !strings.Contains(text, "panic: "):
		t.Fatalf("%s was not run: %v\n%s", m.test, err, text)
	}
	return true, text
}
