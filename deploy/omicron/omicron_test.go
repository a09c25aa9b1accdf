package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStory tells the story in its short form. On a machine that is busy with
// other tests a pull may be late; who is struck off is not pulled at all.
func TestStory(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some ten seconds")
	}
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "../../services/cmd/registry", "../../services/cmd/collector")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var out bytes.Buffer
	start := time.Now()
	err := tell(t.Context(), settings{
		out: &out, dir: t.TempDir(), registryCommand: filepath.Join(bin, "registry"), collectorCommand: filepath.Join(bin, "collector"),
		producers: 4, interval: 250 * time.Millisecond, pulls: 3, late: 10 * time.Second,
	})
	t.Logf("%v\n%s", time.Since(start), out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "Nobody was missed.\n") {
		t.Error("the story has no end")
	}
}

func TestTally(t *testing.T) {
	at := func(seconds ...int) (times []time.Time) {
		for _, s := range seconds {
			times = append(times, time.Unix(int64(s), 0))
		}
		return times
	}
	f := fleet{{id: "a", pulls: at(1, 2, 3, 4, 9)}, {id: "b", pulls: at(2, 6)}, {id: "c"}}
	for _, c := range []struct {
		from, to int
		want     string
	}{
		{2, 5, "pulls by producer: 3 1 0; the longest wait: 3s b"},
		{0, 4, "pulls by producer: 4 1 0; the longest wait: 4s c"},
		{6, 10, "pulls by producer: 1 1 0; the longest wait: 4s b"},
	} {
		got := f.tally(at(c.from)[0], at(c.to)[0])
		if s := got.String() + " " + got.waited; s != c.want {
			t.Errorf("from %d to %d: %s, want %s", c.from, c.to, s, c.want)
		}
	}
}
