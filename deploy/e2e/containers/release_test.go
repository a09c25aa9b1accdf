//go:build e2e

package containers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// buildLimit bounds the build of another release, from nothing.
const buildLimit = 8 * time.Minute

// release builds commands of a commit of this repository and makes an image of
// each, by command.
func release(t *testing.T, commit string, images map[string]string) {
	t.Helper()
	tool(t, "git", "go")
	if _, err := command(t.Context(), nil, "git", "cat-file", "-e", commit+"^{commit}"); err != nil {
		missing(t, "this clone has no commit %s: the release before is in its history (git fetch --unshallow)", commit)
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o750); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "source.tar")
	root, err := command(t.Context(), nil, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"git", "-C", root, "archive", "--output", archive, commit},
		{"tar", "-x", "-C", source, "-f", archive},
	} {
		if _, err := command(t.Context(), nil, args[0], args[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	for name, image := range images {
		bin := filepath.Join(dir, name)
		ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", bin, "./services/cmd/"+name) //nolint:gosec // our own names
		cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s of %s: %v\n%s", name, commit, err, out)
		}
		pack(t, bin, name, image)
	}
}

// pack makes an image of one binary, with the layout of ours.
func pack(t *testing.T, bin, name, image string) {
	t.Helper()
	content, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []tar.Header{
		{Name: "var/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "var/lib/rollcall/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 65532, Gid: 65532},
		{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))},
	} {
		err := w.WriteHeader(&h)
		if err == nil && h.Typeflag == tar.TypeReg {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = command(t.Context(), layer.Bytes(), "docker", "import",
		"--change", fmt.Sprintf("ENTRYPOINT [%q]", "/"+name), "--change", "USER 65532:65532", "-", image)
	if err != nil {
		t.Fatal(err)
	}
}
