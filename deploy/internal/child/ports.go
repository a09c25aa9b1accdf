package child

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreePorts finds addresses that nobody listens on, among those that the system
// gives to nobody by itself: they have to stay free while a child is restarted.
func FreePorts(ctx context.Context, n int) ([]string, error) {
	const first, ports, tries = 20_000, 10_000, 200
	var free []string
	for range tries {
		if len(free) == n {
			return free, nil
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(ports)))
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			continue
		}
		if err := lis.Close(); err != nil {
			return nil, err
		}
		free = append(free, address)
	}
	return nil, fmt.Errorf("no %d free ports on loopback", n)
}
