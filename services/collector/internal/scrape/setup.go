package scrape

import "github.com/prometheus/prometheus/model/relabel"

// A Setup is what the collector's own configuration says of all collections. It
// is immutable. The zero value says nothing.
type Setup struct {
	// Targets relabel what the registry assigned, and Series what a producer
	// exposes, as Prometheus's relabel_configs and metric_relabel_configs do.
	// They have been validated. The interval and the timeout are the registry's:
	// what Targets make of them is ignored.
	Targets []*relabel.Config
	Series  []*relabel.Config

	// Limits bound each collection where its assignment does not. Fields that
	// are not positive mean the defaults.
	Limits Limits

	// Credentials are those that an assignment may name.
	Credentials map[string]Credential
}

// Configure puts another setup in the place of the one before. It holds for
// collections that are opened or updated from then on.
func (s *Scraper) Configure(setup Setup) {
	setup.Limits = setup.Limits.orElse(DefaultLimits())
	s.setup.Store(&setup)
	wanted := func(digest string) bool {
		for _, c := range setup.Credentials {
			if c.TLSDigest == digest {
				return true
			}
		}
		return digest == ""
	}
	s.transports.keep(wanted)
	s.channels.keep(wanted)
}
