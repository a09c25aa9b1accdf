package services_test

import (
	"errors"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// invariants are the names by which the protocol's invariants are spoken of.
// Each is a test.
var invariants = strings.Fields(`
	NoRemovalWithoutSeal SealExact OneBadItemRefusesAll PoisonDoesNotFreeze AtomicApply NoImplicitEnd NestedBeginRefused
	BoundedMessages Ordered Unique Reliable
	ResumeExact ResumeSurvivesRegistryRestart ResumeOnAnotherReplica ResumeAcrossEpochs
	NoTimeTravel BehindReplicaRefuses RestoredBackupSameEpoch
	EpochChangeIsGuarded EmptyNeverWipes SmallSetNeverWipes ColdRegistryNeverWipes StaleNamesAreNotBelieved
	CollectorBlipKeepsHeld GuardEnds HeldIsNotDivergence HeldSurvivesRestart
	DigestHeals HeartbeatNeverAheadOfPending StateFileDurable StateFileCorruptionSafe OfflineStart
	SlowReaderIsolated AckTruth NackIsVisible HalfOpenDetected ReconnectStormBounded DrainClean
	NewestGenerationWins SameIdNoPingPong NoResurrection StaleReplicaLetsGo FullStoreStrikesNobody
	SecondMoveKeepsFirstOwner OldInstanceCannotTakeBack ClockStepBack SkewedHandoff`)

func TestEveryInvariantIsATest(t *testing.T) {
	tests := readTests(t, "..")
	for _, name := range invariants {
		if len(tests["Test"+name]) == 0 {
			t.Errorf("no test is named Test%s", name)
		}
	}
}

// promises is how many the README makes.
const promises = 12

var (
	promiseRow = regexp.MustCompile(`(?m)^\| P\d+ \|.*$`)
	testName   = regexp.MustCompile(`\bTest[A-Z]\w*`)
	testLink   = regexp.MustCompile(`\[(Test\w+)\]\(([^)]+)\)`)
)

// TestEveryPromiseIsATest holds the README to its table: each test that it
// names is linked, and stands where the link leads.
func TestEveryPromiseIsATest(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := promiseRow.FindAllString(string(text), -1)
	if len(rows) != promises {
		t.Errorf("the README's table has %d promises, want %d", len(rows), promises)
	}
	for _, fault := range checkPromises(rows, readTests(t, "..")) {
		t.Error(fault)
	}
}

func checkPromises(rows []string, tests map[string][]string) []string {
	var faults []string
	for _, row := range rows {
		promise := strings.Fields(row)[1]
		links := testLink.FindAllStringSubmatch(row, -1)
		for _, link := range links {
			if !slices.Contains(tests[link[1]], link[2]) {
				faults = append(faults, promise+": no "+link[1]+" in "+link[2])
			}
		}
		for _, name := range testName.FindAllString(testLink.ReplaceAllString(row, ""), -1) {
			faults = append(faults, promise+": "+name+" is not linked")
		}
		if len(links) == 0 && !strings.Contains(row, "not yet") {
			faults = append(faults, promise+": neither a test nor a word that it is not kept yet")
		}
	}
	return faults
}

func TestCheckPromises(t *testing.T) {
	tests := map[string][]string{"TestA": {"x/a_test.go", "y/a_test.go"}}
	for row, want := range map[string]string{
		"| P1 | a | [TestA](y/a_test.go) |":          "",
		"| P2 | a | nothing: not yet |":              "",
		"| P3 | a | [TestA](z/a_test.go) |":          "P3: no TestA in z/a_test.go",
		"| P4 | a | [TestB](x/a_test.go) |":          "P4: no TestB in x/a_test.go",
		"| P5 | a | [TestA](x/a_test.go), TestB |":   "P5: TestB is not linked",
		"| P6 | a | it is tested, honestly |":        "P6: neither a test nor a word that it is not kept yet",
		"| P7 | TestA | [TestA](x/a_test.go), b |":   "P7: TestA is not linked",
		"| P8 | a | [TestA](x/a_test.go), not yet |": "",
	} {
		if got := strings.Join(checkPromises([]string{row}, tests), "\n"); got != want {
			t.Errorf("%s: got %q, want %q", row, got, want)
		}
	}
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

// readTests finds the tests of the module at root by name, with the files that
// they are in.
func readTests(t *testing.T, root string) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	var packages []string
	for _, p := range readModule(t, root) {
		packages = append(packages, p.path)
	}
	packages = append(packages, "deploy/e2e/containers") // of a module of its own
	for _, dir := range packages {
		names, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range testFunction.FindAllSubmatch(text, -1) {
				tests[string(found[1])] = append(tests[string(found[1])], path.Join(dir, filepath.Base(name)))
			}
		}
	}
	return tests
}

func TestReadTests(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"a/a.go":      "// Package a is told.\npackage a\n\nfunc TestNot() {}\n",
		"a/a_test.go": "package a\n\nfunc TestOne(t *testing.T) {}\n\n// func TestTwo(\n",
		"b/b_test.go": "package b\n\nfunc TestOne(t *testing.T) {\n\tfunc TestThree(\n}\n",
	} {
		err := errors.Join(os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o700),
			os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
		if err != nil {
			t.Fatal(err)
		}
	}
	got := readTests(t, root)
	want := map[string][]string{"TestOne": {"a/a_test.go", "b/b_test.go"}}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
}
