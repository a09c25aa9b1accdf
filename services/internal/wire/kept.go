package wire

import (
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
)

// DecodeKept checks an assignment that a collector has kept for a registry which
// lost its store, by the rules of a registration: what was never let in does not
// come in by this door. field is the path of the message; the error is
// Violations. A lease is not kept by collectors, so it is the default one.
func DecodeKept(m *registryv1.Assignment, field string) (*Registration, error) {
	if m == nil {
		return DecodeProducer(nil, field)
	}
	return DecodeProducer(&registryv1.Producer{
		ProducerId:       m.GetProducerId(),
		Endpoint:         m.GetEndpoint(),
		Interval:         m.GetInterval(),
		Timeout:          m.GetTimeout(),
		Labels:           m.GetLabels(),
		HonorLabels:      m.GetHonorLabels(),
		IgnoreTimestamps: m.GetIgnoreTimestamps(),
		Limits:           m.GetLimits(),
		FallbackFormat:   m.GetFallbackFormat(),
		Credential:       m.GetCredential(),
		TlsServerName:    m.GetTlsServerName(),
		Permanent:        new(m.GetPermanent()),
	}, field)
}
