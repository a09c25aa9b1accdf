package scrape

import (
	"testing"
	"unsafe"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// There are as many of both as series, and the next size of the allocator is 64.
func TestSeriesAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(spelling{}); n > 48 {
		t.Errorf("a spelling has %d bytes, want at most 48", n)
	}
	if n := unsafe.Sizeof(sample.Series{}); n > 48 {
		t.Errorf("a Series has %d bytes, want at most 48", n)
	}
}
