package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/auth"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
)

// DefaultMaxProducers is how many producers may count for one identity.
const DefaultMaxProducers = 100_000

// quotaOf is for whom counts what a call registers: for the identity that makes
// it. Where nobody is asked there is none, and what an operator registers is there
// for others.
//
// One whose rule names no more ids than it may have producers is not counted: most
// have a certificate for one id, and a million counters would be for nothing.
func (a *API) quotaOf(ctx context.Context) registrar.Quota {
	who, ok := auth.From(ctx)
	if !ok || who.Has(access.Operator) {
		return registrar.Quota{}
	}
	var quota registrar.Quota
	for _, grant := range who.Grants {
		quota.Limit = max(quota.Limit, grant.MaxProducers)
	}
	if quota.Limit == 0 {
		quota.Limit = a.MaxProducers
	}
	if n, ok := who.Registers(); ok && (quota.Limit == 0 || n <= quota.Limit) {
		return registrar.Quota{}
	}
	quota.Owner = roster.OwnerOf(who.Name)
	return quota
}

// checkLabelBytes refuses labels that are too many bytes, unless the producer is
// known with as many: no bound that was lowered keeps it from renewing.
func (a *API) checkLabelBytes(next *assignment.Assignment) error {
	bytes := labelBytes(next)
	if a.MaxLabelBytes == 0 || bytes <= a.MaxLabelBytes || bytes <= a.knownLabelBytes(next.ProducerID) {
		return nil
	}
	a.Metrics.OverQuota.WithLabelValues("label_bytes").Inc()
	return violation("producer.labels", fmt.Sprintf("%d bytes, at most %d are allowed", bytes, a.MaxLabelBytes))
}

// knownLabelBytes is how many the labels of a producer have on the roll; zero where
// it is not there.
func (a *API) knownLabelBytes(id assignment.ProducerID) int {
	var stored []byte
	look := func(v *roster.View) {
		if e := v.Producer(id); e != nil {
			stored = e.Stored
		}
	}
	if a.Registrar.Look(look) != nil || stored == nil {
		return 0
	}
	known, err := wire.DecodeStored(stored)
	if err != nil {
		return 0
	}
	return labelBytes(known)
}

func labelBytes(a *assignment.Assignment) int {
	bytes := 0
	for _, l := range a.Labels {
		bytes += len(l.Name) + len(l.Value)
	}
	return bytes
}

// countQuota counts a registration that is refused because of its owner's quota.
func (a *API) countQuota(err error) {
	if refused := (*roster.Error)(nil); errors.As(err, &refused) && refused.Reason == roster.ReasonProducerQuota {
		a.Metrics.OverQuota.WithLabelValues("producers").Inc()
	}
}
