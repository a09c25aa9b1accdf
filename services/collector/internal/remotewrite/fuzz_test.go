package remotewrite

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
)

// FuzzAnswer has a receiver say anything, and checks that what is made of it
// stays within bounds.
func FuzzAnswer(f *testing.F) {
	f.Add(204, "3", "0", "0", "", "", "")
	f.Add(400, "1", "", "", "120", "", "out of order sample for series {a=\"}\"}")
	f.Add(429, "-1", "99999999999999999999", "x", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:00 GMT", "\xff\x00{")
	f.Add(503, "", "", "", "1e300", "", strings.Repeat("{", 10000))
	f.Add(500, "0", "0", "0", "NaN", "", "native histograms are disabled")
	f.Add(413, "", "", "", "-Inf", "", "secret-token")
	f.Fuzz(checkAnswer)
}

// TestAnyAnswer does the same with what rapid thinks of, in every run of the tests.
func TestAnyAnswer(t *testing.T) {
	number := rapid.OneOf(rapid.StringMatching(`-?[0-9]{0,30}(\.[0-9]+)?`), rapid.String())
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`(out of order|duplicate|limit|[{}\n]|secret-token){1,60}`))
	rapid.Check(t, func(r *rapid.T) {
		checkAnswer(t, rapid.IntRange(0, 1000).Draw(r, "status"), number.Draw(r, "samples"), number.Draw(r, "histograms"),
			number.Draw(r, "exemplars"), number.Draw(r, "wait"), number.Draw(r, "date"), text.Draw(r, "text"))
	})
}

// checkAnswer makes an answer of its parts, and looks at what is made of it.
func checkAnswer(t *testing.T, status int, samples, histograms, exemplars, wait, date, text string) {
	t.Helper()
	client := &Client{target: "http://receiver", secrets: []string{"secret-token"}, talk: newTalk(Auto)}
	h := http.Header{}
	for name, value := range map[string]string{
		writtenSamplesHeader: samples, writtenHistogramsHeader: histograms, writtenExemplarsHeader: exemplars,
		"Retry-After": wait, "Date": date,
	} {
		if value != "" {
			h.Set(name, value)
		}
	}
	a := read(&http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(text))})
	if a.written < 0 || a.written > 0 && !a.counted || len(a.text) > maxText {
		t.Fatalf("%+v", a)
	}
	for _, p := range []Protocol{V1, V2} {
		for _, sent := range []tally{{sent: 1}, {sent: 5}, {sent: 3, omitted: 2}} {
			o := client.outcome(p, a, sent)
			all := sent.sent + sent.omitted
			switch {
			case !known(o.Reason), o.Refused < 0, o.Refused > all, o.RetryAfter < 0, o.RetryAfter > maxWait:
				t.Fatalf("%+v", o)
			case o.Refused > 0 && (o.Result != deliver.Delivered || o.Reason == ""):
				t.Fatalf("%+v", o)
			case o.Result == deliver.Rejected && o.Reason == "":
				t.Fatalf("%+v", o)
			case len(o.Code) > 7:
				t.Fatalf("%+v", o)
			case o.Err != nil && (len(o.Err.Error()) > 2*maxShown || !utf8.ValidString(o.Err.Error()) || strings.Contains(o.Err.Error(), "secret-token")):
				t.Fatalf("%q", o.Err)
			}
		}
	}
}

// known reports whether a reason is one of the closed set, or none.
func known(reason string) bool {
	switch reason {
	case "", deliver.ReasonOutOfOrder, deliver.ReasonDuplicate, deliver.ReasonTooOld, deliver.ReasonTooNew, deliver.ReasonInvalid,
		deliver.ReasonTooLarge, deliver.ReasonLimit, deliver.ReasonUnsupported, deliver.ReasonRejected:
		return true
	default:
		return false
	}
}

// TestRetryAfterIsOfTheirClock has a receiver whose clock is an hour ahead.
func TestRetryAfterIsOfTheirClock(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := http.Header{}
	h.Set("Date", now.Add(time.Hour).Format(http.TimeFormat))
	h.Set("Retry-After", now.Add(time.Hour+time.Minute).Format(http.TimeFormat))
	if got := waitOf(h, now); got != time.Minute {
		t.Errorf("%v, want a minute", got)
	}
}

// TestReleasedBodyIsNotShared ends a request while it is still being read, as an
// early answer does.
func TestReleasedBodyIsNotShared(t *testing.T) {
	c := &Client{encoding: options{true, true}}
	c.scratch.New = func() any { return new(scratch) }
	c.bodies.New = func() any { return new(body) }
	s := NewSeries()
	s.Add(newLabels("a"), nil)
	r := &deliver.Request{Series: s, Items: []deliver.Item{{}}}
	b, err := c.body(r, V2)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(b.bytes)
	reading := b.open()
	c.release(r)
	for range 100 { // a pool may drop anything
		other := &deliver.Request{Series: s, Items: []deliver.Item{{}}}
		o, err := c.body(other, V1)
		if err != nil {
			t.Fatal(err)
		}
		if o == b {
			t.Fatal("a body that is being read is used again")
		}
	}
	if got, err := io.ReadAll(reading); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %x, %v, want %x", got, err, want)
	}
	if err := reading.Close(); err != nil || b.readers != 0 {
		t.Errorf("%d readers, %v", b.readers, err)
	}
	if _, err := reading.Read(make([]byte, 1)); err == nil {
		t.Error("a closed body can be read")
	}
}

// TestEpochsWrap encodes where the marks of 2^32 requests before must be empty.
func TestEpochsWrap(t *testing.T) {
	s := NewSeries()
	s.Add(newLabels("a", "b"), nil)
	s.Add(newLabels("c"), nil)
	before := &deliver.Request{Series: s, Items: []deliver.Item{{Index: 0}}}
	after := &deliver.Request{Series: s, Items: []deliver.Item{{Index: 1}, {Index: 0}}}
	var fresh scratch
	want, _, err := fresh.encode(nil, V2, after, options{})
	if err != nil {
		t.Fatal(err)
	}
	var old scratch
	if _, _, err := old.encode(nil, V2, before, options{}); err != nil {
		t.Fatal(err)
	}
	old.epoch = 1<<32 - 1
	for i := range 4 {
		got, _, err := old.encode(nil, V2, after, options{})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("request %d is %x, %v, want %x", i, got, err, want)
		}
	}
}
