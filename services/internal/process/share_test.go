package process

import "testing"

// TestOneAddressHasHalf if nothing else is said.
func TestOneAddressHasHalf(t *testing.T) {
	for _, c := range []struct{ most, each, want int }{{20000, 0, 10000}, {3, 0, 2}, {1, 0, 1}, {10, 1, 1}, {10, 50, 50}} {
		f := ServeFlags{MaxConnections: c.most, MaxConnectionsPerAddress: c.each}
		if got := f.share(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
