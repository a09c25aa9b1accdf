package process

import (
	"log/slog"
	"net"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestASilentHostIsLetGo as soon as gRPC would by itself: who is cut off has to be
// noticed in seconds, since others are to take over.
func TestASilentHostIsLetGo(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lis.Close() }()
	client, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	guard := NewGuard(1, 1, false, NewRefusals(slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
	conn, err := guard.GRPCListener(lis).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*guardedConn).Conn.(*net.TCPConn).SyscallConn() //nolint:errcheck // made above
	if err != nil {
		t.Fatal(err)
	}
	var got int
	if controlled := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout) }); controlled != nil || err != nil {
		t.Fatal(controlled, err)
	}
	if got != 10_000 {
		t.Errorf("%d ms", got)
	}
}
