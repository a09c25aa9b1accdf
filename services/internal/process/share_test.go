package process

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestOneAddressHasHalf if nothing else is said.
func TestOneAddressHasHalf(t *testing.T) {
	for _, c := range []struct{ most, each, want int }{{20000, 0, 10000}, {3, 0, 2}, {1, 0, 1}, {10, 1, 1}, {10, 50, 50}} {
		f := ServeFlags{MaxConnections: c.most, MaxConnectionsPerAddress: c.each}
		if got := f.share(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestAChainIsAsLongAsItsShortest, and the longest of several counts.
func TestAChainIsAsLongAsItsShortest(t *testing.T) {
	begin := time.Now()
	chain := func(hours ...time.Duration) (all []*x509.Certificate) {
		for _, h := range hours {
			all = append(all, &x509.Certificate{NotAfter: begin.Add(h * time.Hour)})
		}
		return all
	}
	for want, chains := range map[time.Duration][][]*x509.Certificate{
		3: {chain(3, 5)},
		2: {chain(3, 2, 9)},
		4: {chain(6, 1), chain(6, 4, 8), chain(6, 3)},
	} {
		if got := endOf(chains).Sub(begin); got != want*time.Hour+1 {
			t.Errorf("%v, want just after %v h", got, want)
		}
	}
}
