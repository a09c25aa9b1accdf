package etcdtest

import "testing"

// TestFreeAddress has so many ask that some would be given the same one, were they
// not kept.
func TestFreeAddress(t *testing.T) {
	given := map[string]bool{}
	for range 200 {
		address, kept, err := freeAddress(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = kept.Close() }()
		if given[address] {
			t.Errorf("%s is given twice", address)
		}
		given[address] = true
	}
}
