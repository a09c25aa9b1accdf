package alerts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const rules = "rollcall.yml"

func TestRulesAreTaken(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatal("promtool is required (Debian package prometheus)")
		}
		t.Skip("promtool is not installed (Debian package prometheus)")
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", rules).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestRulesAskForWhatIsThere: promtool takes a rule that asks for a metric which
// nobody has; it never fires.
func TestRulesAskForWhatIsThere(t *testing.T) {
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`rollcall_[a-z_]+`)
	asked := name.FindAllString(string(text), -1)
	if len(asked) < 12 {
		t.Errorf("the rules ask for %v", asked)
	}
	files, err := filepath.Glob("../../services/[cr]*/internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	shared, err := filepath.Glob("../../services/internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, shared...)
	var made []string
	for _, file := range files {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") {
			made = append(made, name.FindAllString(string(code), -1)...)
		}
	}
	for _, metric := range asked {
		if !slices.Contains(made, metric) {
			t.Errorf("nobody has %s", metric)
		}
	}
}
