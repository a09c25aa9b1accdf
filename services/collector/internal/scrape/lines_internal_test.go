package scrape

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

func TestLineOver(t *testing.T) {
	for _, tc := range []struct {
		body string
		over bool // 10 bytes
	}{
		{"", false},
		{"123456789\n", false},
		{"1234567890\n", true},
		{"1\n2\n3\n4\n5\n6\n7\n8\n", false},
		{"1\n2\n3\n4\n5\n123456789\n6\n", false},
		{"1\n2\n3\n4\n5\n1234567890\n6\n", true},
		{"a{b=\"\n\n\n\n\n\n\"}\n", true},
		{"\"\\\"\n\n\n\n\n\n\n\"", true},
		{"# \"\n1234\n\"56\n78\n", false}, // quotes in comments are nothing
		{"# HELP \"\n\n\n\n\n\"\n", true},
		{"#\tTYPE\t\"\n\n\n\n\n\"\n", true},
		{"# a\n\"\"\"\"\n\"\"\n\"\n", false},
	} {
		if got := lineOver([]byte(tc.body), 10); got != tc.over {
			t.Errorf("%q: %v, want %v", tc.body, got, tc.over)
		}
	}
}

// FuzzLines: with short lines the parsers are short-spoken and remember few
// labels.
func FuzzLines(f *testing.F) {
	for _, s := range []string{
		"a{b=\"\n\n\n\n", "# HELP \"\n\n\n", "# TYPE a \n\n", "a 1 # {a=\"\n", "{\"\n\",\"\n\"=\"\n\"} 1\n", "#\t HELP\t\"a\\\"\n", "a\\\"{",
	} {
		f.Add([]byte(s), []byte("xx\n"), uint8(50), false)
		f.Add([]byte(s), []byte("\n"), uint8(200), true)
		f.Add([]byte(s), []byte("\"\n"), uint8(200), true)
	}
	f.Fuzz(func(t *testing.T, body, more []byte, times uint8, om bool) {
		const limit = 20
		for range times {
			body = append(body, more...)
		}
		if bytes.IndexByte(body, 0) >= 0 {
			return
		}
		if lineOver(body, limit) {
			return
		}
		format := assignment.FormatPrometheusText
		if om {
			format = assignment.FormatOpenMetrics
		}
		p := newParser(body, format)
		for {
			_, err := p.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				// The line twice, each byte as \x00, and words.
				if n := len(err.Error()); n > 2*4*(limit+1)+200 {
					t.Errorf("an error of %d bytes: %s", n, err)
				}
				return
			}
		}
	})
}
