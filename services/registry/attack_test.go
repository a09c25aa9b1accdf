package registry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// parse makes rules of a file.
func parse(t *testing.T, text string) *access.Rules {
	t.Helper()
	rules, err := access.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func (f *fortress) clients(t *testing.T, name string, options ...grpc.DialOption) *process {
	t.Helper()
	conn := f.dial(t, name, options...)
	return &process{
		AssignmentServiceClient: registryv1.NewAssignmentServiceClient(conn),
		ProducerServiceClient:   registryv1.NewProducerServiceClient(conn),
		CollectorServiceClient:  registryv1.NewCollectorServiceClient(conn),
	}
}

func one(id string) *registryv1.RegisterProducerRequest {
	return &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{ProducerId: id, Endpoint: "http://h.example:9100/metrics"}}
}

// refused fails unless a call is, and for that reason.
func refused(t *testing.T, what string, err error, code codes.Code, reason string) {
	t.Helper()
	if status.Code(err) != code || authtest.Reason(err) != reason {
		t.Errorf("%s: %v, want %v with %s", what, err, code, reason)
	}
}

// TestNobodyActsAsAnother: a producer changes nothing of another one, known or
// not, by itself or among its own; and neither does a collector. What they are
// told is the same, whether there is such a one or not.
func TestNobodyActsAsAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		mallory, ann := f.clients(t, names["producer"]), f.clients(t, names["operator"])
		victim := f.clients(t, "spiffe://test.example/rollcall/producer/victim")
		before := victim.register(t, "victim").GetProducer().GetVersion()

		var said []string
		for _, id := range []string{"victim", "unknown"} {
			_, err := mallory.RegisterProducer(t.Context(), one(id))
			refused(t, "register "+id, err, codes.PermissionDenied, "NOT_YOURS")
			said = append(said, fmt.Sprint(err))
			_, err = mallory.BatchRegisterProducers(t.Context(), &registryv1.BatchRegisterProducersRequest{
				Requests: []*registryv1.RegisterProducerRequest{one("p-1"), one(id)},
			})
			refused(t, "register among its own "+id, err, codes.PermissionDenied, "NOT_YOURS")
			_, err = mallory.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: id})
			refused(t, "deregister "+id, err, codes.PermissionDenied, "NOT_YOURS")
			_, err = mallory.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: id})
			refused(t, "get "+id, err, codes.PermissionDenied, "NOT_YOURS")
		}
		if said[0] != said[1] || strings.Contains(said[0], "victim") {
			t.Errorf("the answers tell who is there: %q", said)
		}
		got, err := ann.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: "victim"})
		if err != nil || got.GetProducer().GetVersion() != before {
			t.Errorf("the victim is %v, %v", got, err)
		}
		_, err = ann.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: "p-1"})
		if status.Code(err) != codes.NotFound {
			t.Errorf("of a refused batch something was taken: %v", err)
		}
	})
}

// TestACollectorSeesItsOwnSet: it subscribes, and acknowledges; for another one it
// does neither, nor does a producer look on.
func TestACollectorSeesItsOwnSet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		c1, producer := f.clients(t, names["collector"]), f.clients(t, names["producer"])
		c2 := f.clients(t, "spiffe://test.example/rollcall/collector/c-2")
		own := c1.enlist(t, "c-1", "i-1")
		other := c2.enlist(t, "c-2", "i-2")
		_, begin, end := c1.subscribe(t, own)
		ack := &registryv1.AcknowledgeRequest{
			CollectorId: "c-1", InstanceId: "i-1", Generation: own.GetGeneration(), SubscriptionId: begin.GetSubscriptionId(),
			SnapshotId: end.GetSnapshotId(), Epoch: end.GetEpoch(), Revision: end.GetRevision(),
			Outcome: registryv1.AcknowledgeOutcome_ACKNOWLEDGE_OUTCOME_APPLIED,
		}
		if _, err := c1.Acknowledge(t.Context(), ack); err != nil {
			t.Errorf("its own: %v", err)
		}
		_, err := c2.Acknowledge(t.Context(), ack)
		refused(t, "acknowledge for another", err, codes.PermissionDenied, "NOT_YOURS")

		for what, observe := range map[string]bool{"subscribe as another": false, "look on as a collector": true} {
			other.Observe = observe
			s, err := c1.Subscribe(t.Context(), other)
			if err == nil {
				_, err = s.Recv()
			}
			want := "NOT_YOURS"
			if observe {
				want = "ROLE_MISSING"
			}
			refused(t, what, err, codes.PermissionDenied, want)
		}
		s, err := producer.Subscribe(t.Context(), &registryv1.SubscribeRequest{CollectorId: "c-1", Observe: true})
		if err == nil {
			_, err = s.Recv()
		}
		refused(t, "look on as a producer", err, codes.PermissionDenied, "ROLE_MISSING")

		_, err = c1.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c-2", UntilRestart: true})
		refused(t, "drain another", err, codes.PermissionDenied, "NOT_YOURS")
		_, err = c1.DrainCollector(t.Context(), &registryv1.DrainCollectorRequest{CollectorId: "c-1"})
		refused(t, "drain itself for good", err, codes.PermissionDenied, "ROLE_MISSING")
	})
}

// TestHostileCertificates: names that an authority has signed, and that are no
// proof of anything.
func TestHostileCertificates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		const domain = "spiffe://test.example/rollcall/"
		for _, list := range [][]string{
			{domain + "producer/../operator/x"},
			{domain + "operator/.."},
			{domain + "operator/."},
			{domain + "operator//x"},
			{domain + "operator/x/"},
			{domain + "operator/"},
			{domain + "operator"},
			{domain + "operator/%2e%2e"},
			{domain + "operator/x%0a"},
			{domain + "operator/x%00"},
			{domain + "operator/%c3%a4"},
			{domain + "Operator/x"},
			{domain + "root/x"},
			{"spiffe://TEST.example/rollcall/operator/x"},
			{"spiffe://test.example:443/rollcall/operator/x"},
			{"spiffe://me@test.example/rollcall/operator/x"},
			{domain + "operator/x?a=b"},
			{domain + "operator/x#a"},
			{"https://test.example/rollcall/operator/x"},
			{domain + "operator/x", domain + "reader/x"},
			{domain + "operator/x", "https://test.example/"},
			{domain + "operator/" + strings.Repeat("x", 2048)},
			{domain + "collector/a/b"},
			{domain + "producer/-x"},
			{"operator.test.example"},
		} {
			conn := f.ca.Dial(t, f.lis, f.ca.Issue(t, list...))
			_, err := registryv1.NewProducerServiceClient(conn).ListProducers(t.Context(), &registryv1.ListProducersRequest{})
			refused(t, fmt.Sprintf("%.200q", list), err, codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
		}
	})
}

const secret = "0123456789abcdef0123456789abcdef"

func tokenRules(t *testing.T) *access.Rules {
	t.Helper()
	hash := sha256.Sum256([]byte(secret))
	return parse(t, fmt.Sprintf("tokens: [{name: ci, sha256: %s, role: operator}]", hex.EncodeToString(hash[:])))
}

// TestTokens: the right one counts, also for one with a certificate that no rule
// is for, and nothing else.
func TestTokens(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rules := tokenRules(t)
		f := fortify(t, func() *access.Rules { return rules }, nil)
		list := func(name string, values ...string) error {
			ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{"authorization": values})
			_, err := f.clients(t, name).ListProducers(ctx, &registryv1.ListProducersRequest{})
			return err
		}
		for _, value := range []string{"Bearer " + secret, "bearer " + secret} {
			if err := list("", value); err != nil {
				t.Errorf("%q: %v", value, err)
			}
		}
		if err := list(names["reader"], "Bearer "+secret); err != nil {
			t.Errorf("with a certificate that no rule is for: %v", err)
		}
		err := list("spiffe://test.example/a//b", "Bearer "+secret)
		refused(t, "with a malformed certificate", err, codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
		for _, values := range [][]string{
			{"Bearer " + strings.Repeat("x", 32)},
			{"Bearer "},
			{"Bearer"},
			{""},
			{secret},
			{"Basic " + secret},
			{"Bearer  " + secret},
			{"Bearer " + secret + " "},
			{"Bearer " + secret[1:]},
			{"Bearer " + strings.Repeat("x", 8000)},
			{"Bearer " + secret, "Bearer " + secret},
			{"Bearer wrong", "Bearer " + secret},
		} {
			refused(t, fmt.Sprintf("%.100q", values), list("", values...), codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
		}
		if err := list("", "Bearer "+strings.Repeat("x", 1<<20)); err == nil {
			t.Error("a token of a megabyte is taken")
		}
		refused(t, "none", list(""), codes.Unauthenticated, "NO_CREDENTIALS")
		for _, r := range f.log.Take("a call is refused") {
			if strings.Contains(fmt.Sprint(r), secret[1:]) {
				t.Errorf("the log has the token: %v", r)
			}
		}
	})
}

// TestRulesThatChange: who may call is asked anew for each call, and while a
// stream stands.
func TestRulesThatChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var now atomic.Pointer[access.Rules]
		now.Store(access.Default())
		f := fortify(t, now.Load, nil)
		c1 := f.clients(t, names["collector"])
		s, _, _ := c1.subscribe(t, c1.enlist(t, "c-1", "i-1"))
		now.Store(access.Default())
		begin := time.Now()
		for range 3 {
			if _, err := s.Recv(); err != nil {
				t.Fatalf("under equal rules: %v", err)
			}
		}
		now.Store(tokenRules(t))
		var err error
		for err == nil && time.Since(begin) < time.Minute {
			_, err = s.Recv()
		}
		refused(t, "the stream", err, codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
		_, err = c1.ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{})
		refused(t, "a call", err, codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
		now.Store(parse(t, `identities: [{spiffe: "spiffe://test.example/rollcall/collector/c-1", role: producer, ids: ["*"]}]`))
		_, err = c1.ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{})
		refused(t, "in another role", err, codes.PermissionDenied, "ROLE_MISSING")
		now.Store(nil)
		_, err = c1.ListCollectors(t.Context(), &registryv1.ListCollectorsRequest{})
		refused(t, "without rules", err, codes.Unauthenticated, "UNKNOWN_CREDENTIALS")
	})
}

// TestNobodyHoldsMuch: who is not known has few calls at a time, for a short while,
// as gRPC takes a message before it is asked whether it may. Others are served.
func TestNobodyHoldsMuch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		nobody, p1 := f.dial(t, ""), f.clients(t, names["producer"])
		began := time.Now()
		var held []grpc.ServerStreamingClient[healthv1.HealthCheckResponse]
		for range 4 {
			stream := must(healthv1.NewHealthClient(nobody).Watch(t.Context(), &healthv1.HealthCheckRequest{}))
			must(stream.Recv())
			held = append(held, stream)
		}
		for _, what := range []string{"health", "a call"} {
			_, err := healthv1.NewHealthClient(nobody).Check(t.Context(), &healthv1.HealthCheckRequest{})
			if what == "a call" {
				_, err = registryv1.NewProducerServiceClient(nobody).ListProducers(t.Context(), &registryv1.ListProducersRequest{})
			}
			if status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s beside four: %v", what, err)
			}
		}
		p1.register(t, "p-1")
		for _, stream := range held {
			var err error
			for err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.DeadlineExceeded && status.Code(err) != codes.Canceled {
				t.Errorf("a call that is held: %v", err)
			}
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("held for %v", took)
		}
		must(healthv1.NewHealthClient(nobody).Check(t.Context(), &healthv1.HealthCheckRequest{}))
	})
}

// TestRefusalsAreLoggedWithinABound: a flood of them makes no flood of lines, and
// none of them is lost to the count.
func TestRefusalsAreLoggedWithinABound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		p1 := f.clients(t, names["producer"])
		for range 1000 {
			_, _ = p1.RegisterProducer(t.Context(), one("p-2"))
		}
		lines := f.log.Take("a call is refused")
		stranger := f.clients(t, "")
		_, _ = stranger.RegisterProducer(t.Context(), one("p-2"))
		if others := f.log.Take("a call is refused"); len(others) != 1 {
			t.Errorf("a stranger among them: %v", others)
		}
		time.Sleep(time.Minute)
		_, _ = p1.RegisterProducer(t.Context(), one("p-2"))
		last := f.log.Take("a call is refused")
		if n := len(lines); n == 0 || n > 60 || len(last) != 1 || last[0]["untold"] != int64(1000-n) {
			t.Errorf("%d lines, then %v", n, last)
		}
	})
}

// TestPaceOfAnIdentity: registrations are counted for each identity, wherever they
// come from; all of this test come from one address.
func TestPaceOfAnIdentity(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rules := parse(t, `identities: [{spiffe: "spiffe://test.example/a", role: producer, ids: ["a-*"]}, {spiffe: "spiffe://test.example/b", role: producer, ids: ["b-*"]}]`)
		f := fortify(t, func() *access.Rules { return rules }, func(c *registry.Config) { c.RegistrationRate = 1 })
		fill := func(who string) (err error) {
			p := f.clients(t, "spiffe://test.example/"+who)
			var batch []*registryv1.RegisterProducerRequest
			for i := range 1000 {
				batch = append(batch, one(fmt.Sprintf("%s-%d", who, i)))
			}
			_, err = p.BatchRegisterProducers(t.Context(), &registryv1.BatchRegisterProducersRequest{Requests: batch})
			return err
		}
		if err := fill("a"); err != nil {
			t.Fatal(err)
		}
		if err := fill("a"); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "this identity") {
			t.Errorf("the same: %v", err)
		}
		if err := fill("b"); err != nil {
			t.Errorf("another: %v", err)
		}
	})
}
