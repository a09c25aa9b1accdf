package main

import (
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A recipe is an image before it is built.
type recipe struct {
	name        string // rollcall/NAME
	description string

	module   string   // the directory of the Go module, relative to the repository
	packages []string // of that module: each is a command, and becomes a file of its name in /
	entry    string   // the command that the image runs

	ports       []string
	env         []string
	healthcheck []string
}

// dataDir is where the images keep data: the only directory that they have.
const dataDir = "/var/lib/rollcall"

// user is nobody in particular, by number: there is no /etc/passwd.
const user = 65532

// A container becomes healthy at the first probe that succeeds. A probe is a
// process that starts; one in ten seconds costs less than half a percent of a core.
const (
	probeInterval = 10 * time.Second
	probeTimeout  = 5 * time.Second
	probeStart    = 30 * time.Second
	probeRetries  = 3
)

// catalog is every image.
//
// None sets ROLLCALL_INSECURE: whoever runs it says that others may reach it.
// Until then the process refuses to start and says why. Nor does the registry's
// name a data directory, because a registry with an etcd elsewhere has none, and
// one with neither refuses to start.
func catalog() []recipe {
	return []recipe{
		{
			name:        "registry",
			description: "The registry of Rollcall: knows producers and collectors, and gives each producer to a collector",
			module:      ".", packages: []string{"./services/cmd/registry"}, entry: "registry",
			ports:       []string{"7470/tcp", "7471/tcp"},
			env:         []string{"ROLLCALL_LISTEN=0.0.0.0:7470", "ROLLCALL_HTTP_LISTEN=0.0.0.0:7471"},
			healthcheck: []string{"CMD", "/registry", "health"},
		},
		{
			name:        "collector",
			description: "A collector of Rollcall: pulls the producers that it is assigned, stores or forwards their samples, answers queries",
			module:      ".", packages: []string{"./services/cmd/collector"}, entry: "collector",
			ports:       []string{"7480/tcp", "7481/tcp"},
			env:         []string{"ROLLCALL_DATA_DIR=" + dataDir, "ROLLCALL_LISTEN=0.0.0.0:7480", "ROLLCALL_HTTP_LISTEN=0.0.0.0:7481"},
			healthcheck: []string{"CMD", "/collector", "health"},
		},
		{
			name:        "producer",
			description: "The sidecar of Rollcall: registers any metrics endpoint, and keeps it registered",
			module:      ".", packages: []string{"./services/cmd/producer"}, entry: "producer",
			ports:       []string{"7490/tcp", "7491/tcp"},
			env:         []string{"ROLLCALL_LISTEN=0.0.0.0:7490", "ROLLCALL_HTTP_LISTEN=0.0.0.0:7491"},
			healthcheck: []string{"CMD", "/producer", "health"},
		},
		{
			name:        "cli",
			description: "rollcall, the command line for those who operate Rollcall",
			module:      ".", packages: []string{"./services/cmd/rollcall"}, entry: "rollcall",
		},
		{
			name:        "etcd",
			description: "etcd with its tools, at the version that the registry embeds, for tests and trials",
			module:      "deploy/etcd", packages: []string{".", "go.etcd.io/etcd/etcdctl/v3", "go.etcd.io/etcd/etcdutl/v3"}, entry: "etcd",
			ports:       []string{"2379/tcp", "2380/tcp"},
			env:         []string{"ETCD_DATA_DIR=" + dataDir},
			healthcheck: []string{"CMD", "/etcdctl", "endpoint", "health"},
		},
		{
			name:        "example",
			description: "Producers that register themselves with Rollcall and remember when they were pulled, for tests and trials",
			module:      ".", packages: []string{"./deploy/example"}, entry: "example",
			ports:       []string{"7490/tcp", "7491/tcp"},
			env:         []string{"ROLLCALL_LISTEN=0.0.0.0:7490", "ROLLCALL_HTTP_LISTEN=0.0.0.0:7491"},
			healthcheck: []string{"CMD", "/example", "health"},
		},
	}
}

// tags leave out what nobody here uses: grpcnotrace grpc's pages of traces, which
// none of our processes serves, and with them html/template. make build has the same.
// What is not ours is built as its authors do.
func (r recipe) tags() string {
	if r.module != "." {
		return ""
	}
	return "grpcnotrace"
}

// health is how docker is told to probe; nil where there is nothing to probe.
func (r recipe) health() *v1.HealthConfig {
	if len(r.healthcheck) == 0 {
		return nil
	}
	return &v1.HealthConfig{
		Test: r.healthcheck, Interval: probeInterval, Timeout: probeTimeout, StartPeriod: probeStart, Retries: probeRetries,
	}
}
