package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const source = "https://github.com/rollcall-metrics/rollcall"

// assemble makes an image of the commands in a directory: a layer with the data
// directory, which all images share, and one with the commands.
func assemble(r recipe, s stamp, binaries string) (v1.Image, error) {
	data, err := dataLayer(s.created)
	if err != nil {
		return nil, err
	}
	commands, err := commandLayer(binaries, s.created)
	if err != nil {
		return nil, err
	}
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)
	image, err = mutate.Append(image,
		mutate.Addendum{Layer: data, History: v1.History{Created: v1.Time{Time: s.created}, CreatedBy: "an empty " + dataDir}},
		mutate.Addendum{Layer: commands, History: v1.History{Created: v1.Time{Time: s.created}, CreatedBy: strings.Join(r.packages, " ")}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, r.config(image, s))
}

// config is what the image says about itself and how it is run. The layers of
// image are in it already.
func (r recipe) config(image v1.Image, s stamp) *v1.ConfigFile {
	config, err := image.ConfigFile()
	if err != nil { // it was made in memory, two lines above
		panic(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", s.arch
	config.Created = v1.Time{Time: s.created}
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", user, user),
		Entrypoint:   []string{"/" + r.entry},
		Env:          r.env,
		ExposedPorts: make(map[string]struct{}),
		Healthcheck:  r.health(),
		StopSignal:   "SIGTERM",
		WorkingDir:   "/",
		Labels: map[string]string{
			"org.opencontainers.image.title":       "rollcall/" + r.name,
			"org.opencontainers.image.description": r.description,
			"org.opencontainers.image.version":     s.version,
			"org.opencontainers.image.revision":    s.revision,
			"org.opencontainers.image.created":     s.created.UTC().Format(time.RFC3339),
			"org.opencontainers.image.licenses":    "Apache-2.0",
			"org.opencontainers.image.source":      source,
		},
	}
	for _, port := range r.ports {
		config.Config.ExposedPorts[port] = struct{}{}
	}
	return config
}

// dataLayer has the data directory, empty. A new named volume that is mounted
// there gets its owner.
func dataLayer(created time.Time) (v1.Layer, error) {
	return layer(func(w *tar.Writer) error {
		for _, dir := range []struct {
			name  string
			mode  int64
			owner int
		}{{"var/", 0o755, 0}, {"var/lib/", 0o755, 0}, {strings.TrimPrefix(dataDir, "/") + "/", 0o700, user}} {
			if err := w.WriteHeader(&tar.Header{
				Typeflag: tar.TypeDir, Name: dir.name, Mode: dir.mode, Uid: dir.owner, Gid: dir.owner, ModTime: created, Format: tar.FormatPAX,
			}); err != nil {
				return err
			}
		}
		return nil
	})
}

// commandLayer has the files of a directory, in the order of their names, in /.
// They belong to root, and to nobody is the right to write them.
func commandLayer(dir string, created time.Time) (v1.Layer, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	return layer(func(w *tar.Writer) error {
		for _, entry := range entries {
			content, err := os.ReadFile(filepath.Join(dir, entry.Name())) //nolint:gosec // what was just built
			if err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{
				Typeflag: tar.TypeReg, Name: entry.Name(), Mode: 0o555, Size: int64(len(content)), ModTime: created, Format: tar.FormatPAX,
			}); err != nil {
				return err
			}
			if _, err := w.Write(content); err != nil {
				return err
			}
		}
		return nil
	})
}

// layer makes a layer of what fill writes.
func layer(fill func(*tar.Writer) error) (v1.Layer, error) {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := fill(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer))
}
