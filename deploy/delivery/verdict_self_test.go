package delivery_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/prometheus/prompb"
	"github.com/rollcall-metrics/rollcall/deploy/internal/receiver"
)

// TestVerdictNoticesWhatIsMissing plays an agent that loses, tears and repeats.
func TestVerdictNoticesWhatIsMissing(t *testing.T) {
	p := newProducers(t, 1, 3)
	r, ledger := newReceiver(t)
	up(t, r)
	name := p.names[0]
	for range 6 {
		resp, err := http.Get("http://" + p.address + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err != nil || resp.Body.Close() != nil {
			t.Fatal("the answer broke off")
		}
	}
	// The handler notes the end of an answer when the client may have it already.
	eventually(t, time.Minute, "all is sent", func() bool { return !p.all()[name][5].sent.IsZero() })
	failed := p.all()[name][4].began
	forward := func(answer int, series ...int) {
		var req prompb.WriteRequest
		for _, n := range series {
			req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
				Labels:  []prompb.Label{{Name: "__name__", Value: receiver.Family}, {Name: receiver.LabelHost, Value: name}, {Name: receiver.LabelSeries, Value: strconv.Itoa(n)}},
				Samples: []prompb.Sample{{Value: float64(answer) + receiver.Fraction}},
			})
		}
		if len(series) == 0 {
			req.Timeseries = []prompb.TimeSeries{{
				Labels:  []prompb.Label{{Name: "__name__", Value: "up"}, {Name: receiver.LabelHost, Value: name}},
				Samples: []prompb.Sample{{Timestamp: failed.UnixMilli()}},
			}}
		}
		raw, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(r.URL(), "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, raw)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatal(resp.Status)
		}
	}
	forward(0, 0, 1, 2)
	forward(1, 1)
	forward(3, 0, 1, 2)
	forward(3, 0, 1)
	forward(5, 0, 1, 2)

	all := func(a answer) bool { return !a.began.Equal(failed) }
	want := verdict{answers: 5, judged: 15, lost: 5, torn: 1, again: 2}
	if diff := cmp.Diff(want, judge(p, ledger, all), cmp.AllowUnexported(verdict{}), cmpopts.IgnoreFields(verdict{}, "examples")); diff != "" {
		t.Error(diff)
	}
	only := func(a answer) bool { return a.began.Equal(failed) }
	if v := judge(p, ledger, only); v.lost != 3 {
		t.Errorf("%d samples lost, want 3", v.lost)
	}
	forward(4)
	if v := judge(p, ledger, only); v.lost != 0 || v.failed != 3 {
		t.Errorf("%d samples lost, %d of failed collections; want 0 and 3", v.lost, v.failed)
	}
	if e := (end{at: failed.Add(killMargin), gone: failed.Add(killMargin), margin: killMargin}); e.judges(p.all()[name][4]) {
		t.Error("what was sent within the margin is judged")
	}
}
