//go:build e2e

package containers_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rollcall-metrics/rollcall/deploy/internal/child"
)

// TestRunbook runs the blocks of deploy/RUNBOOK.md that are for containers, as they
// stand there, on the fleet of deploy/compose.yaml: P2, P4 and P8. Moving the store
// makes other containers of the collectors: that costs their restart, and nothing
// else may.
func TestRunbook(t *testing.T) {
	t.Parallel()
	tool(t, "docker-compose", "bash")
	need(t, image("registry"), image("collector"), image("example"), image("producer"), image("etcd"), image("cli"))
	page, err := os.ReadFile("../../RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := commands(string(page))
	if err != nil {
		t.Fatal(err)
	}
	b := compose(t)
	b.run(`$COMPOSE up -d`)
	b.steady(startLimit)
	b.secured()
	for _, step := range []struct {
		names   []string
		allowed time.Duration // a gap of a producer
	}{
		{names: []string{"rotate"}},
		{names: []string{"upgrade-registry", "upgrade-collector"}},
		{names: []string{"backup"}},
		{names: []string{"restore", "recover"}},
		{names: []string{"store-lost", "store-lost-recover"}},
		{names: []string{"migrate"}, allowed: 90 * time.Second},
	} {
		from := b.fault
		for _, name := range step.names {
			block, ok := blocks[name]
			if !ok {
				t.Fatalf("the page has no block %s", name)
			}
			// What a person would see to: recover asks them all, and a drain wants another one.
			await(t, "collectors follow the registry", time.Minute, func() error { return b.subscribed(true) })
			if name == "rotate" {
				b.rotated(block)
				continue
			}
			t.Logf("%s took %v", name, b.run(block))
		}
		b.steady(3 * time.Minute)
		v := b.verdictUntil(from, time.Now())
		switch {
		case step.allowed == 0 && !v.whole():
			t.Errorf("%v: a collection is missing: %v", step.names, &v)
		case v.longest > step.allowed+2*b.interval:
			t.Errorf("%v: %v", step.names, &v)
		}
	}
}

// A project is a fleet that docker-compose makes.
type project struct {
	*site
	env          []string
	certificates string // the directory of those that deploy/certificates.sh makes
	registry     string // host:port of its gRPC on this machine
}

// port is how a file of Compose lets the environment choose one.
var port = regexp.MustCompile(`\$\{(ROLLCALL_[A-Z0-9_]*PORT):-\d+\}`)

// compose plans a project on ports that are free, and has it removed in the end.
func compose(t *testing.T) *project {
	t.Helper()
	name := fmt.Sprintf("%s%d-%d", composePrefix, os.Getpid(), sites.Add(1))
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, prefix: name, interval: 5 * time.Second, published: map[string]map[int]string{}}
	certificates := filepath.Join(t.TempDir(), "certificates")
	if _, err := command(t.Context(), nil, "env", "--chdir="+root, "deploy/certificates.sh", certificates); err != nil {
		missing(t, "no certificates are made (make build): %v", err)
	}
	s.reader, s.operator = holder(t, certificates, "reader"), holder(t, certificates, "operator")
	p := &project{site: s, certificates: certificates, env: []string{
		"ROLLCALL_CERTIFICATES=" + certificates, "CERTIFICATES=" + certificates,
		"PROJECT=" + name, "ROLLCALL_TAG=" + *tag, "BACKUP=" + filepath.Join(t.TempDir(), "backup.db"),
		"COMPOSE=docker-compose -p " + name + " -f deploy/compose.yaml", "FLEET=docker-compose -p " + name + " -f deploy/compose.fleet.yaml",
	}}
	chosen := map[string]string{}
	for _, file := range []string{"compose.yaml", "compose.fleet.yaml"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range port.FindAllStringSubmatch(string(text), -1) {
			if chosen[m[1]] == "" {
				chosen[m[1]] = freePort(t)
				p.env = append(p.env, m[1]+"="+chosen[m[1]])
			}
		}
	}
	p.registry = "127.0.0.1:" + chosen["ROLLCALL_REGISTRY_PORT"]
	for i := range 2 {
		c := &container{name: name, alias: fmt.Sprintf("collector-%d", i+1)}
		s.collectors = append(s.collectors, c)
		s.published[c.alias] = map[int]string{
			7480: "127.0.0.1:" + chosen[fmt.Sprintf("ROLLCALL_COLLECTOR_%d_PORT", i+1)],
			7481: "127.0.0.1:" + chosen[fmt.Sprintf("ROLLCALL_COLLECTOR_%d_HTTP_PORT", i+1)],
		}
	}
	s.example = &container{name: name, alias: "example"}
	s.published["example"] = map[int]string{examplePort: "127.0.0.1:" + chosen["ROLLCALL_EXAMPLE_HTTP_PORT"]}
	for i := range 20 {
		s.ids = append(s.ids, fmt.Sprintf("example-%d", i+1))
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if t.Failed() {
			out, err := p.bash(ctx, "$COMPOSE logs --no-color --tail 40; $FLEET logs --no-color --tail 40")
			t.Log(out, err)
		}
		if err := remove(ctx, composed+"="+name); err != nil {
			t.Error(err)
		}
	})
	return p
}

// freePort is one that nobody listens on, nor will.
func freePort(t *testing.T) string {
	t.Helper()
	free, err := child.FreePorts(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(free[0])
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// run runs commands at the top of the repository, and tells how long they took.
func (p *project) run(script string) time.Duration {
	p.t.Helper()
	began := time.Now()
	if out, err := p.bash(p.t.Context(), script); err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	return time.Since(began).Round(100 * time.Millisecond)
}

func (p *project) bash(ctx context.Context, script string) (string, error) {
	return command(ctx, nil, "env", append(append([]string{"--chdir=../../.."}, p.env...), "bash", "-euc", script)...)
}
