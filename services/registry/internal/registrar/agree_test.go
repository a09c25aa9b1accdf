package registrar_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/feed"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/registrar"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// A crowd is two replicas with faulty stores, collectors that follow one or the
// other, and writers.
type crowd struct {
	t        *testing.T
	memory   *store.Memory
	replicas []*replica
	doors    []*door

	mu      sync.Mutex
	members map[assignment.CollectorID]*member
	want    map[assignment.ProducerID]string // the content that was answered last
	streams int
}

// any is one of the replicas.
func (c *crowd) any(random *rand.Rand) *replica { return c.replicas[random.IntN(len(c.replicas))] }

// write registers and deregisters producers that are this writer's own, each
// until it is answered OK.
func (c *crowd) write(n int, random *rand.Rand) {
	for i := range 120 {
		id := producerID(n*100 + random.IntN(15))
		content := fmt.Sprintf("%d", i)
		if random.IntN(3) == 0 {
			content = ""
		}
		for !c.tell(id, content, c.any(random)) {
			time.Sleep(rand.N(300 * time.Millisecond))
		}
		c.mu.Lock()
		c.want[id] = content
		c.mu.Unlock()
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
}

// tell reports whether the replica answered OK.
func (c *crowd) tell(id assignment.ProducerID, content string, r *replica) bool {
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	if content == "" {
		_, _, _, err := r.DeregisterProducer(ctx, id, "")
		return err == nil
	}
	return r.RegisterProducers(ctx, []registrar.RegisterProducer{{ID: id, Stored: []byte(content)}})[0].Err == nil
}

// follow keeps one collector subscribed, to any replica, with what it holds.
func (c *crowd) follow(ctx context.Context, id assignment.CollectorID, random *rand.Rand) {
	held := &member{t: c.t, set: map[assignment.ProducerID]assignment.Version{}}
	for ctx.Err() == nil {
		c.session(ctx, id, c.any(random), held)
		time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
	}
}

func (c *crowd) session(ctx context.Context, id assignment.CollectorID, r *replica, held *member) {
	status, _, err := r.RegisterCollector(ctx, roster.Collector{ID: id}, "a")
	if err != nil {
		return
	}
	cmd := registrar.Subscribe{Collector: id, Instance: "a", Generation: status.Collector.Newest().Generation}
	if held.epoch != "" {
		cmd.Accepted = held.accepted()
	}
	stream, err := r.Subscribe(ctx, cmd)
	if err != nil {
		return
	}
	defer stream.Close(ctx)
	for {
		d, err := stream.Next(ctx)
		if err != nil {
			return
		}
		c.take(id, held, d)
	}
}

func (c *crowd) take(id assignment.CollectorID, held *member, d feed.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := held.at
	held.take(d)
	if held.at < before {
		c.t.Errorf("%s was taken back from revision %d to %d", id, before, held.at)
	}
	if s, ok := d.(*feed.Snapshot); ok {
		c.streams++
		for _, removal := range s.Removals {
			// One that came back at another collector while the watch was cut off
			// is handed off, as far as a reload can tell.
			if removal.Cause != assignment.CauseDeregistered && removal.Cause != assignment.CauseHandedOff {
				c.t.Errorf("%s: %s was removed with cause %d", id, removal.ProducerID, removal.Cause)
			}
		}
	}
	c.members[id] = held
}

// strike lets the stores fail, hang, forget and lose sessions.
func (c *crowd) strike(random *rand.Rand) {
	ops := []string{store.OpRead, store.OpCommit, store.OpCommitted, store.OpWatch, store.OpDeliver, store.OpKeepAlive, store.OpGrant}
	for range 30 {
		d := c.doors[random.IntN(len(c.doors))]
		some := []string{ops[random.IntN(len(ops))], ops[random.IntN(len(ops))]}
		switch random.IntN(6) {
		case 0:
			d.close(some...)
		case 1:
			c.memory.Compact(c.memory.Revision())
			d.fail(store.OpDeliver)
		case 2:
			c.memory.Delete(fmt.Sprintf("/rollcall/v1/sessions/c%d", random.IntN(3)))
		default:
			d.fail(some...)
		}
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
		d.open()
		d.fail()
	}
}

// stored is what the store has: every producer's content, and every collector's
// set.
func (c *crowd) stored() (contents map[assignment.ProducerID]string, sets map[assignment.CollectorID]map[assignment.ProducerID]assignment.Version) {
	contents = map[assignment.ProducerID]string{}
	sets = map[assignment.CollectorID]map[assignment.ProducerID]assignment.Version{"c0": {}, "c1": {}, "c2": {}}
	if _, err := c.memory.Open().Load(c.t.Context(), func(f roster.Found) error {
		if p, ok := f.Record.(*roster.Producer); ok {
			contents[p.ID] = string(p.Stored)
			if sets[p.Collector] == nil {
				c.t.Errorf("%s has the collector %q", p.ID, p.Collector)
				return nil
			}
			sets[p.Collector][p.ID] = p.Version
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	return contents, sets
}

// check fails unless the store has what was answered, and each collector what
// the store has for it.
func (c *crowd) check() {
	contents, sets := c.stored()
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.want, func(_ assignment.ProducerID, content string) bool { return content == "" })
	if diff := cmp.Diff(c.want, contents); diff != "" {
		c.t.Errorf("the store (-answered +stored):\n%s", diff)
	}
	got := map[assignment.CollectorID]map[assignment.ProducerID]assignment.Version{}
	for id, m := range c.members {
		got[id] = m.set
	}
	if diff := cmp.Diff(sets, got); diff != "" {
		c.t.Errorf("the collectors (-stored +followed):\n%s", diff)
	}
	if c.streams < 50 {
		c.t.Errorf("%d snapshots: this test proves little", c.streams)
	}
}

// TestReplicasAgree lets two replicas whose stores fail, hang and forget serve
// writers and collectors. Whatever was answered OK stands; no stream goes back
// or removes without a name; and when it is over every collector has what the
// store has for it.
func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &crowd{
					t: t, memory: store.NewMemory(),
					members: map[assignment.CollectorID]*member{}, want: map[assignment.ProducerID]string{},
				}
				for _, instance := range []assignment.InstanceID{"r1", "r2"} {
					s, d := faulty(t, c.memory)
					c.replicas, c.doors = append(c.replicas, serve(t, s, instance)), append(c.doors, d)
				}
				ctx, cancel := context.WithCancel(t.Context())
				var writers, followers sync.WaitGroup
				stream := uint64(0)
				random := func() *rand.Rand { stream++; return rand.New(rand.NewPCG(seed, stream)) }
				for n := range 3 {
					r := random()
					followers.Go(func() { c.follow(ctx, assignment.CollectorID(fmt.Sprintf("c%d", n)), r) })
				}
				for n := range 4 {
					r := random()
					writers.Go(func() { c.write(n, r) })
				}
				c.strike(random())
				writers.Wait()
				time.Sleep(2 * time.Minute)
				c.check()
				cancel()
				followers.Wait()
			})
		})
	}
}
