package deliver

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// What a table knows of a number that is not in the transport's Series.
const (
	unseen  uint32 = iota
	leftOut        // by relabeling
	broken         // compiling it panics

	compiled // that of index 0
)

// A table is one of the log's with what its series were compiled into. The
// reader alone changes it; requests only use series.
type table struct {
	log    *sample.Table
	series Series   // nil when making them panicked
	index  []uint32 // by number: one of the above, or compiled and more
	count  uint32   // of series
}

// grow makes room for a number, and for what the log has beside it.
func (t *table) grow(number uint32) {
	if int(number) >= len(t.index) {
		n := max(int(number)+1, len(t.log.All()))
		t.index = append(t.index, make([]uint32, n-len(t.index))...)
	}
}

// A compiler makes the series of a table into a transport's. It belongs to the
// reader.
type compiler struct {
	transport Transport
	external  []labels.Label
	rules     []*relabel.Config
	builder   *labels.Builder
	scratch   labels.ScratchBuilder
	panicked  func(v any)
}

func newCompiler(c *Config, panicked func(v any)) *compiler {
	made := &compiler{
		transport: c.Transport, rules: c.Relabel, builder: labels.NewBuilder(labels.EmptyLabels()), panicked: panicked,
	}
	c.ExternalLabels.Range(func(l labels.Label) { made.external = append(made.external, l) })
	return made
}

// open begins with a table of the log.
func (c *compiler) open(log *sample.Table) (t *table) {
	t = &table{log: log}
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}()
	t.series = c.transport.NewSeries()
	return t
}

// renew begins anew with a table of which a series has panicked halfway: what
// its Series holds is not known.
func (c *compiler) renew(old *table) *table {
	t := c.open(old.log)
	t.index = make([]uint32, len(old.index))
	for i, v := range old.index {
		if v == broken {
			t.index[i] = broken
		}
	}
	return t
}

// compile compiles the series of a number that has not been seen. It answers
// false when the table is good for nothing any more.
func (c *compiler) compile(t *table, number uint32) (ok bool) {
	t.grow(number)
	if t.series == nil {
		t.index[number] = broken
		return true
	}
	adding := false
	defer func() {
		if v := recover(); v != nil {
			t.index[number] = broken
			ok = !adding
			c.panicked(v)
		}
	}()
	s := t.log.At(number)
	ls, keep := c.relabel(s.MakeLabels(&c.scratch))
	if !keep {
		t.index[number] = leftOut
		return true
	}
	adding = true
	t.series.Add(ls, s.Meta)
	t.index[number] = compiled + t.count
	t.count++
	return true
}

// relabel answers the labels that a series has at the receiver.
func (c *compiler) relabel(ls labels.Labels) (labels.Labels, bool) {
	if len(c.external) == 0 && len(c.rules) == 0 {
		return ls, true
	}
	c.builder.Reset(ls)
	for _, l := range c.external {
		if c.builder.Get(l.Name) == "" {
			c.builder.Set(l.Name, l.Value)
		}
	}
	if !relabel.ProcessBuilder(c.builder, c.rules...) {
		return labels.EmptyLabels(), false
	}
	return c.builder.Labels(), true
}
