package services_test

import (
	"slices"
	"strings"
	"testing"
)

// toy is a house with one room of each kind, for the exam of check.
var toy = []room{
	{"services", page, nil},
	{"services/internal/words", core, []string{"example.com/hash"}},
	{"services/internal/endpoint", core, nil},
	{"services/internal/wire", adapter, []string{"gen/one/v1"}},
	{"services/one", assembly, []string{"services/open"}},
	{"services/one/internal/data", types, []string{"example.com/labels"}},
	{"services/one/internal/rules", core, nil},
	{"services/one/internal/loop", engine, nil},
	{"services/one/internal/disk", adapter, []string{"gen/disk/v1"}},
	{"services/one/internal/disk/disktest", support, []string{"services/one/internal/disk"}},
	{"services/one/internal/port", adapter, nil},
	{"services/two", assembly, nil},
	{"services/open", adapter, nil},
	{"services/cmd/one", command, nil},
	{"deploy/bench", bench, nil},
}

func TestCheckAcceptsWhatIsSound(t *testing.T) {
	for _, arrow := range []string{
		"services/internal/words > time net/url net/netip example.com/hash",
		"services/internal/wire > net ./services/internal/words ./gen/one/v1 google.golang.org/grpc",
		"services/one/internal/data > time example.com/labels",
		"services/one/internal/rules > ./services/internal/words",
		"services/one/internal/loop > log/slog ./services/one/internal/rules ./services/one/internal/data",
		"services/one/internal/disk > os ./gen/disk/v1 ./services/internal/wire ./services/one/internal/loop",
		"services/one/internal/disk/disktest > testing ./services/one/internal/disk",
		"services/one > ./services/one/internal/disk ./services/one/internal/port ./services/open ./services/internal/wire",
		"services/cmd/one > os ./services/one ./services/open ./services/internal/wire",
		"deploy/bench > ./services/one ./services/two",

		"services/internal/words >> os testing/synctest github.com/google/go-cmp/cmp ./services/internal/words ./services/internal/wire",
		"services/one/internal/data >> pgregory.net/rapid ./services/one/internal/data",
		"services/one/internal/loop >> ./services/one/internal/disk ./services/one/internal/disk/disktest",
		"services/one/internal/port >> ./services/one/internal/disk ./services/one/internal/loop",
		"services/one >> ./services/two ./services/one/internal/disk/disktest ./gen/disk/v1",
		"deploy/bench >> ./gen/one/v1 ./services/two",
	} {
		if faults := check(toy, build(t, arrow)); len(faults) > 0 {
			t.Errorf("%s\n%s", arrow, strings.Join(faults, "\n"))
		}
	}
}

func TestCheckRefusesWhatIsNot(t *testing.T) {
	for arrow, want := range map[string]string{
		"services/internal/words > net":                              "opens no door",
		"services/internal/words > net/http":                         "opens no door",
		"services/internal/words > os/signal":                        "opens no door",
		"services/internal/words > log/slog":                         "opens no door",
		"services/internal/words > database/sql":                     "opens no door",
		"services/internal/words > C":                                "opens no door",
		"services/internal/words > google.golang.org/grpc":           "only what its row names",
		"services/internal/words > example.com/hash/deep":            "only what its row names",
		"services/internal/words > ./gen/one/v1":                     "for the rooms that name it",
		"services/internal/words > ./services/internal/wire":         "not from core to adapter",
		"services/one/internal/rules > ./services/one/internal/data": "not from core to types",
		"services/one/internal/rules > example.com/hash":             "only what its row names",
		"services/one/internal/data > ./services/internal/words":     "not from types to core",
		"services/one/internal/data > os":                            "opens no door",
		"services/one/internal/loop > ./services/one/internal/disk":  "not from engine to adapter",
		"services/one/internal/loop > ./gen/one/v1":                  "for the rooms that name it",
		"services/one/internal/port > ./services/one/internal/disk":  "not from adapter to adapter",
		"services/one/internal/port > ./gen/disk/v1":                 "for the rooms that name it",
		"services/one/internal/port > ./services/open":               "belongs to another service",
		"services/one/internal/port > ./services/one":                "not from adapter to assembly",
		"services/internal/wire > ./services/open":                   "belongs to another service",
		"services/one > ./services/two":                              "belongs to another service",
		"services/two > ./services/open":                             "belongs to another service",
		"services/one > ./services/one/internal/disk/disktest":       "for tests",
		"services/cmd/one > ./gen/one/v1":                            "for the rooms that name it",
		"services/one > ./services/elsewhere":                        "no place in the map",
		"services > time":                                            "a page imports nothing",
		"services/cmd/one > ./services":                              "not from main to page",

		"services/internal/words >> google.golang.org/grpc":                    "only what its row names",
		"services/one/internal/rules >> ./services/one":                        "not from core to assembly",
		"services/one/internal/rules >> ./services/one/internal/loop":          "not from core to engine",
		"services/one/internal/rules >> ./services/one/internal/disk/disktest": "not for those of a core",
		"services/one/internal/loop >> ./services/one":                         "not from engine to assembly",
		"services/one/internal/loop >> ./gen/one/v1":                           "for the rooms that name it",
		"services/one/internal/port >> ./services/open":                        "belongs to another service",
		"services/open >> ./services/two":                                      "belongs to another service",
	} {
		faults := check(toy, build(t, arrow))
		if len(faults) != 1 || !strings.Contains(faults[0], want) {
			t.Errorf("%s\ngot %q, want one fault with %q", arrow, faults, want)
		}
	}
}

func TestCheckRefusesAHouseUnlikeItsMap(t *testing.T) {
	sound := build(t, "services > ")
	for name, c := range map[string]struct {
		pkgs []pkg
		want string
	}{
		"sound":              {sound, ""},
		"generated":          {append(slices.Clone(sound), pkg{path: "gen/new/v1"}), ""},
		"package not in map": {append(slices.Clone(sound), pkg{path: "services/util", documented: true}), "services/util has no place in the map"},
		"row not in house":   {sound[1:], "services is in the map and not in the house"},
		"no comment":         {append([]pkg{{path: "services"}}, sound[1:]...), "services has no package comment"},
	} {
		if got := strings.Join(check(toy, c.pkgs), "\n"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// build makes the toy house with the imports of one package, told as
// "path > imports" or, for those of its tests, "path >> imports".
func build(t *testing.T, arrow string) []pkg {
	t.Helper()
	path, list, ok := strings.Cut(arrow, " >")
	list, ofTests := strings.CutPrefix(list, ">")
	imports := strings.Fields(strings.ReplaceAll(list, " ./", " "+module+"/"))
	var pkgs []pkg
	for _, r := range toy {
		p := pkg{path: r.path, documented: true}
		switch {
		case r.path != path:
		case ofTests:
			p.testImports, ok = imports, true
		default:
			p.imports = imports
		}
		pkgs = append(pkgs, p)
	}
	if !ok || !slices.ContainsFunc(toy, func(r room) bool { return r.path == path }) {
		t.Fatalf("%s: no such arrow", arrow)
	}
	return pkgs
}
