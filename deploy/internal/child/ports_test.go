package child

import (
	"net"
	"sync"
	"testing"
)

// TestFreePorts asks for so many ports that some would be given twice, were they
// not kept.
func TestFreePorts(t *testing.T) {
	const callers, each = 20, 25
	var (
		all sync.WaitGroup
		mu  sync.Mutex
		got = map[string]bool{}
	)
	for range callers {
		all.Go(func() {
			free, err := FreePorts(t.Context(), each)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, address := range free {
				if got[address] {
					t.Errorf("%s is given twice", address)
				}
				got[address] = true
			}
		})
	}
	all.Wait()
	if len(got) != callers*each {
		t.Errorf("%d addresses", len(got))
	}
	for address := range got {
		lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := lis.Close(); err != nil {
			t.Fatal(err)
		}
		if ok, err := reserve(t.Context(), address); ok || err != nil { // as another process would
			t.Errorf("%s is given twice: %v", address, err)
		}
	}
}
