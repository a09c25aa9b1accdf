package simulation

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

var intervals = []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second}

// renewal is the time after which owners renew.
const renewal = time.Minute

// registration is what the producer's process asks for.
func (s *subject) registration(instance int) *registryv1.Producer {
	p := &registryv1.Producer{
		ProducerId:      s.id,
		Endpoint:        "http://square:80/" + s.id,
		Interval:        durationpb.New(s.interval),
		Timeout:         durationpb.New(s.interval / 2),
		InstanceId:      fmt.Sprintf("%s-%d", s.id, instance),
		LastCollectorId: s.owner,
	}
	if s.leased {
		p.LeaseDuration, p.ExpireAfter = durationpb.New(leaseTime), durationpb.New(expireAfter)
	}
	return p
}

// register has the producer's owner register it, or renew it, with a new process
// when asked for or when it had left.
func (t *town) register(id, registry string, replace bool) {
	s := t.journal.subjects[id]
	t.lookForStrikes()
	t.journal.recover(s)
	if !s.wanted {
		s.certain = false
	}
	if !s.wanted || replace {
		s.instance++
	}
	s.wanted, s.left, s.unsaid = true, "", true
	if s.interval == 0 {
		s.interval = intervals[t.random.IntN(len(intervals))]
	}
	s.varied = s.varied || s.longest > 0 && s.longest != s.interval
	s.longest = max(s.longest, s.interval)
	for range 2 {
		var resp *registryv1.RegisterProducerResponse
		err := t.registryNamed(registry).call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
			resp, err = registryv1.NewProducerServiceClient(conn).RegisterProducer(ctx,
				&registryv1.RegisterProducerRequest{Producer: s.registration(s.instance)})
			return err
		})
		if t.registered(s, resp, status.Code(err), fmt.Sprint(err)) {
			return
		}
	}
}

// registered takes the answer to a registration. False: try again, as another
// process.
func (t *town) registered(s *subject, resp *registryv1.RegisterProducerResponse, code codes.Code, message string) bool {
	j := t.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	switch code {
	case codes.OK:
		if !s.certain && !s.wantedNot.IsZero() {
			s.absent = time.Since(s.wantedNot)
		}
		s.certain, s.owner, s.struck, s.unsaid = true, "", false, false
		s.renewed = time.Now()
		if known := slices.Contains(s.acked, s.instance); !known || resp.GetChanged() {
			s.written = resp.GetRevision()
			if !known {
				s.acked = append(s.acked, s.instance)
			}
		}
		if p := resp.GetProducer().GetPlacements(); len(p) > 0 {
			s.owner = p[0].GetCollectorId()
		}
	case codes.Aborted, codes.FailedPrecondition:
		// A store that has forgotten something may take an older process for
		// the newer one.
		if !s.tainted && !s.doubt {
			j.violateLocked("%s, instance %d: %s", s.id, s.instance, message)
		}
		s.instance++
		return false
	case codes.Unavailable, codes.DeadlineExceeded, codes.Unknown, codes.Canceled, codes.ResourceExhausted:
		// Nothing is known. What was acknowledged before stands, unless this is
		// carried out late.
		s.doubts(code)
	default:
		j.violateLocked("%s: registering is answered with %s", s.id, message)
	}
	return true
}

// renew has owners renew at one registry, as they do from time to time: all, or
// those with a short lease. Those that are silent do not.
func (t *town) renew(r *registryNode, all bool) error {
	t.lookForStrikes()
	req := &registryv1.BatchRegisterProducersRequest{}
	var asked []*subject
	for _, id := range t.journal.order {
		if s := t.journal.subjects[id]; s.wanted && !s.silent() && (all || s.leased) {
			asked = append(asked, s)
			req.Requests = append(req.Requests, &registryv1.RegisterProducerRequest{Producer: s.registration(s.instance)})
		}
	}
	if len(asked) == 0 {
		return nil
	}
	var resp *registryv1.BatchRegisterProducersResponse
	err := r.call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = registryv1.NewProducerServiceClient(conn).BatchRegisterProducers(ctx, req)
		return err
	})
	if err != nil {
		for _, s := range asked {
			t.journal.doubts(s, err)
		}
		return err
	}
	for i, result := range resp.GetResults() {
		if !t.registered(asked[i], result.GetResponse(), codes.Code(result.GetCode()), result.GetMessage()) {
			t.register(asked[i].id, r.name, false)
		}
	}
	return nil
}

// renewLeased has those renew that have a short lease, at another registry when
// one does not answer.
func (t *town) renewLeased() {
	first := t.random.IntN(len(t.registries))
	for i := range t.registries {
		if t.renew(t.registries[(first+i)%len(t.registries)], false) == nil {
			return
		}
	}
}

// alter has the producer's owner register another interval.
func (t *town) alter(id, registry string) {
	t.journal.judgeGaps()
	s := t.journal.subjects[id]
	t.journal.mu.Lock()
	s.before = max(s.before, s.interval)
	s.interval = intervals[t.random.IntN(len(intervals))]
	t.journal.mu.Unlock()
	t.register(id, registry, false)
}

// deregister has the producer's owner take it off the roll.
func (t *town) deregister(id, registry string) {
	s := t.journal.subjects[id]
	if s.instance == 0 {
		return // it never was
	}
	t.lookForStrikes()
	known := s.wanted && s.certain && !s.dead && !s.struck
	t.journal.recover(s)
	t.journal.leaving(s)
	var resp *registryv1.DeregisterProducerResponse
	err := t.registryNamed(registry).call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = registryv1.NewProducerServiceClient(conn).DeregisterProducer(ctx, &registryv1.DeregisterProducerRequest{ProducerId: id})
		return err
	})
	if err != nil {
		t.journal.doubts(s, err)
		return
	}
	t.journal.mu.Lock()
	defer t.journal.mu.Unlock()
	if known && !s.tainted && !s.doubt && !resp.GetChanged() {
		t.journal.violateLocked("%s: its registration was acknowledged, and a registry does not know it", id)
	}
	s.certain = true
	if resp.GetChanged() && !t.journal.spoiled[resp.GetEpoch()] {
		s.left = resp.GetEpoch()
	}
}

// outdated has a process that was replaced renew: it must not come back.
func (t *town) outdated(id, registry string) {
	s := t.journal.subjects[id]
	if len(s.acked) < 2 || !s.wanted || !s.certain || s.dead || s.struck || s.acked[len(s.acked)-1] != s.instance {
		return
	}
	old := s.acked[len(s.acked)-2]
	var resp *registryv1.RegisterProducerResponse
	err := t.registryNamed(registry).call(func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		resp, err = registryv1.NewProducerServiceClient(conn).RegisterProducer(ctx,
			&registryv1.RegisterProducerRequest{Producer: s.registration(old)})
		return err
	})
	t.journal.doubts(s, err)
	// A registry that has not heard of the newer one yet finds nothing to change,
	// and writes nothing.
	behind := !resp.GetChanged() && resp.GetRevision() < s.written
	if err == nil && !behind && !s.tainted && !s.doubt {
		t.journal.violate("%s: instance %d was replaced and came back", id, old)
	}
}

// durable judges, before owners renew, that every registry knows whose registration
// was acknowledged.
func (t *town) durable() {
	t.lookForStrikes()
	for _, id := range t.journal.order {
		s := t.journal.subjects[id]
		if !s.wanted || !s.certain || s.tainted || s.doubt || s.dead || s.struck {
			continue
		}
		for _, r := range t.registries {
			err := r.call(func(ctx context.Context, conn *grpc.ClientConn) error {
				_, err := registryv1.NewProducerServiceClient(conn).GetProducer(ctx, &registryv1.GetProducerRequest{ProducerId: id, MinRevision: s.written})
				return err
			})
			if status.Code(err) == codes.NotFound {
				t.journal.violate("%s: its registration was acknowledged, and %s does not know it", id, r.name)
			}
		}
	}
}

// expect judges whether a producer is collected at the time.
func (t *town) expect(id string, collected bool) {
	t.journal.mu.Lock()
	defer t.journal.mu.Unlock()
	if by := t.journal.subjects[id].collectors(); len(by) > 0 != collected {
		t.journal.violateLocked("%s is collected by %v", id, by)
	}
}

// expectHeld judges how many producers a collector holds.
func (t *town) expectHeld(name, number string) {
	n, _ := strconv.Atoi(number)
	if m := t.collectorNamed(name).membershipNow(); m.GetHeldCount() != int64(n) {
		t.journal.violate("%s holds %d, want %d", name, m.GetHeldCount(), n)
	}
}
