package siege_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestGRPCIsBesieged: what no gRPC client does, on both services, one after the
// other; a good client beside it is served.
func TestGRPCIsBesieged(t *testing.T) {
	f := raise(t, setup{listen: onLoopback})
	defer f.raze()
	for _, c := range []struct {
		service, path string
		port          port
		good          func(context.Context) error
	}{
		{"registry", "/rollcall.registry.v1.ProducerService/GetProducer", f.registry, f.askRegistry},
		{"collector", "/rollcall.collector.v1.CollectionService/GetCollection", f.collector, f.askCollector},
	} {
		for name, attack := range map[string]attack{
			"rapid reset": func(ctx context.Context, r *raid) string { return rapidReset(ctx, r, c.port, c.path) },
			"full continuations": func(ctx context.Context, r *raid) string {
				return continuations(ctx, r, c.port, c.path, noise(16<<10), 4096)
			},
			"empty continuations": func(ctx context.Context, r *raid) string { return continuations(ctx, r, c.port, c.path, nil, 100_000) },
			"deaf":                func(ctx context.Context, r *raid) string { return deafness(ctx, r, c.port, c.path) },
			"dribbling bodies":    func(ctx context.Context, r *raid) string { return dribbles(ctx, r, c.port, c.path) },
			"dribbling prefaces": func(ctx context.Context, r *raid) string {
				return dribble(ctx, r, c.port, 500, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			},
			"half-open": func(ctx context.Context, r *raid) string { return halfOpen(ctx, r, c.port, 2000, "") },
			"garbage":   func(ctx context.Context, r *raid) string { return garbage(ctx, r, c.port, 200) },
		} {
			t.Run(c.service+" "+name, func(t *testing.T) { f.besiege(t, c.good, attack) })
		}
	}
}

// TestHTTPIsBesieged: the same for the other port of each.
func TestHTTPIsBesieged(t *testing.T) {
	f := raise(t, setup{listen: onLoopback})
	defer f.raze()
	for service, p := range map[string]port{"registry": f.registryWeb, "collector": f.collectorWeb} {
		for name, attack := range map[string]attack{
			"dribbling headers": func(ctx context.Context, r *raid) string {
				return dribble(ctx, r, p, 500, "GET /healthz HTTP/1.1\r\nHost: port\r\nX-Slow: "+strings.Repeat("a", 100))
			},
			"dribbling bodies": func(ctx context.Context, r *raid) string {
				return dribble(ctx, r, p, 500, "POST /api/v1/query HTTP/1.1\r\nHost: port\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\nquery=")
			},
			"half-open": func(ctx context.Context, r *raid) string { return halfOpen(ctx, r, p, 2000, "") },
			"garbage":   func(ctx context.Context, r *raid) string { return garbage(ctx, r, p, 200) },
			"HTTP/2":    func(ctx context.Context, r *raid) string { return rapidReset(ctx, r, p, "/healthz") },
			"a long line": func(ctx context.Context, r *raid) string {
				return endless(ctx, r, p, "GET /", "a")
			},
			"many headers": func(ctx context.Context, r *raid) string {
				return endless(ctx, r, p, "GET / HTTP/1.1\r\nHost: port\r\n", "X-A: b\r\n")
			},
			"a long body": func(ctx context.Context, r *raid) string {
				return endless(ctx, r, p, "POST /api/v1/query HTTP/1.1\r\nHost: port\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000000000\r\n\r\nquery=", "a")
			},
		} {
			t.Run(service+" "+name, func(t *testing.T) { f.besiege(t, p.browse, attack) })
		}
	}
}

// noise is what no compression makes smaller.
func noise(n int) []byte {
	b := make([]byte, n)
	dice := rand.NewChaCha8([32]byte{1})
	_, _ = dice.Read(b)
	return b
}

// connections opens so many. Each takes two descriptors of this process.
func connections(ctx context.Context, r *raid, p port, n int) []net.Conn {
	r.Helper()
	need(r.T, 2*n)
	all := make([]net.Conn, n)
	for i := range all {
		all[i] = r.dial(ctx, p)
	}
	return all
}

// need skips a test that needs more descriptors than this process may have, beside
// some others. Go has raised the soft limit to the hard one.
func need(t *testing.T, descriptors int) {
	t.Helper()
	const others = 300
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= uint64(descriptors+others) {
		return
	}
	if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
		t.Fatalf("%d file descriptors are allowed, want %d, and ROLLCALL_REQUIRE_ALL=1", limit.Cur, descriptors+others)
	}
	t.Skipf("%d file descriptors are allowed, want %d: raise ulimit -Hn", limit.Cur, descriptors+others)
}

// halfOpen opens connections, says so much on each, and no more.
func halfOpen(ctx context.Context, r *raid, p port, n int, text string) string {
	r.Helper()
	for _, conn := range connections(ctx, r, p, n) {
		_, _ = io.WriteString(conn, text)
	}
	<-ctx.Done()
	return fmt.Sprintf("%d connections on which %d bytes are said", n, len(text))
}

// dribble sends a text byte by byte, over and over, on so many connections.
func dribble(ctx context.Context, r *raid, p port, n int, text string) string {
	r.Helper()
	all, sent := connections(ctx, r, p, n), 0
	for i := 0; ctx.Err() == nil; i++ {
		for _, conn := range all {
			if _, err := conn.Write([]byte{text[min(i, len(text)-1)]}); err == nil {
				sent++
			}
		}
		pause(ctx, 10*time.Millisecond)
	}
	return fmt.Sprintf("%d bytes, one at a time, on %d connections", sent, n)
}

// garbage sends what is no protocol, and reads what comes.
func garbage(ctx context.Context, r *raid, p port, n int) string {
	r.Helper()
	var all sync.WaitGroup
	for _, conn := range connections(ctx, r, p, n) {
		all.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			_, _ = conn.Write(noise(64 << 10))
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	all.Wait()
	return fmt.Sprintf("64 KiB of noise on each of %d connections", n)
}

// endless sends the beginning of a request, and then more of it, without an end
// but that which the server makes.
func endless(ctx context.Context, r *raid, p port, begin, more string) string {
	r.Helper()
	conn := r.dial(ctx, p)
	answer := make(chan string, 1)
	go func() {
		first := make([]byte, 64)
		n, _ := conn.Read(first)
		line, _, _ := bytes.Cut(first[:n], []byte("\r\n"))
		answer <- string(line)
	}()
	n, _ := io.WriteString(conn, begin)
	chunk := []byte(strings.Repeat(more, 64<<10/len(more)))
	for {
		m, err := conn.Write(chunk)
		n += m
		if err != nil || n > 1<<30 {
			break
		}
	}
	conn.Close()
	return fmt.Sprintf("%.1f MiB were taken off the wire or its buffers, and then %q", float64(n)/(1<<20), <-answer)
}
