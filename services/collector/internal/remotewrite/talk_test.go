package remotewrite_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
)

// A store is a receiver that can be exchanged, and knows what it has stored.
type store struct {
	t *testing.T

	mu    sync.Mutex
	knows string // which kind of receiver it is
	saw   []string
	held  int // samples
}

// The kinds of receivers.
const (
	modern  = "2.0 and 1.0"
	strict2 = "2.0 only"
	silent2 = "2.0 only, and no counts"
	old415  = "1.0 only, 415"
	old400  = "1.0 only, 400"
	old500  = "1.0 only, 500"
	old204  = "1.0 only, reads 2.0 as empty"
	picky   = "1.0 only, reads 2.0 as empty, and refuses the samples"
	neither = "something else, 415"
	down    = "503"
)

func (s *store) be(knows string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knows = knows
}

// take is what it saw, and how many samples it got thereby.
func (s *store) take() ([]string, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	saw, held := s.saw, s.held
	s.saw, s.held = nil, 0
	return saw, held
}

func (s *store) answer(w http.ResponseWriter, c call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.v2() {
		s.saw = append(s.saw, "2.0")
		s.answer2(w, c)
		return
	}
	s.saw = append(s.saw, "1.0")
	switch s.knows {
	case strict2, silent2, neither:
		w.WriteHeader(http.StatusUnsupportedMediaType)
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case picky:
		w.WriteHeader(http.StatusBadRequest)
	default:
		for _, series := range c.decode1(s.t).Timeseries {
			s.held += len(series.Samples)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *store) answer2(w http.ResponseWriter, c call) {
	switch s.knows {
	case modern, strict2, silent2:
		samples := 0
		for _, series := range c.decode2(s.t).Timeseries {
			samples += len(series.Samples)
		}
		s.held += samples
		if s.knows != silent2 {
			written(w, samples, 0)
		}
		w.WriteHeader(http.StatusNoContent)
	case old415, neither:
		w.WriteHeader(http.StatusUnsupportedMediaType)
	case old400:
		w.WriteHeader(http.StatusBadRequest)
	case old500:
		w.WriteHeader(http.StatusInternalServerError)
	case old204, picky:
		if got := len(c.decode1(s.t).Timeseries); got != 0 {
			s.t.Errorf("2.0 read as 1.0 has %d series", got)
		}
		w.WriteHeader(http.StatusNoContent)
	case down:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

const (
	name2 = "remote write 2.0"
	name1 = "remote write 1.0"
)

// A step is one request of three samples in a story.
type step struct {
	wait  time.Duration // before
	knows string        // what the receiver is from now on, if it changes
	saw   []string
	speak string
	retry bool // the request is not delivered
	fault bool // it is rejected
}

var stories = map[string][]step{
	"modern": {
		{knows: modern, saw: []string{"2.0"}, speak: name2},
		{saw: []string{"2.0"}, speak: name2, wait: time.Hour},
	},
	"old, says so": {
		{knows: old415, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
	},
	"old, says it is bad": {
		{knows: old400, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
	},
	"old, ill of it": {
		{knows: old500, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
	},
	"old, and silently loses 2.0": {
		{knows: old204, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
		{wait: 29 * time.Minute, saw: []string{"1.0"}, speak: name1},
		{wait: time.Minute, saw: []string{"2.0", "1.0"}, speak: name1},
		{wait: 29 * time.Minute, saw: []string{"1.0"}, speak: name1},
		{wait: time.Minute, saw: []string{"2.0", "1.0"}, speak: name1},
	},
	"upgrade": {
		{knows: old204, saw: []string{"2.0", "1.0"}, speak: name1},
		{wait: time.Minute, knows: modern, saw: []string{"1.0"}, speak: name1},
		{wait: 29 * time.Minute, saw: []string{"2.0"}, speak: name2},
		{saw: []string{"2.0"}, speak: name2},
	},
	"upgrade to one that has no 1.0": {
		{knows: old415, saw: []string{"2.0", "1.0"}, speak: name1},
		{knows: strict2, saw: []string{"1.0", "2.0"}, speak: name2},
		{saw: []string{"2.0"}, speak: name2},
	},
	"downgrade, says so": {
		{knows: modern, saw: []string{"2.0"}, speak: name2},
		{knows: old415, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
	},
	"downgrade, and silently loses 2.0": {
		{knows: modern, saw: []string{"2.0"}, speak: name2},
		{knows: old204, saw: []string{"2.0", "1.0"}, speak: name1},
		{saw: []string{"1.0"}, speak: name1},
	},
	"modern, ill": {
		{knows: modern, saw: []string{"2.0"}, speak: name2},
		{knows: old500, saw: []string{"2.0"}, speak: name2, retry: true},
		{knows: modern, saw: []string{"2.0"}, speak: name2},
	},
	"down at first": {
		{knows: down, saw: []string{"2.0"}, retry: true},
		{knows: old204, saw: []string{"2.0", "1.0"}, speak: name1},
	},
	"down at the probe": {
		{knows: old204, saw: []string{"2.0", "1.0"}, speak: name1},
		{wait: time.Hour, knows: down, saw: []string{"2.0"}, speak: name1, retry: true},
		{knows: old204, saw: []string{"1.0"}, speak: name1},
	},
	"2.0 without counts": {
		{knows: silent2, saw: []string{"2.0", "1.0"}, speak: name2},
		{saw: []string{"2.0"}, speak: name2},
		{knows: old415, saw: []string{"2.0", "1.0"}, speak: name1},
	},
	"old, and refuses the samples": {
		{knows: picky, saw: []string{"2.0", "1.0"}, speak: name1, fault: true},
		{knows: old204, saw: []string{"1.0"}, speak: name1},
	},
	"not a receiver": {
		{knows: neither, saw: []string{"2.0", "1.0"}, retry: true},
		{knows: modern, saw: []string{"2.0"}, speak: name2},
	},
}

func TestNegotiation(t *testing.T) {
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &store{t: t}
				r, c := bubble(t, s.answer, nil)
				for i, step := range story {
					time.Sleep(step.wait)
					if step.knows != "" {
						s.be(step.knows)
					}
					o := c.Send(t.Context(), request(c, values(3)...))
					saw, held := s.take()
					if !slices.Equal(saw, step.saw) || c.Protocol() != step.speak {
						t.Errorf("step %d: saw %q, want %q; speaks %q, want %q", i, saw, step.saw, c.Protocol(), step.speak)
					}
					if (o.Result == deliver.Retry) != step.retry || (o.Result == deliver.Rejected) != step.fault || o.Refused != 0 || (o.Result == deliver.Delivered) != (held == 3) {
						t.Errorf("step %d: %+v, and the receiver has %d", i, o, held)
					}
				}
				r.stop()
			})
		})
	}
}

// TestOneProbe has many requests at the moment when 2.0 is due to be tried.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &store{t: t, knows: old204}
		r, c := bubble(t, s.answer, nil)
		c.Send(t.Context(), request(c, values(3)...))
		time.Sleep(31 * time.Minute)
		s.take()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if o := c.Send(t.Context(), request(c, values(3)...)); o.Result != deliver.Delivered {
					t.Errorf("%+v", o)
				}
			})
		}
		wg.Wait()
		saw, held := s.take()
		slices.Sort(saw)
		if held != 30 || len(saw) != 11 || saw[10] != "2.0" || saw[9] != "1.0" {
			t.Errorf("saw %q, holds %d", saw, held)
		}
		r.stop()
	})
}

func TestForcedProtocol(t *testing.T) {
	for _, test := range []struct {
		speak remotewrite.Protocol
		knows string
		saw   []string
		want  deliver.Result
	}{
		{remotewrite.V1, modern, []string{"1.0"}, deliver.Delivered},
		{remotewrite.V1, old204, []string{"1.0"}, deliver.Delivered},
		{remotewrite.V1, strict2, []string{"1.0"}, deliver.Retry},
		{remotewrite.V2, modern, []string{"2.0"}, deliver.Delivered},
		{remotewrite.V2, old204, []string{"2.0"}, deliver.Retry}, // it has nothing
		{remotewrite.V2, old415, []string{"2.0"}, deliver.Retry},
	} {
		s := &store{t: t, knows: test.knows}
		c := newClient(t, listen(t, s.answer).url, func(c *remotewrite.Config) { c.Protocol = test.speak })
		o := c.Send(t.Context(), request(c, values(3)...))
		saw, _ := s.take()
		if o.Result != test.want || !slices.Equal(saw, test.saw) || c.Protocol() != test.speak.String() || (o.Err == nil) != (o.Result == deliver.Delivered) {
			t.Errorf("%v to %s: saw %q, %+v", test.speak, test.knows, saw, o)
		}
	}
}

// TestRedirectsAreNotFollowed has one lead to where samples must not go.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := listen(t, confirm(t))
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := listen(t, func(w http.ResponseWriter, _ call) {
			w.Header().Set("Location", elsewhere.url)
			w.WriteHeader(status)
		})
		c := newClient(t, r.url, nil)
		o := c.Send(t.Context(), request(c, values(1)...))
		if o.Result != deliver.Retry || o.Err == nil || len(elsewhere.take()) != 0 {
			t.Errorf("%d: %+v", status, o)
		}
	}
}
