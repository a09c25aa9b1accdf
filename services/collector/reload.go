package collector

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/scrape"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/settings"
)

// ErrConfiguration says that the configuration file is refused.
var ErrConfiguration = errors.New("the configuration file is refused")

// A configuration is the file that holds now. It is safe for concurrent use.
type configuration struct {
	path    string // empty for none
	apply   func(scrape.Setup)
	sinks   func(*settings.Settings) error
	refresh func()
	logger  *slog.Logger

	successful, loaded prometheus.Gauge

	reloading sync.Mutex // one reload at a time; taken before mu

	mu      sync.Mutex // guards what follows
	text    string
	since   time.Time
	failure string
	failed  time.Time
}

// newConfiguration takes over the first settings, which hold already.
func newConfiguration(c Config, first *settings.Settings) *configuration {
	const ns, sub = "rollcall_collector", "config"
	k := &configuration{
		path:   c.ConfigFile,
		logger: c.Logger,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: sub, Name: "last_reload_successful",
			Help: "Whether the last reload of the configuration file was taken.",
		}),
		loaded: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: sub, Name: "last_reload_success_timestamp_seconds",
			Help: "When the configuration that holds was loaded.",
		}),
	}
	c.Metrics.MustRegister(k.successful, k.loaded)
	k.took(first)
	return k
}

// loadSettings reads the file at path; without one nothing is said.
func loadSettings(path string) (*settings.Settings, error) {
	if path == "" {
		return &settings.Settings{}, nil
	}
	s, err := settings.Load(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfiguration, err)
	}
	return s, nil
}

// setupOf is what a file means for collections.
func setupOf(s *settings.Settings) scrape.Setup {
	setup := scrape.Setup{
		Targets: s.Targets,
		Series:  s.Series,
		Limits: scrape.Limits{
			BodyBytes:       int64(s.Limits.BodyBytes),
			Samples:         s.Limits.Samples,
			Labels:          s.Limits.Labels,
			LabelNameBytes:  s.Limits.LabelNameBytes,
			LabelValueBytes: s.Limits.LabelValueBytes,
			LineBytes:       s.Limits.LineBytes,
			NativeBuckets:   s.Limits.NativeBuckets,
		},
		Credentials: make(map[string]scrape.Credential, len(s.Credentials)),
	}
	for name, c := range s.Credentials {
		setup.Credentials[name] = scrape.Credential(c)
	}
	return setup
}

// Reload reads the file again. When it is refused, the one before stays.
func (k *configuration) Reload() error {
	if k.path == "" {
		return api.ErrNoConfiguration
	}
	k.reloading.Lock()
	defer k.reloading.Unlock()
	s, err := loadSettings(k.path)
	if err == nil {
		err = k.sinks(s) // the only part that can still refuse
	}
	if err != nil {
		k.logger.Error("the configuration was not reloaded", "error", err)
		k.successful.Set(0)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.failure, k.failed = err.Error(), time.Now()
		return err
	}
	k.apply(setupOf(s))
	k.refresh()
	k.took(s)
	k.logger.Info("the configuration was reloaded", "file", k.path)
	return nil
}

// took notes what holds.
func (k *configuration) took(s *settings.Settings) {
	k.successful.Set(1)
	k.loaded.SetToCurrentTime()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.text, k.since, k.failure, k.failed = s.Text, time.Now(), "", time.Time{}
}

// Show tells what holds, without secrets.
func (k *configuration) Show() api.Shown {
	k.mu.Lock()
	defer k.mu.Unlock()
	return api.Shown{YAML: k.text, Since: k.since, Failure: k.failure, Failed: k.failed}
}

// Reload reads the configuration file again. It is checked as a whole; when it
// is refused, the one before stays, and the error says why. Reloads at one time
// come one after another.
func (k *Collector) Reload() error { return k.configuration.Reload() }

// assembleConfiguration makes what reloads. The scraper and the schedule are
// there.
func (k *Collector) assembleConfiguration(first *settings.Settings) {
	k.configuration = newConfiguration(k.config, first)
	k.configuration.apply = k.scraper.Configure
	k.configuration.sinks = k.sinks.apply
	k.configuration.refresh = k.schedule.Refresh
}
