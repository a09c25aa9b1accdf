package peers_test

import (
	"testing"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestNobodyIsForgotten: an error of the registry, a list without somebody, an
// empty one and one that is malformed leave the others known.
func TestNobodyIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other, _ := r.second("c-2")
		write(t, other, "there", 10)
		complete := func(what string) {
			t.Helper()
			r.learn()
			if got, warnings, err := r.query(); len(got) != 1 || len(warnings) > 0 || err != nil {
				t.Errorf("%s: %v, %v, %v", what, got, warnings, err)
			}
		}
		r.names(status.Error(codes.Unavailable, "not now"))
		complete("an error")
		r.names(nil, &registryv1.Collector{CollectorId: "c-1"})
		complete("a list without it")
		r.names(nil)
		complete("an empty list")
		for what, c := range map[string]*registryv1.Collector{
			"an address that is none":  {CollectorId: "c-2", IntrospectionEndpoint: "nowhere"},
			"an address with a path":   {CollectorId: "c-2", IntrospectionEndpoint: "c-2:1/x"},
			"an id that is none":       {CollectorId: "c 2", IntrospectionEndpoint: "c-2:1"},
			"expunged with a bad name": {CollectorId: "", State: registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED},
		} {
			r.names(nil, c)
			complete(what)
		}
		r.names(nil, &registryv1.Collector{CollectorId: "c-3", IntrospectionEndpoint: "c-2:1"},
			&registryv1.Collector{CollectorId: "c-2", State: registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED})
		complete("in disorder")
	})
}

// TestExpungedIsAskedNoMore, and one that has moved is asked where it is.
func TestExpungedIsAskedNoMore(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other, _ := r.second("c-2")
		write(t, other, "there", 10)
		r.list("c-2", "elsewhere:1")
		r.learn()
		if _, warnings, _ := r.query(); !warned(warnings, `"c-2"`, "refused") {
			t.Errorf("elsewhere: %v", warnings)
		}
		r.list("c-2", "c-2:1")
		_, _, _ = r.query() // A failure has the registry asked at once.
		time.Sleep(3 * time.Second)
		if got, warnings, _ := r.query(); len(got) != 1 || len(warnings) > 0 {
			t.Errorf("back: %v, %v", got, warnings)
		}
		r.list("c-2", "")
		r.learn()
		if _, warnings, _ := r.query(); !warned(warnings, `"c-2"`, "not told where") {
			t.Errorf("nowhere: %v", warnings)
		}
		r.list("c-2", "c-2:1", registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED)
		r.learn()
		if got, warnings, err := r.query(); len(got) != 0 || len(warnings) > 0 || err != nil {
			t.Errorf("expunged: %v, %v, %v", got, warnings, err)
		}
	})
}

// TestManyAreLearnt, over pages, each state but EXPUNGED, and not this collector.
func TestManyAreLearnt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		for state := range registryv1.CollectorState_name {
			if state := registryv1.CollectorState(state); state != registryv1.CollectorState_COLLECTOR_STATE_EXPUNGED {
				r.list("x-"+state.String(), "x-"+state.String()+":1", state)
			}
		}
		r.learn()
		if _, warnings, err := r.query(); len(warnings) != len(registryv1.CollectorState_name)-1 || err != nil {
			t.Errorf("%v, %v", warnings, err)
		}
	})
}

// TestNobodyIsKnownYet: before a registry has answered, an answer may lack what
// nobody knows of, and says so.
func TestNobodyIsKnownYet(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		write(t, r.store, "here", 10)
		begin := time.Now()
		got, warnings, err := r.query()
		if len(got) != 1 || !warned(warnings, "not known", "may be partial", "refused") || err != nil || time.Since(begin) > 2*time.Second {
			t.Errorf("%v, %v, %v after %v", got, warnings, err, time.Since(begin))
		}
		r.serve("late:1", func(s *grpc.Server) { registryv1.RegisterCollectorServiceServer(s, registryOf{r: r}) })
		time.Sleep(3 * time.Second)
		if got, warnings, err := r.query(); len(got) != 1 || len(warnings) > 0 || err != nil {
			t.Errorf("once it has answered: %v, %v, %v", got, warnings, err)
		}
	}, func(c *peers.Config) { c.Registries = []string{"late:1"} })
}

// TestNewcomerIsAsked, by a query that comes six seconds after it: the list is
// fetched again for that. While no registry answers nobody waits for a list.
func TestNewcomerIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other := r.open(t.TempDir())
		write(t, other, "there", 10)
		server := peers.NewServer(peers.ServerConfig{Self: "c-2", Store: other})
		r.serve("c-2:1", func(s *grpc.Server) { collectorv1.RegisterCollectionServiceServer(s, &peer{answer: server.Select}) })
		if got, warnings, err := r.query(); len(got) > 0 || len(warnings) > 0 || err != nil {
			t.Fatalf("it is known already: %v, %v, %v", got, warnings, err)
		}
		r.list("c-2", "c-2:1")
		time.Sleep(6 * time.Second)
		if got, warnings, err := r.query(); len(got) != 1 || len(warnings) > 0 || err != nil {
			t.Errorf("the newcomer: %v, %v, %v", got, warnings, err)
		}
		r.names(status.Error(codes.Unavailable, "not now"))
		r.learn()
		begin := time.Now()
		if got, warnings, err := r.query(); len(got) != 1 || len(warnings) > 0 || err != nil || time.Since(begin) > 0 {
			t.Errorf("without a registry: %v, %v, %v after %v", got, warnings, err, time.Since(begin))
		}
	})
}
