package deliver_test

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// A bomb is a receiver whose transport panics.
type bomb struct {
	*receiver
	when string
	sent bool
}

func (b *bomb) NewSeries() deliver.Series {
	if b.when == "new" {
		panic("no series")
	}
	if b.when == "add" {
		return &fuse{}
	}
	return b.receiver.NewSeries()
}

func (b *bomb) Send(ctx context.Context, r *deliver.Request) deliver.Outcome {
	if b.when == "send" && !b.sent {
		b.sent = true
		panic("no request")
	}
	if f, ok := r.Series.(*fuse); ok {
		r.Series = &f.fakeSeries
		defer func() { r.Series = f }()
	}
	return b.receiver.Send(ctx, r)
}

// A fuse panics halfway through a series of two sources.
type fuse struct{ fakeSeries }

func (f *fuse) Add(ls labels.Labels, meta *metadata.Metadata) {
	f.fakeSeries.Add(ls, meta)
	if i := ls.Get("i"); i == "3" && ls.Get("source") == "1" || i == "5" && ls.Get("source") == "3" {
		panic("no such label")
	}
}
