package peers

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// everything is a question that anything answers.
func everything(kind collectorv1.SelectKind) *question {
	q := &question{kind: kind, start: math.MinInt64, end: math.MaxInt64}
	if kind == collectorv1.SelectKind_SELECT_KIND_SAMPLES || kind == collectorv1.SelectKind_SELECT_KIND_SERIES {
		q.selectors = [][]*labels.Matcher{{labels.MustNewMatcher(labels.MatchRegexp, "a", ".*")}}
	}
	return q
}

// aChunk draws a chunk that begins at a time, and tells when it ends.
func aChunk(t *rapid.T, from int64) (chunkenc.Chunk, int64) {
	n := rapid.IntRange(1, 20).Draw(t, "samples")
	step := func() { from += rapid.Int64Range(1, 100_000).Draw(t, "step") }
	switch kind := rapid.IntRange(0, 2).Draw(t, "encoding"); kind {
	case 0:
		c := chunkenc.NewXORChunk()
		app, _ := c.Appender()
		for range n {
			app.Append(0, from, rapid.Float64().Draw(t, "value"))
			step()
		}
		return c, from
	case 1:
		var c chunkenc.Chunk = chunkenc.NewHistogramChunk()
		app, _ := c.Appender()
		first := rapid.Int64Range(0, 1000).Draw(t, "first")
		for i := range n {
			next, _, nextApp, err := app.AppendHistogram(nil, 0, from, tsdbutil.GenerateTestHistogram(first+int64(i)), false)
			if err != nil {
				t.Fatal(err)
			}
			if app = nextApp; next != nil {
				c = next
			}
			step()
		}
		return c, from
	default:
		var c chunkenc.Chunk = chunkenc.NewFloatHistogramChunk()
		app, _ := c.Appender()
		h := tsdbutil.GenerateTestCustomBucketsFloatHistogram(rapid.Int64Range(0, 1000).Draw(t, "first"))
		for range n {
			next, _, nextApp, err := app.AppendFloatHistogram(nil, 0, from, h, false)
			if err != nil {
				t.Fatal(err)
			}
			if app = nextApp; next != nil {
				c = next
			}
			step()
		}
		return c, from
	}
}

// told is what a framer is given, to be compared with what an answer has.
type told struct {
	labels []labels.Labels
	chunks [][]chunkenc.Chunk
}

func someSeries(t *rapid.T) told {
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]{1,3}`), 0, 8, rapid.ID).Draw(t, "series")
	slices.Sort(names)
	var all told
	for _, name := range names {
		all.labels = append(all.labels, labels.FromStrings("__name__", "m", "a", name, "b", rapid.StringMatching(`[a-z]{1,40}`).Draw(t, "b")))
		var list []chunkenc.Chunk
		from := rapid.Int64Range(-1_000_000, 1_000_000).Draw(t, "from")
		for range rapid.IntRange(1, 5).Draw(t, "chunks") {
			var c chunkenc.Chunk
			c, from = aChunk(t, from)
			list = append(list, c)
		}
		all.chunks = append(all.chunks, list)
	}
	return all
}

// frames are what is sent, as it is received.
func (all told) frames(full int) []*collectorv1.SelectResponse {
	var frames []*collectorv1.SelectResponse
	f := &framer{
		full: full, left: math.MaxInt64, end: collectorv1.SelectEnd{CollectorId: "c-2"},
		send: func(m *collectorv1.SelectResponse) error {
			frames = append(frames, proto.CloneOf(m))
			return nil
		},
	}
	for i, lset := range all.labels {
		err := f.beginSeries(lset)
		for _, c := range all.chunks[i] {
			err = errors.Join(err, f.chunk(c))
		}
		if err != nil {
			panic(err)
		}
	}
	if err := f.seal(); err != nil {
		panic(err)
	}
	return frames
}

func receive(q *question, frames []*collectorv1.SelectResponse) (*answer, error) {
	a := &answer{question: q, from: "c-2", take: func(int64) error { return nil }}
	for _, m := range frames {
		if err := a.add(m); err != nil {
			return a, err
		}
	}
	if !a.sealed {
		return a, errUnsealed
	}
	return a, nil
}

func (all told) equal(a *answer) bool {
	if len(a.series) != len(all.labels) {
		return false
	}
	for i, s := range a.series {
		if !labels.Equal(s.labels, all.labels[i]) || len(s.chunks) != len(all.chunks[i]) {
			return false
		}
		for j, c := range s.chunks {
			if c.Chunk.Encoding() != all.chunks[i][j].Encoding() || !bytes.Equal(c.Chunk.Bytes(), all.chunks[i][j].Bytes()) {
				return false
			}
		}
	}
	return true
}

// TestAnswersAreWholeOrNothing: what is sent is what is received, in frames of
// any size; and of frames that are lost, doubled, or out of order nothing else
// comes about than that, or an error.
func TestAnswersAreWholeOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := someSeries(t)
		frames := all.frames(rapid.IntRange(1, 4000).Draw(t, "full"))
		q := everything(collectorv1.SelectKind_SELECT_KIND_SAMPLES)
		if a, err := receive(q, frames); err != nil || !all.equal(a) {
			t.Fatalf("%d frames: %v", len(frames), err)
		}
		for n := range frames {
			if _, err := receive(q, frames[:n]); !errors.Is(err, errUnsealed) {
				t.Fatalf("%d of %d frames: %v", n, len(frames), err)
			}
		}
		i, j := rapid.IntRange(0, len(frames)-1).Draw(t, "i"), rapid.IntRange(0, len(frames)-1).Draw(t, "j")
		swapped := slices.Clone(frames)
		swapped[i], swapped[j] = swapped[j], swapped[i]
		for what, spoilt := range map[string][]*collectorv1.SelectResponse{
			"lost": slices.Delete(slices.Clone(frames), i, i+1), "doubled": slices.Insert(slices.Clone(frames), i, frames[i]), "swapped": swapped,
		} {
			if a, err := receive(q, spoilt); err == nil && !all.equal(a) {
				t.Fatalf("%s: %d and %d of %d frames: taken for whole", what, i, j, len(frames))
			}
		}
	})
}

// FuzzSelect: whatever another collector sends, there is no panic, no more memory
// than is allowed, and what is sealed can be read through.
func FuzzSelect(f *testing.F) {
	for i := range 8 {
		all := rapid.Custom(someSeries).Example(i)
		var b bytes.Buffer
		for _, m := range all.frames(500 << i) {
			if _, err := protodelim.MarshalTo(&b, m); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes(), uint8(collectorv1.SelectKind_SELECT_KIND_SAMPLES))
	}
	const allowed = 1 << 20
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		q := everything(collectorv1.SelectKind(kind % 6))
		taken := int64(0)
		a := &answer{question: q, from: "c-2", take: func(n int64) error {
			if taken += n; taken > allowed {
				return errTooLarge
			}
			return nil
		}}
		for r := bytes.NewReader(data); r.Len() > 0; {
			m := &collectorv1.SelectResponse{}
			if (protodelim.UnmarshalOptions{MaxSize: allowed}).UnmarshalFrom(r, m) != nil || a.add(m) != nil {
				return
			}
		}
		if !a.sealed {
			return
		}
		held := 0
		for set := merged([]*answer{a, a}); set.Next(); {
			for it := set.At().Iterator(nil); it.Next(); {
				held += len(it.At().Chunk.Bytes())
				if _, err := readThrough(it.At().Chunk); err != nil {
					t.Fatal(err)
				}
			}
		}
		if held > allowed {
			t.Fatalf("%d bytes are held", held)
		}
	})
}

// TestChunksAreBounded: a few bytes that say they are a histogram of very many
// buckets.
func TestChunksAreBounded(t *testing.T) {
	huge := chunkenc.NewHistogramChunk()
	app, err := huge.Appender()
	if err != nil {
		t.Fatal(err)
	}
	h := &histogram.Histogram{Count: maxBuckets + 1, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Length: maxBuckets + 1}}, PositiveBuckets: make([]int64, maxBuckets+1)}
	h.PositiveBuckets[0] = 1
	if _, _, _, err := app.AppendHistogram(nil, 0, 1, h, false); err != nil {
		t.Fatal(err)
	}
	sound := chunkenc.NewHistogramChunk()
	app, _ = sound.Appender()
	if _, _, _, err := app.AppendHistogram(nil, 0, 1, tsdbutil.GenerateTestHistogram(1), false); err != nil {
		t.Fatal(err)
	}
	xor := chunkenc.NewXORChunk()
	app, _ = xor.Appender()
	app.Append(0, 1, 1)
	app.Append(0, 2, 1)
	back := chunkenc.NewXORChunk()
	app, _ = back.Appender()
	app.Append(0, 2, 1)
	app.Append(0, 1, 1)
	float, integer := collectorv1.ChunkEncoding_CHUNK_ENCODING_XOR, collectorv1.ChunkEncoding_CHUNK_ENCODING_HISTOGRAM
	for name, c := range map[string]struct {
		encoding collectorv1.ChunkEncoding
		data     []byte
		ok       bool
	}{
		"floats":                {float, xor.Bytes(), true},
		"a histogram":           {integer, sound.Bytes(), true},
		"too many buckets":      {integer, huge.Bytes(), false},
		"a head of it":          {integer, huge.Bytes()[:16], false},
		"no histogram":          {integer, xor.Bytes(), false},
		"an encoding not known": {17, xor.Bytes(), false},
		"nothing":               {float, nil, false},
		"no samples":            {float, []byte{0, 0}, false},
		"more than it has":      {float, append([]byte{0xff, 0xff}, xor.Bytes()[2:]...), false},
		"cut":                   {float, xor.Bytes()[:10], false},
		"backwards":             {float, back.Bytes(), false},
	} {
		if _, err := parseChunk(&collectorv1.SelectedChunk{Encoding: c.encoding, Data: c.data}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWideGaugesAreSelected: the store gives the gauge histograms of one chunk one
// layout, which has the buckets of all.
func TestWideGaugesAreSelected(t *testing.T) {
	const buckets = 9000
	chunk := chunkenc.Chunk(chunkenc.NewHistogramChunk())
	app, err := chunk.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(10) {
		h := &histogram.Histogram{
			CounterResetHint: histogram.GaugeType, Count: buckets,
			PositiveSpans: []histogram.Span{{Offset: int32(i * buckets), Length: buckets}}, PositiveBuckets: make([]int64, buckets),
		}
		h.PositiveBuckets[0] = 1
		next, _, nextApp, err := app.AppendHistogram(nil, 0, i, h, false)
		if err != nil {
			t.Fatal(err)
		}
		if app = nextApp; next != nil {
			chunk = next
		}
	}
	meta, err := parseChunk(&collectorv1.SelectedChunk{Encoding: collectorv1.ChunkEncoding_CHUNK_ENCODING_HISTOGRAM, Data: chunk.Bytes()})
	if err != nil || meta.MaxTime != 9 || chunk.NumSamples() != 10 {
		t.Errorf("%d samples to %d: %v", chunk.NumSamples(), meta.MaxTime, err)
	}
}

// TestExemplarsAndStrings: the other kinds of frames, cut small.
func TestExemplarsAndStrings(t *testing.T) {
	var frames []*collectorv1.SelectResponse
	newFramer := func() *framer {
		frames = nil
		return &framer{full: 300, left: math.MaxInt64, end: collectorv1.SelectEnd{CollectorId: "c-2"}, send: func(m *collectorv1.SelectResponse) error {
			frames = append(frames, m)
			return nil
		}}
	}
	f := newFramer()
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("v%03d", i))
		if err := f.value(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.seal(); err != nil {
		t.Fatal(err)
	}
	a, err := receive(everything(collectorv1.SelectKind_SELECT_KIND_LABEL_NAMES), frames)
	if err != nil || !slices.Equal(a.values, want) || len(frames) < 10 {
		t.Errorf("strings: %v, %d in %d frames", err, len(a.values), len(frames))
	}
	f = newFramer()
	r := exemplar.QueryResult{SeriesLabels: labels.FromStrings("a", "b")}
	for i := range int64(50) {
		r.Exemplars = append(r.Exemplars, exemplar.Exemplar{Labels: labels.FromStrings("span_id", "", "trace_id", "x"), Ts: i, HasTs: true})
	}
	if err := errors.Join(f.exemplarsOf(&r), f.seal()); err != nil {
		t.Fatal(err)
	}
	a, err = receive(everything(collectorv1.SelectKind_SELECT_KIND_EXEMPLARS), frames)
	if err != nil {
		t.Fatal(err)
	}
	merged := mergeExemplars(append(a.exemplars, r)) // Everything twice.
	if len(merged) != 1 || len(merged[0].Exemplars) != 50 || len(frames) < 10 {
		t.Errorf("exemplars: %v in %d frames", merged, len(frames))
	}
}

// TestMissingForADay: whom a registry does not name is asked for another day
// since it did so first, and whoever is named again has another one.
func TestMissingForADay(t *testing.T) {
	b := newBook(Config{Self: "c-1", Metrics: NewMetrics()})
	named := []*registryv1.Collector{{CollectorId: "c-1"}, {CollectorId: "c-2", IntrospectionEndpoint: "c-2:1"}}
	begin := time.Unix(1_000_000, 0)
	for i, step := range []struct {
		after time.Duration
		list  []*registryv1.Collector
		known int
	}{
		{0, named, 1},
		{time.Hour, nil, 1},
		{24 * time.Hour, nil, 1},
		{24*time.Hour + time.Minute, named, 1},
		{48 * time.Hour, nil, 1},
		{72*time.Hour - time.Second, nil, 1},
		{72 * time.Hour, nil, 0},
		{73 * time.Hour, named, 1},
	} {
		b.enter(step.list, begin.Add(step.after))
		if got, err := b.others(t.Context()); len(got) != step.known || err != nil {
			t.Errorf("%d: %d known, %v", i, len(got), err)
		}
	}
}
