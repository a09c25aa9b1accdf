package containers_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// commands are the named blocks of commands of a page of Markdown: those that begin
// with ```sh name=NAME. Such a page is run as it stands, so what is malformed is an
// error, and so is a name that comes twice.
func commands(page string) (map[string]string, error) {
	const fence = "```"
	blocks := map[string]string{}
	name, inside := "", false
	var body strings.Builder
	for line := range strings.Lines(page) {
		marker, info, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case !inside && strings.HasPrefix(marker, fence):
			inside, name = true, ""
			body.Reset()
			if n, ok := strings.CutPrefix(strings.TrimSpace(info), "name="); ok {
				if marker != fence+"sh" || n == "" || strings.ContainsAny(n, " \t") {
					return nil, fmt.Errorf("malformed: %q", strings.TrimSpace(line))
				}
				name = n
			}
		case inside && marker == fence:
			if _, twice := blocks[name]; twice && name != "" {
				return nil, fmt.Errorf("%s is there twice", name)
			}
			if inside = false; name != "" {
				blocks[name] = body.String()
			}
		case inside:
			body.WriteString(line)
		}
	}
	if inside {
		return nil, errors.New("the last block has no end")
	}
	return blocks, nil
}

func TestCommands(t *testing.T) {
	t.Parallel()
	const page = "# A page\n```sh name=one\necho 1\n\necho 2\n```\ntext\n```\nnot named\n```\n\n```sh name=two\n  echo 3\n```\n"
	got, err := commands(page)
	if want := map[string]string{"one": "echo 1\n\necho 2\n", "two": "  echo 3\n"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q %v, want %q", got, err, want)
	}
	for _, bad := range []string{
		"```sh name=a\necho\n", "```sh name=a\n```\n```sh name=a\n```\n", "```yaml name=a\n```\n", "```sh name=\n```\n", "```sh name=a b\n```\n",
	} {
		if got, err := commands(bad); err == nil {
			t.Errorf("%q gives %q", bad, slices.Sorted(maps.Keys(got)))
		}
	}
}
