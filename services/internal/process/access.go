package process

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
)

// AccessFlags say who may do what.
type AccessFlags struct {
	Access string `name:"access" group:"tls" placeholder:"FILE" help:"Who may do what, by certificate or token, is in this YAML file, which is read anew when it changes. Default: with TLS, who has a certificate for spiffe://DOMAIN/rollcall/ROLE/ID is that; in plain text, everybody may do everything."`
}

// A RuleFile has the rules of a file that may be replaced at any time. One that
// cannot be used changes nothing. It is a prometheus.Collector, and safe for
// concurrent use.
type RuleFile struct {
	path    string
	content []byte // of the last look; of Watch alone
	current atomic.Pointer[access.Rules]
	failing atomic.Bool

	reloadFailing *prometheus.Desc
}

// LoadRules reads a file, and refuses one that cannot be used.
func LoadRules(path string) (*RuleFile, error) {
	f := &RuleFile{path: path, reloadFailing: prometheus.NewDesc("rollcall_access_reload_failing",
		"1 while the file of --access cannot be used: the rules from before hold.", nil, nil)}
	rules, err := f.read()
	if err != nil {
		return nil, &RefusedError{err}
	}
	f.current.Store(rules)
	return f, nil
}

// Rules are those that hold now.
func (f *RuleFile) Rules() *access.Rules { return f.current.Load() }

// Describe implements prometheus.Collector.
func (f *RuleFile) Describe(c chan<- *prometheus.Desc) { c <- f.reloadFailing }

// Collect implements prometheus.Collector.
func (f *RuleFile) Collect(c chan<- prometheus.Metric) {
	failing := 0.0
	if f.failing.Load() {
		failing = 1
	}
	c <- prometheus.MustNewConstMetric(f.reloadFailing, prometheus.GaugeValue, failing)
}

// Watch looks at the file until ctx ends.
func (f *RuleFile) Watch(ctx context.Context, every time.Duration, logger *slog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		rules, err := f.read()
		f.failing.Store(err != nil)
		switch {
		case err == nil && rules != nil:
			f.current.Store(rules)
			logger.InfoContext(ctx, "new rules of access hold", "file", f.path)
		case err != nil && err.Error() != told:
			logger.ErrorContext(ctx, "new rules of access cannot be used, those from before hold", "error", err)
		}
		if told = ""; err != nil {
			told = err.Error()
		}
	}
}

// read reads the file; nil when it is as the last one that could be used.
func (f *RuleFile) read() (*access.Rules, error) {
	content, err := readFile("--access", f.path)
	if err != nil || f.content != nil && bytes.Equal(content, f.content) {
		return nil, err
	}
	rules, err := access.Parse(content)
	if err != nil {
		return nil, fmt.Errorf("--access %s: %w", f.path, err)
	}
	f.content = content
	return rules, nil
}
