package deliver_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/model/relabel"
	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

var (
	names  = rapid.SampledFrom([]string{"a", "b", "job", "fleet", "__name__"})
	values = rapid.SampledFrom([]string{"", "x", "y", "xy"})
)

func drawLabels(t *rapid.T, of string) labels.Labels {
	b := labels.NewBuilder(labels.EmptyLabels())
	for range rapid.IntRange(0, 4).Draw(t, of) {
		b.Set(names.Draw(t, "name"), values.Draw(t, "value"))
	}
	return b.Labels()
}

func drawRule(t *rapid.T) *relabel.Config {
	c := relabel.DefaultRelabelConfig
	c.Action = rapid.SampledFrom([]relabel.Action{
		relabel.Replace, relabel.Keep, relabel.Drop, relabel.HashMod, relabel.LabelMap, relabel.LabelDrop,
		relabel.LabelKeep, relabel.Lowercase, relabel.KeepEqual, relabel.DropEqual,
	}).Draw(t, "action")
	c.Regex = relabel.MustNewRegexp(rapid.SampledFrom([]string{"(.*)", "x.*", "", "a|__name__", "(x)(y)?"}).Draw(t, "regex"))
	c.TargetLabel = names.Draw(t, "target")
	c.Modulus = 3
	c.Replacement = rapid.SampledFrom([]string{"$1", "z", "", "${1}_$2"}).Draw(t, "replacement")
	for range rapid.IntRange(0, 2).Draw(t, "sources") {
		c.SourceLabels = append(c.SourceLabels, model.LabelName(names.Draw(t, "source")))
	}
	c.NameValidationScheme = model.UTF8Validation
	return &c
}

// queueManager is what Prometheus does with a series (storage/remote,
// QueueManager.StoreSeries and processExternalLabels).
func queueManager(ls, external labels.Labels, rules []*relabel.Config) (labels.Labels, bool) {
	b := labels.NewBuilder(ls)
	external.Range(func(l labels.Label) {
		if b.Get(l.Name) == "" {
			b.Set(l.Name, l.Value)
		}
	})
	keep := relabel.ProcessBuilder(b, rules...)
	return b.Labels(), keep
}

func TestRelabelingIsPrometheuss(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := deliver.Config{ExternalLabels: drawLabels(rt, "external")}
		for range rapid.IntRange(0, 3).Draw(rt, "rules") {
			config.Relabel = append(config.Relabel, drawRule(rt))
		}
		var all, want []labels.Labels
		for range rapid.IntRange(1, 10).Draw(rt, "series") {
			ls := drawLabels(rt, "labels")
			all = append(all, ls)
			if kept, keep := queueManager(ls, config.ExternalLabels, config.Relabel); keep {
				want = append(want, kept)
			}
		}
		var got []labels.Labels
		var st deliver.Status
		synctest.Test(t, func(t *testing.T) { got, st = sendOnce(t.Context(), config, all) })
		if diff := cmp.Diff(texts(want), texts(got)); diff != "" {
			rt.Fatal(diff)
		}
		if int(st.Delivered) != len(want) || len(st.Dropped) != 0 {
			rt.Fatalf("%+v", st)
		}
	})
}

func texts(all []labels.Labels) []string {
	var made []string
	for _, ls := range all {
		made = append(made, ls.String())
	}
	return made
}

// sendOnce sends a record with a sample of each series twice, and answers the
// labels of the first.
func sendOnce(ctx context.Context, config deliver.Config, all []labels.Labels) (got []labels.Labels, st deliver.Status) {
	l := newLog()
	table := &sample.Table{}
	r := sample.Record{Table: table, End: l.position(1)}
	for i, ls := range all {
		r.Numbers = append(r.Numbers, table.Add(&sample.Series{Own: ls, Meta: &metadata.Metadata{Help: ls.String()}}))
		r.Points = append(r.Points, sample.Point{Value: float64(i)})
	}
	l.records, l.written = append(l.records, r), append(l.written, time.Now())
	c := newReceiver(l)
	c.reply(func(_ context.Context, r *deliver.Request) (deliver.Outcome, int) {
		s, _ := r.Series.(*fakeSeries)
		for _, i := range r.Items {
			got = append(got, s.at(i.Index))
			if s.metas[i.Index].Help != all[int(i.Value)].String() {
				got = nil // not its own
			}
		}
		return deliver.Outcome{Code: "200"}, 0
	})
	for _, point := range r.Points {
		l.settled[int(point.Value)] = true
	}
	g := start(ctx, l, c, config)
	sleep(time.Second)
	st = g.sink.Status()
	if !l.idle() {
		got = nil
	}
	if err := g.stop(); err != nil {
		got = nil
	}
	return got, st
}

func TestSamplesThatAreLeftOutAreNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drop := relabel.DefaultRelabelConfig
		drop.Action, drop.SourceLabels, drop.Regex = relabel.Drop, model.LabelNames{"i"}, relabel.MustNewRegexp("[02468]")
		drop.NameValidationScheme = model.UTF8Validation
		metrics := deliver.NewMetrics()
		g := run(t, deliver.Config{Relabel: []*relabel.Config{&drop}, Metrics: metrics})
		for i := range 100 {
			if i%2 == 0 {
				g.log.settled[i] = true
			}
		}
		g.fill(2, 5, 10)
		sleep(time.Second)
		if st := g.sink.Status(); st.Delivered != 50 || len(st.Dropped) != 0 || !g.log.idle() {
			t.Errorf("%+v", st)
		}
		if n := value(t, metrics, "rollcall_sink_relabel_dropped_samples_total", nil); n != 50 {
			t.Errorf("%v left out", n)
		}
		if slices.ContainsFunc(g.receiver.tried(), func(tr try) bool { return tr.first%2 == 0 }) {
			t.Error("sent what is left out")
		}
	})
}
