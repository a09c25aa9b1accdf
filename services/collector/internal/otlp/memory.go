package otlp

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// forgetAfter is how long a stream is remembered of which nothing is sent, and
	// sweepEvery how often forgotten ones are looked for.
	forgetAfter = time.Hour
	sweepEvery  = 10 * time.Minute

	// maxPause is how much of a time in which nothing was sent counts: a receiver
	// that was away for long has not made the streams any older.
	maxPause = 10 * time.Minute

	// maxStreams bounds what is remembered. A stream beyond is remembered by the
	// Series that has it, and begins anew with the next one.
	maxStreams = 4 << 20
)

// A stream is what has to be remembered of a cumulative series, histogram or
// summary, so that its start does not change while it goes on. It outlives the
// Series that knows it.
type stream struct {
	mu sync.Mutex

	// start is when counting began, and before that of the counting before: a
	// request that is made anew, in parts, has points from before the reset. In
	// milliseconds; 0 where there is none.
	start, before int64

	// time and value are of the last point.
	time  int64
	value float64

	// created is what a _created series has told at that time.
	created, createdAt int64

	// counted says that there is a series that _created series tell about.
	counted bool

	// native is the shape of the last native histogram.
	native shape

	seen int64 // when it was used last, by the memory's clock
}

// startOf is the start of a point: the one that is told, or when the stream was
// first seen, or the time of the point before a reset.
func (s *stream) startOf(told, at int64, value float64, now int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = now
	if told <= 0 && s.createdAt == at {
		told = s.created
	}
	switch {
	case told > 0 && told <= at:
		if told != s.start {
			s.before, s.start = s.start, told
		}
	case s.time == 0:
		s.start = at
	case at <= s.time:
		return s.past(at)
	case value < s.value:
		s.before, s.start = s.start, s.time
	}
	if at > s.time {
		s.time, s.value = at, value
	}
	return s.start
}

// past is the start of a point that is not after the last one.
func (s *stream) past(at int64) int64 {
	switch {
	case s.before > 0 && s.before <= at && at <= s.start:
		return s.before
	case s.start <= at:
		return s.start
	default:
		return at
	}
}

// known is the start of a point without a value, 0 when there is none.
func (s *stream) known(at int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start > at {
		return 0
	}
	return s.start
}

// create notes what a _created series tells. It reports whether it is about
// anything.
func (s *stream) create(created, at int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created, s.createdAt = created, at
	return s.counted
}

// count notes that _created series tell about this stream.
func (s *stream) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counted = true
}

// lastNative is the shape of the last native histogram.
func (s *stream) lastNative() shape {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.native
}

func (s *stream) setNative(now shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.native = now
}

// A target is what has to be remembered of a resource: the attributes of its
// last target_info, encoded. It stays when the target is away, so that what is
// told of that has the same resource.
type target struct {
	mu   sync.Mutex
	info []byte
	seen int64
}

func (t *target) tell(info []byte, now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.info, t.seen = info, now
}

func (t *target) told(now int64) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = now
	return t.info
}

// A memory has the streams and targets of one receiver, by seeded hashes. It is
// safe for concurrent use.
type memory struct {
	seed maphash.Seed

	mu      sync.Mutex
	streams map[uint64]*stream // guarded by mu
	targets map[uint64]*target // guarded by mu
	swept   int64              // guarded by mu

	used  time.Time     // guarded by mu; when the clock was last looked at
	clock time.Duration // guarded by mu
}

func newMemory() *memory {
	return &memory{seed: maphash.MakeSeed(), streams: map[uint64]*stream{}, targets: map[uint64]*target{}, used: time.Now()}
}

// now is the time in seconds since the memory began, but for pauses.
func (m *memory) now() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.clock += min(now.Sub(m.used), maxPause)
	m.used = now
	return int64(m.clock / time.Second)
}

func (m *memory) stream(key uint64, now int64) *stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.streams[key]
	if !ok {
		s = &stream{}
		if len(m.streams) < maxStreams {
			m.streams[key] = s
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = now
	return s
}

func (m *memory) target(key uint64, now int64) *target {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.targets[key]
	if !ok {
		t = &target{seen: now}
		if len(m.targets) < maxStreams {
			m.targets[key] = t
		}
	}
	return t
}

// sweep forgets what was not used for long.
func (m *memory) sweep(now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now-m.swept < int64(sweepEvery/time.Second) {
		return
	}
	m.swept = now
	oldest := now - int64(forgetAfter/time.Second)
	for key, s := range m.streams {
		s.mu.Lock()
		if s.seen < oldest {
			delete(m.streams, key)
		}
		s.mu.Unlock()
	}
	for key, t := range m.targets {
		t.mu.Lock()
		if t.seen < oldest {
			delete(m.targets, key)
		}
		t.mu.Unlock()
	}
}
