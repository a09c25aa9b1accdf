package collector

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/rollcall-metrics/rollcall/services/producer"
)

// selfDelay is how long the collector waits, at least, before it registers
// itself as a producer.
const selfDelay = time.Second

// registerSelf keeps the collector registered as a producer. When the registry
// refuses that, collecting goes on.
//
// It waits until the registry knows the collector, and a little longer for
// those that start with it, so that the producer can be given to any of them:
// the first pick is for good.
func (k *Collector) registerSelf(ctx context.Context) error {
	c := k.config
	select {
	case <-k.follower.Registered():
	case <-ctx.Done():
		return nil
	}
	select {
	case <-time.After(selfDelay + rand.N(selfDelay)):
	case <-ctx.Done():
		return nil
	}
	err := producer.Keep(ctx, producer.Config{
		Registries: c.Registries, Dial: c.DialRegistry, Credentials: c.ClientTLS.Credentials(), Logger: c.Logger,
	}, producer.Registration{
		ID:       c.SelfID,
		Endpoint: c.SelfEndpoint,
		Labels:   map[string]string{"job": "rollcall-collector"},
	})
	if err != nil {
		c.Logger.ErrorContext(ctx, "could not register itself as a producer", "error", err)
	}
	return nil
}
