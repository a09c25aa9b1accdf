package collector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sink"
)

// openSamples opens the sample store. One that is damaged is put aside: what is
// collected from now on matters more than that nothing is collected. One whose
// disk fails is not damaged, and is opened when the disk is well again.
func openSamples(c Config) (*sink.TSDB, error) {
	config := sink.TSDBConfig{
		Dir:              filepath.Join(c.DataDir, "tsdb"),
		Retention:        c.Retention,
		RetentionBytes:   c.RetentionBytes,
		OutOfOrderWindow: max(0, cmp.Or(c.OutOfOrderWindow, DefaultOutOfOrderWindow)),
		Logger:           c.Logger,
		Registerer:       c.Metrics,
	}
	db, err := sink.OpenTSDB(config)
	if !errors.Is(err, sink.ErrDamaged) {
		return db, err
	}
	aside := config.Dir + ".damaged"
	c.Logger.Error("the sample store cannot be opened and is put aside", "dir", config.Dir, "aside", aside, "error", err)
	if err := errors.Join(os.RemoveAll(aside), os.Rename(config.Dir, aside)); err != nil {
		return nil, err
	}
	return sink.OpenTSDB(config)
}

// operated is the sample store as operators reach it.
type operated struct{ tsdb *sink.TSDB }

// store is nil where there is no store.
func (k *Collector) store() api.Store {
	if k.tsdb == nil {
		return nil
	}
	return operated{k.tsdb}
}

// Delete deletes series.
func (o operated) Delete(ctx context.Context, selectors [][]*labels.Matcher, mint, maxt int64) (int, error) {
	n, err := o.tsdb.Delete(ctx, selectors, mint, maxt)
	return n, storeError(err)
}

// Snapshot copies the store.
func (o operated) Snapshot(ctx context.Context) (dir string, bytes int64, err error) {
	dir, bytes, err = o.tsdb.Snapshot(ctx)
	return dir, bytes, storeError(err)
}

// storeError says an error in the API's words.
func storeError(err error) error {
	for from, to := range map[error]error{
		sink.ErrBusy:             api.ErrStoreBusy,
		sink.ErrTooManySnapshots: api.ErrTooManySnapshots,
		sink.ErrUnavailable:      api.ErrStoreUnavailable,
		sink.ErrClosed:           api.ErrStoreUnavailable,
	} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	return err
}

// addNoStore answers queries where there is no store, as Prometheus tells errors.
func addNoStore(mux *http.ServeMux) {
	mux.HandleFunc("/api/v1/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, `{"status":"error","errorType":"unavailable","error":"this collector keeps no samples (--no-store): ask where its sinks send to"}`)
	})
}
