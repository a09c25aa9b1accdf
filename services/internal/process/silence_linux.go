package process

import (
	"net"
	"syscall"
	"time"
)

// userTimeout is TCP_USER_TIMEOUT, which package syscall does not have.
const userTimeout = 0x12

// boundSilence ends a connection whose peer has acknowledged nothing of what was
// sent for this long. gRPC does so by itself, but only to a connection that nobody
// has wrapped. What cannot be set is left: pings find out later.
func boundSilence(conn net.Conn, limit time.Duration) {
	c, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, int(limit.Milliseconds()))
	})
}
