package remotewrite_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/sample"
)

// start starts a real receiver on a free port, which args is told, and waits till
// it answers. Somebody else may take the port before: then it is tried with another
// one.
func start(t *testing.T, program, ready string, args func(address, dir string) []string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, program+" is not installed (Debian packages prometheus and victoria-metrics)")
	}
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		_ = l.Close()
		cmd := exec.Command(path, args(address, t.TempDir())...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			missing(t, fmt.Sprintf("%s does not start: %v", program, err))
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-ended
			http.DefaultClient.CloseIdleConnections()
		})
		if isReady("http://"+address+ready, ended) {
			return "http://" + address
		}
	}
	t.Fatalf("%s does not answer", program)
	return ""
}

// isReady waits till a receiver is ready, for two minutes, or has ended.
func isReady(at string, ended <-chan struct{}) bool {
	asking := &http.Client{Timeout: 10 * time.Second} // whoever has the port may not answer
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		resp, err := asking.Get(at)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-ended:
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}

// week is plain samples, some of which have ended.
func week() []one {
	begin := time.Now().Add(-30 * time.Minute).Truncate(time.Minute).UnixMilli()
	var all []one
	for minute := range 20 {
		for i := range 50 {
			v := float64(i*minute) + 0.1
			if minute >= 15 && i%10 == 0 {
				if minute > 15 {
					continue
				}
				v = math.Float64frombits(value.StaleNaN)
			}
			if i == 7 {
				v = math.Inf(1)
			}
			all = append(all, one{
				labels: labels.FromStrings("__name__", "requests_total", "n", strconv.Itoa(i), "path", "/ü/\u65e5\"\\"),
				point:  sample.Point{Time: begin + int64(minute)*60000, Start: begin - 1000, Value: v},
			})
		}
	}
	return all
}

// ask gets JSON.
func ask(t *testing.T, address string, into any) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %d: %v", address, resp.StatusCode, err)
	}
}

// line is one sample for comparison; the stale marker is a word.
func line(metric map[string]string, at int64, v string) string {
	return fmt.Sprintf("%s %s %d %s", metric["n"], metric["path"], at, v)
}

func lines(samples []one) []string {
	var all []string
	for _, s := range samples {
		if value.IsStaleNaN(s.point.Value) {
			continue // told by what does not follow
		}
		all = append(all, line(s.labels.Map(), s.point.Time, strconv.FormatFloat(s.point.Value, 'f', -1, 64)))
	}
	slices.Sort(all)
	return all
}

// ranged is what a range query over the exact instants of the samples tells.
// Where a series has ended, only a stale marker keeps it from being shown for
// five minutes more.
func ranged(t *testing.T, address string, samples []one) []string {
	t.Helper()
	begin, end := samples[0].point.Time, samples[len(samples)-1].point.Time
	q := url.Values{"query": {"requests_total"}, "step": {"60"}, "start": {seconds(begin)}, "end": {seconds(end)}, "nocache": {"1"}}
	var got struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	ask(t, address+"/api/v1/query_range?"+q.Encode(), &got)
	var all []string
	for _, r := range got.Data.Result {
		for _, v := range r.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				text = strconv.FormatFloat(f, 'f', -1, 64)
			}
			all = append(all, line(r.Metric, int64(at*1000), text))
		}
	}
	slices.Sort(all)
	return all
}

func seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

func TestRealPrometheus(t *testing.T) {
	address := start(t, "prometheus", "/-/ready", func(address, dir string) []string {
		config := filepath.Join(dir, "prometheus.yml")
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address,
			"--web.enable-remote-write-receiver", "--log.level=error",
		}
	})
	c := newClient(t, address+"/api/v1/write", nil)
	samples := week()
	deliverAll(t, c, samples)
	if diff := cmp.Diff(lines(samples), ranged(t, address, samples)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The version that Debian has does not take what is older than the newest, and
	// then takes nothing of the request.
	mixed := append([]one{samples[0]}, values(1)...)
	mixed[1].point.Time = time.Now().UnixMilli()
	if o := c.Send(t.Context(), request(c, mixed...)); o.Result != deliver.Rejected || o.Reason != deliver.ReasonOutOfOrder || !o.Divisible {
		t.Errorf("%+v", o)
	}
}

func TestRealVictoriaMetrics(t *testing.T) {
	address := start(t, "victoria-metrics", "/health", func(address, dir string) []string {
		return []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + address, "-loggerLevel=ERROR"}
	})
	c := newClient(t, address+"/api/v1/write", nil)
	samples := week()
	deliverAll(t, c, samples)
	resp, err := http.Get(address + "/internal/force_flush")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if diff := cmp.Diff(lines(samples), exported(t, address)); diff != "" {
		t.Errorf("exported (-want +got):\n%s", diff)
	}
	// Its range queries fill gaps by a rule of its own, so only the ends are
	// looked at: a series that has ended is not shown a minute later.
	shown := map[string]int64{}
	for _, text := range ranged(t, address, samples) {
		var n, path, v string
		var at int64
		if _, err := fmt.Sscan(text, &n, &path, &at, &v); err != nil {
			t.Fatal(err)
		}
		shown[n] = max(shown[n], at)
	}
	if begin := samples[0].point.Time; shown["10"] != begin+14*60000 || shown["11"] != begin+19*60000 {
		t.Errorf("10 ends %d ms after the begin, 11 %d ms", shown["10"]-begin, shown["11"]-begin)
	}
}

// exported is all raw samples that VictoriaMetrics has, but for stale markers,
// which JSON has as null.
func exported(t *testing.T, address string) []string {
	t.Helper()
	resp, err := http.Get(address + "/api/v1/export?match[]=requests_total&reduce_mem_usage=1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var all []string
	scanner := bufio.NewScanner(resp.Body)
	for scanner.Scan() {
		var got struct {
			Metric     map[string]string
			Values     []any
			Timestamps []int64
		}
		// Some versions write an infinity as if it were JSON.
		text := strings.NewReplacer("[+Inf", `["+Inf"`, ",+Inf", `,"+Inf"`).Replace(scanner.Text())
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		for i, v := range got.Values {
			if v == nil {
				continue
			}
			text := fmt.Sprint(v)
			if text == "Infinity" {
				text = "+Inf"
			} else if f, err := strconv.ParseFloat(text, 64); err == nil {
				text = strconv.FormatFloat(f, 'f', -1, 64)
			}
			all = append(all, line(got.Metric, got.Timestamps[i], text))
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// deliverAll sends samples in two requests, and expects that 1.0 is found.
func deliverAll(t *testing.T, c *remotewrite.Client, samples []one) {
	t.Helper()
	half := len(samples) / 2
	for _, part := range [][]one{samples[:half], samples[half:]} {
		if o := c.Send(t.Context(), request(c, part...)); o.Result != deliver.Delivered || o.Refused != 0 || o.Err != nil {
			t.Fatalf("%+v", errors.Join(o.Err, fmt.Errorf("%+v", o)))
		}
		if got := c.Protocol(); got != name1 {
			t.Errorf("speaks %q", got)
		}
	}
}
