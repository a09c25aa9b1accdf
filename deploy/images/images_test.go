package main

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const repository = "../.."

var testStamp = stamp{version: "v0.0.0-test", revision: "0123456789abcdef", created: time.Unix(1_700_000_000, 0).UTC(), arch: "amd64"}

// built builds each image once.
var built = sync.OnceValues(func() (map[string]v1.Image, error) { return buildAll(repository) })

func buildAll(repository string) (map[string]v1.Image, error) {
	images := make(map[string]v1.Image)
	for _, r := range catalog() {
		image, err := order{repository: repository, stamp: testStamp}.build(context.Background(), r)
		if err != nil {
			return nil, err
		}
		images[r.name] = image
	}
	return images, nil
}

// TestContents looks at every file of every image.
func TestContents(t *testing.T) {
	images, err := built()
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string][]string{"cli": {"rollcall"}, "etcd": {"etcd", "etcdctl", "etcdutl"}}
	for name, image := range images {
		t.Run(name, func(t *testing.T) {
			want := map[string]tar.Header{
				"var/": {Typeflag: tar.TypeDir, Mode: 0o755}, "var/lib/": {Typeflag: tar.TypeDir, Mode: 0o755},
				"var/lib/rollcall/": {Typeflag: tar.TypeDir, Mode: 0o700, Uid: 65532, Gid: 65532},
			}
			files, ok := commands[name]
			if !ok {
				files = []string{name}
			}
			for _, file := range files {
				want[file] = tar.Header{Typeflag: tar.TypeReg, Mode: 0o555}
			}
			got := headers(t, image)
			if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, slices.Sorted(maps.Keys(want))) {
				t.Errorf("files are %q", names)
			}
			for file, h := range got {
				w := want[file]
				if h.Typeflag != w.Typeflag || h.Mode != w.Mode || h.Uid != w.Uid || h.Gid != w.Gid || !h.ModTime.Equal(testStamp.created) {
					t.Errorf("%s: type %c, mode %o, owner %d:%d, time %v", file, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime)
				}
			}
			checkConfig(t, name, files[0], image)
		})
	}
}

func headers(t *testing.T, image v1.Image) map[string]*tar.Header {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*tar.Header)
	for _, l := range layers {
		content, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(content); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			all[h.Name] = h
		}
	}
	return all
}

func checkConfig(t *testing.T, name, entry string, image v1.Image) {
	t.Helper()
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := file.Config
	if c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/" + entry}) || c.StopSignal != "SIGTERM" || len(c.Cmd) > 0 || len(c.Shell) > 0 {
		t.Errorf("user %s, entry point %q, stop signal %s", c.User, c.Entrypoint, c.StopSignal)
	}
	if probed := c.Healthcheck != nil && len(c.Healthcheck.Test) > 1 && c.Healthcheck.Test[0] == "CMD"; probed == (name == "cli") {
		t.Errorf("healthcheck is %v", c.Healthcheck)
	}
	for _, variable := range c.Env {
		if strings.HasPrefix(variable, "ROLLCALL_INSECURE") {
			t.Error("it allows others to reach it by itself")
		}
	}
	for label, want := range map[string]string{
		"title": "rollcall/" + name, "version": testStamp.version, "revision": testStamp.revision, "created": "2023-11-14T22:13:20Z", "licenses": "Apache-2.0",
	} {
		if got := c.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
}

// TestReproducible builds a copy of the sources in another directory.
func TestReproducible(t *testing.T) {
	first, err := built()
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "a", "checkout", "elsewhere")
	for _, part := range []string{"go.mod", "go.sum", "services", "gen", "deploy/etcd", "deploy/example"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(elsewhere, part)), 0o750); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "cp", "-R", filepath.Join(repository, part), filepath.Join(elsewhere, part)).CombinedOutput(); err != nil { //nolint:gosec // names of this test
			t.Fatalf("%v\n%s", err, out)
		}
	}
	second, err := buildAll(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	for name, image := range first {
		one, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		other, err := second[name].Digest()
		if err != nil {
			t.Fatal(err)
		}
		if one != other {
			t.Errorf("%s is %s, and built elsewhere %s", name, one, other)
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, arguments := range map[string][]string{
		"no such image": {"-only", "nobody"}, "no spaces": {"-version", "v1 -X main.x=y"}, "-load perhaps": {"-load", "perhaps"}, "flags only": {"registry"},
	} {
		if err := run(t.Context(), arguments, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", arguments, err, want)
		}
	}
}
