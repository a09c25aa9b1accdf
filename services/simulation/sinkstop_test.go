package simulation

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/registry"
)

// silence starts a receiver that takes requests and never answers.
func (w *world) silence(address string) {
	lis := w.network.listen(address)
	w.done.Go(func() {
		_ = process.ServeHTTP(w.ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not see that it is gone
			<-r.Context().Done()
		}), lis, time.Second, w.logger("silence"))
	})
}

// silentSinks are sinks that never get an answer.
func (w *world) silentSinks(n int) (config string) {
	config = "sinks:\n"
	for i := range n {
		address := fmt.Sprintf("silent-%d:9090", i)
		w.silence(address)
		config += fmt.Sprintf("- {name: s%d, remote_write: {url: http://%s/w}}\n", i, address)
	}
	return config
}

// TestAStopDoesNotWaitForSilentReceivers: what they have not taken stays in the
// queue, and the stop is within its grace.
func TestAStopDoesNotWaitForSilentReceivers(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		file := w.configure("c-1", w.silentSinks(16))
		const grace = 3 * time.Second
		c := w.collector("c-1", func(c *collector.Config) {
			c.ConfigFile, c.DialSink, c.StopGrace = file, w.network.dialerTCP("c-1"), grace
		})
		w.pass(time.Second)
		w.labelled(interval, names(20), func(*registryv1.Producer) {})
		w.pass(10 * time.Second)
		begin := time.Now()
		c.terminate(t)
		if took := time.Since(begin); took > grace {
			t.Errorf("it took %v to stop, more than %v", took, grace)
		}
	})
}

// TestAReloadWithSilentReceivers: what they are waited for is once one sink's
// grace, and all others are collected, sent to and told of meanwhile.
func TestAReloadWithSilentReceivers(t *testing.T) {
	simulate(t, func(w *world) {
		w.registry(registry.NewMemoryStore())
		up := w.receiver("sink:9090")
		config := w.silentSinks(15) + "- {name: up, remote_write: {url: http://sink:9090/w}}\n"
		w.sending("c-1", config)
		w.pass(time.Second)
		all := names(20)
		w.labelled(interval, all, func(*registryv1.Producer) {})
		w.pass(10 * time.Second)
		w.configure("c-1", "sinks:\n- {name: up, remote_write: {url: http://sink:9090/w}}\n")
		begin := time.Now()
		reloaded := make(chan time.Duration, 1)
		w.done.Go(func() {
			w.reload("c-1")
			reloaded <- time.Since(begin)
		})
		w.pass(time.Second)
		before := time.Now()
		if s := w.sinksOf("c-1").GetSinks(); len(s) == 0 || s[len(s)-1].GetName() != "up" {
			t.Errorf("meanwhile: %v", s)
		}
		if took := time.Since(before); took > time.Second {
			t.Errorf("sinks were told of after %v", took)
		}
		if took := <-reloaded; took > 5*time.Second {
			t.Errorf("it took %v to reload", took)
		}
		w.pass(5 * time.Second)
		w.delivered(up, begin, time.Now().Add(-3*time.Second), all...)
		if s := w.sinksOf("c-1").GetSinks(); len(s) != 1 {
			t.Errorf("after the reload: %v", s)
		}
	})
}
