package child

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// reserved are the ports that this process has been given.
//
//nolint:gochecknoglobals // of a process, as ports are
var reserved struct {
	sync.Mutex
	held []net.PacketConn
}

// FreePorts finds addresses that nobody listens on, among those that the system
// gives to nobody by itself: they have to stay free while a child is restarted.
// Until this process ends nobody else who asks gets them, here or in another
// process: it holds the UDP ports of the same numbers.
func FreePorts(ctx context.Context, n int) ([]string, error) {
	const first, ports, tries = 20_000, 10_000, 1000
	var free []string
	for range tries {
		if len(free) == n {
			return free, nil
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+rand.IntN(ports)))
		ok, err := reserve(ctx, address)
		if err != nil {
			return nil, err
		}
		if ok {
			free = append(free, address)
		}
	}
	return nil, fmt.Errorf("no %d free ports on loopback", n)
}

// reserve reports whether an address is free, and then keeps it from others.
func reserve(ctx context.Context, address string) (bool, error) {
	var config net.ListenConfig
	held, err := config.ListenPacket(ctx, "udp", address)
	if err != nil {
		return false, nil // somebody has it
	}
	lis, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return false, held.Close()
	}
	if err := lis.Close(); err != nil {
		return false, err
	}
	reserved.Lock()
	defer reserved.Unlock()
	reserved.held = append(reserved.held, held)
	return true, nil
}
