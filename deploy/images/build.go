package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A stamp is what an image tells about where it comes from.
type stamp struct {
	version  string
	revision string // the commit
	created  time.Time
	arch     string
}

const processPackage = "github.com/rollcall-metrics/rollcall/services/internal/process"

// missing tells which of the packages of a recipe is not there; empty if none.
func (r recipe) missing(repository string) (string, error) {
	for _, p := range r.packages {
		if !strings.HasPrefix(p, ".") {
			continue // of another module
		}
		_, err := os.Stat(filepath.Join(repository, r.module, p))
		if errors.Is(err, fs.ErrNotExist) {
			return p, nil
		} else if err != nil {
			return "", err
		}
	}
	return "", nil
}

// compile builds the commands of a recipe into a directory. The environment
// decides nothing of what comes out but the version of Go.
func compile(ctx context.Context, repository string, r recipe, s stamp, into string) error {
	arguments := []string{
		"build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-tags", r.tags(), "-o", into + string(filepath.Separator),
		"-ldflags", fmt.Sprintf("-s -w -X %s.Version=%s -X %s.Commit=%s", processPackage, s.version, processPackage, s.revision),
	}
	build := exec.CommandContext(ctx, "go", append(arguments, r.packages...)...) //nolint:gosec // the catalog's packages
	build.Dir = filepath.Join(repository, r.module)
	build.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+s.arch, "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build for image %s: %w\n%s", r.name, err, out)
	}
	if _, err := os.Stat(filepath.Join(into, r.entry)); err != nil {
		return fmt.Errorf("image %s has no entry point: %w", r.name, err)
	}
	return nil
}
