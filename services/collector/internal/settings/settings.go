// Package settings reads a collector's configuration file: how targets and
// series are relabeled, the limits of collections, the credentials that
// producers may name, and where samples are sent.
//
// Its invariant: a file is taken as a whole or refused as a whole. Everything it
// names is read and checked by then, unknown words are refused, and no error
// repeats a secret.
package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/alecthomas/units"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
)

// maxFile bounds the file and each one that it names, in bytes.
const maxFile = 1 << 20

// A Settings is what a file says. It is not changed once it is made.
type Settings struct {
	// Targets relabel targets, Series what they expose.
	Targets []*relabel.Config
	Series  []*relabel.Config

	// Limits hold where an assignment has none; 0 is not told.
	Limits Limits

	// Credentials are those that an assignment can name.
	Credentials map[string]Credential

	// Sinks are where samples are sent, Queue is what waits for them.
	Sinks []Sink
	Queue Queue

	// Text is the file without comments and with its secrets hidden.
	Text string
}

// Limits bound one collection, in Prometheus's words where it has them.
type Limits struct {
	// BodyBytes is of an answer, uncompressed.
	BodyBytes units.Base2Bytes `yaml:"body_size_limit,omitempty"`
	// Samples is of an exposition.
	Samples int `yaml:"sample_limit,omitempty"`
	// Labels is of one series.
	Labels int `yaml:"label_limit,omitempty"`
	// LabelNameBytes and LabelValueBytes are of one label.
	LabelNameBytes  int `yaml:"label_name_length_limit,omitempty"`
	LabelValueBytes int `yaml:"label_value_length_limit,omitempty"`
	// LineBytes is of one line of text.
	LineBytes int `yaml:"line_length_limit,omitempty"`
	// NativeBuckets is of one native histogram.
	NativeBuckets int `yaml:"native_histogram_bucket_limit,omitempty"`
}

// file is how the YAML is laid out.
type file struct {
	Targets     []*relabel.Config      `yaml:"relabel_configs,omitempty"`
	Series      []*relabel.Config      `yaml:"metric_relabel_configs,omitempty"`
	Limits      Limits                 `yaml:"limits,omitempty"`
	Credentials map[string]*credential `yaml:"credentials,omitempty"`
	Sinks       []*sink                `yaml:"sinks,omitempty"`
	Queue       Queue                  `yaml:"queue,omitempty"`
}

// A Reader returns the content of a file that a configuration names.
type Reader func(path string) ([]byte, error)

// Load reads the file at path and all that it names. Relative paths in it begin
// at its own directory.
func Load(path string) (*Settings, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := Parse(data, filepath.Dir(path), ReadFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// ReadFile reads a regular file of at most 1 MiB.
func ReadFile(path string) ([]byte, error) {
	// Before it is opened: to open a pipe may wait for ever.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// Parse checks a configuration. The files that it names are read by read,
// relative ones in dir. An empty one says nothing.
func Parse(data []byte, dir string, read Reader) (*Settings, error) {
	s, err := parse(data, dir, read)
	if err != nil && len(err.Error()) > maxError {
		return nil, errors.New(strings.ToValidUTF8(err.Error()[:maxError], "") + "...")
	}
	return s, err
}

// maxError bounds an error, in bytes: it may quote the file, and has to fit into
// an answer.
const maxError = 2000

func parse(data []byte, dir string, read Reader) (*Settings, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.SetStrict(true)
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return nil, hidden(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	s := &Settings{Targets: f.Targets, Series: f.Series, Limits: f.Limits, Credentials: make(map[string]Credential, len(f.Credentials))}
	for name, c := range f.Credentials {
		one, err := c.complete(dir, read)
		if err != nil {
			return nil, fmt.Errorf("credentials: %s: %w", name, err)
		}
		s.Credentials[name] = one
	}
	var err error
	if s.Sinks, err = f.completeSinks(data, source{dir, read}); err != nil {
		return nil, err
	}
	s.Queue = f.Queue
	s.Text, err = f.shown()
	return s, err
}

// credentialName is what a registration may say.
var credentialName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// quoted is a value in an error of the YAML library.
var quoted = regexp.MustCompile("(?s)`.*?`( into|$)")

// hidden leaves the values out of an error: they may be secrets in a wrong
// place.
func hidden(err error) error {
	if _, ok := errors.AsType[*url.Error](err); ok {
		// It quotes all of it, or what it takes for the port: with a character that has
		// to be escaped, that is the password.
		return errors.New("a URL cannot be parsed; is all in its user and password escaped?")
	}
	lines := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		lines = typed.Errors
	}
	for i, line := range lines {
		lines[i] = quoted.ReplaceAllString(line, "a value$1")
	}
	return errors.New(strings.Join(lines, "; "))
}

// check refuses what no collection could be run with.
func (f *file) check() error {
	if err := checkRules("relabel_configs", f.Targets); err != nil {
		return err
	}
	if err := checkRules("metric_relabel_configs", f.Series); err != nil {
		return err
	}
	for i, rule := range f.Targets {
		// Some names can be told only when a target is relabeled; then they are ignored.
		if rule.TargetLabel == model.ScrapeIntervalLabel || rule.TargetLabel == model.ScrapeTimeoutLabel {
			return fmt.Errorf("relabel_configs: rule %d: %s is the registry's to say", i+1, rule.TargetLabel)
		}
	}
	if err := f.Limits.check(); err != nil {
		return err
	}
	if err := f.Queue.check(); err != nil {
		return err
	}
	for name, c := range f.Credentials {
		if !credentialName.MatchString(name) { // or no registration could name it
			return fmt.Errorf("credentials: name %.100q: want [A-Za-z0-9][A-Za-z0-9._-]{0,127}", name)
		}
		if c == nil {
			return fmt.Errorf("credentials: %s is empty", name)
		}
	}
	return nil
}

func checkRules(word string, rules []*relabel.Config) error {
	for i, rule := range rules {
		if rule == nil {
			return fmt.Errorf("%s: rule %d is empty", word, i+1)
		}
		if err := rule.Validate(model.UTF8Validation); err != nil {
			return fmt.Errorf("%s: rule %d: %w", word, i+1, err)
		}
	}
	return nil
}

// maxBody and maxLabelValue bound what a file may allow.
const (
	maxBody       = 1 << 30
	maxLabelValue = 1 << 20
)

func (l *Limits) check() error {
	for _, one := range []struct {
		word        string
		value, most int64
	}{
		{"body_size_limit", int64(l.BodyBytes), maxBody},
		{"sample_limit", int64(l.Samples), math.MaxInt32},
		{"label_limit", int64(l.Labels), math.MaxInt32},
		{"label_name_length_limit", int64(l.LabelNameBytes), maxLabelValue},
		{"label_value_length_limit", int64(l.LabelValueBytes), maxLabelValue},
		{"line_length_limit", int64(l.LineBytes), maxBody},
		{"native_histogram_bucket_limit", int64(l.NativeBuckets), math.MaxInt32},
	} {
		if one.value < 0 || one.value > one.most {
			return fmt.Errorf("limits: %s is %d, want 0 to %d", one.word, one.value, one.most)
		}
	}
	return nil
}
