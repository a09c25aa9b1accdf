package collector

import (
	"fmt"
	"path/filepath"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// open opens what is on disk.
func (k *Collector) open() (*statefile.State, error) {
	c := k.config
	file, state, err := statefile.Open(statefile.Config{
		Dir:          filepath.Join(c.DataDir, "state"),
		Collector:    assignment.CollectorID(c.ID),
		MaxProducers: c.MaxProducers,
		Logger:       c.Logger,
		FS:           c.StateFS,
	})
	if err != nil {
		return nil, fmt.Errorf("open the state: %w", err)
	}
	k.state = file
	if c.Sink != nil || c.NoStore {
		return state, nil
	}
	k.tsdb, err = openSamples(c)
	if err != nil {
		return nil, fmt.Errorf("open the sample store: %w", err)
	}
	return state, nil
}

// close closes what is on disk, last of all.
func (k *Collector) close() {
	if k.scraper != nil {
		k.scraper.Close()
	}
	if k.fleet != nil {
		k.fleet.Close()
	}
	if k.sinks != nil {
		k.sinks.Close()
	}
	if k.tsdb != nil {
		if err := k.tsdb.Close(); err != nil {
			k.config.Logger.Error("could not close the sample store", "error", err)
		}
	}
	if k.state != nil {
		if err := k.state.Close(); err != nil {
			k.config.Logger.Error("could not close the state", "error", err)
		}
	}
}
