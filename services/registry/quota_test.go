package registry_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tenants are two who may register anything, of whom the second one may have two;
// one who may register three; and an operator.
const tenants = `identities: [
  {spiffe: "spiffe://test.example/a", role: producer, ids: ["*"]},
  {spiffe: "spiffe://test.example/b", role: producer, ids: ["*"], max_producers: 2},
  {spiffe: "spiffe://test.example/c", role: producer, ids: [c-1, c-2, c-3]},
  {spiffe: "spiffe://test.example/ann", role: operator}]`

// A house is a registry with quotas, and its callers.
type house struct {
	a, b, c, ann *process
	metrics      *prometheus.Registry
}

// settle runs a registry over a store in which three producers may count for an
// identity; more, if set, changes that.
func settle(t *testing.T, memory *registry.MemoryStore, more func(*registry.Config)) *house {
	t.Helper()
	rules := parse(t, tenants)
	h := &house{}
	f := fortify(t, func() *access.Rules { return rules }, func(c *registry.Config) {
		c.Memory, c.MaxProducers, c.SelfID = memory, 3, ""
		h.metrics = c.Metrics
		if more != nil {
			more(c)
		}
	})
	h.a, h.b = f.clients(t, "spiffe://test.example/a"), f.clients(t, "spiffe://test.example/b")
	h.c, h.ann = f.clients(t, "spiffe://test.example/c"), f.clients(t, "spiffe://test.example/ann")
	return h
}

// take registers producers by a process of theirs, which must be taken.
func (p *process) take(t *testing.T, instance string, ids ...string) (last *registryv1.RegisterProducerResponse) {
	t.Helper()
	for _, id := range ids {
		m := one(id)
		m.Producer.InstanceId = instance
		resp, err := p.RegisterProducer(t.Context(), m)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		last = resp
	}
	return last
}

// turned fails unless a new producer is refused because of a quota of that many.
func (p *process) turned(t *testing.T, id string, limit int) {
	t.Helper()
	_, err := p.RegisterProducer(t.Context(), one(id))
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if status.Code(err) != codes.ResourceExhausted || info.GetReason() != "PRODUCER_QUOTA" ||
		info.GetMetadata()["limit"] != fmt.Sprint(limit) || retry.GetRetryDelay().AsDuration() != time.Minute {
		t.Errorf("%s: %v, %v, %v; want it refused for a quota of %d", id, err, info, retry, limit)
	}
}

// leave deregisters producers.
func (p *process) leave(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := p.DeregisterProducer(t.Context(), &registryv1.DeregisterProducerRequest{ProducerId: id}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQuota: what is new beyond it is refused and leaves nothing behind; what is
// known renews and changes; who leaves makes room; others do not notice.
func TestQuota(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		h := settle(t, memory, nil)
		h.a.take(t, "i", "1", "2", "3")
		at := memory.Revision()
		h.a.turned(t, "4", 3)
		only := one("4")
		only.ValidateOnly = true
		if _, err := h.a.RegisterProducer(t.Context(), only); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("only validated: %v", err)
		}
		_, err := h.ann.GetProducer(t.Context(), &registryv1.GetProducerRequest{ProducerId: "4"})
		if status.Code(err) != codes.NotFound || memory.Revision() != at {
			t.Errorf("something was written: %v, revision %d and then %d", err, at, memory.Revision())
		}
		if h.a.take(t, "i", "1", "2", "3").GetChanged() || memory.Revision() != at {
			t.Error("a renewal wrote")
		}
		if !h.a.take(t, "another", "1", "2", "3").GetChanged() {
			t.Error("another instance changed nothing")
		}
		h.b.take(t, "i", "b-1", "b-2")
		h.b.turned(t, "b-3", 2)
		h.a.leave(t, "2")
		h.a.take(t, "i", "4")
		h.a.turned(t, "5", 3)
		h.ann.leave(t, "4")
		h.a.take(t, "i", "6")
		h.a.turned(t, "7", 3)
		if n := overQuota(t, h.metrics, "producers"); n != 5 {
			t.Errorf("%v refusals are counted, want 5", n)
		}
	})
}

// overQuota is how many registrations a registry has counted as refused, for a
// reason.
func overQuota(t *testing.T, metrics *prometheus.Registry, reason string) (n float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "rollcall_registry_quota_refused_total" && m.GetLabel()[0].GetValue() == reason {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// TestQuotaOfATakeover: a producer that another one registers counts for that one
// from then on, if it has room, and where it was if not.
func TestQuotaOfATakeover(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := settle(t, registry.NewMemoryStore(), nil)
		h.a.take(t, "i", "1", "2", "3")
		h.b.take(t, "j", "1")
		h.a.take(t, "i", "4")
		h.b.take(t, "j", "2") // b has its two
		h.a.take(t, "i", "5")
		h.b.take(t, "j", "3")
		h.a.turned(t, "6", 3)
		h.b.turned(t, "7", 2)
		h.a.leave(t, "3")
		h.a.take(t, "i", "6")
		h.b.turned(t, "7", 2)
		h.b.leave(t, "1")
		h.b.take(t, "j", "7")
	})
}

// TestQuotaOutlivesTheProcess: who counts for whom is in the store. A quota that
// was lowered strikes nobody off, and takes nobody in.
func TestQuotaOutlivesTheProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		settle(t, memory, nil).a.take(t, "i", "1", "2", "3")
		next := settle(t, memory, nil)
		next.a.turned(t, "4", 3)
		lower := settle(t, memory, func(c *registry.Config) { c.MaxProducers = 1 })
		lower.a.turned(t, "4", 1)
		lower.a.take(t, "i", "1", "2", "3")
		lower.a.take(t, "restarted", "1", "2", "3")
		lower.a.leave(t, "1", "2")
		lower.a.turned(t, "4", 1)
		lower.a.leave(t, "3")
		lower.a.take(t, "i", "4")
	})
}

// TestQuotaOfABatch: each of a batch is taken or refused by itself.
func TestQuotaOfABatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := settle(t, registry.NewMemoryStore(), nil)
		h.a.take(t, "", "1")
		m := &registryv1.BatchRegisterProducersRequest{}
		for _, id := range []string{"2", "1", "3", "4", "5"} {
			m.Requests = append(m.Requests, one(id))
		}
		m.Requests[0].ValidateOnly = true // takes no room
		m.Requests = append(m.Requests, one("6"))
		resp, err := h.a.BatchRegisterProducers(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		var got []codes.Code
		for _, r := range resp.GetResults() {
			got = append(got, codes.Code(r.GetCode()))
		}
		full := codes.ResourceExhausted
		if want := []codes.Code{0, 0, 0, 0, full, full}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}

// TestNobodysProducers: those that an operator has registered, that were registered
// where nobody was asked, or by an older version, count for nobody. A renewal makes
// them count for nobody else, for it writes nothing; a change does.
func TestNobodysProducers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		open := fortify(t, nil, func(c *registry.Config) { c.Memory, c.MaxProducers = memory, 1 }).clients(t, "")
		open.take(t, "i", "old-1", "old-2", "old-3", "old-4")
		h := settle(t, memory, nil)
		h.ann.take(t, "i", "ann-1", "ann-2", "ann-3", "ann-4")
		at := memory.Revision()
		h.a.take(t, "i", "old-1", "old-2", "old-3", "old-4", "ann-1")
		if memory.Revision() != at {
			t.Error("a renewal wrote")
		}
		h.a.take(t, "i", "1")
		h.a.take(t, "j", "old-1", "ann-1")
		h.a.turned(t, "2", 3)
		h.a.take(t, "j", "old-2")
		h.ann.take(t, "k", "old-1")
		h.a.take(t, "i", "2")
	})
}

// TestQuotaOfFewIds: one who could never have more than its quota is not counted,
// until the quota is less than that.
func TestQuotaOfFewIds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		settle(t, memory, nil).c.take(t, "i", "c-1", "c-2", "c-3")
		lower := settle(t, memory, func(c *registry.Config) { c.MaxProducers = 2 })
		lower.c.leave(t, "c-1", "c-2")
		lower.c.take(t, "j", "c-1", "c-2")
		lower.c.leave(t, "c-3")
		lower.c.turned(t, "c-3", 2)
	})
}

// TestQuotaOfManyAtOnce: calls that are under way together take no more than one
// after the other would, in one process, and in two no more than each of them.
func TestQuotaOfManyAtOnce(t *testing.T) {
	for replicas := 1; replicas <= 2; replicas++ {
		t.Run(fmt.Sprint(replicas), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const limit = 50
				memory := registry.NewMemoryStore()
				slow := func(op string) error {
					if op == registry.MemoryCommit {
						time.Sleep(3 * time.Second)
					}
					return nil
				}
				var houses []*house
				for range replicas {
					houses = append(houses, settle(t, memory, func(c *registry.Config) { c.MaxProducers, c.MemoryFaults = limit, slow }))
				}
				time.Sleep(time.Minute)
				var calls sync.WaitGroup
				var taken atomic.Int64
				for i := range 20 {
					calls.Go(func() {
						m := &registryv1.BatchRegisterProducersRequest{}
						for n := range 20 {
							m.Requests = append(m.Requests, one(fmt.Sprintf("p-%d-%d", i, n)))
						}
						resp, err := houses[i%replicas].a.BatchRegisterProducers(t.Context(), m)
						if err != nil {
							t.Error(err)
						}
						for _, r := range resp.GetResults() {
							if r.GetCode() == 0 {
								taken.Add(1)
							}
						}
					})
				}
				calls.Wait()
				synctest.Wait()
				if n := taken.Load(); n < limit || n > int64(replicas*limit) || replicas == 1 && n != limit {
					t.Errorf("%d are taken by %d", n, replicas)
				}
				for _, h := range houses {
					h.a.turned(t, "one-more", limit)
				}
			})
		})
	}
}

// TestQuotaOfFailedWrites: what did not come to be takes no room.
func TestQuotaOfFailedWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var ill atomic.Bool
		h := settle(t, registry.NewMemoryStore(), func(c *registry.Config) {
			c.MemoryFaults = func(op string) error {
				if op == registry.MemoryCommit && ill.Load() {
					return errStore
				}
				return nil
			}
		})
		ill.Store(true)
		for _, id := range []string{"1", "2", "3"} {
			if _, err := h.a.RegisterProducer(t.Context(), one(id)); status.Code(err) != codes.Unavailable {
				t.Errorf("%s: %v", id, err)
			}
		}
		ill.Store(false)
		h.a.take(t, "i", "4", "5", "6")
		h.a.turned(t, "7", 3)
	})
}

// TestQuotaOfLabels: too many bytes of them are refused, but for a producer that is
// known with as many.
func TestQuotaOfLabels(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		labelled := func(id, instance, value string) *registryv1.RegisterProducerRequest {
			m := one(id)
			m.Producer.InstanceId = instance
			m.Producer.Labels = []*registryv1.Label{{Name: "team", Value: value}}
			return m
		}
		before := settle(t, memory, nil)
		if _, err := before.a.RegisterProducer(t.Context(), labelled("known", "i", "0123456789")); err != nil {
			t.Fatal(err)
		}
		h := settle(t, memory, func(c *registry.Config) { c.MaxLabelBytes = 10 })
		for _, test := range []struct {
			what    string
			request *registryv1.RegisterProducerRequest
			want    codes.Code
		}{
			{"just as many", labelled("1", "", "012345"), codes.OK},
			{"one more, of a new one", labelled("2", "", "0123456"), codes.InvalidArgument},
			{"one more, of a known one", labelled("1", "", "0123456"), codes.InvalidArgument},
			{"a renewal", labelled("known", "i", "0123456789"), codes.OK},
			{"another instance", labelled("known", "j", "9876543210"), codes.OK},
			{"still more", labelled("known", "j", "9876543210+"), codes.InvalidArgument},
		} {
			if _, err := h.a.RegisterProducer(t.Context(), test.request); status.Code(err) != test.want {
				t.Errorf("%s: %v", test.what, err)
			}
		}
		if n := overQuota(t, h.metrics, "label_bytes"); n != 3 {
			t.Errorf("%v refusals are counted, want 3", n)
		}
	})
}
