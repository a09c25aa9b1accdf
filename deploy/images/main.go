package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// An order is what the command line asks for.
type order struct {
	repository string
	out        string
	tag        string
	stamp      stamp
	only       []string // names; empty: all
	load       bool
	loadFound  bool // load only if docker answers
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string, w io.Writer) error {
	o, err := parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	return o.fill(ctx, w)
}

func parse(arguments []string) (order, error) {
	var o order
	var seconds int64
	var only, load string
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	flags.StringVar(&o.repository, "repository", ".", "the repository's `directory`")
	flags.StringVar(&o.out, "out", "bin/images", "write images into this `directory`")
	flags.StringVar(&o.tag, "tag", "dev", "the images' tag")
	flags.StringVar(&o.stamp.version, "version", "unknown", "the version that is built")
	flags.StringVar(&o.stamp.revision, "commit", "unknown", "the commit that is built")
	flags.Int64Var(&seconds, "epoch", 0, "the time that everything bears, in `seconds` since 1970: the commit's")
	flags.StringVar(&o.stamp.arch, "arch", runtime.GOARCH, "the processor that is built for, in Go's words")
	flags.StringVar(&only, "only", "", "build only these images, such as `registry,collector`")
	flags.StringVar(&load, "load", "auto", "load the images into docker: yes, no, or auto, which is if it answers")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q: want flags only", flags.Arg(0))
	}
	for _, value := range []string{o.stamp.version, o.stamp.revision} {
		if strings.ContainsAny(value, " \t\n'\"") {
			return o, fmt.Errorf("%q: want no spaces and quotes, which the linker's flags are made of", value)
		}
	}
	if !slices.Contains([]string{"yes", "no", "auto"}, load) {
		return o, fmt.Errorf("-load %s: want yes, no or auto", load)
	}
	o.load, o.loadFound = load != "no", load == "auto"
	o.stamp.created = time.Unix(seconds, 0).UTC()
	o.only = slices.DeleteFunc(strings.Split(only, ","), func(s string) bool { return s == "" })
	return o, nil
}

// recipes are those that were asked for.
func (o order) recipes() ([]recipe, error) {
	all := catalog()
	if len(o.only) == 0 {
		return all, nil
	}
	var chosen []recipe
	for _, name := range o.only {
		i := slices.IndexFunc(all, func(r recipe) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: there is no such image", name)
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// fill builds, writes and loads what was ordered, and prints a line for each.
func (o order) fill(ctx context.Context, w io.Writer) error {
	recipes, err := o.recipes()
	if err != nil {
		return err
	}
	load := o.load
	if load && o.loadFound {
		load = dockerAnswers(ctx)
	}
	fmt.Fprintf(w, "%-24s %10s %10s  %s\n", "image", "MB", "compressed", "digest")
	for _, r := range recipes {
		absent, err := r.missing(o.repository)
		if err != nil {
			return err
		}
		if absent != "" {
			fmt.Fprintf(w, "%-24s left out: there is no %s\n", "rollcall/"+r.name, absent)
			continue
		}
		image, err := o.build(ctx, r)
		if err != nil {
			return err
		}
		if err := write(image, r, o.tag, o.out); err != nil {
			return err
		}
		if load {
			if err := loadImage(ctx, r, o.out); err != nil {
				return err
			}
		}
		if err := tell(w, image, "rollcall/"+r.name+":"+o.tag); err != nil {
			return err
		}
	}
	if load {
		fmt.Fprintf(w, "in %s, and loaded into docker\n", o.out)
	} else {
		fmt.Fprintf(w, "in %s, not loaded into docker\n", o.out)
	}
	return nil
}

// build makes one image.
func (o order) build(ctx context.Context, r recipe) (v1.Image, error) {
	dir, err := os.MkdirTemp("", "rollcall-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binaries := filepath.Join(dir, "bin")
	if err := compile(ctx, o.repository, r, o.stamp, binaries); err != nil {
		return nil, err
	}
	return assemble(r, o.stamp, binaries)
}

// tell prints what an image is and takes.
func tell(w io.Writer, image v1.Image, ref string) error {
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	var unpacked, compressed int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		compressed += n
		r, err := l.Uncompressed()
		if err != nil {
			return err
		}
		if n, err = io.Copy(io.Discard, r); err != nil {
			return err
		}
		unpacked += n
	}
	const mega = 1e6
	fmt.Fprintf(w, "%-24s %10.1f %10.1f  %s\n", ref, float64(unpacked)/mega, float64(compressed)/mega, digest)
	return nil
}
