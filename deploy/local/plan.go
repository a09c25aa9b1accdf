package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// services are the processes to run: the registry, then the collectors.
type services []*child.Service

func (f *flags) plan() (services, error) {
	bin, err := child.Commands()
	if err != nil {
		return nil, err
	}
	address := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(f.FirstPort+offset)) }
	plan := func(name string, offset int, command string, more ...string) *child.Service {
		return child.Plan(filepath.Join(bin, command), name, f.Dir, address(offset), address(offset+1), more...)
	}
	return services{
		plan("registry", 0, "registry"),
		plan("collector-1", 10, "collector", "--id", "collector-1", "--registry", address(0)),
		plan("collector-2", 12, "collector", "--id", "collector-2", "--registry", address(0)),
	}, nil
}

// checkPorts finds a port that is taken before anything is started.
func (p services) checkPorts(ctx context.Context) error {
	for _, s := range p {
		for _, address := range []string{s.GRPC, s.HTTP} {
			lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s, for %s, is taken: stop what listens there, or choose other ports (--first-port, ROLLCALL_LOCAL_FIRST_PORT)", address, s.Name)
			}
			if err != nil {
				return err
			}
			if err := lis.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// introduce tells what runs where, and what to try.
func (p services) introduce(out io.Writer, w *workers) {
	registry, collector := p[0], p[1]
	cli := filepath.Join(filepath.Dir(registry.Args[0]), "rollcall")
	other, ofCollector := "", ""
	if registry.GRPC != "127.0.0.1:7470" {
		other, ofCollector = " --registry "+registry.GRPC, " --collector-address "+collector.GRPC
	}
	fmt.Fprintln(out, "\nRunning:")
	for _, c := range w.children {
		fmt.Fprintf(out, "  %-12s pid %-8d gRPC %s  http://%s  log %s\n", c.Name, c.PID(), c.GRPC, c.HTTP, c.Log)
	}
	fmt.Fprintf(out, `
Try in another terminal, in this directory:
  %[1]s get producers%[2]s
  %[1]s get collectors%[2]s
  %[1]s register my-app http://127.0.0.1:9100/metrics --interval 5s%[2]s
  %[1]s subscribe collector-1%[2]s
  %[1]s collections%[3]s
  curl 'http://%[4]s/api/v1/query?query=up'
  make grpcurl ARGS='-plaintext %[5]s list'
  make grpcurl ARGS='-plaintext -d "{\"collector_id\":\"collector-1\",\"observe\":true}" %[5]s rollcall.registry.v1.AssignmentService/Subscribe'
  kill -9 %[6]d   # the registry: no collection is missed; start it again with
  %[7]s

Ctrl-C stops everything. The data stays for the next time.

`, cli, other, ofCollector, collector.HTTP, registry.GRPC, w.children[0].PID(), registry.CommandLine())
}
