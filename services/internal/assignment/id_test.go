package assignment_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"pgregory.net/rapid"
)

// The expressions stand in the documentation of the types and in the protocol.
var (
	producerID  = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\z`)
	collectorID = regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\z`)
)

func TestParseIDs(t *testing.T) {
	longest := "a" + strings.Repeat("Z", 127)
	for _, tc := range []struct {
		name                string
		id                  string
		producer, collector bool
	}{
		{"one letter", "a", true, true},
		{"one digit", "0", true, true},
		{"all marks", "a.b_c-d", true, true},
		{"colon", "host:9100", true, false},
		{"slash", "job/host", true, false},
		{"ends with a mark", "a-", true, true},
		{"128 bytes", longest, true, true},
		{"129 bytes", longest + "a", false, false},
		{"far too long", strings.Repeat("a", 1<<20), false, false},
		{"empty", "", false, false},
		{"begins with dot", ".a", false, false},
		{"begins with dash", "-a", false, false},
		{"begins with underscore", "_a", false, false},
		{"begins with colon", ":a", false, false},
		{"begins with slash", "/a", false, false},
		{"space", "a b", false, false},
		{"leading space", " a", false, false},
		{"trailing newline", "a\n", false, false},
		{"NUL", "a\x00", false, false},
		{"DEL", "a\x7f", false, false},
		{"letter that is not ASCII", "aä", false, false},
		{"begins with a letter that is not ASCII", "äa", false, false},
		{"digit that is not ASCII", "a٣", false, false},
		{"invalid UTF-8", "a\xff", false, false},
		{"before A", "a@", false, false},
		{"after Z", "a[", false, false},
		{"before a", "a`", false, false},
		{"after z", "a{", false, false},
		{"before 0 that is no mark", "a,", false, false},
		{"after 9 that is no mark", "a;", false, false},
		{"percent", "a%2f", false, false},
		{"backslash", `a\b`, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := assignment.ParseProducerID(tc.id)
			checkVerdict(t, "ParseProducerID", tc.id, err, tc.producer)
			_, err = assignment.ParseInstanceID(tc.id)
			checkVerdict(t, "ParseInstanceID", tc.id, err, tc.producer)
			_, err = assignment.ParseCollectorID(tc.id)
			checkVerdict(t, "ParseCollectorID", tc.id, err, tc.collector)
		})
	}
}

// checkVerdict checks that a parser took what it had to take, and otherwise
// said why, with the right error and in few words.
func checkVerdict(t rapid.TB, parser, id string, err error, want bool) {
	t.Helper()
	switch {
	case want && err != nil:
		t.Errorf("%s(%q) = %v, want it accepted", parser, id, err)
	case !want && err == nil:
		t.Errorf("%s(%q) was accepted", parser, id)
	case !want && !errors.Is(err, assignment.ErrID):
		t.Errorf("%s(%q) = %v, does not wrap ErrID", parser, id, err)
	case !want && len(err.Error()) > 1000:
		t.Errorf("%s: the error has %d bytes", parser, len(err.Error()))
	}
}

func checkIDs(t rapid.TB, s string) {
	t.Helper()
	p, err := assignment.ParseProducerID(s)
	checkVerdict(t, "ParseProducerID", s, err, producerID.MatchString(s))
	i, err2 := assignment.ParseInstanceID(s)
	checkVerdict(t, "ParseInstanceID", s, err2, producerID.MatchString(s))
	c, err3 := assignment.ParseCollectorID(s)
	checkVerdict(t, "ParseCollectorID", s, err3, collectorID.MatchString(s))
	if err == nil && string(p) != s || err2 == nil && string(i) != s || err3 == nil && string(c) != s {
		t.Errorf("%q was parsed to %q, %q, %q", s, p, i, c)
	}
}

func TestParseIDsAgreeWithTheirExpressions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Near misses are more telling than any strings.
		s := rapid.OneOf(
			rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:/-]{0,140}`),
			rapid.StringMatching(`[A-Za-z0-9._:/-]{0,5}.{0,2}[A-Za-z0-9._:/-]{0,5}`),
			rapid.String(),
			rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 4), func(b []byte) string { return string(b) }),
		).Draw(t, "id")
		checkIDs(t, s)
	})
}

func FuzzParseIDs(f *testing.F) {
	for _, s := range []string{
		"", "a", "host:9100", "job/host-1.example_x", "-a", "a\n", "a\x00", "ä", "a\xff",
		strings.Repeat("a", 128), strings.Repeat("a", 129),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkIDs(t, s) })
}
