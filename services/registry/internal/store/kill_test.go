package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// childVariable, in the environment, makes the test binary a child that writes
// to the embedded store in the directory that it names.
const childVariable = "ROLLCALL_STORE_TEST_CHILD"

func record(id, text string) *roster.Producer {
	return &roster.Producer{ID: assignment.ProducerID(id), Stored: []byte(text), Life: roster.LifeOf(false)}
}

// runChild commits without end and says after each commit what it was.
func runChild(dir string) error {
	ctx := context.Background()
	s, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Dir: dir, SnapshotCount: 50})
	if err != nil {
		return err
	}
	said := "open\n"
	for {
		if _, err := os.Stdout.WriteString(said); err != nil {
			return err
		}
		txns := make([]roster.Txn, 1+rand.IntN(200))
		for i := range txns {
			txns[i] = create(fmt.Sprintf("%d.%d", time.Now().UnixNano(), i))
		}
		outcomes, err := s.Commit(ctx, txns)
		if err != nil {
			return err
		}
		var lines strings.Builder
		for i, outcome := range outcomes {
			fmt.Fprintf(&lines, "committed %s %d\n", txns[i][0].Key.ID, outcome.Revision)
		}
		said = lines.String()
	}
}

// TestAcknowledgedIsDurable kills a process, by SIGKILL, while it commits, and
// looks for everything that it had said was committed.
func TestAcknowledgedIsDurable(t *testing.T) {
	t.Parallel()
	const kills = 4
	dir := filepath.Join(t.TempDir(), "data")
	acknowledged := map[string]assignment.Revision{}
	for range kills {
		killChild(t, dir, acknowledged)
		checkAcknowledged(t, dir, acknowledged)
	}
	t.Logf("%d commits were acknowledged", len(acknowledged))
}

// TestKilledWhileOpening kills a process, by SIGKILL, while it makes a new store
// or soon after. The store can be opened.
func TestKilledWhileOpening(t *testing.T) {
	t.Parallel()
	for range 4 {
		dir := filepath.Join(t.TempDir(), "data")
		child, output := startChild(t, dir)
		time.AfterFunc(time.Duration(rand.IntN(200))*time.Millisecond, func() { _ = child.Process.Kill() })
		said, _ := io.ReadAll(output)
		_ = child.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s, err := store.OpenEmbedded(ctx, store.EmbeddedConfig{Dir: dir})
		cancel()
		if err != nil {
			t.Fatalf("the child was killed when it had said %.10q: %v", said, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func startChild(t *testing.T, dir string) (*exec.Cmd, io.Reader) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), childVariable+"="+dir)
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return child, output
}

// killChild adds what a child has acknowledged until it was killed.
func killChild(t *testing.T, dir string, acknowledged map[string]assignment.Revision) {
	t.Helper()
	child, output := startChild(t, dir)
	lines := bufio.NewReader(output)
	if line, _ := lines.ReadString('\n'); line != "open\n" {
		_ = child.Process.Kill()
		t.Fatalf("the child said %q", line)
	}
	kill := time.AfterFunc(time.Duration(20+rand.IntN(250))*time.Millisecond, func() { _ = child.Process.Kill() })
	defer kill.Stop()
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a last line that is cut off acknowledges nothing
		}
		var id string
		var revision assignment.Revision
		if _, err := fmt.Sscanf(line, "committed %s %d\n", &id, &revision); err != nil {
			t.Fatalf("the child said %q", line)
		}
		acknowledged[id] = revision
	}
	if err := child.Wait(); err == nil {
		t.Error("the child ended by itself")
	}
}

func checkAcknowledged(t *testing.T, dir string, acknowledged map[string]assignment.Revision) {
	t.Helper()
	s := openEmbedded(t, store.EmbeddedConfig{Dir: dir, SnapshotCount: 50})
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	stands := map[string]assignment.Revision{}
	revision, err := s.Load(background(t), func(found roster.Found) error {
		stands[found.Record.Key().ID] = found.Revision
		return nil
	})
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	for id, at := range acknowledged {
		if stands[id] != at || at > revision {
			t.Fatalf("%s was acknowledged at revision %d and stands at %d; the store is at %d", id, at, stands[id], revision)
		}
	}
}
