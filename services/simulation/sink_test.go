package simulation

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
)

// A receiver takes remote write 2.0, and keeps for each producer when its
// work_total was taken, in the order in which it came.
type receiver struct {
	mu    sync.Mutex
	down  bool
	times map[string][]int64
}

// receiver starts one at an address.
func (w *world) receiver(address string) *receiver {
	r := &receiver{times: map[string][]int64{}}
	lis := w.network.listen(address)
	w.done.Go(func() {
		_ = process.ServeHTTP(w.ctx, http.HandlerFunc(r.serve), lis, time.Second, w.logger("receiver"))
	})
	return r
}

// set stops it from taking anything, or lets it.
func (r *receiver) set(down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = down
}

func (r *receiver) serve(rw http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	var m writev2.Request
	if err == nil {
		err = m.Unmarshal(body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	case r.down:
		http.Error(rw, "not now", http.StatusServiceUnavailable)
		return
	}
	written := 0
	for _, s := range m.Timeseries {
		written += len(s.Samples)
		labels := map[string]string{}
		for i := 0; i < len(s.LabelsRefs); i += 2 {
			labels[m.Symbols[s.LabelsRefs[i]]] = m.Symbols[s.LabelsRefs[i+1]]
		}
		if labels["__name__"] == "work_total" {
			for _, one := range s.Samples {
				r.times[labels["id"]] = append(r.times[labels["id"]], one.Timestamp)
			}
		}
	}
	rw.Header().Set("X-Prometheus-Remote-Write-Samples-Written", fmt.Sprint(written))
	rw.Header().Set("X-Prometheus-Remote-Write-Histograms-Written", "0")
	rw.Header().Set("X-Prometheus-Remote-Write-Exemplars-Written", "0")
	rw.WriteHeader(http.StatusNoContent)
}

// taken is what it has of a producer.
func (r *receiver) taken(id string) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]int64(nil), r.times[id]...)
}

// sending starts a collector with the sinks of a configuration file.
func (w *world) sending(id, config string) *host {
	w.t.Helper()
	return w.collector(id, func(c *collector.Config) {
		c.ConfigFile = w.configure(id, config)
		c.DialSink = w.network.dialerTCP(id)
	})
}

// configure writes the configuration file of a collector.
func (w *world) configure(id, config string) string {
	w.t.Helper()
	path := filepath.Join(w.fleet.dir, id+".yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		w.fatalf("configure: %v", err)
	}
	return path
}

// reload has a collector read its configuration again.
func (w *world) reload(id string) {
	w.t.Helper()
	if err := w.client(id+":7480", func(conn *grpc.ClientConn) error {
		_, err := collectorv1.NewCollectionServiceClient(conn).ReloadConfiguration(w.ctx, &collectorv1.ReloadConfigurationRequest{})
		return err
	}); err != nil {
		w.fatalf("reload: %v", err)
	}
}

// sinksOf asks a collector where its samples go.
func (w *world) sinksOf(id string) *collectorv1.ListSinksResponse {
	w.t.Helper()
	var resp *collectorv1.ListSinksResponse
	if err := w.client(id+":7480", func(conn *grpc.ClientConn) (err error) {
		resp, err = collectorv1.NewCollectionServiceClient(conn).ListSinks(w.ctx, &collectorv1.ListSinksRequest{})
		return err
	}); err != nil {
		w.fatalf("sinks: %v", err)
	}
	return resp
}

// delivered checks that a receiver has one sample of each interval between two
// times, in order, and nothing twice.
func (w *world) delivered(r *receiver, from, to time.Time, ids ...string) {
	w.t.Helper()
	for _, id := range ids {
		last := from.UnixMilli()
		for _, at := range append(r.taken(id), to.UnixMilli()) {
			if at < from.UnixMilli() || at > to.UnixMilli() {
				continue
			}
			if gap := at - last; gap > interval.Milliseconds()+1 {
				w.t.Errorf("%s: nothing of the %d ms before %d", id, gap, at)
			} else if gap < 0 || gap == 0 && at != from.UnixMilli() && at != to.UnixMilli() {
				w.t.Errorf("%s: %d came behind %d", id, at, last)
			}
			last = at
		}
	}
}

const oneSink = `
sinks:
- name: main
  remote_write: {url: http://sink:9090/api/v1/write}
`

// TestSinkDownForAnHour: a sink that is down for an hour costs no collection, and
// no sample, although the collector is restarted meanwhile. Twice comes nothing
// either, since it was down all the time.
func TestSinkDownForAnHour(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		sink := w.receiver("sink:9090")
		c := w.sending("c-1", oneSink)
		w.pass(time.Second)
		all := names(20)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(time.Minute)
		begin := time.Now()
		sink.set(true)
		w.pass(30 * time.Minute)
		if s := w.sinksOf("c-1").GetSinks(); len(s) != 1 || !s[0].GetFailing() || s[0].GetLagDuration().AsDuration() < 29*time.Minute {
			t.Errorf("while it is down: %v", s)
		}
		before := time.Now()
		w.noGap(begin, before, all...)
		c.terminate(t)
		w.sending("c-1", oneSink)
		restarted := time.Now()
		w.pass(30 * time.Minute)
		w.noGap(restarted, time.Now(), all...)
		sink.set(false)
		w.pass(time.Minute) // the longest backoff, and a batch
		end := time.Now()
		w.pass(5 * time.Second)
		w.delivered(sink, begin, before, all...)
		w.delivered(sink, restarted, end, all...)
		if s := w.sinksOf("c-1").GetSinks()[0]; s.GetFailing() || s.GetLagDuration().AsDuration() > 2*time.Second || len(s.GetDropped()) != 0 {
			t.Errorf("after it came back: %v", s)
		}
	})
}

// TestSinksAreIsolated: one that is down holds back nobody; one that is taken out
// of the configuration has nothing kept for it any more, and the others go on
// where they were.
func TestSinksAreIsolated(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		up, down := w.receiver("sink:9090"), w.receiver("down:9090")
		down.set(true)
		w.sending("c-1", oneSink+"- {name: down, remote_write: {url: http://down:9090/w}}\n")
		w.pass(time.Second)
		all := names(20)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(10 * time.Second)
		begin := time.Now()
		w.pass(10 * time.Minute)
		w.delivered(up, begin, time.Now().Add(-3*time.Second), all...)

		w.configure("c-1", oneSink)
		w.reload("c-1")
		w.pass(10 * time.Minute)
		w.delivered(up, begin, time.Now().Add(-3*time.Second), all...)
		if s := w.sinksOf("c-1").GetSinks(); len(s) != 1 || s[0].GetName() != "main" {
			t.Errorf("when the other one was gone: %v", s)
		}
		if got := down.taken(all[0]); len(got) != 0 {
			t.Errorf("the one that was down took %v", got)
		}

		// A file that is refused changes nothing.
		w.configure("c-1", "sinks: [{name: main, remote_write: {url: 'ftp://x'}}]")
		if err := w.client("c-1:7480", func(conn *grpc.ClientConn) error {
			_, err := collectorv1.NewCollectionServiceClient(conn).ReloadConfiguration(w.ctx, &collectorv1.ReloadConfigurationRequest{})
			return err
		}); err == nil {
			t.Error("a file with a bad sink was taken")
		}
		w.pass(time.Minute)
		w.delivered(up, begin, time.Now().Add(-3*time.Second), all...)
	})
}

// TestAStoppedCollectorSendsWhatItHas: what was collected before a collector
// stops is delivered while it stops.
func TestAStoppedCollectorSendsWhatItHas(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		sink := w.receiver("sink:9090")
		c := w.sending("c-1", oneSink)
		w.pass(time.Second)
		all := names(20)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(10 * time.Second)
		begin := time.Now()
		w.pass(time.Minute)
		end := time.Now()
		c.terminate(t)
		if took := time.Since(end); took > 2*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		w.delivered(sink, begin, end, all...)
	})
}
