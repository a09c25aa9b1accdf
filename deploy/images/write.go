package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// annotationRef names an image in a layout.
const annotationRef = "org.opencontainers.image.ref.name"

// write puts an image into out: as an OCI layout NAME/, and as NAME.tar, which
// docker load takes. What is there of an older build is replaced.
func write(image v1.Image, r recipe, tag, out string) error {
	ref, err := name.NewTag("rollcall/"+r.name+":"+tag, name.WithDefaultRegistry(""))
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	dir := filepath.Join(out, r.name)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
		Annotations: map[string]string{annotationRef: tag},
		Platform:    config.Platform(),
	}})
	if _, err := layout.Write(dir, index); err != nil {
		return err
	}
	return tarball.WriteToFile(dir+".tar", ref, image)
}

// answerLimit is how long docker may take to say that it is there.
const answerLimit = 10 * time.Second

// dockerAnswers tells whether there is a docker to load images into.
func dockerAnswers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	return exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").Run() == nil
}

// loadImage gives an image to docker.
func loadImage(ctx context.Context, r recipe, out string) error {
	tar := filepath.Join(out, r.name+".tar")
	if said, err := exec.CommandContext(ctx, "docker", "load", "--quiet", "--input", tar).CombinedOutput(); err != nil { //nolint:gosec // the file that was just written
		return fmt.Errorf("docker load --input %s: %w\n%s", tar, err, said)
	}
	return nil
}
