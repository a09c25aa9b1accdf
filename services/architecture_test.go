package services_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A layer is a kind of room. Arrows point from a higher rank to a lower one.
type layer string

const (
	core     layer = "core"
	types    layer = "types"
	engine   layer = "engine"
	adapter  layer = "adapter"
	support  layer = "support"
	assembly layer = "assembly"
	command  layer = "main"
	bench    layer = "bench"
	page     layer = "page"
)

var rank = map[layer]int{
	core: 1, types: 1, engine: 2, adapter: 3, support: 3, assembly: 4, command: 5, bench: 5, page: 6,
}

// A room is a package's place in the house.
type room struct {
	path  string // relative to the module
	layer layer

	// also is what the room imports beyond its layer's right: a package of
	// gen/, another room, or, for a core, a package of another module.
	also []string
}

const (
	module = "github.com/rollcall-metrics/rollcall"

	registryV1  = "gen/rollcall/registry/v1"
	collectorV1 = "gen/rollcall/collector/v1"
	producerV1  = "gen/rollcall/producer/v1"
	storeV1     = "gen/rollcall/store/v1"

	model = "github.com/prometheus/prometheus/model/"
)

// house is the map of doc.go as a table: one row a room.
var house = []room{
	{"services", page, nil},

	{"services/internal/assignment", core, []string{"github.com/cespare/xxhash/v2"}},
	{"services/internal/endpoint", core, nil},
	{"services/internal/access", core, []string{"go.yaml.in/yaml/v2"}},
	{"services/internal/authority", core, nil},
	{"services/internal/wire", adapter, []string{registryV1, collectorV1}},
	{"services/internal/auth", adapter, nil},
	{"services/internal/auth/authtest", support, nil},
	{"services/internal/process", adapter, nil},
	{"services/internal/scripttest", support, []string{"services/internal/process"}},

	{"services/registry", assembly, []string{"services/producer"}},
	{"services/registry/internal/roster", core, []string{"github.com/google/btree"}},
	{"services/registry/internal/placement", core, nil},
	{"services/registry/internal/lease", core, nil},
	{"services/registry/internal/feed", engine, nil},
	{"services/registry/internal/registrar", engine, []string{"services/registry/internal/feed"}},
	{"services/registry/internal/leader", engine, []string{"services/registry/internal/registrar"}},
	{"services/registry/internal/witness", adapter, []string{collectorV1}},
	{"services/registry/internal/store", adapter, []string{storeV1}},
	{"services/registry/internal/store/storetest", support, []string{"services/registry/internal/store"}},
	{"services/registry/internal/store/etcdtest", support, nil},
	{"services/registry/internal/api", adapter, []string{registryV1}},

	{"services/collector", assembly, []string{"services/producer"}},
	{"services/collector/internal/sample", types, []string{
		model + "exemplar", model + "histogram", model + "labels", model + "metadata", model + "value",
	}},
	{"services/collector/internal/snapshot", core, nil},
	{"services/collector/internal/guard", core, nil},
	{"services/collector/internal/membership", engine, nil},
	{"services/collector/internal/schedule", engine, nil},
	{"services/collector/internal/deliver", engine, nil},
	{"services/collector/internal/follow", adapter, []string{registryV1}},
	{"services/collector/internal/directory", adapter, nil},
	{"services/collector/internal/statefile", adapter, []string{"services/collector/internal/directory"}},
	{"services/collector/internal/scrape", adapter, []string{producerV1, "services/producer"}},
	{"services/collector/internal/sink", adapter, nil},
	{"services/collector/internal/queue", adapter, []string{"services/collector/internal/directory"}},
	{"services/collector/internal/remotewrite", adapter, nil},
	{"services/collector/internal/otlp", adapter, nil},
	{"services/collector/internal/settings", adapter, nil},
	{"services/collector/internal/query", adapter, nil},
	{"services/collector/internal/peers", adapter, []string{registryV1, collectorV1}},
	{"services/collector/internal/api", adapter, []string{collectorV1}},

	{"services/producer", adapter, []string{registryV1, producerV1}},

	{"services/cmd/registry", command, nil},
	{"services/cmd/collector", command, []string{registryV1}},
	{"services/cmd/producer", command, nil},
	{"services/cmd/rollcall", command, []string{registryV1, collectorV1}},

	{"services/simulation", bench, nil},
	{"services/siege", bench, nil},

	{"deploy/internal/child", adapter, nil},
	{"deploy/internal/receiver", adapter, nil},
	{"deploy/omicron", command, []string{registryV1}},
	{"deploy/alerts", bench, nil},
	{"deploy/local", command, nil},
	{"deploy/example", command, nil},
	{"deploy/bench", bench, nil},
	{"deploy/delivery", bench, nil},
	{"deploy/soak", bench, nil},
}

// doors are the packages, and those below them, that a core must not import;
// windows are below a door and only words.
var (
	doors   = []string{"C", "database/sql", "log", "net", "os", "plugin", "syscall"}
	windows = []string{"net/netip", "net/url"}
)

// testLibraries are what the tests of a core may import beyond cores: those of
// other modules, and the wire, by which a fuzzer's bytes become frames.
var testLibraries = []string{
	"github.com/google/go-cmp", "go.uber.org/goleak", "pgregory.net/rapid", module + "/services/internal/wire",
}

func TestEveryArrowPointsDown(t *testing.T) {
	for _, fault := range check(house, readModule(t, "..")) {
		t.Error(fault)
	}
}

// check returns what is wrong with the packages of a module, by the rooms that
// they should be.
func check(rooms []room, pkgs []pkg) []string {
	plan := make(map[string]room, len(rooms))
	for _, r := range rooms {
		plan[r.path] = r
	}
	var faults []string
	faultf := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	found := make(map[string]bool, len(pkgs))
	for _, p := range pkgs {
		found[p.path] = true
		if strings.HasPrefix(p.path, "gen/") {
			continue
		}
		from, ok := plan[p.path]
		if !ok {
			faultf("%s has no place in the map", p.path)
			continue
		}
		if !p.documented {
			faultf("%s has no package comment", p.path)
		}
		for _, path := range p.imports {
			if why := refuse(plan, from, path); why != "" {
				faultf("%s imports %s: %s", p.path, path, why)
			}
		}
		for _, path := range p.testImports {
			if why := refuseInTest(plan, from, path); why != "" {
				faultf("a test of %s imports %s: %s", p.path, path, why)
			}
		}
	}
	for _, r := range rooms {
		if !found[r.path] {
			faultf("%s is in the map and not in the house", r.path)
		}
	}
	return faults
}

// refuse says why a room must not import a path, or nothing.
func refuse(plan map[string]room, from room, path string) string {
	rel, local := strings.CutPrefix(path, module+"/")
	to, known := plan[rel]
	switch {
	case slices.Contains(from.also, rel):
		return ""
	case from.layer == page:
		return "a page imports nothing"
	case !local && (from.layer == core || from.layer == types):
		return refuseOutside(from, path)
	case !local:
		return ""
	case strings.HasPrefix(rel, "gen/"):
		return "generated code is for the rooms that name it"
	case !known:
		return "it has no place in the map"
	case to.layer == support:
		return "support is for tests, and not for those of a core"
	case !inReach(from, to):
		return "it belongs to another service"
	case rank[to.layer] < rank[from.layer],
		from.layer == core && to.layer == core,
		from.layer == adapter && to.layer == adapter && service(to) == "internal":
		return ""
	default:
		return fmt.Sprintf("arrows point down: not from %s to %s", from.layer, to.layer)
	}
}

// refuseOutside says why a core or types must not import a package of another
// module or of the standard library, or nothing.
func refuseOutside(from room, path string) string {
	below := func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") }
	host, _, _ := strings.Cut(path, "/")
	switch {
	case strings.Contains(host, "."):
		return fmt.Sprintf("beyond the standard library, %s imports only what its row names", from.layer)
	case slices.ContainsFunc(doors, below) && !slices.Contains(windows, path):
		return fmt.Sprintf("%s opens no door to the outside", from.layer)
	default:
		return ""
	}
}

// refuseInTest says why a test file in a room must not import a path, or
// nothing. The tests of assemblies and of what stands above them may import
// anything. The others test their room from below: a core or types with other
// cores and the testing libraries, an engine or an adapter with all that is
// below the assemblies.
func refuseInTest(plan map[string]room, from room, path string) string {
	if rank[from.layer] >= rank[assembly] {
		return ""
	}
	rel, local := strings.CutPrefix(path, module+"/")
	to, known := plan[rel]
	if local && rel == from.path {
		return ""
	}
	if rank[from.layer] > rank[core] {
		if known && rank[to.layer] < rank[assembly] && inReach(from, to) {
			return ""
		}
		return refuse(plan, from, path)
	}
	host, _, _ := strings.Cut(path, "/")
	library := func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") }
	if !local && !strings.Contains(host, ".") || slices.ContainsFunc(testLibraries, library) {
		return ""
	}
	return refuse(plan, from, path)
}

// service names the part of the house that a room belongs to: registry,
// collector, producer, internal (shared), or none (mains and deploy/).
func service(r room) string {
	inner, ok := strings.CutPrefix(r.path, "services/")
	name, _, _ := strings.Cut(inner, "/")
	if !ok || name == "cmd" {
		return ""
	}
	return name
}

// inReach tells whether a room may see another as far as the services go.
func inReach(from, to room) bool {
	return service(from) == "" || service(to) == service(from) || service(to) == "internal"
}
