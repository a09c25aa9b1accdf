package siege_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// TestOversize: what is larger than it may be is refused, by its size, on both
// services, and a good client beside it is served.
func TestOversize(t *testing.T) {
	f := raise(t, setup{listen: onLoopback})
	defer f.raze()
	zeros := make([]byte, 32<<20) // of the attacker, before anything is measured
	for _, c := range []struct {
		service, path string
		conn          *grpc.ClientConn
		good          func(context.Context) error
	}{
		{"registry", "/rollcall.registry.v1.ProducerService/RegisterProducer", f.toReg, f.askRegistry},
		{"collector", "/rollcall.collector.v1.CollectionService/GetCollection", f.toColl, f.askCollector},
	} {
		send := func(ctx context.Context, path string, b []byte, options ...grpc.CallOption) string {
			err := c.conn.Invoke(ctx, path, b, new([]byte), append(options, grpc.ForceCodecV2(raw{}))...)
			s := status.Convert(err)
			return fmt.Sprintf("%v %.80q", s.Code(), s.Message())
		}
		for name, attack := range map[string]struct {
			run  func(ctx context.Context) string
			want []codes.Code
		}{
			"a message": {func(ctx context.Context) string { return send(ctx, c.path, zeros) }, []codes.Code{codes.ResourceExhausted}},
			"headers": {func(ctx context.Context) string {
				return send(metadata.AppendToOutgoingContext(ctx, "x-a", strings.Repeat("a", 1<<20)), c.path, nil)
			}, []codes.Code{codes.Internal, codes.Unavailable, codes.ResourceExhausted}}, // the client's own word: it is told the bound
			"a method": {func(ctx context.Context) string { return send(ctx, "/"+strings.Repeat("a", 15<<10)+"/b", nil) }, []codes.Code{codes.Unimplemented}},
			"a string": {func(ctx context.Context) string {
				return send(ctx, c.path, append([]byte{0x0a, 0x80, 0x80, 0xc0, 0x01}, bytes.Repeat([]byte("a"), 3<<20)...))
			}, []codes.Code{codes.InvalidArgument, codes.Internal}},
			"compressed zeros": {func(ctx context.Context) string {
				return send(ctx, c.path, zeros[:12<<20], grpc.UseCompressor("gzip"))
			}, []codes.Code{codes.ResourceExhausted, codes.Unimplemented}},
		} {
			t.Run(c.service+" "+name, func(t *testing.T) {
				var said string
				f.besiege(t, c.good, func(ctx context.Context, _ *raid) string {
					ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodTimeout) // it is short
					defer cancel()
					said = attack.run(ctx)
					return said
				})
				for _, code := range attack.want {
					if strings.HasPrefix(said, code.String()) {
						return
					}
				}
				t.Errorf("%s, want one of %v", said, attack.want)
			})
		}
	}
}

// TestWhatIsCompressedIsBounded: what a request over HTTP becomes is not larger
// than a request may be.
func TestWhatIsCompressedIsBounded(t *testing.T) {
	f := raise(t, setup{listen: onLoopback})
	defer f.raze()
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
	read := map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
	var long bytes.Buffer // a good query, if it were unpacked
	w := gzip.NewWriter(&long)
	_, _ = io.WriteString(w, "query=1&a=")
	_, _ = w.Write(bytes.Repeat([]byte("0"), 16<<20))
	_ = w.Close()
	for name, c := range map[string]struct {
		path   string
		header map[string]string
		body   []byte
		says   string
	}{
		"a form":         {"/api/v1/query", form, long.Bytes(), ""},
		"zeros":          {"/api/v1/read", read, snappy.Encode(nil, make([]byte, 16<<20)), "proto"},
		"a little more":  {"/api/v1/read", read, binary.AppendUvarint(nil, 32<<20+1), "exceeds limit"},
		"says much more": {"/api/v1/read", read, binary.AppendUvarint(nil, math.MaxUint32), "exceeds limit"},
	} {
		t.Run(name, func(t *testing.T) {
			f.besiege(t, f.collectorWeb.browse, func(ctx context.Context, _ *raid) string {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodTimeout) // it is short
				defer cancel()
				status, said, err := f.collectorWeb.ask(ctx, http.MethodPost, c.path, c.header, c.body)
				if err != nil || status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge || !strings.Contains(said, c.says) {
					t.Errorf("status %d %q, %v, want a refusal that says %q", status, said, err, c.says)
				}
				return fmt.Sprintf("%d bytes, status %d", len(c.body), status)
			})
		})
	}
}

// TestTheSlowAreLetGo: a connection that says nothing, or says it byte by byte, is
// ended. In fake time.
func TestTheSlowAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := raise(t, setup{listen: inMemory})
		defer f.raze()
		for name, c := range map[string]struct {
			port  port
			text  string
			bound time.Duration
		}{
			"registry, silent":        {f.registry, "", 11 * time.Second},
			"collector, silent":       {f.collector, "", 11 * time.Second},
			"registry, preface":       {f.registry, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 11 * time.Second},
			"collector, preface":      {f.collector, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 11 * time.Second},
			"registry web, headers":   {f.registryWeb, "GET /healthz HTTP/1.1\r\nHost: port\r\nX-Slow: aaaa", 11 * time.Second},
			"collector web, headers":  {f.collectorWeb, "GET /healthz HTTP/1.1\r\nHost: port\r\nX-Slow: aaaa", 11 * time.Second},
			"collector web, the body": {f.collectorWeb, "!POST /api/v1/query HTTP/1.1\r\nHost: port\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9999\r\n\r\n", 61 * time.Second},
		} {
			if took := lasts(t, c.port, c.text); took > c.bound {
				t.Errorf("%s: let go after %v, want %v", name, took, c.bound)
			} else {
				t.Logf("%s: let go after %v", name, took)
			}
		}
	})
}

// lasts sends a text byte by byte, a second apart, the last one for ever, and
// returns how long the connection lasts. What follows an exclamation mark is sent
// at once.
func lasts(t *testing.T, p port, text string) time.Duration {
	t.Helper()
	begin := time.Now()
	conn, err := p.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if rest, ok := strings.CutPrefix(text, "!"); ok {
		_, _ = io.WriteString(conn, rest)
		text = "a"
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	for i := range 300 {
		if text != "" {
			if _, err := conn.Write([]byte{text[min(i, len(text)-1)]}); err != nil {
				break
			}
		}
		select {
		case <-ended:
			return time.Since(begin)
		case <-time.After(time.Second):
		}
	}
	return time.Since(begin)
}

// TestNothingOnDiskIsNamedFromOutside: ids that are paths make no file, neither of
// producers nor of collectors.
func TestNothingOnDiskIsNamedFromOutside(t *testing.T) { synctest.Test(t, nameFromOutside) }

func nameFromOutside(t *testing.T) {
	f := raise(t, setup{listen: inMemory})
	defer f.raze()
	before := files(t, f.dir)
	client, collectors := registryv1.NewProducerServiceClient(f.toReg), registryv1.NewCollectorServiceClient(f.toReg)
	taken := 0
	for _, id := range []string{
		"../evil", "..", ".", "/etc/evil", "a/../../evil", "a/b", "a\\..\\evil", "a:b", "evil\x00", "evil\r\nX-A: b", "..%2fevil", "~evil", "con", "a//b", "-evil", "evil/",
	} {
		_, err := client.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{
			ProducerId: id, Endpoint: "http://h.example/", LastCollectorId: "c1", Labels: []*registryv1.Label{{Name: "job", Value: id}},
		}})
		switch status.Code(err) {
		case codes.OK:
			taken++
		case codes.InvalidArgument, codes.FailedPrecondition, codes.NotFound, codes.Internal: // the last one for bytes that are no text
		default:
			t.Errorf("producer %q: %v", id, err)
		}
		_, err = collectors.RegisterCollector(t.Context(), &registryv1.RegisterCollectorRequest{Collector: &registryv1.Collector{CollectorId: id, InstanceId: id}})
		if err == nil && strings.ContainsAny(id, "/\\\x00\r\n%~") {
			t.Errorf("collector %q is taken", id)
		}
	}
	time.Sleep(time.Minute) // the collector stores what it was told
	m, err := collectorv1.NewCollectionServiceClient(f.toColl).GetMembership(t.Context(), &collectorv1.GetMembershipRequest{})
	if err != nil || m.GetAppliedCount() != int64(3+taken) || taken == 0 {
		t.Errorf("%d are taken, the collector has %v, %v", taken, m, err)
	}
	for name := range files(t, f.dir) {
		if strings.Contains(name, "evil") || !before[name] && !strings.HasPrefix(name, "data/") {
			t.Errorf("%s is there", name)
		}
	}
	t.Logf("%d such ids are taken, as words", taken)
}

// files are those below a directory.
func files(t *testing.T, dir string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		all[name] = true
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

var _ net.Listener = port{}
