//go:build e2e

package containers_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// askLimit bounds one question, maxAnswer the bytes of an answer.
const (
	askLimit  = 15 * time.Second
	maxAnswer = 256 << 20
)

// landing is how long a collection may take to be stored: what is younger is not
// judged.
const landing = 3 * time.Second

// get asks a container by HTTP.
func (s *site) get(c *container, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
	defer cancel()
	return s.ask(ctx, c, port, path)
}

func (s *site) ask(ctx context.Context, c *container, port int, path string) ([]byte, error) {
	address, err := s.address(ctx, c, port)
	if err != nil {
		return nil, err
	}
	scheme, client := "http", http.DefaultClient
	if s.reader != nil && c != s.example { // whose page is plain text
		scheme, client = "https", &http.Client{Transport: &http.Transport{TLSClientConfig: s.reader, DisableKeepAlives: true}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %.200s", c.alias, path, resp.Status, body)
	}
	return body, err
}

// ready asks whether a registry or a collector is ready.
func (s *site) ready(c *container) error {
	port := 7471
	if slices.Contains(s.collectors, c) {
		port = 7481
	}
	_, err := s.get(c, port, "/readyz")
	return err
}

// metric is the sum of a process's own series of a name whose labels contain all
// the texts; 0 when there is none, as of a counter that has counted nothing yet.
func (s *site) metric(c *container, name string, labels ...string) (float64, error) {
	port := 7471
	if slices.Contains(s.collectors, c) {
		port = 7481
	}
	body, err := s.get(c, port, "/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		base, rest, _ := strings.Cut(series, "{")
		if !ok || base != name || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(rest, l) }) {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		sum += f
	}
	return sum, nil
}

// samplesOf are the samples of up that one collector has since from, by producer.
func (s *site) samplesOf(c *container, from time.Time) (map[string][]sample, error) {
	now := time.Now()
	query := url.Values{
		"query": {fmt.Sprintf("up{%s=~%q}[%ds]", idLabel, "example-.*", int(now.Sub(from).Seconds())+2)},
		"time":  {strconv.FormatFloat(float64(now.UnixMilli())/1000, 'f', 3, 64)},
		"scope": {"local"},
	}
	body, err := s.get(c, 7481, "/api/v1/query?"+query.Encode())
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	all := map[string][]sample{}
	for _, series := range answer.Data.Result {
		id := series.Metric[idLabel]
		for _, v := range series.Values {
			seconds, ok := v[0].(float64)
			if !ok {
				return nil, fmt.Errorf("%s tells the time %v", c.alias, v[0])
			}
			all[id] = append(all[id], sample{at: int64(seconds*1000 + 0.5), up: v[1] == "1"})
		}
	}
	return all, nil
}

// idLabel is the label that tells the producers of the example apart.
const idLabel = "producer"

// samples are those of all collectors.
func (s *site) samples(from time.Time) (map[string]samples, error) {
	all := map[string]samples{}
	for _, c := range s.collectors {
		of, err := s.samplesOf(c, from)
		if err != nil {
			return nil, err
		}
		for id, list := range of {
			if all[id] == nil {
				all[id] = samples{}
			}
			all[id][c.alias] = list
		}
	}
	return all, nil
}

// steady waits until everybody is collected, from its call on, and the fault of the
// test may begin. What was before the call may have been another fault.
func (s *site) steady(limit time.Duration) time.Duration {
	s.t.Helper()
	begun := time.Now()
	return await(s.t, "everybody is collected", limit, func() error {
		to := time.Now().Add(-landing)
		from := to.Add(-2 * s.interval)
		if from.Before(begun) {
			return errors.New("that is not known yet")
		}
		all, err := s.samples(from)
		if err != nil {
			return err
		}
		if v := judge(s.ids, all, s.interval, from, to, s.lateness()); !v.clean() && len(s.ids) > 0 {
			return fmt.Errorf("%s", v.String())
		}
		s.fault = from
		return nil
	})
}

// verdict judges what was collected since from, as soon as the present has landed.
// Every collector has to answer.
func (s *site) verdict(from time.Time) verdict {
	s.t.Helper()
	to := time.Now()
	return s.verdictUntil(from, to)
}

func (s *site) verdictUntil(from, to time.Time) verdict {
	s.t.Helper()
	var v verdict
	hold(s.t, time.Until(to.Add(landing)))
	await(s.t, "every collector answers", time.Minute, func() error {
		all, err := s.samples(from)
		v = judge(s.ids, all, s.interval, from, to, s.lateness())
		return err
	})
	s.t.Logf("%v", &v)
	if w, err := s.heard(from, to); err != nil {
		s.t.Error(err)
	} else {
		s.t.Log(w)
	}
	return v
}

// clean judges all since the fleet was steady, and fails the test unless every
// point of every grid was collected by somebody.
func (s *site) clean(promise string) {
	s.t.Helper()
	if v := s.verdict(s.fault); !v.clean() {
		s.t.Errorf("%s: a collection is missing: %v", promise, &v)
	}
}

// heard is what the producers saw.
func (s *site) heard(from, to time.Time) (witness, error) {
	body, err := s.get(s.example, examplePort, "/pulls")
	if err != nil {
		return witness{}, err
	}
	pulls, err := parsePulls(body)
	return hear(s.ids, pulls, from, to), err
}

// examplePort is the HTTP port of the example.
const examplePort = 7491

// parsePulls reads what the example remembers: Unix times in ms, by producer.
func parsePulls(body []byte) (map[string][]int64, error) {
	var answer map[string]struct {
		Times []int64 `json:"times"`
	}
	err := json.Unmarshal(body, &answer)
	pulls := make(map[string][]int64, len(answer))
	for id, memory := range answer {
		pulls[id] = memory.Times
	}
	return pulls, err
}

// dial connects to a service of a container by gRPC.
func (s *site) dial(c *container, port int) *grpc.ClientConn {
	s.t.Helper()
	address, err := s.address(s.t.Context(), c, port)
	if err != nil {
		s.t.Fatal(err)
	}
	conn, err := s.dialAt(address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// membership is what a collector says of its sets.
func (s *site) membership(c *container) (*collectorv1.GetMembershipResponse, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), askLimit)
	defer cancel()
	address, err := s.address(ctx, c, 7480)
	if err != nil {
		return nil, err
	}
	conn, err := s.dialAt(address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return collectorv1.NewCollectionServiceClient(conn).GetMembership(ctx, &collectorv1.GetMembershipRequest{})
}

// subscribed asks whether every collector follows a registry, or none does.
func (s *site) subscribed(want bool) error {
	for _, c := range s.collectors {
		m, err := s.membership(c)
		if err != nil {
			return err
		}
		if m.GetSubscribed() != want {
			return fmt.Errorf("%s: subscribed is %v (%s)", c.alias, m.GetSubscribed(), m.GetLastError())
		}
		gauge, err := s.metric(c, "rollcall_collector_subscribed")
		if err != nil {
			return err
		}
		if (gauge == 1) != want {
			return fmt.Errorf("%s: rollcall_collector_subscribed is %v", c.alias, gauge)
		}
	}
	return nil
}

// total is a metric of several containers together.
func (s *site) total(of []*container, name string, labels ...string) float64 {
	s.t.Helper()
	sum := 0.0
	for _, c := range of {
		await(s.t, name, 30*time.Second, func() error {
			v, err := s.metric(c, name, labels...)
			if err == nil {
				sum += v
			}
			return err
		})
	}
	return sum
}

// held is how many producers are held by all collectors together, applied how many
// they collect.
func (s *site) held() (held, applied int64, err error) {
	for _, c := range s.collectors {
		m, err := s.membership(c)
		if err != nil {
			return 0, 0, err
		}
		held, applied = held+m.GetHeldCount(), applied+m.GetAppliedCount()
	}
	return held, applied, nil
}

// register asks once.
func register(ctx context.Context, conn *grpc.ClientConn, p *registryv1.Producer) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := registryv1.NewProducerServiceClient(conn).RegisterProducer(ctx, &registryv1.RegisterProducerRequest{Producer: p})
	return err
}

// dialAt connects as an operator, where there is one.
func (s *site) dialAt(address string) (*grpc.ClientConn, error) {
	return dialAs(address, s.operator)
}

// dialAs connects with a certificate, or in plain text with none.
func dialAs(address string, who *tls.Config) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if who != nil {
		creds = credentials.NewTLS(who)
	}
	return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
}
