package statefile_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The names of the two slots.
var slots = []string{"set.0", "set.1"}

// A witness counts what is logged as a warning or worse.
type witness struct{ lines int }

func (*witness) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (w *witness) Handle(context.Context, slog.Record) error  { w.lines++; return nil }
func (w *witness) WithAttrs([]slog.Attr) slog.Handler         { return w }
func (w *witness) WithGroup(string) slog.Handler              { return w }

// A past is a file with all states that it ever had.
type past struct {
	run   *run
	files map[string][]byte
	marks []mark

	// newest is the slot of the newest generation.
	newest string
}

func newPast(t testing.TB) *past {
	r := newRun(t, newDisk())
	r.file, _ = open(t, r.cfg())
	p := &past{run: r, files: map[string][]byte{}, marks: r.marks}
	for _, entry := range r.script() {
		if err := r.append(entry()); err != nil {
			t.Fatal(err)
		}
		p.marks = append(p.marks, r.mark())
	}
	for _, name := range slots {
		p.files[name] = r.disk.live[name].data
	}
	p.newest = slots[0]
	if generation(p.files[slots[1]]) > generation(p.files[slots[0]]) {
		p.newest = slots[1]
	}
	return p
}

func generation(file []byte) byte { return statefile.Records(file)[0].Payload[2] }

func (p *past) older() string { return slots[1-slices.Index(slots, p.newest)] }

// disk returns one with these files, and the others as they were; nil means
// that a file is missing.
func (p *past) disk(files map[string][]byte) *disk {
	d := newDisk()
	for _, name := range slots {
		data, changed := files[name]
		if !changed {
			data = p.files[name]
		}
		if data == nil {
			continue
		}
		n := &inode{data: slices.Clone(data), durable: slices.Clone(data)}
		d.live[name], d.durable[name] = n, n
	}
	return d
}

// check opens a disk that did not give back what was written to it.
func (p *past) check(t *testing.T, d *disk) (statefile.Recovery, *statefile.State) {
	t.Helper()
	var w witness
	cfg := p.run.cfg()
	cfg.FS, cfg.Logger = d, slog.New(&w)
	file, state := open(t, cfg)
	checkOneOf(t, state, p.marks)
	found := file.Recovery()
	silent := found.Torn == 0 && len(found.Damage) == 0
	if show(state) != p.marks[len(p.marks)-1].shown && silent && !p.between(d) {
		t.Fatalf("an older state, and no word about it")
	}
	if silent != (w.lines == 0) {
		t.Fatalf("%d warnings about %+v", w.lines, found)
	}
	if found.Aside != "" && d.live["set.corrupt"] == nil {
		t.Fatalf("nothing was put aside")
	}
	return found, state
}

// between reports whether the newest file ends between two entries, where
// nothing tells that there were more.
func (p *past) between(d *disk) bool {
	file := d.live[p.newest]
	if file == nil || !bytes.HasPrefix(p.files[p.newest], file.data) {
		return false
	}
	records := statefile.Records(file.data)
	return len(records) > 1 && records[len(records)-1].Kind == statefile.KindCommit &&
		len(statefile.Join(records)) == len(file.data)
}

// checkGoesOn appends, and opens again.
func (p *past) checkGoesOn(t *testing.T, d *disk) {
	t.Helper()
	cfg := p.run.cfg()
	cfg.FS = d.killed()
	file, state := open(t, cfg)
	entry := newRoll(t).hold(statefile.Entry{}, 8, 1)
	state.Held = slices.DeleteFunc(state.Held, func(h guard.Held) bool { return h.Assignment.ProducerID == id(8) })
	state.Held = append(state.Held, entry.Held...)
	if err := file.Append(entry, func() statefile.State { return *state }); err != nil {
		t.Fatal(err)
	}
	cfg.FS = d.killed()
	file, again := open(t, cfg)
	if show(again) != show(state) {
		t.Fatalf("loaded\n%s, want\n%s", show(again), show(state))
	}
	if found := file.Recovery(); len(found.Damage) > 0 || found.Torn > 0 {
		t.Fatalf("damaged still: %+v", found)
	}
}

// TestStateFileCorruptionSafe changes each byte of the newest file in several
// ways, and cuts it at each byte; then the older one, and both at once.
func TestStateFileCorruptionSafe(t *testing.T) {
	t.Parallel()
	p := newPast(t)
	damage := map[string]func([]byte, int) []byte{
		"bit":    func(b []byte, i int) []byte { b[i] ^= 1 << (i % 8); return b },
		"invert": func(b []byte, i int) []byte { b[i] = ^b[i]; return b },
		"cut":    func(b []byte, i int) []byte { return b[:i] },
		"zeros":  func(b []byte, i int) []byte { clear(b[i:]); return b },
		"hole":   func(b []byte, i int) []byte { return slices.Delete(b, i, i+1) },
		"twice":  func(b []byte, i int) []byte { return append(b, b[i:]...) },
	}
	for name, change := range damage {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range p.files[p.newest] {
				changed := change(slices.Clone(p.files[p.newest]), i)
				if bytes.Equal(changed, p.files[p.newest]) {
					continue
				}
				d := p.disk(map[string][]byte{p.newest: changed})
				if found, _ := p.check(t, d); found.Torn == 0 && len(found.Damage) == 0 && !p.between(d) {
					t.Fatalf("byte %d: not noticed", i)
				}
				if i%4 == 0 {
					p.checkGoesOn(t, d)
				}
			}
			step := 3
			if name == "bit" {
				step = 1
			}
			for i := 0; i < len(p.files[p.older()]); i += step {
				d := p.disk(map[string][]byte{p.older(): change(slices.Clone(p.files[p.older()]), i)})
				if _, state := p.check(t, d); show(state) != p.marks[len(p.marks)-1].shown {
					t.Fatalf("byte %d: the newest generation was not loaded", i)
				}
			}
			for i := 0; i < min(len(p.files[slots[0]]), len(p.files[slots[1]])); i += step {
				p.check(t, p.disk(map[string][]byte{
					slots[0]: change(slices.Clone(p.files[slots[0]]), i),
					slots[1]: change(slices.Clone(p.files[slots[1]]), i),
				}))
			}
		})
	}
}

// TestDamagedEntryEndsTheState changes a byte of an entry that has others after
// it: what is before it is newer than the previous generation, and is loaded.
func TestDamagedEntryEndsTheState(t *testing.T) {
	p := newPast(t)
	records := statefile.Records(p.files[p.newest])
	base := slices.IndexFunc(records, func(r statefile.Record) bool { return r.Kind == statefile.KindCommit })
	changed := slices.Clone(p.files[p.newest])
	changed[len(statefile.Join(records[:base+1]))+20] ^= 4
	d := p.disk(map[string][]byte{p.newest: changed})
	found, state := p.check(t, d)
	if found.Fallback || found.Torn != 0 || len(found.Damage) != 1 || found.Aside != "" {
		t.Errorf("%+v", found)
	}
	alone := p.disk(map[string][]byte{p.newest: statefile.Join(records[:base+1]), p.older(): nil})
	if _, want := p.check(t, alone); show(want) != show(state) {
		t.Errorf("loaded\n%s, want\n%s", show(state), show(want))
	}
	p.checkGoesOn(t, d)
}

// TestDamagedBaseFallsBack loses the base of the newest generation, and then
// that of the other one too.
func TestDamagedBaseFallsBack(t *testing.T) {
	p := newPast(t)
	breakBase := func(name string) []byte {
		changed := slices.Clone(p.files[name])
		changed[60] ^= 1
		return changed
	}
	d := p.disk(map[string][]byte{p.newest: breakBase(p.newest)})
	found, state := p.check(t, d)
	if !found.Fallback || len(found.Damage) != 1 || found.Aside == "" || state.Accepted.Epoch == "" {
		t.Errorf("%+v", found)
	}
	p.checkGoesOn(t, d)

	d = p.disk(map[string][]byte{slots[0]: breakBase(slots[0]), slots[1]: breakBase(slots[1])})
	found, state = p.check(t, d)
	if !found.Fallback || len(found.Damage) != 2 || found.Aside == "" || state.Accepted.Epoch != "" {
		t.Errorf("%+v", found)
	}
	if !bytes.Equal(d.live["set.corrupt"].data, breakBase(p.newest)) {
		t.Error("the file kept is not the newest one")
	}
	// As long as nothing has been written, it is not forgotten.
	if found, _ = p.check(t, d.killed()); !found.Fallback || len(found.Damage) != 1 || found.Aside == "" {
		t.Errorf("at the next start: %+v", found)
	}
	p.checkGoesOn(t, d)
}

// TestHostileLengthAllocatesNothing announces records far beyond the file.
func TestHostileLengthAllocatesNothing(t *testing.T) {
	header := statefile.Join([]statefile.Record{{Kind: 1, Payload: statefile.HeaderOf(1, 1, 1, collectorID)}})
	for _, length := range []uint32{statefile.MaxPayload, statefile.MaxPayload + 1, 1<<32 - 1} {
		file := binary.LittleEndian.AppendUint32(slices.Clone(header), length)
		file = append(file, 0, 0, 0, 0, 2, 1, 2, 3)
		d := newDisk()
		d.live["set.0"] = &inode{data: file}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, state := open(t, statefile.Config{FS: d, Dir: "state"})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 || state.Accepted.Epoch != "" {
			t.Errorf("length %d: %d bytes allocated", length, n)
		}
	}
}

// FuzzOpen opens arbitrary files, as they are and with checksums that fit. What
// is loaded must be a set with its right digest, and be writable again.
func FuzzOpen(f *testing.F) {
	p := newPast(f)
	f.Add(p.files[slots[0]], p.files[slots[1]], false)
	f.Add(p.files[slots[0]], p.files[slots[1]], true)
	f.Add([]byte("ROLLCALL"), []byte{}, false)
	f.Add(p.files[slots[0]][:100], p.files[slots[1]][:200], true)
	records := statefile.Records(p.files[p.newest])
	f.Add(statefile.Join(append(records, records[1:]...)), []byte(nil), true)
	f.Fuzz(func(t *testing.T, a, b []byte, fit bool) {
		if fit {
			a, b = statefile.Join(statefile.Records(a)), statefile.Join(statefile.Records(b))
		}
		d := p.disk(map[string][]byte{slots[0]: a, slots[1]: b})
		file, state, err := statefile.Open(statefile.Config{FS: d, Dir: "state", Collector: collectorID, MaxProducers: 1000})
		if err != nil {
			if d.locked || !errors.Is(err, statefile.ErrNewerFormat) && !errors.Is(err, statefile.ErrOtherCollector) &&
				!errors.Is(err, statefile.ErrTooMany) {
				t.Fatal(err)
			}
			return
		}
		var again assignment.Set[*assignment.Assignment]
		for _, m := range state.Accepted.Set.All() {
			again.Put(m)
		}
		if again.Digest() != state.Accepted.Set.Digest() || again.Len() > 1000 {
			t.Fatal("the digest of the set is not that of its members")
		}
		want := show(state)
		if err := file.Append(statefile.Entry{Released: []assignment.ProducerID{"none"}}, func() statefile.State { return *state }); err != nil {
			t.Fatal(err)
		}
		if _, state := open(t, statefile.Config{FS: d.killed(), Dir: "state"}); show(state) != want {
			t.Fatalf("loaded\n%s, want\n%s", show(state), want)
		}
	})
}
