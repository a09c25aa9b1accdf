package process

import (
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
)

// FuzzFilesOfTLS: whatever is in the files, it is used or refused, and never both.
func FuzzFilesOfTLS(f *testing.F) {
	a, pair, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Certificate(), pair.Key)
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), []byte{})
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		if pool, err := parseAuthorities(cert, time.Now()); (pool == nil) != (err != nil) {
			t.Errorf("authorities: %v, %v", pool, err)
		}
		if own, err := parsePair(cert, key, time.Now()); (own == nil) != (err != nil) || own != nil && own.Leaf == nil {
			t.Errorf("pair: %v, %v", own, err)
		}
	})
}
