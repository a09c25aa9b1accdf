package receiver

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// point is a sample of a test.
type point struct {
	name, host, series string
	at                 int64
	value              float64
}

func of(host string, series, answer int) point {
	return point{Family, host, fmt.Sprint(series), int64(answer) * 1000, float64(answer) + Fraction}
}

// one is a body of remote write 1.0, two one of 2.0.
func one(t *testing.T, all ...point) []byte {
	t.Helper()
	var req prompb.WriteRequest
	for _, p := range all {
		req.Timeseries = append(req.Timeseries, prompb.TimeSeries{
			Labels:  []prompb.Label{{Name: "__name__", Value: p.name}, {Name: LabelHost, Value: p.host}, {Name: LabelSeries, Value: p.series}},
			Samples: []prompb.Sample{{Timestamp: p.at, Value: p.value}},
		})
	}
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

func two(t *testing.T, all ...point) []byte {
	t.Helper()
	symbols := writev2.NewSymbolTable()
	var req writev2.Request
	for _, p := range all {
		var refs []uint32
		for _, text := range []string{"__name__", p.name, LabelHost, p.host, LabelSeries, p.series} {
			refs = append(refs, symbols.Symbolize(text))
		}
		req.Timeseries = append(req.Timeseries, writev2.TimeSeries{LabelsRefs: refs, Samples: []writev2.Sample{{Timestamp: p.at, Value: p.value}}})
	}
	req.Symbols = symbols.Symbols()
	raw, err := req.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return snappy.Encode(nil, raw)
}

// running is a receiver that is up.
func running(t *testing.T, c Config) *Receiver {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Address = lis.Addr().String()
	if err := lis.Close(); err != nil {
		t.Fatal(err)
	}
	r := New(c)
	t.Cleanup(r.Down)
	if err := r.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// post sends a body and returns the answer's status and header.
func post(t *testing.T, r *Receiver, contentType, encoding string, body []byte) (int, http.Header, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.URL(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", encoding)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	return resp.StatusCode, resp.Header, resp.Body.Close()
}

func mustPost(t *testing.T, r *Receiver, contentType, encoding string, body []byte, want int) http.Header {
	t.Helper()
	status, header, err := post(t, r, contentType, encoding, body)
	if err != nil {
		t.Fatal(err)
	}
	if status != want {
		t.Fatalf("status %d, want %d", status, want)
	}
	return header
}

func TestLedgerKnowsWhatArrivedHowOften(t *testing.T) {
	ledger := NewLedger()
	r := running(t, Config{Ledger: ledger})
	const x = "application/x-protobuf"
	mustPost(t, r, x, "snappy", one(t, of("a", 0, 0), of("a", 1, 0), of("a", 0, 2), point{"up", "a", "", 7, 0}, point{"go_info", "a", "", 7, 1}), 204)
	raw, err := snappy.Decode(nil, one(t, of("a", 0, 1), of("a", 0, 2), point{Family, "a", "0", 3, math.Float64frombits(value.StaleNaN)}))
	if err != nil {
		t.Fatal(err)
	}
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	mustPost(t, r, x, "zstd", w.EncodeAll(raw, nil), 204)
	header := mustPost(t, r, contentTypeTwo, "snappy", two(t, of("b", 0, 0), of("b", 1, 0), of("a", 0, 2)), 204)
	if got := header.Get("X-Prometheus-Remote-Write-Samples-Written"); got != "3" {
		t.Errorf("%q samples are written, want 3", got)
	}

	type arrival struct{ arrived, again int }
	got := map[string]arrival{}
	for _, host := range []string{"a", "b", "c"} {
		for answer := range 4 {
			arrived, again := ledger.Arrived(host, answer, 2)
			got[fmt.Sprint(host, answer)] = arrival{arrived, again}
		}
	}
	want := map[string]arrival{"a0": {2, 0}, "a1": {1, 0}, "a2": {1, 2}, "a3": {}, "b0": {2, 0}, "b1": {}, "b2": {}, "b3": {}, "c0": {}, "c1": {}, "c2": {}, "c3": {}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(arrival{})); diff != "" {
		t.Error(diff)
	}
	if got, want := ledger.Summary(), (Summary{Firsts: 6, Again: 2, Disordered: 1, Stale: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !ledger.Down("a", 7, 8) || ledger.Down("a", 8, 9) || ledger.Down("b", 0, 9) || ledger.Downs() != 1 {
		t.Error("it does not know when a was down")
	}
	totals := r.Totals()
	wantTotals := Totals{Requests: 3, Samples: 11, Protocols: map[string]int64{"1.0 snappy": 1, "1.0 zstd": 1, "2.0 snappy": 1}}
	if diff := cmp.Diff(wantTotals, totals, cmpopts.IgnoreFields(Totals{}, "WireBytes", "RawBytes", "Last")); diff != "" {
		t.Error(diff)
	}
}

func TestReceiverRefusesAndGoesAway(t *testing.T) {
	ledger := NewLedger()
	r := running(t, Config{Ledger: ledger})
	body := one(t, of("a", 0, 0))
	r.Refuse(http.StatusServiceUnavailable)
	mustPost(t, r, "", "snappy", body, http.StatusServiceUnavailable)
	r.Refuse(0)
	mustPost(t, r, "", "snappy", []byte("no snappy"), http.StatusBadRequest)
	mustPost(t, r, "", "snappy", one(t, point{Family, "a", "x", 0, Fraction}, point{Family, "a", "0", 0, 1}), http.StatusInternalServerError)
	r.Down()
	if _, _, err := post(t, r, "", "snappy", body); err == nil {
		t.Error("it answers while it is down")
	}
	if n := ledger.Summary().Firsts; n != 0 {
		t.Errorf("%d samples were noted of requests that were refused", n)
	}
	if err := r.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPost(t, r, "", "snappy", body, 204)
	if got := ledger.Summary().Firsts; got != 1 {
		t.Errorf("%d samples, want 1", got)
	}
}

func TestThrottledReceiverTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{})
		r.Throttle(100)
		began := time.Now()
		for _, want := range []time.Duration{2 * time.Second, 5 * time.Second} {
			if status := r.await(t.Context(), int(want.Seconds()*100)-int(time.Since(began).Seconds()*100)); status != 0 {
				t.Fatalf("refused with %d", status)
			}
			if took := time.Since(began); took != want {
				t.Errorf("taken after %v, want %v", took, want)
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.await(t.Context(), 1000)
		}()
		synctest.Wait()
		if status := r.await(t.Context(), 1); status != http.StatusTooManyRequests {
			t.Errorf("status %d behind one that takes 10 s, want 429", status)
		}
		<-done
	})
}

func TestJournalOutlivesAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	fill := func(all ...[]byte) {
		journal, err := OpenJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer journal.Close()
		for _, wire := range all {
			if err := journal.append(message{wire: wire}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(one(t, of("a", 0, 0)))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fill(one(t, of("a", 0, 1)))
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(whole); cut < len(all); cut++ {
		if err := os.WriteFile(path, all[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		ledger := NewLedger()
		at, err := ReadJournal(path, 0, ledger)
		if err != nil || at != int64(len(whole)) {
			t.Fatalf("cut at %d: read to %d (%v), want %d", cut, at, err, len(whole))
		}
		fill(one(t, of("a", 0, 2)))
		if _, err := ReadJournal(path, at, ledger); err != nil {
			t.Fatal(err)
		}
		for answer, want := range []int{1, 0, 1} {
			if got, _ := ledger.Arrived("a", answer, 1); got != want {
				t.Errorf("cut at %d: %d samples of answer %d, want %d", cut, got, answer, want)
			}
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{}, false, false)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd}, true, true)
	f.Fuzz(func(_ *testing.T, body []byte, isTwo, isZstd bool) {
		m := message{two: isTwo, zstd: isZstd, wire: body}
		if raw, err := m.raw(); err == nil {
			_, _ = count(raw, isTwo)
			_ = NewLedger().add(raw, isTwo)
		}
		_, _ = count(body, isTwo)
		_ = NewLedger().add(body, isTwo)
	})
}
