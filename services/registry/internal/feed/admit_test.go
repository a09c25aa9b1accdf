package feed_test

import (
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
)

// TestAdmitIsAskedOnce: with the number of items of the first snapshot, which
// Missing tells before; never for what comes later. Its error is the end.
func TestAdmitIsAskedOnce(t *testing.T) {
	f := feed.New(0)
	f.Load("e", 1, nothing, nil)
	f.Apply(2, []feed.Change{put("c1", "p", 1), put("c1", "q", 1), put("c2", "r", 1)})
	both := versions{"p": 1, "q": 1}
	for name, c := range map[string]struct {
		collector assignment.CollectorID
		accepted  *assignment.Accepted
		want      int
	}{
		"all":           {"c1", nil, 2},
		"nothing new":   {"c1", both.accepted(0), 0},
		"another set":   {"c1", versions{"p": 1}.accepted(0), 2},
		"another one's": {"c2", both.accepted(0), 1},
		"nobody's":      {"c3", nil, 0},
		"nobody has":    {"c3", both.accepted(0), 0},
	} {
		var asked []int
		ask := func(n int) error { asked = append(asked, n); return nil }
		if n := f.Missing(c.collector, c.accepted); n != c.want {
			t.Errorf("%s: %d are missing, want %d", name, n, c.want)
		}
		s := subscribe(t, f, feed.Request{Collector: c.collector, ID: name, Accepted: c.accepted, Admit: ask})
		if d := next[*feed.Snapshot](t, s); len(d.Items) != c.want {
			t.Errorf("%s: %d items", name, len(d.Items))
		}
		f.Apply(f.Revision()+1, []feed.Change{put("c1", "new", 7), put("c2", "new", 7), put("c3", "new", 7)})
		next[*feed.Snapshot](t, s)
		f.Apply(f.Revision()+1, []feed.Change{
			{Collector: "c1", ID: "new"}, {Collector: "c2", ID: "new"}, {Collector: "c3", ID: "new"},
		})
		if len(asked) != 1 || asked[0] != c.want {
			t.Errorf("%s: asked about %v, want %d", name, asked, c.want)
		}
	}

	s := subscribe(t, f, feed.Request{Collector: "c1", ID: "refused", Admit: func(int) error { return errEnded }})
	ended(t, s)
	f.Apply(f.Revision()+1, []feed.Change{put("c1", "p", 2)})
	ended(t, s)
	if n := s.Pending(); n != 0 {
		t.Errorf("%d changes wait for one that was refused", n)
	}
}
