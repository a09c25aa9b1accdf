package registry_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// TestAudit: what was changed is told once, with who and what; a renewal that
// changed nothing is not, to those who do not look for it.
func TestAudit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, defaults(), nil)
		p1, ann := f.clients(t, names["producer"]), f.clients(t, names["operator"])
		resp := p1.register(t, "p-1")
		want := map[string]any{
			"level": slog.LevelInfo, "identity": names["producer"], "role": "producer", "peer": "bufconn",
			"method": producers + "RegisterProducer", "changed": true, "subjects": []string{"p-1"}, "subject_count": int64(1),
			"epoch": resp.GetEpoch(), "revision": resp.GetRevision(), "request": "[endpoint=http://h.example:9100/metrics]",
		}
		if got := f.log.Take("audit"); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
		p1.register(t, "p-1")
		if got := f.log.Take("audit"); len(got) != 1 || got[0]["level"] != slog.LevelDebug || got[0]["changed"] != false {
			t.Errorf("a renewal: %v", got)
		}
		var batch []*registryv1.RegisterProducerRequest
		for i := range 20 {
			batch = append(batch, one(fmt.Sprintf("n-%d", i)))
		}
		batch[3].ValidateOnly, batch[4].Producer.Endpoint = true, "gopher://h.example"
		batch = append(batch, one("p-1"))
		results, err := ann.BatchRegisterProducers(t.Context(), &registryv1.BatchRegisterProducersRequest{Requests: batch})
		if err != nil {
			t.Fatal(err)
		}
		last := results.GetResults()[19].GetResponse().GetRevision()
		got := f.log.Take("audit")
		if len(got) != 1 || got[0]["subject_count"] != int64(18) || got[0]["revision"] != last ||
			fmt.Sprint(got[0]["subjects"]) != "[n-0 n-1 n-2 n-5 n-6 n-7 n-8 n-9 n-10 n-11 n-12 n-13 n-14 n-15 n-16 n-17 n-18 n-19]" {
			t.Errorf("a batch: %v", got)
		}
		if _, err := ann.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: one("v").GetProducer(), ValidateOnly: true}); err != nil {
			t.Fatal(err)
		}
		if got := f.log.Take("audit"); len(got) != 1 || got[0]["level"] != slog.LevelDebug {
			t.Errorf("only validated: %v", got)
		}
		_, err = registryv1.NewPlacementServiceClient(f.dial(t, names["operator"])).ConfirmExpiry(t.Context(), &registryv1.ConfirmExpiryRequest{
			Mode: registryv1.ExpiryMode_EXPIRY_MODE_HOLD, Duration: durationpb.New(time.Hour),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.log.Take("audit"); len(got) != 1 || fmt.Sprint(got[0]["request"]) != "[mode=EXPIRY_MODE_HOLD duration=1h0m0s]" {
			t.Errorf("what was asked: %v", got)
		}
		_, err = p1.RegisterProducer(t.Context(), one("p-2"))
		refused(t, "another", err, codes.PermissionDenied, "NOT_YOURS")
		denied := f.log.Take("a call is refused")
		if len(denied) != 1 || denied[0]["level"] != slog.LevelWarn || denied[0]["identity"] != names["producer"] ||
			denied[0]["reason"] != "NOT_YOURS" || fmt.Sprint(denied[0]["subjects"]) != "[p-2]" || denied[0]["method"] != producers+"RegisterProducer" {
			t.Errorf("a refusal: %v", denied)
		}
	})
}

// TestAuditOfWhatIsNotKnown: whose caller went away may have changed something all
// the same, and that is told; what was refused has not. No level of the log hides it.
func TestAuditOfWhatIsNotKnown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		memory := registry.NewMemoryStore()
		f := fortify(t, defaults(), func(c *registry.Config) {
			c.Memory = memory
			c.Logger = slog.New(errorsOnly{c.Logger.Handler()})
		})
		p1 := f.clients(t, names["producer"])
		var slow atomic.Bool
		memory.Fail(func(op string) error {
			if op == "commit" && slow.Load() {
				time.Sleep(3 * time.Second)
			}
			return nil
		})
		slow.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p1.RegisterProducer(ctx, one("p-1")); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		got := f.log.Take("audit")
		if len(got) != 1 || got[0]["changed"] != "unknown" || got[0]["identity"] != names["producer"] || fmt.Sprint(got[0]["subjects"]) != "[p-1]" {
			t.Errorf("a caller that went away: %v", got)
		}
		ann := f.clients(t, names["operator"])
		bounded, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		batch := &registryv1.BatchRegisterProducersRequest{}
		for i := range 250 {
			batch.Requests = append(batch.Requests, one(fmt.Sprintf("n-%d", i)))
		}
		if _, err := ann.BatchRegisterProducers(bounded, batch); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		told := 0
		for _, line := range f.log.Take("audit") {
			if all, ok := line["subjects"].([]string); ok && line["changed"] == "unknown" {
				told += len(all)
			}
		}
		if told != 250 {
			t.Errorf("of a batch whose caller went away %d are told", told)
		}
		slow.Store(false)
		p1.register(t, "p-1")
		f.log.Take("audit")
		if _, err := p1.RegisterProducer(t.Context(), &registryv1.RegisterProducerRequest{Producer: &registryv1.Producer{ProducerId: "p-1"}}); status.Code(err) != codes.InvalidArgument {
			t.Fatal(err)
		}
		if got := f.log.Take("audit"); len(got) != 0 {
			t.Errorf("what was refused: %v", got)
		}
	})
}

// errorsOnly is a log of errors alone.
type errorsOnly struct{ slog.Handler }

func (errorsOnly) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }

// TestAuditOfAnOpenRegistry: where nobody is asked, it is told nonetheless.
func TestAuditOfAnOpenRegistry(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := fortify(t, nil, nil)
		f.clients(t, "").register(t, "p-1")
		if got := f.log.Take("audit"); len(got) != 1 || got[0]["identity"] != "anonymous" || got[0]["role"] != "" {
			t.Errorf("%v", got)
		}
	})
}
