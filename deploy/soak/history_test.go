package soak_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An action is what a client asks of one producer.
type action string

const (
	register   action = "register"
	deregister action = "deregister"
	get        action = "get"
)

// A call is one action and what came of it.
type call struct {
	id     string
	action action
	text   string // of a registration: unique; of a get: what was found, or nothing

	// unknown: it failed, and may have happened.
	unknown  bool
	changed  bool // of a deregistration
	revision int64

	began, ended time.Duration // since the start
}

// String is for a history that is not linearizable.
func (c call) String() string {
	ended := c.ended.String()
	if c.unknown {
		ended = "unknown"
	}
	return fmt.Sprintf("%v..%s %s %q changed=%t revision=%d", c.began, ended, c.action, c.text, c.changed, c.revision)
}

// A history is what all clients did. It is safe for concurrent use.
type history struct {
	start time.Time

	mu    sync.Mutex // guards calls
	calls map[string][]call
}

func (h *history) now() time.Duration { return time.Since(h.start) }

func (h *history) add(c call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls[c.id] = append(h.calls[c.id], c)
}

// ids are those that anybody acted on.
func (h *history) ids() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for id := range h.calls {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}

// size is how many calls there are, and of how many nothing is known.
func (h *history) size() (all, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, calls := range h.calls {
		for _, c := range calls {
			all++
			if c.unknown {
				unknown++
			}
		}
	}
	return all, unknown
}

// A producer as it stands: its text, nothing if it does not, and the revision of
// the last write that told one.
type standing struct {
	text     string
	revision int64
}

// model is one producer, to which one call after the other happens.
var model = porcupine.Model{
	Init: func() any { return standing{} },
	Step: func(state, input, _ any) (bool, any) {
		s, c := state.(standing), input.(call) //nolint:errcheck,forcetypeassert // a panic says it
		return step(s, c)
	},
}

// step tells whether a call could have had its answer where it found s, and what
// stands afterwards.
func step(s standing, c call) (bool, any) {
	switch {
	case c.action == get:
		return c.text == s.text, s
	case c.unknown && c.action == register:
		return true, standing{c.text, s.revision}
	case c.unknown:
		return true, standing{"", s.revision}
	case c.action == register:
		return c.changed && c.revision > s.revision, standing{c.text, c.revision}
	case c.changed:
		return s.text != "" && c.revision > s.revision, standing{"", c.revision}
	default:
		return s.text == "", s
	}
}

// searchLimit bounds the search for an order.
const searchLimit = time.Minute

// judge says what is wrong with the calls of one producer, or nothing.
func judge(id string, calls []call) string {
	operations := make([]porcupine.Operation, len(calls))
	for i, c := range calls {
		operations[i] = porcupine.Operation{ClientId: i, Input: c, Call: int64(c.began), Return: int64(c.ended)}
		if c.unknown {
			operations[i].Return = math.MaxInt64 // later than everything: as good as never
		}
	}
	verdict := porcupine.CheckOperationsTimeout(model, operations, searchLimit)
	if verdict == porcupine.Ok {
		return ""
	}
	calls = slices.SortedFunc(slices.Values(calls), func(a, b call) int { return cmp.Compare(a.began, b.began) })
	lines := []string{fmt.Sprintf("%s: linearizable: %s", id, verdict)}
	for _, c := range calls {
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n  ")
}

// TestJudge has histories that are fine, and some that a registry must not give.
func TestJudge(t *testing.T) {
	const s = time.Second
	reg := func(text string, revision int64, began, ended time.Duration) call {
		return call{action: register, text: text, changed: true, revision: revision, began: began, ended: ended}
	}
	del := func(changed bool, revision int64, began, ended time.Duration) call {
		return call{action: deregister, changed: changed, revision: revision, began: began, ended: ended}
	}
	found := func(text string, began, ended time.Duration) call {
		return call{action: get, text: text, began: began, ended: ended}
	}
	lost := func(c call) call { c.unknown, c.changed, c.revision = true, false, 0; return c }
	for name, c := range map[string]struct {
		calls []call
		fine  bool
	}{
		"in order":                       {[]call{reg("a", 5, 0, 1*s), found("a", 2*s, 3*s), del(true, 6, 4*s, 5*s), found("", 6*s, 7*s)}, true},
		"at once":                        {[]call{reg("a", 5, 0, 3*s), found("", 1*s, 2*s), reg("b", 4, 0, 3*s), found("a", 4*s, 5*s)}, true},
		"unknown, it happened":           {[]call{lost(reg("a", 0, 0, 1*s)), found("", 2*s, 3*s), found("a", 4*s, 5*s)}, true},
		"unknown, it did not":            {[]call{lost(reg("a", 0, 0, 1*s)), found("", 2*s, 3*s)}, true},
		"unknown deregistration":         {[]call{reg("a", 5, 0, 1*s), lost(del(true, 0, 1*s, 2*s)), found("", 3*s, 4*s)}, true},
		"lost registration":              {[]call{reg("a", 5, 0, 1*s), found("", 2*s, 3*s)}, false},
		"resurrection":                   {[]call{reg("a", 5, 0, 1*s), del(true, 6, 2*s, 3*s), found("a", 4*s, 5*s)}, false},
		"stale get":                      {[]call{reg("a", 5, 0, 1*s), reg("b", 6, 2*s, 3*s), found("a", 4*s, 5*s)}, false},
		"it goes back":                   {[]call{reg("a", 5, 0, 9*s), found("a", 1*s, 2*s), found("", 3*s, 4*s)}, false},
		"unknown, before it was asked":   {[]call{found("a", 0, 1*s), lost(reg("a", 0, 2*s, 3*s))}, false},
		"revisions go back":              {[]call{reg("a", 5, 0, 1*s), reg("b", 4, 2*s, 3*s)}, false},
		"deregistered twice":             {[]call{reg("a", 5, 0, 1*s), del(true, 6, 2*s, 3*s), del(true, 7, 4*s, 5*s)}, false},
		"said to be gone":                {[]call{reg("a", 5, 0, 1*s), del(false, 5, 2*s, 3*s)}, false},
		"a registration changed nothing": {[]call{{action: register, text: "a", revision: 5, ended: 1 * s}}, false},
	} {
		if got := judge(name, c.calls); (got == "") != c.fine {
			t.Errorf("%s: judged %q", name, got)
		}
	}
}
