package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// A machine writes to a queue on a disk that fails and a machine that dies, and
// knows what must come out.
type machine struct {
	*rapid.T
	disk   *disk
	queue  *queue.Queue
	series []*sample.Series
	sinks  []*sinkModel

	written []entry
	damaged bool // bytes of a segment that may still be written to were changed
}

// An entry is a batch whose Write has returned nil.
type entry struct {
	samples []sample.Sample
	durable bool // it was on the disk for long enough

	// excused may be missing without being counted: the process died while it
	// was in memory, or the machine before it was synced, or bytes were changed.
	excused bool
}

type sinkModel struct {
	name     string
	reader   *queue.Reader
	from     int // the first entry that it must get
	next     int // of entries
	commit   int
	end      sample.Position // of what was read last
	given    []int           // entries that were read, and are not committed
	seen     map[int]bool    // entries that are
	dropped  int64           // by queues that are closed
	blurred  bool            // counts may be off: bytes were changed
	repeated bool            // a record may come twice
}

// inBubble keeps rapid from asking for a deadline, which a bubble has not.
type inBubble struct{ *testing.T }

func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			m := &machine{T: rt, disk: newDisk(), series: drawSeries(rt)}
			rt.Cleanup(func() {
				m.disk.release()
				_ = m.queue.Close()
			})
			m.open()
			m.addSink()
			for i := range m.series { // each batch begins with a number
				m.series[i].Number.Store(uint32(i))
			}
			rt.Repeat(map[string]func(*rapid.T){
				"write":   m.write,
				"burst":   m.burst,
				"read":    m.read,
				"commit":  m.commit,
				"reopen":  m.reopenReader,
				"sink":    func(*rapid.T) { m.addSink() },
				"restart": m.restart,
				"kill":    m.kill,
				"crash":   m.crash,
				"corrupt": m.corrupt,
				"fault":   m.fault,
				"mend":    func(*rapid.T) { m.mend() },
				"time":    func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond) },
				"":        m.check,
			})
			m.end()
		})
	})
}

func (m *machine) open() {
	q, err := queue.Open(small(m.disk))
	if err != nil {
		m.Fatal(err)
	}
	m.queue, m.damaged = q, false
	for _, s := range m.sinks {
		m.attach(s)
	}
}

func (m *machine) attach(s *sinkModel) {
	r, err := m.queue.Reader(s.name)
	if err != nil {
		m.Fatal(err)
	}
	s.reader, s.next = r, s.commit
}

func (m *machine) addSink() {
	if len(m.sinks) == 3 {
		return
	}
	s := &sinkModel{name: fmt.Sprintf("sink%d", len(m.sinks)), from: len(m.written), commit: len(m.written), seen: map[int]bool{}}
	m.sinks = append(m.sinks, s)
	m.attach(s)
	synctest.Wait()
	time.Sleep(10 * time.Millisecond)
	if m.queue.Status().Failing {
		return // its position may be nowhere
	}
}

// batch draws one that says in the value of its first sample which it is.
func (m *machine) batch(t *rapid.T) *sample.Batch {
	b := &sample.Batch{Source: "p"}
	from, n := rapid.IntRange(0, len(m.series)-1).Draw(t, "from"), rapid.OneOf(rapid.IntRange(1, 10), rapid.IntRange(100, 400)).Draw(t, "samples")
	for i := range n {
		b.Samples = append(b.Samples, sample.Sample{Series: m.series[(from+i)%len(m.series)], Time: 1.7e12, Value: float64(i) / 3})
	}
	b.Samples[0].Value = float64(len(m.written))
	return b
}

func (m *machine) write(t *rapid.T) { m.put(m.batch(t)) }

func (m *machine) burst(t *rapid.T) {
	b := m.batch(t)
	for range rapid.IntRange(1, 40).Draw(t, "times") {
		b.Samples[0].Value = float64(len(m.written))
		m.put(b)
	}
}

func (m *machine) put(b *sample.Batch) {
	m.written = append(m.written, entry{samples: slices.Clone(b.Samples), excused: m.damaged})
	begun := time.Now()
	if err := m.queue.Write(context.Background(), b); err != nil {
		m.Fatal(err)
	}
	if took := time.Since(begun); took > 2500*time.Millisecond {
		m.Fatalf("a write took %v", took)
	}
}

func (m *machine) pick(t *rapid.T) *sinkModel {
	return m.sinks[rapid.IntRange(0, len(m.sinks)-1).Draw(t, "sink")]
}

func (m *machine) read(t *rapid.T) {
	m.readSome(m.pick(t), rapid.IntRange(1, 300).Draw(t, "records"))
}

// readSome tells whether there was as much as that.
func (m *machine) readSome(s *sinkModel, most int) bool {
	var r sample.Record
	for range most {
		ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
		err := s.reader.Next(ctx, &r)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return false
		}
		if err != nil {
			m.Fatal(err)
		}
		id := int(r.Points[0].Value)
		if id < 0 || id >= len(m.written) {
			m.Fatalf("record %d of %d", id, len(m.written))
		}
		if !same(m.written[id].samples, &r) {
			m.Fatalf("record %d is not what was written: %v", id, diff(fromBatch(&sample.Batch{Samples: m.written[id].samples}), fromRecord(&r)))
		}
		if id < s.next && !s.repeated {
			m.Fatalf("%s: record %d after %d", s.name, id, s.next-1)
		}
		s.next, s.end = max(s.next, id+1), r.End
		s.given = append(s.given, id)
	}
	return true
}

func (m *machine) commit(t *rapid.T) {
	s := m.pick(t)
	if len(s.given) > 0 {
		s.commitAll()
	}
}

func (s *sinkModel) commitAll() {
	s.reader.Commit(s.end)
	for _, id := range s.given {
		s.seen[id] = true
	}
	s.commit, s.given = max(s.commit, s.next), nil
}

func (m *machine) reopenReader(t *rapid.T) {
	s := m.pick(t)
	s.reader.Close()
	s.given = nil
	m.attach(s)
}

func (m *machine) detach() {
	for _, s := range m.sinks {
		s.reader.Close() // which counts, too
		s.given = nil
		s.dropped += m.dropped(s)
	}
}

func (m *machine) dropped(s *sinkModel) int64 {
	n := int64(0)
	for _, d := range s.reader.Lag().Dropped {
		n += d
	}
	return n
}

func (m *machine) restart(*rapid.T) {
	m.mend()
	m.detach()
	if err := m.queue.Close(); err != nil {
		m.Fatal(err)
	}
	m.open()
}

// kill is what kill -9 does, after a moment in which nothing was done.
func (m *machine) kill(*rapid.T) {
	synctest.Wait()
	if m.troubled() {
		// What is in memory is lost, positions may be behind, and what a hanging
		// write does is not known.
		m.excuse(func(entry) bool { return true })
	}
	m.die(m.disk.killed())
}

func (m *machine) crash(t *rapid.T) {
	synctest.Wait()
	m.excuse(func(e entry) bool { return !e.durable })
	after := m.disk.crashed(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "kept") })
	if m.troubled() {
		m.excuse(func(entry) bool { return true })
	}
	for _, s := range m.sinks {
		s.repeated, s.blurred = true, true
		if after.files[s.name+".position"] == nil {
			m.forget(s) // its name was not synced: it begins anew
		}
	}
	m.die(after)
}

// forget excuses all that a sink has not seen.
func (m *machine) forget(s *sinkModel) {
	for id := s.from; id < len(m.written); id++ {
		if !s.seen[id] {
			m.written[id].excused = true
		}
	}
}

func (m *machine) troubled() bool {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	return m.disk.fault != nil || len(m.disk.stall) > 0 || m.queue.Status().Failing
}

func (m *machine) excuse(which func(entry) bool) {
	for i := range m.written {
		if which(m.written[i]) {
			m.written[i].excused = true
		}
	}
	for _, s := range m.sinks {
		s.repeated, s.blurred = true, true
	}
}

func (m *machine) die(after *disk) {
	m.detach()
	_ = m.queue.Close()
	m.disk = after
	m.open()
}

func (m *machine) corrupt(t *rapid.T) {
	names := m.disk.segments()
	if len(names) == 0 {
		return
	}
	name := rapid.SampledFrom(names).Draw(t, "segment")
	m.damaged = true
	if n := len(m.disk.files[name].data); n > 0 {
		m.disk.flip(name, rapid.IntRange(0, n-1).Draw(t, "at"))
	}
	m.excuse(func(entry) bool { return true })
}

func (m *machine) fault(t *rapid.T) {
	ops := rapid.SliceOfN(rapid.SampledFrom([]string{"write", "create", "truncate", "sync", "syncdir", "remove"}), 1, 3).Draw(t, "operations")
	if rapid.Bool().Draw(t, "hangs") {
		m.disk.hang(ops...)
		return
	}
	err := rapid.SampledFrom([]error{syscall.ENOSPC, syscall.EIO, syscall.EROFS}).Draw(t, "error")
	m.disk.failWith(func(op, name string) error {
		if slices.Contains(ops, op) && strings.HasSuffix(name, ".segment") {
			return err
		}
		return nil
	})
}

// mend lets the disk work again, for long enough that the queue has noticed.
func (m *machine) mend() {
	m.disk.release()
	m.disk.failWith(nil)
	time.Sleep(4 * time.Second)
	if s := m.queue.Status(); s.MemoryBytes > 0 {
		m.Fatalf("%+v", s)
	}
	if s := m.queue.Status(); s.Synced.Before(time.Now()) {
		return // a sync has failed, and what it was of may be lost by a crash: that is told
	}
	for i := range m.written {
		m.written[i].durable = true
	}
}

func (m *machine) check(*rapid.T) {
	s := m.queue.Status()
	if n := m.disk.bytes(); n > 256<<10+2*m.batchLimit() || s.MemoryBytes > 128<<10 {
		m.Fatalf("%d bytes on disk, %+v", n, s)
	}
	for _, s := range m.sinks {
		if lag := s.reader.Lag(); lag.Bytes < 0 || (lag.Bytes > 0) == lag.Oldest.IsZero() {
			m.Fatalf("%+v", lag)
		}
	}
}

// batchLimit is what a write that failed may have left behind.
func (m *machine) batchLimit() int64 { return 64 << 10 }

// end reads all, and accounts for what is missing.
func (m *machine) end() {
	m.mend()
	for _, s := range m.sinks {
		for m.readSome(s, 1000) {
		}
		s.commitAll()
		missing, excused := int64(0), false
		for id := s.from; id < len(m.written); id++ {
			if !s.seen[id] {
				missing += int64(len(m.written[id].samples))
				excused = excused || m.written[id].excused
			}
		}
		dropped := s.dropped + m.dropped(s)
		if !excused && !s.blurred && missing != dropped || !excused && missing > dropped {
			m.Fatalf("%s: %d samples are missing, %d counted as dropped", s.name, missing, dropped)
		}
		if lag := s.reader.Lag(); lag.Bytes != 0 && !s.blurred {
			m.Fatalf("%s has read all: %+v", s.name, lag)
		}
	}
	m.detach()
	if err := m.queue.Close(); err != nil {
		m.Fatal(err)
	}
}
