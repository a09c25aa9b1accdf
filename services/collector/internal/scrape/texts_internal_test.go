package scrape

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"
)

func TestTextsAreShared(t *testing.T) {
	var all texts
	same := func(a, b string) bool { return a == b && unsafe.StringData(a) == unsafe.StringData(b) }
	line := []byte(`a{b="c"}`)
	one := all.share(line)
	if two := all.share([]byte(`a{b="c"}`)); !same(one, two) {
		t.Errorf("%q is not %q", two, one)
	}
	if line[0] = 'x'; one != `a{b="c"}` {
		t.Errorf("it changed to %q with the buffer", one)
	}
	if other := all.share([]byte(`a{b="d"}`)); other != `a{b="d"}` {
		t.Errorf("got %q", other)
	}
	long := []byte(strings.Repeat("x", maxSharedText+1))
	if one, two := all.share(long), all.share(long); one != two || same(one, two) {
		t.Error("a long one is shared")
	}
}

func TestTextsAreBounded(t *testing.T) {
	var all texts
	for i := range 100_000 {
		want := fmt.Sprintf("%0200d", i)
		if got := all.share([]byte(want)); got != want {
			t.Fatalf("got %q", got)
		}
		size := 0
		if i%1000 == 0 {
			for s := range all.known {
				size += len(s) + textCost
			}
			if size > maxTexts || size != all.size {
				t.Fatalf("%d bytes are held, %d counted", size, all.size)
			}
		}
	}
}
