package producer_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/producer"
)

// One registry that calls malformed what the others take ends no keeper, neither
// before it was taken nor afterwards.
func TestOneRegistryCallsItMalformed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		malformed := func(context.Context) error { return status.Error(codes.InvalidArgument, "no such field") }
		odd, r := n.registry(t, "odd"), n.registry(t, "r1")
		odd.register = malformed
		n.endpoint(t, app, metrics)
		for range 8 { // whichever is asked first
			k := start(t, n.config("odd", "r1"), registration)
			time.Sleep(time.Minute)
			if err := k.Ready(); err != nil {
				t.Fatal(err)
			}
			k.Close()
		}
		var log bytes.Buffer
		c := n.config("odd", "r1")
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		k := start(t, c, registration)
		time.Sleep(time.Minute)
		r.set(func() { r.register = malformed })
		time.Sleep(2 * time.Hour)
		if err := k.Ready(); err != nil || k.Err() != nil {
			t.Errorf("ready: %v, ended: %v", err, k.Err())
		}
		r.set(func() { r.register = nil })
		before := len(r.times())
		time.Sleep(time.Hour)
		if len(r.times()) < before+10 {
			t.Errorf("%d registrations in an hour", len(r.times())-before)
		}
		k.Close()
		if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "succeeds again") || strings.Contains(got, "level=ERROR") {
			t.Errorf("logged %s", got)
		}
	})
}

// What every registry calls malformed is refused, and that is worth a line.
func TestAllRegistriesCallItMalformed(t *testing.T) {
	for _, list := range [][]string{{"r1"}, {"r1", "r2"}} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			r := n.registry(t, list...)
			r.set(func() { r.register = func(context.Context) error { return status.Error(codes.InvalidArgument, "no") } })
			n.endpoint(t, app, metrics)
			var log bytes.Buffer
			c := n.config(list...)
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
			k := start(t, c, registration)
			<-k.Done()
			if err := k.Err(); !errors.Is(err, producer.ErrRefused) || r.count("register") != len(list) {
				t.Errorf("%v: %v after %d registrations", list, err, r.count("register"))
			}
			if got := log.String(); strings.Count(got, "level=ERROR") != 1 {
				t.Errorf("%v: logged %s", list, got)
			}
		})
	}
}

// What a registry tells is bounded.
func TestSillyAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer      func(*registryv1.RegisterProducerResponse)
		span        time.Duration
		least, most int // registrations in that time
	}{
		"at once":     {func(m *registryv1.RegisterProducerResponse) { m.RenewAfter = nil }, 200 * time.Second, 199, 225},
		"in the past": {func(m *registryv1.RegisterProducerResponse) { m.RenewAfter = durationpb.New(-time.Hour) }, 200 * time.Second, 199, 225},
		"never": {func(m *registryv1.RegisterProducerResponse) {
			m.RenewAfter = &durationpb.Duration{Seconds: 1 << 62, Nanos: -5}
		}, 16 * time.Hour, 3, 3},
		"no collector": {func(m *registryv1.RegisterProducerResponse) {
			m.Producer.Placements[0].CollectorId = strings.Repeat("../", 100)
		}, 200 * time.Second, 2, 2},
		"nothing": {func(m *registryv1.RegisterProducerResponse) { proto.Reset(m) }, 200 * time.Second, 199, 225},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				r := n.registry(t, "r1")
				r.set(func() { r.answer = c.answer })
				cfg := n.config("r1")
				cfg.NoWait = true
				k := start(t, cfg, registration)
				time.Sleep(c.span + time.Millisecond)
				if got := len(r.times()); got < c.least || got > c.most || k.Ready() != nil {
					t.Errorf("%d registrations, ready: %v", got, k.Ready())
				}
				if hint := r.latest().GetLastCollectorId(); hint != "" && hint != "c1" {
					t.Errorf("the registration names the collector %q", hint)
				}
			})
		})
	}
}

// A giant answer is an error like any other, and its text fits a line.
func TestGiantAnswers(t *testing.T) {
	for name, set := range map[string]func(*roll){
		"message": func(r *roll) {
			r.set(func() {
				r.answer = func(m *registryv1.RegisterProducerResponse) { m.Epoch = strings.Repeat("x", 1<<20) }
			})
		},
		"text": func(r *roll) {
			r.register = func(context.Context) error {
				return status.Error(codes.Unavailable, strings.Repeat("long\n", 2000))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				r := n.registry(t, "r1")
				set(r)
				c := n.config("r1")
				c.NoWait = true
				k := start(t, c, registration)
				time.Sleep(time.Minute)
				if err := k.Ready(); err == nil || len(err.Error()) > 700 || k.Err() != nil {
					t.Errorf("ready: %.200v, ended: %.200v", err, k.Err())
				}
			})
		})
	}
}
