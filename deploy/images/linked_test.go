package main

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestWhatIsLinked looks at what our own binaries say of how they were built, and
// that none grows unnoticed.
func TestWhatIsLinked(t *testing.T) {
	images, err := built()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		image, entry string
		authorities  bool // is one of those who verify by the system's
		most         int  // MB; deploy/README.md has what they are
	}{
		{"registry", "registry", true, 30},
		{"collector", "collector", true, 48},
		{"producer", "producer", false, 17},
		{"cli", "rollcall", false, 17},
		{"example", "example", false, 15},
	} {
		t.Run(test.image, func(t *testing.T) {
			binary := content(t, images[test.image], test.entry)
			info, err := buildinfo.Read(bytes.NewReader(binary))
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]string{"-tags": makeTags(t), "-trimpath": "true", "CGO_ENABLED": "0"} {
				if i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == key }); i < 0 || info.Settings[i].Value != want {
					t.Errorf("want %s=%s, got %v", key, want, info.Settings)
				}
			}
			if got := slices.ContainsFunc(info.Deps, func(m *debug.Module) bool { return m.Path == "golang.org/x/crypto/x509roots/fallback" }); got != test.authorities {
				t.Errorf("has authorities: %t", got)
			}
			if len(binary) > test.most*1e6 {
				t.Errorf("%d bytes, want at most %d MB", len(binary), test.most)
			}
		})
	}
}

// makeTags are those with which make build builds.
func makeTags(t *testing.T) string {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`(?m)^TAGS +:= (.*)$`).FindSubmatch(makefile)
	if tags == nil {
		t.Fatal("the Makefile has no TAGS")
	}
	return string(tags[1])
}

// content of a file in an image.
func content(t *testing.T, image v1.Image, name string) []byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		all, err := l.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(all); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if h.Name != name {
				continue
			}
			file, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return file
		}
	}
	t.Fatalf("there is no %s", name)
	return nil
}
