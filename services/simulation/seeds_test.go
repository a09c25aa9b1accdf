package simulation

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"
)

var (
	seeds       = flag.Int("seeds", 100, "how many seeds TestSeeds plays")
	firstSeed   = flag.Uint64("first-seed", 1, "the first seed that TestSeeds plays")
	scriptFile  = flag.String("script", "", "the story that TestReplay plays")
	times       = flag.Int("times", 20, "how often TestReplay plays it")
	minimizes   = flag.Int("minimize", 1, "how many failing scripts are made shorter")
	verboseLogs = flag.Bool("logs", false, "print what the processes log")
)

// TestSeeds plays the scripts of seeds: P1 to P5 and P7 under faults. A seed
// fixes the commands, the faults and their times. It does not fix how goroutines
// interleave, so a script that fails once need not fail each time.
func TestSeeds(t *testing.T) {
	var mu sync.Mutex
	faults := map[string]int{}
	var played, broken int
	t.Run("play", func(t *testing.T) {
		for n := range *seeds {
			seed := *firstSeed + uint64(n)
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				script := generateScript(seed)
				violations, had := playTown(t, seed, script)
				mu.Lock()
				played++
				for kind, n := range had {
					faults[kind] += n
				}
				mu.Unlock()
				if len(violations) == 0 {
					return
				}
				mu.Lock()
				broken++
				first := broken <= *minimizes
				mu.Unlock()
				t.Errorf("seed %d:\n  %s", seed, strings.Join(violations, "\n  "))
				switch {
				case first:
					minimize(t, seed, script)
				case *minimizes == 0:
					t.Logf("all of it:\n%s", story(seed, script))
				}
			})
		}
	})
	t.Logf("%d seeds of %d simulated minutes, %d with violations", played, int(scriptLength.Minutes()), broken)
	for _, kind := range slices.Sorted(maps.Keys(faults)) {
		t.Logf("%8d %s", faults[kind], kind)
	}
}

// attempts is how often a shorter script is tried before it counts as harmless:
// whether it fails may depend on how goroutines interleave.
const attempts = 3

// minimize prints a shorter script that still fails.
func minimize(t *testing.T, seed uint64, script []step) {
	t.Helper()
	fails := func(script []step) bool {
		for range attempts {
			if violations, _ := playTown(t, seed, script); len(violations) > 0 {
				return true
			}
		}
		return false
	}
	if !fails(script) {
		t.Logf("seed %d did not fail again in %d times; all of it:\n%s", seed, attempts, story(seed, script))
		return
	}
	budget := 150 // plays
	for size := len(script) / 2; size > 0 && budget > 0; size /= 2 {
		for i := 0; i < len(script) && budget > 0; {
			budget--
			shorter := slices.Concat(script[:i], script[min(i+size, len(script)):])
			if fails(shorter) {
				script = shorter
			} else {
				i += size
			}
		}
	}
	t.Logf("replay it with: go test ./services/simulation -run TestReplay -script FILE\n%s", story(seed, script))
}

// story writes a script as a file that TestReplay and TestStories play.
func story(seed uint64, script []step) string {
	return fmt.Sprintf("What happened under seed %d.\n-- seed --\n%d\n-- script --\n%s", seed, seed, formatScript(script))
}

// readStory reads one.
func readStory(t *testing.T, path string) (seed uint64, script []step) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(data).Files {
		switch f.Name {
		case "seed":
			_, err = fmt.Sscan(string(f.Data), &seed)
		case "script":
			script, err = parseScript(string(f.Data))
		default:
			err = fmt.Errorf("a story has no part %q", f.Name)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if len(script) == 0 {
		t.Fatalf("%s: no script", path)
	}
	return seed, script
}

// TestReplay plays one story many times and tells how often it failed.
func TestReplay(t *testing.T) {
	if *scriptFile == "" {
		t.Skip("no -script is given")
	}
	seed, script := readStory(t, *scriptFile)
	failed := 0
	for n := range *times {
		violations, _ := playTown(t, seed, script)
		if len(violations) > 0 {
			failed++
			t.Logf("time %d:\n  %s", n+1, strings.Join(violations, "\n  "))
		}
	}
	t.Logf("failed %d of %d times", failed, *times)
	if failed > 0 {
		t.Fail()
	}
}

// TestStories plays the stories in testdata.
func TestStories(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			seed, script := readStory(t, path)
			violations, _ := playTown(t, seed, script)
			for _, v := range violations {
				t.Error(v)
			}
		})
	}
}
