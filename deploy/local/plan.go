package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A service is a process to run.
type service struct {
	name string
	grpc string // host:port
	http string // host:port
	log  string // path
	args []string
}

// commandLine is what starts the service by hand.
func (s *service) commandLine() string { return strings.Join(s.args, " ") }

// services are the processes to run: the registry, then the collectors.
type services []*service

func (f *flags) plan() (services, error) {
	bin, err := commands()
	if err != nil {
		return nil, err
	}
	address := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(f.FirstPort+offset)) }
	plan := func(name string, offset int, command string, more ...string) *service {
		s := &service{name: name, grpc: address(offset), http: address(offset + 1), log: filepath.Join(f.Dir, name+".log")}
		s.args = append([]string{filepath.Join(bin, command), "--data-dir", filepath.Join(f.Dir, name)}, more...)
		s.args = append(s.args, "--listen", s.grpc, "--http-listen", s.http, "--log-format", "text")
		return s
	}
	return services{
		plan("registry", 0, "registry"),
		plan("collector-1", 10, "collector", "--id", "collector-1", "--registry", address(0)),
		plan("collector-2", 12, "collector", "--id", "collector-2", "--registry", address(0)),
	}, nil
}

// commands is the directory of this command and of those that it starts, seen
// from here, so that what is printed can be pasted.
func commands() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	bin := filepath.Dir(self)
	for _, name := range []string{"registry", "collector"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			return "", fmt.Errorf("the command %s is missing beside this one (make build): %w", name, err)
		}
	}
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, bin); err == nil && !strings.HasPrefix(rel, "..") {
			return rel, nil
		}
	}
	return bin, nil
}

// checkPorts finds a port that is taken before anything is started.
func (p services) checkPorts(ctx context.Context) error {
	for _, s := range p {
		for _, address := range []string{s.grpc, s.http} {
			lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("%s, for %s, is taken: stop what listens there, or choose other ports (--first-port, ROLLCALL_LOCAL_FIRST_PORT)", address, s.name)
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
	cli := filepath.Join(filepath.Dir(registry.args[0]), "rollcall")
	other, ofCollector := "", ""
	if registry.grpc != "127.0.0.1:7470" {
		other, ofCollector = " --registry "+registry.grpc, " --collector-address "+collector.grpc
	}
	fmt.Fprintln(out, "\nRunning:")
	for _, c := range w.children {
		fmt.Fprintf(out, "  %-12s pid %-8d gRPC %s  http://%s  log %s\n", c.name, c.cmd.Process.Pid, c.grpc, c.http, c.log)
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

`, cli, other, ofCollector, collector.http, registry.grpc, w.children[0].cmd.Process.Pid, registry.commandLine())
}
