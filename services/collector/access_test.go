package collector_test

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"google.golang.org/grpc/test/bufconn"
)

// collection is the path of the collector's own service.
const collection = "/rollcall.collector.v1.CollectionService/"

// calls is who may call what at the collector c-1. The caller collector is that
// one, other is c-2.
var calls = slices.Concat([]authtest.Row{
	{collection + "GetMembership", ``, "collector operator reader"},
	{collection + "ListCollections", ``, "collector operator reader"},
	{collection + "GetCollection", `producer_id: "p-1"`, "collector operator reader"},
	{collection + "ListHeld", ``, "collector operator reader"},
	{collection + "GetConfiguration", ``, "collector operator reader"},
	{collection + "ListSinks", ``, "collector operator reader"},
	{collection + "Witness", `producer_ids: "p-1"`, "registry operator reader"},
	{collection + "Select", `kind: SELECT_KIND_LABEL_NAMES`, "collector other operator reader"},
	{collection + "CollectNow", `producer_id: "p-1"`, "operator"},
	{collection + "ReleaseHeld", `producer_ids: "p-1"`, "operator"},
	{collection + "ReleaseHeld", `all: true`, "operator"},
	{collection + "ReloadConfiguration", ``, "operator"},
	{collection + "DeleteSeries", `selectors {matchers {type: MATCH_TYPE_EQUAL name: "a" value: "b"}}`, "operator"},
	{collection + "CreateSnapshot", ``, "operator"},
}, authtest.OfEveryServer())

// readers may ask a collector for what it has.
const readers = "operator reader"

// requests is the same for HTTP.
var requests = []authtest.Row{
	{"GET", "/healthz", authtest.Everybody},
	{"GET", "/readyz", authtest.Everybody},
	{"GET", "/-/healthy", authtest.Everybody},
	{"GET", "/-/ready", authtest.Everybody},
	{"GET", "/metrics", "collector other " + readers},
	{"GET", "/api/v1/query?query=1", readers},
	{"POST", "/api/v1/query?query=1", readers},
	{"GET", "/api/v1/query_range?query=1&start=0&end=1&step=1", readers},
	{"GET", "/api/v1/labels?start=x", readers},
	{"GET", "/api/v1/label/job/values?start=x", readers},
	{"GET", "/api/v1/series", readers},
	{"POST", "/api/v1/read", readers},
	{"GET", "/api/v1/targets", readers},
	{"GET", "/api/v1/metadata", readers},
	{"GET", "/api/v1/status/tsdb", readers},
	{"GET", "/api/v1/status/config", readers},
	{"GET", "/api/v1/rules", readers},
	{"DELETE", "/api/v1/series?match[]=up", "operator"},
	{"PUT", "/api/v1/query?query=1", "operator"},
	{"POST", "/api/v1/admin/tsdb/delete_series", "operator"},
	{"POST", "/api/v1/write", "operator"},
	{"POST", "/api/v1/anything", "operator"},
	{"GET", "/api/v1/anything", "operator"},
	{"POST", "/api/v1/targets", "operator"},
	{"POST", "/api/v1/otlp/v1/metrics", "operator"},
	{"POST", "/metrics", "operator"},
	{"GET", "/debug/pprof/heap", "operator"},
	{"GET", "/", "operator"},
	{"GET", "/api/v1", "operator"},
	{"GET", "/api/v1/../../debug/pprof/heap", "operator"},
	{"GET", "/api/v1/label/a%2f..%2f..%2fstatus/values", "operator"},
	{"GET", "/api//v1/query?query=1", "operator"},
}

// TestWhoMayCallWhat goes through every method that the collector serves and some
// of each route, as every caller.
func TestWhoMayCallWhat(t *testing.T) {
	ca, log, rules := authtest.NewCA(t), &authtest.Lines{}, access.Default()
	lis, web := bufconn.Listen(1<<20), bufconn.Listen(1<<16)
	k, err := collector.New(t.Context(), collector.Config{
		Introspection: true,
		ID:            "c-1", Registries: []string{"127.0.0.1:1"}, DataDir: t.TempDir(), Listener: lis, HTTPListener: web,
		ServerTLS: ca.Server(t), Access: func() *access.Rules { return rules }, Logger: slog.New(log),
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, k.Run)
	names := authtest.Names()
	names["other"] = authtest.SPIFFE("collector/c-2")
	conns, configs := ca.Callers(t, lis, names)
	authtest.Walk(t, k.Services(), calls, conns)
	told := map[string]int{}
	for _, line := range log.Take("audit") {
		if request := fmt.Sprint(line["request"]); strings.HasSuffix(fmt.Sprint(line["method"]), "DeleteSeries") &&
			(!strings.Contains(request, `name:"a"`) || strings.Contains(request, "start_ms")) {
			t.Errorf("of what was deleted is told %s", request)
		}
		told[fmt.Sprint(line["identity"], " ", line["method"])]++
	}
	ann := names["operator"] + " " + collection
	if want := map[string]int{ann + "ReleaseHeld": 2, ann + "DeleteSeries": 1, ann + "CreateSnapshot": 1}; !maps.Equal(told, want) {
		t.Errorf("told of %v, want %v", told, want)
	}
	authtest.WalkHTTP(t, requests, web, configs)
}
