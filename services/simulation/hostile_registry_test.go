package simulation

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A lie is what a hostile registry tells a collector of thirty producers, over
// and over, and what must be seen of it. What is not told here must hold of every
// lie: nobody is struck off or missed, memory, goroutines and subscriptions stay
// bounded, and a good registry is taken afterwards.
type lie struct {
	// tell plays one stream. The stream ends with it.
	tell script

	// lasts is for how long lies are told; zero: two minutes.
	lasts time.Duration

	// refused is the reason of the refusal that is shown, ended a reason for
	// which streams end. Empty: it does not matter.
	refused string
	ended   string

	// message is a part of that refusal's, for a reason that has several.
	message string

	// stands tells that the collector must stay on the one stream.
	stands bool

	// held is how many producers are held at the end.
	held int64

	configure func(c *collector.Config)

	// heals tells that each time a good roll is heard before the lie, which ends what
	// is shown of the last one.
	heals bool
}

// The bounds of what a lie may cost.
const (
	lieMemory     = 48 << 20
	lieGoroutines = 60
	lieTries      = 40 // in two minutes; full jitter below 30 s makes about 16
)

// hears has a collector hear a good roll, then lies, then a good roll again.
func hears(t *testing.T, l lie) {
	t.Helper()
	if l.lasts == 0 {
		l.lasts = 2 * time.Minute
	}
	simulate(t, func(w *world) {
		all := names(30)
		start := time.Now()
		good := start.Add(20*time.Second + l.lasts)
		after := callRoll(1000, 2, append(slices.Clone(all), "late")...)
		r := w.scriptedRegistry(callRoll(10, 2, all...).once, func(s *stage) error {
			if !time.Now().Before(good) {
				return after.stands(s)
			}
			stop := time.AfterFunc(time.Until(good), func() { w.network.reset(registryAddress) })
			defer stop.Stop()
			return l.tell(s)
		})
		configure := l.configure
		if configure == nil {
			configure = func(*collector.Config) {}
		}
		h := w.collector("c-1", configure)
		w.pass(19 * time.Second)
		goroutines, memory := runtime.NumGoroutine(), heap()
		w.pass(l.lasts)
		if n := runtime.NumGoroutine(); n > goroutines+lieGoroutines {
			t.Errorf("%d goroutines, %d before the lies", n, goroutines)
		}
		if n := heap(); n > memory+lieMemory {
			t.Errorf("a heap of %d MiB, %d before the lies", n>>20, memory>>20)
		}
		w.liedTo(h, r, l)
		w.collects("c-1", all...)
		w.noGap(start, time.Now(), all...)

		w.pass(2 * time.Minute)
		w.collects("c-1", append(slices.Clone(all), "late")...)
		w.noGap(start, time.Now(), all...)
		if m := w.membership("c-1"); m.GetLastRefusal() != nil || !m.GetSubscribed() || m.GetHeldCount() != 0 {
			t.Errorf("after the good roll: %v", m)
		}
	})
}

// liedTo checks what is seen of a lie while it is told.
func (w *world) liedTo(h *host, r *scripted, l lie) {
	w.t.Helper()
	m := w.membership("c-1")
	if got := m.GetLastRefusal().GetReason(); l.refused != "" {
		nack := r.lastAck(func(a *registryv1.AcknowledgeRequest) bool { return a.GetRefusal().GetReason() == l.refused })
		counted := h.metric(w.t, "rollcall_collector_refused_snapshots_total", l.refused)
		shown := got == l.refused || got == "" && l.heals
		if !shown || counted == 0 || nack == nil {
			w.t.Errorf("shown is %v, %v are counted, the registry was told %v; want %s", m.GetLastRefusal(), counted, nack, l.refused)
		}
	}
	if message := m.GetLastRefusal().GetMessage(); !strings.Contains(message, l.message) {
		w.t.Errorf("refused with %q, want %q", message, l.message)
	}
	if l.ended != "" && h.metric(w.t, "rollcall_collector_subscriptions_ended_total", l.ended) == 0 {
		w.t.Errorf("no stream was ended because of %s; the last error is %s", l.ended, m.GetLastError())
	}
	if n := len(m.GetLastError()); n > 1000 {
		w.t.Errorf("an error of %d bytes is kept", n)
	}
	tries := r.subscriptions()
	if l.stands && tries != 2 {
		w.t.Errorf("%d subscriptions, the last error is %s", tries, m.GetLastError())
	}
	if most := lieTries * int(l.lasts/(2*time.Minute)); tries > most {
		w.t.Errorf("subscribed %d times in %v", tries, l.lasts)
	}
	if m.GetHeldCount() != l.held {
		w.t.Errorf("%d are held, want %d", m.GetHeldCount(), l.held)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// says is a stream of these frames that then falls silent.
func says(frames ...assignment.Frame) script {
	return func(s *stage) error {
		if err := s.say(frames...); err != nil {
			return err
		}
		return s.wait()
	}
}

// sends is says with messages of the protocol.
func sends(messages ...*registryv1.SubscribeResponse) script {
	return func(s *stage) error {
		for _, m := range messages {
			if err := s.Send(m); err != nil {
				return err
			}
		}
		return s.wait()
	}
}

// over says one message after another, so much time apart, until there is none.
func over(apart time.Duration, next func(n int) *registryv1.SubscribeResponse) script {
	return func(s *stage) error {
		for n := 0; ; n++ {
			m := next(n)
			if m == nil {
				return s.wait()
			}
			if err := s.Send(m); err != nil {
				return err
			}
			if apart > 0 {
				s.sleep(apart)
			}
			if err := s.Context().Err(); err != nil {
				return err
			}
		}
	}
}

// reseal makes the end frame of a roll true again after its chunks were changed.
func (r *roll) reseal() *roll {
	var set assignment.Set[*assignment.Assignment]
	for _, c := range r.chunks {
		for _, a := range c.Assignments {
			set.Put(a)
		}
	}
	r.begin.ExpectedUpserts = int64(set.Len())
	r.end.Chunks, r.end.Upserts = uint64(len(r.chunks)), int64(set.Len())
	r.end.SetCount, r.end.SetDigest = int64(set.Len()), set.Digest()
	return r
}
