package api

import (
	"context"
	"errors"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/grpc/codes"
)

// ErrNoConfiguration says that there is no file to reload.
var ErrNoConfiguration = errors.New("the collector was started without a configuration file")

// Shown is a configuration for people, without secrets.
type Shown struct {
	// YAML holds since that time.
	YAML  string
	Since time.Time

	// Failure is why the last reload was refused, and Failed when; zero when it
	// was not.
	Failure string
	Failed  time.Time
}

// Configuration is the collector's own. It is safe for concurrent use.
type Configuration interface {
	Show() Shown

	// Reload reads the file again. When it is refused, the one before stays; the
	// error repeats no secret.
	Reload() error
}

// ReloadConfiguration reads the configuration file again.
func (a *API) ReloadConfiguration(context.Context, *collectorv1.ReloadConfigurationRequest) (*collectorv1.ReloadConfigurationResponse, error) {
	switch err := a.Configuration.Reload(); {
	case errors.Is(err, ErrNoConfiguration):
		return nil, detailed(codes.FailedPrecondition, err.Error(), "NO_CONFIGURATION")
	case err != nil:
		return nil, detailed(codes.FailedPrecondition, err.Error(), "CONFIGURATION")
	}
	return &collectorv1.ReloadConfigurationResponse{LoadTime: timestamp(a.Configuration.Show().Since)}, nil
}

// GetConfiguration answers what holds.
func (a *API) GetConfiguration(context.Context, *collectorv1.GetConfigurationRequest) (*collectorv1.GetConfigurationResponse, error) {
	s := a.Configuration.Show()
	return &collectorv1.GetConfigurationResponse{
		Yaml:          s.YAML,
		LoadTime:      timestamp(s.Since),
		LastError:     s.Failure,
		LastErrorTime: timestamp(s.Failed),
	}, nil
}
