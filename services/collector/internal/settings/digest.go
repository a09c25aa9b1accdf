package settings

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v2"
)

// sinkDigests are of the sinks as they are written. What a merge key brings is not
// among that, and may be from anywhere in the file: with one, all of it counts.
func sinkDigests(data []byte) ([]string, error) {
	var raw struct {
		Sinks []yaml.MapSlice `yaml:"sinks"`
	}
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, hidden(err)
	}
	var merged []byte
	if bytes.Contains(data, []byte("<<")) {
		merged = data
	}
	all := make([]string, len(raw.Sinks))
	for i, one := range raw.Sinks {
		text, err := yaml.Marshal(one)
		if err != nil {
			return nil, errors.New("sinks: cannot be read")
		}
		all[i] = digest(string(text), string(merged))
	}
	return all, nil
}

// digest is of all parts, each in its bounds.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return string(h.Sum(nil))
}
