package simulation

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// odd is a correct roll of all, with one member that is odd.
func odd(change func(a *assignment.Assignment)) script {
	r := callRoll(20, 2, names(30)...)
	a := r.chunks[0].Assignments[3]
	change(a)
	a.Version++
	return r.reseal().stands
}

// flapping calls rolls one after the other, each of an epoch of its own.
func flapping(ids ...string) script {
	epochs := 0
	return func(s *stage) error {
		for range 20 {
			r := callRoll(20, 2, ids...)
			epochs++
			r.begin.Epoch = assignment.Epoch(fmt.Sprint("epoch-", epochs))
			r.end.Epoch = r.begin.Epoch
			if err := s.say(r.frames()...); err != nil {
				return err
			}
			s.sleep(time.Second)
		}
		return nil
	}
}

// removing calls the roll of all, and then removes five for a cause.
func removing(cause assignment.Cause) script {
	return func(s *stage) error {
		all := names(30)
		if err := s.say(callRoll(20, 2, all...).frames()...); err != nil {
			return err
		}
		c := &assignment.Chunk{SnapshotID: 2}
		for _, id := range all[:5] {
			c.Removals = append(c.Removals, assignment.Removal{ProducerID: assignment.ProducerID(id), Cause: cause, Revision: 21})
		}
		r := callRoll(21, 1, all[5:]...)
		r.begin.SnapshotID, r.begin.Scope, r.begin.BaseRevision, r.begin.ExpectedUpserts = 2, assignment.ScopeChanges, 20, 0
		r.end.SnapshotID, r.end.Upserts, r.end.Removals = 2, 0, 5
		if err := s.say(r.begin, c, r.end); err != nil {
			return err
		}
		return s.live(r.end)
	}
}

// TestHostileRegistrySealsItsLies: what is sealed and verified is a lie all the
// same. Who is not named is held, and what cannot be run goes on as it ran.
func TestHostileRegistrySealsItsLies(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for name, l := range map[string]lie{
		"empty":                    {held: 30, stands: true, tell: callRoll(20, 1).stands},
		"nearly_empty":             {held: 29, stands: true, tell: callRoll(20, 1, names(1)...).stands},
		"epochs_with_members":      {tell: flapping(names(30)...)},
		"epochs_without":           {held: 30, tell: flapping()},
		"cause_of_the_future":      {held: 5, stands: true, tell: removing(99)},
		"cause_negative":           {held: 5, stands: true, tell: removing(-1)},
		"cause_unspecified":        {held: 5, stands: true, tell: removing(assignment.CauseUnspecified)},
		"expired_but_it_answers":   {held: 5, stands: true, tell: removing(assignment.CauseExpired)},
		"role_of_the_future":       {stands: true, tell: odd(func(a *assignment.Assignment) { a.Role = 99 })},
		"endpoint_huge":            {stands: true, tell: odd(func(a *assignment.Assignment) { a.Endpoint = "http://" + huge })},
		"label_huge":               {stands: true, tell: odd(func(a *assignment.Assignment) { a.Labels = []assignment.Label{{Name: "fat", Value: huge}} })},
		"labels_many":              {stands: true, tell: odd(func(a *assignment.Assignment) { a.Labels = make([]assignment.Label, 100_000) })},
		"interval_zero":            {stands: true, tell: odd(func(a *assignment.Assignment) { a.Interval, a.Timeout = 0, 0 })},
		"interval_negative":        {stands: true, tell: odd(func(a *assignment.Assignment) { a.Interval, a.Timeout = -1, -1 })},
		"interval_of_a_nanosecond": {stands: true, tell: odd(func(a *assignment.Assignment) { a.Interval, a.Timeout = 1, 1 })},
		"interval_of_centuries":    {stands: true, tell: odd(func(a *assignment.Assignment) { a.Interval = 1<<63 - 1 })},
	} {
		t.Run(name, func(t *testing.T) { hears(t, l) })
	}
}

// TestHostileRegistryFails in every way that a status can tell, with as much
// text as it can.
func TestHostileRegistryFails(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated+1; code++ {
		for name, message := range map[string]string{"": "no", "_huge": strings.Repeat("no ", 10_000)} {
			t.Run(code.String()+name, func(t *testing.T) {
				hears(t, lie{tell: func(*stage) error { return status.Error(code, message) }})
			})
		}
	}
}

// TestHostileRegistryMakesProducersUp: another roll each time. What is held
// stays bounded, the fleet is collected, and the good registry is taken back.
func TestHostileRegistryMakesProducersUp(t *testing.T) {
	simulate(t, func(w *world) {
		all := names(30)
		start, rolls := time.Now(), 0
		good := start.Add(5 * time.Minute)
		r := w.scriptedRegistry(callRoll(10, 2, all...).once, func(s *stage) error {
			if !time.Now().Before(good) {
				return callRoll(1000, 2, append(slices.Clone(all), "late")...).stands(s)
			}
			rolls++
			var ids []string
			for i := range 60 {
				ids = append(ids, fmt.Sprintf("made-up-%d-%d", rolls, i))
			}
			return callRoll(assignment.Revision(20+rolls), 2, ids...).once(s)
		})
		h := w.collector("c-1", func(c *collector.Config) { c.MaxProducers = 100 })
		w.pass(5 * time.Minute)
		if n := len(w.collections("c-1")); n > 200 {
			t.Errorf("%d are collected", n)
		}
		if m := w.membership("c-1"); m.GetLastRefusal().GetReason() != "TOO_LARGE" ||
			h.metric(t, "rollcall_collector_refused_snapshots_total", "TOO_LARGE") == 0 {
			t.Errorf("%v after %d subscriptions", m, r.subscriptions())
		}
		w.noGap(start, time.Now(), all...)
		w.pass(2 * time.Minute)
		w.noGap(start, time.Now(), all...)
		if m := w.membership("c-1"); m.GetAcceptedCount() != 31 || m.GetLastRefusal() != nil {
			t.Errorf("after the good roll: %v", m)
		}
	})
}

// TestHostileRegistryAnswers acknowledgements and registrations with lies.
func TestHostileRegistryAnswers(t *testing.T) {
	type (
		ack      = registryv1.AcknowledgeRequest
		answer   = registryv1.AcknowledgeResponse
		register = registryv1.RegisterCollectorRequest
		welcome  = registryv1.RegisterCollectorResponse
	)
	explain := func(removals ...*registryv1.Removal) func(*scripted) {
		return func(r *scripted) {
			r.answer = func(*ack) (*answer, error) { return &answer{Explained: removals}, nil }
		}
	}
	registered := func(change func(c *registryv1.Collector)) func(*scripted) {
		return func(r *scripted) {
			r.welcome = func(m *register) (*welcome, error) {
				c := m.GetCollector()
				c.Generation = 1
				change(c)
				return &welcome{Collector: c}, nil
			}
		}
	}
	var everybody, nobody []*registryv1.Removal
	for _, id := range names(30) {
		everybody = append(everybody, &registryv1.Removal{ProducerId: id, Cause: 1, Revision: 1 << 60})
	}
	for range 100_000 {
		nobody = append(nobody, &registryv1.Removal{ProducerId: strings.Repeat("!", 20), Cause: -1})
	}
	refusing := func(code codes.Code) func(*scripted) {
		return func(r *scripted) {
			r.answer = func(*ack) (*answer, error) { return nil, status.Error(code, "no") }
			r.welcome = func(*register) (*welcome, error) { return nil, status.Error(code, "no") }
		}
	}
	lies := map[string]func(*scripted){
		"explains_who_is_not_held": explain(everybody...),
		"explains_twice":           explain(append(everybody, everybody...)...),
		"explains_nobody":          explain(nobody...),
		"explains_nothing":         explain(nil),
		"answers_nobody":           func(r *scripted) { r.welcome = func(*register) (*welcome, error) { return &welcome{}, nil } },
		"another_collector":        registered(func(c *registryv1.Collector) { c.CollectorId = "c-2" }),
		"another_instance":         registered(func(c *registryv1.Collector) { c.InstanceId = "another" }),
		"negative_generation":      registered(func(c *registryv1.Collector) { c.Generation = -7 }),
		"huge_answer":              registered(func(c *registryv1.Collector) { c.SoftwareVersion = strings.Repeat("v", 8<<20) }),
		"huge_id":                  registered(func(c *registryv1.Collector) { c.CollectorId = strings.Repeat("v", 1<<20) }),
	}
	strange := map[string]bool{"answers_nobody": true, "another_collector": true, "another_instance": true, "negative_generation": true, "huge_id": true}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		lies["status_"+code.String()] = refusing(code)
	}
	for name, set := range lies {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				all := names(30)
				start := time.Now()
				r := w.scriptedRegistry(callRoll(10, 2, all...).once)
				w.collector("c-1")
				w.pass(10 * time.Second)
				r.lie(set)
				w.pass(2 * time.Minute)
				if n := r.subscriptions(); n > lieTries {
					t.Errorf("subscribed %d times", n)
				}
				m := w.membership("c-1")
				if len(m.GetLastError()) > 1000 {
					t.Errorf("an error of %d bytes is kept", len(m.GetLastError()))
				}
				if strange[name] && (m.GetSubscribed() || !strings.Contains(m.GetLastError(), "answered for")) {
					t.Errorf("the answer to somebody else was taken: %v", m)
				}
				w.collects("c-1", all...)
				r.lie(func(r *scripted) { r.answer, r.welcome = nil, nil })
				w.pass(time.Minute)
				w.collects("c-1", all...)
				w.noGap(start, time.Now(), all...)
				if r.lastAck(func(a *registryv1.AcknowledgeRequest) bool { return a.GetRevision() == 10 }) == nil {
					t.Error("nothing was acknowledged")
				}
			})
		})
	}
}

// lie changes how a scripted registry answers.
func (r *scripted) lie(set func(r *scripted)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	set(r)
}
