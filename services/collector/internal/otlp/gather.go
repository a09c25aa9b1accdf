package otlp

import (
	"cmp"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// none ends a list.
const none = -1

// A unit is one data point to be.
type unit struct {
	next  int32 // unit of the same metric
	item  int32 // of a number or native histogram
	point int32 // of a histogram or summary; none for others
	start int64
	stale bool
}

// A compound is a histogram or summary of one record, from the samples of its
// series.
type compound struct {
	group    int32
	first    int32 // item
	items    int   // with values
	time     int64
	told     int64 // start
	sum      float64
	count    float64
	hasSum   bool
	hasCount bool
	parts    int32 // list

	// Once it is whole: its buckets or quantiles in ordered.
	from, to int
}

// A part is one bucket or quantile.
type part struct {
	next  int32
	item  int32
	bound float64
	value float64
}

// A slot is the list of what is in a metric, scope or resource, in this pass.
type slot struct {
	pass uint64
	head int32
	next int32
}

// A pass turns the items of a request into units, in lists by metric, scope and
// resource. It can be used again.
type pass struct {
	view  view
	items []deliver.Item
	now   int64 // by the clock of the memory

	number    uint64 // of the pass
	metrics   []slot
	scopes    []slot
	resources []slot
	touched   []int32 // resources

	units     []unit
	compounds []compound
	parts     []part
	ordered   []part

	// groups tell the compound of each group, in the record of that number.
	groups []slot
	record uint64

	unsupported int

	dense []uint64
}

// begin makes a pass ready for a request.
func (p *pass) begin(v view, items []deliver.Item, now int64) {
	p.view, p.items, p.now = v, items, now
	p.number++
	p.metrics = fit(p.metrics, len(v.metrics))
	p.scopes = fit(p.scopes, len(v.scopes))
	p.resources = fit(p.resources, len(v.resources))
	p.groups = fit(p.groups, len(v.groups))
	p.touched, p.units, p.compounds = p.touched[:0], p.units[:0], p.compounds[:0]
	p.parts, p.ordered = p.parts[:0], p.ordered[:0]
	p.unsupported = 0
}

// end lets go of what belongs to the request.
func (p *pass) end() { p.view, p.items = view{}, nil }

func fit(s []slot, n int) []slot {
	if n <= len(s) {
		return s
	}
	return append(s, make([]slot, n-len(s)+n/4)...)
}

// gather takes all records of a request.
func (p *pass) gather(ends []int) {
	from := 0
	for _, end := range ends {
		p.takeRecord(from, end)
		from = end
	}
	p.takeRecord(from, len(p.items))
}

// takeRecord takes the items of one record. Only when all of them are known are
// its histograms whole, and its start times told.
func (p *pass) takeRecord(from, to int) {
	if from >= to {
		return
	}
	p.record++
	units, compounds := len(p.units), len(p.compounds)
	for i := from; i < to; i++ {
		p.take(int32(i))
	}
	for i := compounds; i < len(p.compounds); i++ {
		p.finish(int32(i))
	}
	for i := units; i < len(p.units); i++ {
		p.begun(&p.units[i])
	}
}

func (p *pass) take(i int32) {
	it := &p.items[i]
	if int(it.Index) >= len(p.view.entries) {
		p.unsupported++
		return
	}
	e := &p.view.entries[it.Index]
	if x := it.Extra; x != nil && (x.Histogram != nil || x.FloatHistogram != nil) {
		p.takeNative(i, e, x)
		return
	}
	switch e.role {
	case roleNumber:
		p.takeNumber(i, e)
	case roleBucket, roleQuantile, roleSum, roleCount:
		p.takePart(i, e)
	case roleCreated:
		p.takeCreated(i, e)
	case roleTarget:
		if !value.IsStaleNaN(it.Value) {
			e.target.tell(e.attrs, p.now)
		}
	default:
		p.unsupported++
	}
}

func (p *pass) takeNumber(i int32, e *entry) {
	stale := value.IsStaleNaN(p.items[i].Value)
	m := e.metric
	if stale && e.native {
		m = e.exponential
		if e.stream.lastNative() == shapeHistogram {
			m = e.custom
		}
	}
	p.add(m, unit{item: i, point: none, stale: stale})
}

func (p *pass) takeNative(i int32, e *entry, x *sample.Extra) {
	s, ok := shapeOf(x.Histogram)
	if !ok || !e.native {
		p.unsupported++
		return
	}
	e.stream.setNative(s)
	m := e.exponential
	if s == shapeHistogram {
		m = e.custom
	}
	p.add(m, unit{item: i, point: none, stale: value.IsStaleNaN(x.Histogram.Sum)})
}

// takeCreated takes a sample of a _created series. One that is about nothing is
// a number like others.
func (p *pass) takeCreated(i int32, e *entry) {
	it := &p.items[i]
	var ms int64
	if v := it.Value * 1000; v > 0 && v < math.MaxInt64 {
		ms = int64(v)
	}
	first, second := e.stream.create(ms, it.Time), e.other.create(ms, it.Time)
	if !first && !second {
		p.takeNumber(i, e)
	}
}

// takePart takes a sample of a histogram's or summary's series. A second sample
// of the same, or one of another time, begins another point.
func (p *pass) takePart(i int32, e *entry) {
	it := &p.items[i]
	g := &p.groups[e.group]
	if g.pass != p.record || !p.compounds[g.head].fits(e.role, it.Time) {
		*g = slot{pass: p.record, head: int32(len(p.compounds))}
		p.compounds = append(p.compounds, compound{group: e.group, first: i, time: it.Time, parts: none})
	}
	c := &p.compounds[g.head]
	if !value.IsStaleNaN(it.Value) {
		c.items++
	}
	if it.Start > 0 {
		c.told = it.Start
	}
	switch e.role {
	case roleSum:
		c.hasSum, c.sum = true, it.Value
	case roleCount:
		c.hasCount, c.count = true, it.Value
	default:
		p.parts = append(p.parts, part{next: c.parts, item: i, bound: e.bound, value: it.Value})
		c.parts = int32(len(p.parts) - 1)
	}
}

// fits reports whether a sample can be of this point.
func (c *compound) fits(r role, at int64) bool {
	return at == c.time && !(r == roleSum && c.hasSum) && !(r == roleCount && c.hasCount)
}

// finish makes a unit of a compound that is whole, and else counts its samples
// as unsupported. Stale markers alone, of buckets that are gone, are no loss.
func (p *pass) finish(n int32) {
	c := &p.compounds[n]
	stale := value.IsStaleNaN(c.count)
	c.from = len(p.ordered)
	for i := c.parts; i != none; i = p.parts[i].next {
		if one := p.parts[i]; value.IsStaleNaN(one.value) == stale {
			p.ordered = append(p.ordered, one)
		}
	}
	c.to = len(p.ordered)
	parts := p.ordered[c.from:c.to]
	slices.Reverse(parts)
	inOrder := func(a, b part) int { return cmp.Compare(a.bound, b.bound) }
	if !slices.IsSortedFunc(parts, inOrder) {
		slices.SortStableFunc(parts, inOrder)
	}
	m := p.view.groups[c.group].metric
	switch {
	case !c.hasCount, !p.sayable(c, p.view.metrics[m].family.shape, stale):
		p.unsupported += c.items
	case stale:
		p.unsupported += c.items
		p.add(m, unit{item: c.first, point: n, stale: true})
	default:
		p.add(m, unit{item: c.first, point: n})
	}
}

// sayable reports whether a point can be made of a compound. A histogram's
// infinite bucket is what remains of its count, and is not among its parts
// afterwards.
func (p *pass) sayable(c *compound, s shape, stale bool) bool {
	parts := p.ordered[c.from:c.to]
	for i := 1; i < len(parts); i++ {
		if parts[i].bound == parts[i-1].bound {
			return false
		}
	}
	if !stale && !whole(c.count) {
		return false
	}
	if s != shapeHistogram {
		return true
	}
	if n := len(parts); n > 0 && math.IsInf(parts[n-1].bound, 1) {
		parts = parts[:n-1]
	}
	if len(parts) > 0 && math.IsInf(parts[0].bound, -1) {
		return false
	}
	last := 0.0
	for i := range parts {
		if v := parts[i].value; !stale && (!whole(v) || v < last || v > c.count) {
			return false
		}
		last = parts[i].value
	}
	return true
}

// whole reports whether a number is one that counts.
func whole(v float64) bool { return v >= 0 && v < 1<<64 && v == math.Trunc(v) }

// begun tells a unit when its counting began.
func (p *pass) begun(u *unit) {
	it := &p.items[u.item]
	e := &p.view.entries[it.Index]
	s, told, v := e.stream, it.Start, it.Value
	switch {
	case u.point != none:
		c := &p.compounds[u.point]
		s, told, v = p.view.groups[c.group].stream, c.told, c.count
	case e.role == roleCreated:
		return
	case it.Extra != nil && it.Extra.Histogram != nil:
		v = float64(it.Extra.Histogram.Count)
	case e.native && !u.stale:
		return // A number beside native histograms counts nothing.
	}
	switch {
	case s == nil:
	case u.stale:
		u.start = s.known(it.Time)
	default:
		u.start = s.startOf(told, it.Time, v, p.now)
	}
}

// add puts a unit into the list of its metric, and that into those above.
func (p *pass) add(m int32, u unit) {
	ms := &p.metrics[m]
	if ms.pass != p.number {
		sc := p.view.metrics[m].scope
		ss := &p.scopes[sc]
		if ss.pass != p.number {
			rs := &p.resources[p.view.scopes[sc].resource]
			if rs.pass != p.number {
				*rs = slot{pass: p.number, head: none}
				p.touched = append(p.touched, p.view.scopes[sc].resource)
			}
			*ss = slot{pass: p.number, head: none, next: rs.head}
			rs.head = sc
		}
		*ms = slot{pass: p.number, head: none, next: ss.head}
		ss.head = m
	}
	u.next = ms.head
	p.units = append(p.units, u)
	ms.head = int32(len(p.units) - 1)
}
