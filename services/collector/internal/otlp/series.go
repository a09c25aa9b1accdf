package otlp

import (
	"hash/maphash"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// An entry is one series, compiled. It is immutable.
type entry struct {
	role role

	// metric is that of a number. One that may have native histograms has two
	// more, by their shape.
	metric              int32
	native              bool
	exponential, custom int32

	// group is the histogram or summary that this is a part of, and bound which.
	group int32
	bound float64

	// attrs are the attributes of a number, as of a NumberDataPoint, or of a
	// target, as of a Resource.
	attrs []byte

	// stream is that of a counter or of native histograms; of a _created series
	// the counter's, and other that of a counter without _total, a histogram or
	// a summary.
	stream, other *stream
	target        *target
}

// A group is the series of one histogram or summary.
type group struct {
	metric int32
	attrs  []byte // as of a NumberDataPoint
	stream *stream
}

// A family is what metrics of many resources share: their shape, and name,
// description, unit and type as fields of a Metric.
type family struct {
	shape  shape
	header []byte
}

type familyKey struct {
	shape                 shape
	name, help, unit, typ string
}

// A metric is a family in a scope.
type metric struct {
	scope  int32
	family *family
}

// A scope is an instrumentation scope of a resource, as fields of ScopeMetrics.
type scope struct {
	resource int32
	header   []byte
}

// A resource is a target: service.name and service.instance.id as fields of a
// Resource.
type resource struct {
	attrs  []byte
	target *target
}

// Series are the compiled series of one table.
type Series struct {
	client *Client

	// Of the one who adds.
	families  map[familyKey]*family
	metricOf  map[metric]int32
	scopeOf   map[string]int32
	groupOf   map[uint64]int32
	resources map[string]int32
	buffer    []byte
	arena     []byte

	mu   sync.RWMutex
	view view // guarded by mu; what is in its slices does not change
}

// A view is the series so far.
type view struct {
	entries   []entry
	groups    []group
	metrics   []metric
	scopes    []scope
	resources []resource
}

// NewSeries makes Series for a table.
func (c *Client) newSeries() *Series {
	c.memory.sweep(c.memory.now())
	return &Series{
		client: c, families: map[familyKey]*family{}, metricOf: map[metric]int32{}, scopeOf: map[string]int32{},
		groupOf: map[uint64]int32{}, resources: map[string]int32{},
	}
}

// now is what has been added so far.
func (s *Series) now() view {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.view
}

// Add compiles one series.
func (s *Series) Add(ls labels.Labels, meta *metadata.Metadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.view.entries = append(s.view.entries, s.compile(ls, meta))
}

func (s *Series) compile(ls labels.Labels, meta *metadata.Metadata) entry {
	name := ls.Get(model.MetricNameLabel)
	if name == "" || !ls.IsValid(model.UTF8Validation) {
		return entry{}
	}
	var typ model.MetricType
	if meta != nil {
		typ = meta.Type
	}
	r := read(name, ls, typ)
	now := s.client.memory.now()
	res := s.resource(ls, now)
	switch r.role {
	case roleNone:
		return entry{}
	case roleTarget:
		return entry{role: roleTarget, attrs: s.keep(appendTarget(s.buffer[:0], ls)), target: s.view.resources[res].target}
	default:
	}
	sc := s.scope(ls, res)
	s.buffer = appendAttributes(s.buffer[:0], ls, r.split)
	switch r.role {
	case roleNumber:
		e := entry{role: roleNumber, metric: s.metric(sc, r.metric, r.shape, meta), attrs: s.keep(s.buffer), native: r.native}
		if r.native {
			e.exponential = s.metric(sc, r.metric, shapeExponential, meta)
			e.custom = s.metric(sc, r.metric, shapeHistogram, meta)
		}
		if r.native || r.shape == shapeCounter {
			e.stream = s.client.memory.stream(s.key(sc, r.metric), now)
			e.stream.count()
		}
		return e
	case roleCreated:
		base := strings.TrimSuffix(r.metric, suffixCreated)
		return entry{
			role: roleCreated, metric: s.metric(sc, r.metric, r.shape, meta), attrs: s.keep(s.buffer),
			stream: s.client.memory.stream(s.key(sc, base+suffixTotal), now),
			other:  s.client.memory.stream(s.key(sc, base), now),
		}
	default:
		return entry{role: r.role, bound: r.bound, group: s.group(sc, r, meta, now)}
	}
}

// key names what has the attributes in the buffer.
func (s *Series) key(sc int32, name string) uint64 {
	var h maphash.Hash
	h.SetSeed(s.client.memory.seed)
	one := s.view.scopes[sc]
	_, _ = h.Write(s.view.resources[one.resource].attrs)
	_, _ = h.Write(one.header)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(name)
	_ = h.WriteByte(0)
	_, _ = h.Write(s.buffer)
	return h.Sum64()
}

// group finds or makes the group with the attributes in the buffer.
func (s *Series) group(sc int32, r reading, meta *metadata.Metadata, now int64) int32 {
	m := s.metric(sc, r.metric, r.shape, meta)
	key := s.key(sc, r.metric)
	// One name can be both, in different metadata.
	byMetric := key ^ uint64(m)<<32
	n, ok := s.groupOf[byMetric]
	if !ok {
		n = int32(len(s.view.groups))
		g := group{metric: m, attrs: s.keep(s.buffer), stream: s.client.memory.stream(key, now)}
		g.stream.count()
		s.view.groups = append(s.view.groups, g)
		s.groupOf[byMetric] = n
	}
	return n
}

func (s *Series) metric(sc int32, name string, sh shape, meta *metadata.Metadata) int32 {
	key := familyKey{shape: sh, name: name, typ: typeName(meta)}
	if meta != nil {
		key.help, key.unit = meta.Help, meta.Unit
	}
	f := s.families[key]
	if f == nil {
		f = newFamily(key)
		s.families[key] = f
	}
	m := metric{scope: sc, family: f}
	n, ok := s.metricOf[m]
	if !ok {
		n = int32(len(s.view.metrics))
		s.view.metrics = append(s.view.metrics, m)
		s.metricOf[m] = n
	}
	return n
}

func newFamily(key familyKey) *family {
	var w writer
	w.attribute(tagMetricMetadata, "prometheus.type", key.typ)
	if key.unit != "" {
		w.text(tagUnit, valid(ucum(key.unit)))
	}
	if key.help != "" {
		w.text(tagDescription, valid(key.help))
	}
	w.text(tagMetricName, key.name)
	return &family{shape: key.shape, header: w.b[w.at:]}
}

// resource finds or makes the resource of a series.
func (s *Series) resource(ls labels.Labels, now int64) int32 {
	job, instance := ls.Get(model.JobLabel), ls.Get(model.InstanceLabel)
	var a [128]byte
	key := append(append(append(a[:0], job...), 0xff), instance...)
	if n, ok := s.resources[string(key)]; ok {
		return n
	}
	n := int32(len(s.view.resources))
	var w writer
	if instance != "" {
		w.attribute(tagResourceAttr, "service.instance.id", instance)
	}
	if job != "" {
		w.attribute(tagResourceAttr, "service.name", job)
	}
	t := s.client.memory.target(maphash.Bytes(s.client.memory.seed, key), now)
	s.view.resources = append(s.view.resources, resource{attrs: w.b[w.at:], target: t})
	s.resources[string(key)] = n
	return n
}

// scope finds or makes the instrumentation scope of a series: what its labels
// tell, or this program.
func (s *Series) scope(ls labels.Labels, res int32) int32 {
	var a [256]byte
	key := append(a[:0], byte(res), byte(res>>8), byte(res>>16), byte(res>>24))
	ls.Range(func(l labels.Label) {
		if strings.HasPrefix(l.Name, scopePrefix) {
			key = append(append(append(append(key, l.Name...), 0xff), l.Value...), 0xff)
		}
	})
	if n, ok := s.scopeOf[string(key)]; ok {
		return n
	}
	n := int32(len(s.view.scopes))
	header := s.client.scope
	if len(key) > 4 {
		header = newScope(ls)
	}
	s.view.scopes = append(s.view.scopes, scope{resource: res, header: header})
	s.scopeOf[string(key)] = n
	return n
}

// newScope encodes the scope that labels tell.
func newScope(ls labels.Labels) []byte {
	var w writer
	if url := ls.Get(scopeSchemaURL); url != "" {
		w.text(tagScopeSchemaURL, url)
	}
	end := w.mark()
	ls.Range(func(l labels.Label) {
		switch l.Name {
		case scopeName, scopeVersion, scopeSchemaURL:
		default:
			if attr, ok := strings.CutPrefix(l.Name, scopePrefix); ok {
				w.attribute(tagScopeAttr, attr, l.Value)
			}
		}
	})
	w.text(tagScopeVersion, ls.Get(scopeVersion))
	w.text(tagScopeName, ls.Get(scopeName))
	w.close(tagScope, end)
	return w.b[w.at:]
}

// keep copies encoded attributes to where they stay.
func (s *Series) keep(b []byte) []byte {
	if len(b) > cap(s.arena)-len(s.arena) {
		s.arena = make([]byte, 0, max(32<<10, len(b)))
	}
	at := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[at:len(s.arena):len(s.arena)]
}

// appendAttributes appends all labels that are attributes of a point.
func appendAttributes(b []byte, ls labels.Labels, split string) []byte {
	ls.Range(func(l labels.Label) {
		switch l.Name {
		case model.MetricNameLabel, model.JobLabel, model.InstanceLabel, split:
		default:
			if !strings.HasPrefix(l.Name, scopePrefix) {
				b = appendAttribute(b, tagNumberAttr, l)
			}
		}
	})
	return b
}

// appendTarget appends all labels of a target_info that are attributes of the
// resource.
func appendTarget(b []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		switch l.Name {
		case model.MetricNameLabel, model.JobLabel, model.InstanceLabel, "service.name", "service.instance.id":
		default:
			b = appendAttribute(b, tagResourceAttr, l)
		}
	})
	return b
}

func appendAttribute(b []byte, tag byte, l labels.Label) []byte {
	value := 1 + protowire.SizeBytes(len(l.Value))
	b = append(b, tag)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(len(l.Name))+1+protowire.SizeBytes(value)))
	b = append(b, tagKey)
	b = protowire.AppendString(b, l.Name)
	b = append(b, tagAnyValue)
	b = protowire.AppendVarint(b, uint64(value))
	b = append(b, tagString)
	return protowire.AppendString(b, l.Value)
}
