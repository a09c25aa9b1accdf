package peers_test

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/peers"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// floats is a chunk of these times.
func floats(times ...int64) *collectorv1.SelectedChunk {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		panic(err)
	}
	for _, ms := range times {
		app.Append(0, ms, float64(ms))
	}
	return &collectorv1.SelectedChunk{Encoding: collectorv1.ChunkEncoding_CHUNK_ENCODING_XOR, Data: c.Bytes()}
}

// A frame is one of these.
type frame = collectorv1.SelectResponse

// symbols of the frames of seriesFrame.
var symbols = []string{"__name__", "m", "s", "a", "b", ""}

func seriesFrame(all ...*collectorv1.SelectedSeries) *frame {
	return &frame{Frame: &collectorv1.SelectResponse_Series{Series: &collectorv1.SelectedSeriesFrame{Symbols: symbols, Series: all}}}
}

func stringsFrame(all ...string) *frame {
	return &frame{Frame: &collectorv1.SelectResponse_Strings{Strings: &collectorv1.SelectedStringsFrame{Values: all}}}
}

// one is a series, by the indices of its labels among the symbols.
func one(refs []uint32, chunks ...*collectorv1.SelectedChunk) *collectorv1.SelectedSeries {
	return &collectorv1.SelectedSeries{LabelRefs: refs, Chunks: chunks}
}

var a, b = []uint32{0, 1, 2, 3}, []uint32{0, 1, 2, 4}

func end(series, chunks int64) *frame {
	return &frame{Frame: &collectorv1.SelectResponse_End{End: &collectorv1.SelectEnd{CollectorId: "c-2", SeriesCount: series, ChunkCount: chunks}}}
}

func ended(change func(*collectorv1.SelectEnd)) *frame {
	m := end(1, 1)
	change(m.GetEnd())
	return m
}

// TestHostileAnswers: whatever another collector answers, the query has what is
// sound, and a warning for the rest.
func TestHostileAnswers(t *testing.T) {
	sound := seriesFrame(one(a, floats(10, 20)))
	tests := map[string]struct {
		frames []*frame
		want   string // of the warning; empty: it is sound
	}{
		"sound":                      {[]*frame{sound, end(1, 1)}, ""},
		"nothing, sealed":            {[]*frame{end(0, 0)}, ""},
		"a series over two frames":   {[]*frame{sound, seriesFrame(one(a, floats(30))), end(1, 2)}, ""},
		"nothing":                    {nil, "no end"},
		"no end":                     {[]*frame{sound}, "no end"},
		"more behind the end":        {[]*frame{sound, end(1, 1), sound}, "behind the end"},
		"two ends":                   {[]*frame{sound, end(1, 1), end(1, 1)}, "behind the end"},
		"no frame":                   {[]*frame{{}, end(0, 0)}, "unknown kind"},
		"another collector":          {[]*frame{sound, ended(func(m *collectorv1.SelectEnd) { m.CollectorId = "c-3" })}, `"c-3" answers`},
		"one series too few":         {[]*frame{sound, end(2, 1)}, "counts"},
		"one chunk too few":          {[]*frame{sound, end(1, 2)}, "counts"},
		"too many warnings":          {[]*frame{sound, ended(func(m *collectorv1.SelectEnd) { m.Warnings = make([]string, 11) })}, "too many warnings"},
		"strings":                    {[]*frame{stringsFrame("a"), end(0, 0)}, "not asked for"},
		"series in disorder":         {[]*frame{seriesFrame(one(b, floats(1)), one(a, floats(1))), end(2, 2)}, "not in order"},
		"a series twice":             {[]*frame{seriesFrame(one(a, floats(1)), one(a, floats(2))), end(2, 2)}, "not in order"},
		"labels in disorder":         {[]*frame{seriesFrame(one([]uint32{2, 3, 0, 1}, floats(1))), end(1, 1)}, "not in order"},
		"a label twice":              {[]*frame{seriesFrame(one([]uint32{0, 1, 0, 1}, floats(1))), end(1, 1)}, "not in order"},
		"an empty value":             {[]*frame{seriesFrame(one([]uint32{0, 1, 2, 5}, floats(1))), end(1, 1)}, "empty label"},
		"no labels":                  {[]*frame{seriesFrame(one(nil, floats(1))), end(1, 1)}, "without labels"},
		"half a label":               {[]*frame{seriesFrame(one([]uint32{0, 1, 2}, floats(1))), end(1, 1)}, "without a value"},
		"no symbol":                  {[]*frame{seriesFrame(one([]uint32{0, 6}, floats(1))), end(1, 1)}, "refers to nothing"},
		"far from any symbol":        {[]*frame{seriesFrame(one([]uint32{0, math.MaxUint32}, floats(1))), end(1, 1)}, "refers to nothing"},
		"another metric":             {[]*frame{seriesFrame(one([]uint32{0, 3}, floats(1))), end(1, 1)}, "not asked for"},
		"no samples":                 {[]*frame{seriesFrame(one(a)), end(1, 0)}, "without samples"},
		"no samples, before another": {[]*frame{seriesFrame(one(a), one(b, floats(1))), end(2, 1)}, "without samples"},
		"before the time":            {[]*frame{seriesFrame(one(a, floats(-1, 1))), end(1, 1)}, "not asked for"},
		"after the time":             {[]*frame{seriesFrame(one(a, floats(1, between[1]+1))), end(1, 1)}, "not asked for"},
		"chunks in disorder":         {[]*frame{seriesFrame(one(a, floats(10), floats(5))), end(1, 2)}, "not in order"},
		"chunks that overlap":        {[]*frame{seriesFrame(one(a, floats(10, 20), floats(20))), end(1, 2)}, "not in order"},
		"samples in disorder":        {[]*frame{seriesFrame(one(a, floats(10, 5))), end(1, 1)}, "not in order"},
		"rubbish":                    {[]*frame{seriesFrame(one(a, &collectorv1.SelectedChunk{Encoding: 1, Data: []byte("rubbish")})), end(1, 1)}, "chunk"},
		"an unknown encoding":        {[]*frame{seriesFrame(one(a, &collectorv1.SelectedChunk{Encoding: 9, Data: []byte("rubbish")})), end(1, 1)}, "not known"},
		"a frame of 5 MiB":           {[]*frame{stringsFrame(strings.Repeat("x", 5<<20))}, "ResourceExhausted"},
	}
	bubble(t, func(t *testing.T, r *rig) {
		var frames []*frame
		r.play("c-2", func(_ *collectorv1.SelectRequest, s grpc.ServerStreamingServer[frame]) error {
			for _, m := range frames {
				if err := s.Send(m); err != nil {
					return err
				}
			}
			return nil
		})
		write(t, r.store, "here", 10)
		for name, test := range tests {
			frames = test.frames
			got, warnings, err := r.query()
			if test.want != "" {
				if diff := cmp.Diff(map[string][]int64{"here": {10}}, got); diff != "" || !warned(warnings, `"c-2"`, "partial", test.want) || err != nil {
					t.Errorf("%s: %v, %v (-want +got):\n%s", name, warnings, err, diff)
				}
			} else if len(warnings) > 0 || err != nil || len(got) != 1+len(frames)/2 {
				t.Errorf("%s: %v, %v, %v", name, got, warnings, err)
			}
		}
	})
}

// TestEndlessAnswers: another collector sends without an end. The query ends
// with what it may take, and holds no more than that.
func TestEndlessAnswers(t *testing.T) {
	const allowed = 4 << 20
	long := strings.Repeat("x", 1<<20)
	refs := make([]uint32, 0, 2000)
	wide := []string{"__name__", "m", long}
	for i := range 1000 {
		wide = append(wide, fmt.Sprintf("l%03d", i))
		refs = append(refs, uint32(3+i), 2)
	}
	tests := map[string]func(i int) *frame{
		"empty frames": func(int) *frame { return seriesFrame() },
		"symbols for nobody": func(int) *frame {
			m := seriesFrame()
			m.GetSeries().Symbols = wide
			return m
		},
		"series": func(i int) *frame {
			m := seriesFrame(one(a, floats(1)))
			m.GetSeries().Symbols = []string{"__name__", "m", "s", fmt.Sprintf("%09d", i)}
			return m
		},
		"chunks of one series": func(i int) *frame { return seriesFrame(one(a, floats(int64(i)))) },
		"one long label, a thousand times": func(int) *frame {
			return &frame{Frame: &collectorv1.SelectResponse_Series{Series: &collectorv1.SelectedSeriesFrame{
				Symbols: wide, Series: []*collectorv1.SelectedSeries{one(append([]uint32{0, 1}, refs...), floats(1))},
			}}}
		},
	}
	for name, next := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				sent := 0
				r.play("c-2", func(_ *collectorv1.SelectRequest, s grpc.ServerStreamingServer[frame]) error {
					for i := 1; ; i++ {
						m := next(i)
						if err := s.Send(m); err != nil {
							return err
						}
						sent += proto.Size(m)
					}
				})
				write(t, r.store, "here", 10)
				begin, before := time.Now(), allocated()
				got, warnings, err := r.query()
				if len(got) != 1 || !warned(warnings, `"c-2"`, "too large") || err != nil || time.Since(begin) > 10*time.Second {
					t.Errorf("%v, %v, %v after %v", got, warnings, err, time.Since(begin))
				}
				if grown := allocated() - before; grown > 64<<20 {
					t.Errorf("%d MiB were allocated for %d MiB that may be held, and %d KiB sent", grown>>20, allowed>>20, sent>>10)
				}
				if held := r.received(); held > 2*allowed+1<<20 {
					t.Errorf("%d KiB were taken, and %d KiB sent", held>>10, sent>>10)
				}
			}, func(c *peers.Config) { c.MaxQueryBytes = allowed })
		})
	}
}

// received is how many bytes others have answered so far.
func (r *rig) received() int64 {
	r.t.Helper()
	var m dto.Metric
	if err := r.asked.Bytes.Write(&m); err != nil {
		r.t.Fatal(err)
	}
	return int64(m.GetCounter().GetValue())
}

// allocated is what the process has allocated so far, in bytes.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestSlowDrip: another collector sends a frame a second, and each of them is
// sound.
func TestSlowDrip(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.play("c-2", func(_ *collectorv1.SelectRequest, s grpc.ServerStreamingServer[frame]) error {
			for i := int64(1); ; i++ {
				if err := s.Send(seriesFrame(one(a, floats(i)))); err != nil {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-s.Context().Done():
					return nil
				}
			}
		})
		write(t, r.store, "here", 10)
		begin := time.Now()
		got, warnings, err := r.query()
		if len(got) != 1 || !warned(warnings, `"c-2"`, "no whole answer in 10s") || err != nil || time.Since(begin) != 10*time.Second {
			t.Errorf("%v, %v, %v after %v", got, warnings, err, time.Since(begin))
		}
	})
}

// TestBytesAreGivenBack: what one query holds another cannot have, until the one
// is closed.
func TestBytesAreGivenBack(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		other, _ := r.second("c-2")
		write(t, other, "there", 10)
		q, err := r.fleet.Querier(between[0], between[1])
		if err != nil {
			t.Fatal(err)
		}
		if got, warnings, err := read(t, q.Select(t.Context(), true, nil, everyM)); len(got) != 1 || len(warnings) > 0 || err != nil {
			t.Errorf("the one: %v, %v, %v", got, warnings, err)
		}
		if got, warnings, err := r.query(); len(got) != 0 || !warned(warnings, "too large") || err != nil {
			t.Errorf("another beside it: %v, %v, %v", got, warnings, err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		if got, warnings, err := r.query(); len(got) != 1 || len(warnings) > 0 || err != nil {
			t.Errorf("another behind it: %v, %v, %v", got, warnings, err)
		}
	}, func(c *peers.Config) { c.MaxBytes = 1500 })
}
