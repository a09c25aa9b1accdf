package collector_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/prompb"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/protobuf/types/known/durationpb"
)

// taker takes remote write 1.0, and keeps the values of answers_total, and at which
// times the producer is told to be down.
type taker struct {
	down atomic.Bool

	mu     sync.Mutex
	got    map[int]bool
	failed map[int64]bool
}

func (k *taker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		body, err = snappy.Decode(nil, body)
	}
	var m prompb.WriteRequest
	switch {
	case k.down.Load():
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	case err != nil || m.Unmarshal(body) != nil:
		http.Error(w, "what is that", http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range m.Timeseries {
		for _, l := range s.Labels {
			if l.Name != "__name__" {
				continue
			}
			for _, one := range s.Samples {
				switch {
				case l.Value == "answers_total":
					k.got[int(one.Value)] = true
				case l.Value == "up" && one.Value == 0:
					k.failed[one.Timestamp] = true
				}
			}
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// forgive does without a value.
func (k *taker) forgive(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got[n] = true
}

// upTo fails until it has every value up to n, but for as many as there were
// collections that failed: when the machine stands still, an answer comes too late.
func (k *taker) upTo(n int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var missing []int
	for i := 1; i <= n; i++ {
		if !k.got[i] {
			missing = append(missing, i)
		}
	}
	if len(missing) > len(k.failed) {
		return fmt.Errorf("of %d answers %v have not arrived, and %d collections failed", n, missing, len(k.failed))
	}
	return nil
}

// TestTheDiskOfTheQueueIsFull: collecting and sending go on, and tell that they
// are not safe; when there is room again, what waits goes to the disk, and
// outlives the process.
func TestTheDiskOfTheQueueIsFull(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "queue")
	if err := os.Mkdir(disk, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("ROLLCALL_REQUIRE_ALL") == "1" {
			t.Fatalf("mount a tmpfs: %v, and ROLLCALL_REQUIRE_ALL=1", err)
		}
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	sink := &taker{got: map[int]bool{}, failed: map[int64]bool{}}
	receiver := httptest.NewServer(sink)
	t.Cleanup(receiver.Close)
	file := filepath.Join(dir, "collector.yml")
	config := fmt.Sprintf("sinks: [{name: a, remote_write: {url: %q, protocol: '1.0'}, max_backoff: 1s}]", receiver.URL)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	answers := answering(t)
	start := func() (client collectorv1.CollectionServiceClient, stop func()) {
		return sending(t, dir, file, answers.registry)
	}

	client, stop := start()
	eventually(t, func() error { return sink.upTo(2) })
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 4<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("to fill the disk: %v", err)
	}
	eventually(t, func() error {
		if q := queueOf(t, client); !q.GetFailing() || q.GetMemoryBytes() == 0 {
			return fmt.Errorf("on a full disk: %v", q)
		}
		return nil
	})
	full := int(answers.count.Load())
	eventually(t, func() error { return sink.upTo(full + 2) })

	sink.down.Store(true)
	down := int(answers.count.Load())
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		switch q := queueOf(t, client); {
		case q.GetFailing() || q.GetMemoryBytes() > 0:
			return fmt.Errorf("when there is room: %v", q)
		case int(answers.count.Load()) < down+3:
			return errors.New("nothing is collected")
		}
		return nil
	})
	stop()
	sink.forgive(int(answers.count.Load())) // it was perhaps broken off
	sink.down.Store(false)
	_, stop = start()
	defer stop()
	eventually(t, func() error { return sink.upTo(int(answers.count.Load())) })
}

func queueOf(t *testing.T, client collectorv1.CollectionServiceClient) *collectorv1.Queue {
	t.Helper()
	resp, err := client.ListSinks(t.Context(), &collectorv1.ListSinksRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetQueue()
}

// answered is a producer that counts its answers, and its registry.
type answered struct {
	registry string
	count    atomic.Int64
}

func answering(t *testing.T) *answered {
	t.Helper()
	a := &answered{}
	lis := listen(t)
	r, err := registry.New(t.Context(), registry.Config{
		Listener: lis, Memory: registry.NewMemoryStore(), Endpoints: registry.EndpointPolicy{Loopback: true},
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	begin(t, r.Run)
	a.registry = lis.Addr().String()
	producer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintf(w, "# TYPE answers_total counter\nanswers_total %d\n# TYPE ballast gauge\n", a.count.Add(1))
		for i := range 500 { // a page of the disk is full soon
			_, _ = fmt.Fprintf(w, "ballast{i=\"%d\"} %v\n", i, rand.Float64())
		}
	}))
	t.Cleanup(producer.Close)
	client := registryv1.NewProducerServiceClient(dial(t, lis))
	eventually(t, func() error { // when it has loaded its store
		_, err := client.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{
			Producer: &registryv1.Producer{
				ProducerId: "p", Endpoint: producer.URL, Interval: durationpb.New(time.Second), Timeout: durationpb.New(time.Second),
			},
		})
		return err
	})
	return a
}

// sending runs a collector that only sends. stop ends it in good order.
func sending(t *testing.T, dir, file, registry string) (client collectorv1.CollectionServiceClient, stop func()) {
	t.Helper()
	lis, web := listen(t), listen(t)
	k, err := collector.New(t.Context(), collector.Config{
		ID: "c-1", Registries: []string{registry}, DataDir: dir, NoStore: true, ConfigFile: file,
		Endpoints: collector.EndpointPolicy{Loopback: true},
		Listener:  lis, HTTPListener: web, Advertise: lis.Addr().String(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- k.Run(ctx) }()
	return collectorv1.NewCollectionServiceClient(dial(t, lis)), sync.OnceFunc(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}
