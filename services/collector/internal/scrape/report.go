package scrape

import (
	"math"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// The series that every collection stores about itself.
const (
	reportUp = iota
	reportDuration
	reportScraped
	reportPostRelabeling
	reportAdded
	reportSeries // how many they are
)

// A report is a producer's synthetic series. Exposed series with the same
// labels are left out: up tells what the collector saw, whatever the producer
// says.
type report [reportSeries]*track

// reportMeta are the names and metadata of the synthetic series, shared by all
// reports of a Scraper's collections.
func reportMeta() (names [reportSeries]string, metas [reportSeries]*metadata.Metadata) {
	for i, one := range [reportSeries]struct{ name, unit, help string }{
		reportUp:             {"up", "targets", "Health of the producer. 1 means the last collection succeeded, 0 that it failed."},
		reportDuration:       {"scrape_duration_seconds", "seconds", "Duration of the last collection in seconds."},
		reportScraped:        {"scrape_samples_scraped", "samples", "Number of samples the last collection saw."},
		reportPostRelabeling: {"scrape_samples_post_metric_relabeling", "samples", "Number of samples remaining after metric relabeling was applied."},
		reportAdded:          {"scrape_series_added", "series", "Number of new series in the last collection."},
	} {
		names[i] = one.name
		metas[i] = &metadata.Metadata{Type: model.MetricTypeGauge, Unit: one.unit, Help: one.help}
	}
	return names, metas
}

// newReport makes the synthetic series of a target.
func (s *Scraper) newReport(t *target) (r report) {
	b := labels.NewBuilder(t.set)
	var split labels.ScratchBuilder
	for i, name := range s.reportNames {
		b.Reset(t.set)
		own, common := t.common.Split(b.Set(model.MetricNameLabel, name).Labels(), &split)
		if common != nil {
			own = s.texts.shareLabels(own)
		}
		r[i] = &track{
			reserved: true,
			series:   &sample.Series{Own: own, Common: common, Meta: s.reportMetas[i]},
		}
	}
	return r
}

// made tells whether there are series: they are made at the first collection, for a
// large set is opened as a whole, and collected bit by bit.
func (r *report) made() bool { return r[0] != nil }

// write adds the report of one collection to its batch.
func (r *report) write(b *sample.Batch, at int64, up bool, duration time.Duration, scraped, dropped, added int) {
	values := [reportSeries]float64{
		reportDuration:       duration.Seconds(),
		reportScraped:        float64(scraped),
		reportPostRelabeling: float64(scraped - dropped),
		reportAdded:          float64(added),
	}
	if up {
		values[reportUp] = 1
	}
	for i, tr := range r {
		b.Samples = append(b.Samples, sample.Sample{Series: tr.series, Time: at, Value: values[i]})
	}
}

// retire leaves the series to the cache, for their stale markers.
func (r *report) retire(c *cache) {
	for _, tr := range r {
		if tr.live {
			tr.reserved, tr.lost = false, true
			c.lost = append(c.lost, tr)
		}
	}
}

// adopt takes those series over that the cache has with the same labels: a
// marker for them would end what the report says.
func (r *report) adopt(c *cache) {
	for i, mine := range r {
		set := mine.series.Labels()
		c.keep(func(tr *track) bool {
			if !labels.Equal(tr.series.Labels(), set) {
				return true
			}
			r[i].live = tr.live
			return false
		})
	}
}

// staleNaN is the value of a stale marker.
func staleNaN() float64 { return math.Float64frombits(value.StaleNaN) }
