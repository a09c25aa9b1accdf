package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
	"github.com/rollcall-metrics/rollcall/services/producer"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// registeredService is the name by which gRPC health tells whether the endpoint is
// registered. The empty name tells that the process lives.
const registeredService = "registered"

// A sidecar is the process, with its listeners open.
type sidecar struct {
	flags        *flags
	registration producer.Registration
	logger       *slog.Logger
	doors        *process.Doors
	bearer       *process.BearerFile // nil for none
	registry     *prometheus.Registry

	health  *health.Server
	metrics *metrics
}

// run keeps the endpoint registered and serves until ctx ends, or the registry
// refuses. It closes the listeners.
func (s *sidecar) run(ctx context.Context) error {
	s.metrics = newMetrics(s.registry)
	porter := auth.Assemble(s.doors.Access, "", s.logger, s.registry)
	server, checks := process.NewGRPCServer(process.GRPCConfig{
		Logger: s.logger, Registerer: s.registry, TLS: s.doors.Server, Introspection: s.doors.Introspection,
		Tap:    porter.Tap(),
		Unary:  []grpc.UnaryServerInterceptor{porter.Unary()},
		Stream: []grpc.StreamServerInterceptor{porter.Stream()}, //nolint:contextcheck // it takes the context of each call
	})
	s.health = checks
	s.health.SetServingStatus(registeredService, healthv1.HealthCheckResponse_NOT_SERVING)

	config := producer.Config{
		Registries:  s.flags.Registry,
		NoWait:      !s.flags.Wait,
		Observe:     s.observe,
		Credentials: s.doors.Peers.Credentials(),
		Logger:      s.logger,
	}
	if s.bearer != nil {
		config.PerCall = s.bearer
	}
	keeper, err := producer.Start(config, s.registration) //nolint:contextcheck // it outlives ctx, to deregister
	if err != nil {
		return errors.Join(err, s.doors.GRPC.Close(), s.doors.HTTP.Close())
	}
	mux := http.NewServeMux()
	process.AddProbes(mux, s.registry, keeper.Ready)
	if s.doors.Introspection {
		process.AddProfiles(mux)
	}

	grace := s.flags.StopGrace
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return process.ServeGRPC(ctx, server, s.doors.GRPC, grace) })
	group.Go(func() error {
		return process.ServeHTTP(ctx, porter.Handler(mux), process.SecureHTTP(s.doors.HTTP, s.doors.Server), grace, s.logger)
	})
	group.Go(func() error { return s.keep(ctx, keeper) })
	err = group.Wait()
	s.logger.InfoContext(ctx, "the sidecar has stopped", "producer", s.registration.ID, "error", err)
	return err
}

// keep waits until the process is to stop, or the registry refuses, and ends the
// keeper. That nobody takes the deregistration is no failure of the stop: the
// registry strikes off what neither renews nor answers.
func (s *sidecar) keep(ctx context.Context, keeper *producer.Keeper) error {
	select {
	case <-keeper.Done():
		return keeper.Err()
	case <-ctx.Done():
	}
	s.health.Shutdown()
	if !s.flags.Deregister {
		keeper.Close()
		return nil
	}
	if err := keeper.Deregister(s.flags.StopGrace); err != nil { //nolint:contextcheck // ctx has ended
		s.logger.WarnContext(ctx, "could not deregister", "producer", s.registration.ID, "error", err)
	}
	return nil
}

// observe counts what the keeper tries.
func (s *sidecar) observe(step producer.Step, err error) {
	s.metrics.observe(step, err)
	if step != producer.StepRegister {
		return
	}
	switch {
	case err == nil:
		s.health.SetServingStatus(registeredService, healthv1.HealthCheckResponse_SERVING)
	case errors.Is(err, producer.ErrRefused):
		s.health.SetServingStatus(registeredService, healthv1.HealthCheckResponse_NOT_SERVING)
	}
}

// metrics are the sidecar's own.
type metrics struct {
	registered prometheus.Gauge
	answers    prometheus.Gauge
	steps      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		registered: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_producer_registered",
			Help: "Whether the endpoint was registered at the last answer of a registry: it may have been taken off since.",
		}),
		answers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_producer_endpoint_answers",
			Help: "Whether the endpoint answered when this process asked it last. It is asked before each registration, unless --no-wait.",
		}),
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_producer_steps_total",
			Help: "What was tried, by step (probe, register, deregister) and outcome (success, failure, refused).",
		}, []string{"step", "outcome"}),
	}
	for _, step := range []producer.Step{producer.StepProbe, producer.StepRegister, producer.StepDeregister} {
		for _, outcome := range []string{"success", "failure", "refused"} {
			m.steps.WithLabelValues(string(step), outcome)
		}
	}
	r.MustRegister(m.registered, m.answers, m.steps)
	return m
}

func (m *metrics) observe(step producer.Step, err error) {
	outcome := "success"
	switch {
	case errors.Is(err, producer.ErrRefused):
		outcome = "refused"
	case err != nil:
		outcome = "failure"
	}
	m.steps.WithLabelValues(string(step), outcome).Inc()
	switch {
	case step == producer.StepProbe:
		m.answers.Set(number(err == nil))
	case step == producer.StepRegister && outcome != "failure":
		m.registered.Set(number(err == nil))
	case step == producer.StepDeregister && err == nil:
		m.registered.Set(0)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
