package siege_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/internal/auth/authtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// raw is a codec of bytes as they are.
type raw struct{}

// Marshal passes bytes.
func (raw) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is not bytes", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal forgets them.
func (raw) Unmarshal(mem.BufferSlice, any) error { return nil }

// Name is that of the codec which it stands in for.
func (raw) Name() string { return "proto" }

// methods are the calls that a fort answers, by what the descriptors say.
func methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		registryv1.File_rollcall_registry_v1_producer_proto, registryv1.File_rollcall_registry_v1_collector_proto,
		registryv1.File_rollcall_registry_v1_placement_proto, registryv1.File_rollcall_registry_v1_assignment_proto,
		collectorv1.File_rollcall_collector_v1_collection_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				all = append(all, service.Methods().Get(j))
			}
		}
	}
	return all
}

// patience bounds a call: some of them wait for what never comes.
const patience = 50 * time.Millisecond

// call sends bytes as the request of a method as somebody, and returns how that ended. Of a
// stream it takes the first answer.
func (f *fort) call(as string, m protoreflect.MethodDescriptor, request []byte) error {
	conn := f.as[as].toReg
	if strings.HasPrefix(string(m.FullName()), "rollcall.collector.") {
		conn = f.as[as].toColl
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer()}, path, grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(maxMade))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(new([]byte)); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// judge says what is wrong with how a call ended.
func judge(err error) string {
	s := status.Convert(err)
	switch {
	case s.Code() == codes.Internal && strings.HasPrefix(s.Message(), "grpc: failed to unmarshal the received message: "):
		return "" // gRPC's own word for bytes that are no message
	case s.Code() == codes.Internal, s.Code() == codes.Unknown, s.Code() == codes.DataLoss, s.Code() == codes.Unimplemented:
		return err.Error()
	case len(s.Message()) > 64<<10:
		return fmt.Sprintf("a message of %d bytes", len(s.Message()))
	}
	return ""
}

// The bounds of what one fort takes: so that what one call leaves behind is not
// what another one is judged by, and its sum is.
const (
	callsOfAFort = 2_000
	maxHeap      = 512 << 20
)

// A prober calls forts, one after another.
type prober struct {
	*fort
	calls int
	codes map[codes.Code]int
}

// probe makes one call out of bytes: the first ones pick the method and who calls.
func (p *prober) probe(t *testing.T, all []protoreflect.MethodDescriptor, data []byte) {
	t.Helper()
	if p.fort == nil {
		p.fort = raise(t, setup{listen: inMemory, armed: 1000})
	}
	tape := &tape{left: data[:min(len(data), 4096)]}
	m, as := all[tape.of(len(all))], callers[tape.of(len(callers))]
	tape.tame = tape.next()&1 == 1
	request := tape.message(nil, m.Input(), 0)
	err := p.call(as, m, request)
	p.codes[status.Code(err)]++
	for _, fault := range []string{judge(err), p.faults.take()} {
		if fault != "" {
			t.Errorf("%s as %s of %d bytes %.200q: %s", m.FullName(), as, len(request), request, fault)
		}
	}
	if p.calls++; p.calls%callsOfAFort == 0 {
		var s runtime.MemStats
		runtime.GC()
		if runtime.ReadMemStats(&s); s.HeapAlloc > maxHeap {
			t.Errorf("%d MiB of heap after %d calls", s.HeapAlloc>>20, p.calls)
		}
		p.raze()
		p.fort = nil
	}
}

// end stops the last fort.
func (p *prober) end() {
	if p.fort != nil {
		p.raze()
	}
}

// FuzzRPC calls every method of a registry and a collector, as one who may and as
// others, with what its descriptor allows, and what it does not: no handler panics, nothing ends as
// INTERNAL or UNKNOWN, and what stays in memory is bounded.
func FuzzRPC(f *testing.F) {
	all := methods()
	dice := rand.New(rand.NewPCG(1, 2))
	for i := range all {
		for range 12 {
			seed := []byte{byte(i), byte(dice.Uint32())}
			for range dice.IntN(300) {
				seed = append(seed, byte(dice.Uint32()))
			}
			f.Add(seed)
		}
	}
	p := &prober{codes: map[codes.Code]int{}}
	f.Cleanup(p.end)
	f.Fuzz(func(t *testing.T, data []byte) { p.probe(t, all, data) })
}

// unmet are methods that nothing made here succeeds in, why, and how it ends at
// best.
var unmet = map[string]struct {
	why  string
	best codes.Code
}{
	"Acknowledge": {"it is about a subscription that stands, whose id is random", codes.FailedPrecondition},
}

// TestEveryMethodIsReached by what is made for it, and does what it is for. In fake
// time.
func TestEveryMethodIsReached(t *testing.T) {
	all := methods()
	reached := map[protoreflect.FullName]map[codes.Code]int{}
	synctest.Test(t, func(t *testing.T) {
		p := &prober{}
		defer func() { p.end() }()
		for i, m := range all {
			p.codes = map[codes.Code]int{}
			if p.fort == nil || !p.reach(t, all, i, 30) {
				p.end() // what earlier calls did may be in the way
				p.fort, p.codes = raise(t, setup{listen: inMemory, armed: 1000}), map[codes.Code]int{}
				p.enrol(t)
				p.reach(t, all, i, 200)
			}
			reached[m.FullName()] = p.codes
		}
	})
	for _, m := range all {
		t.Log(m.FullName(), reached[m.FullName()])
		if best := unmet[string(m.Name())].best; reached[m.FullName()][best] == 0 {
			t.Errorf("%s has never ended as %v", m.FullName(), best)
		}
	}
}

// reach calls a method at most so often, until it does what it is for.
func (p *prober) reach(t *testing.T, all []protoreflect.MethodDescriptor, i, most int) bool {
	t.Helper()
	dice, best := rand.New(rand.NewPCG(3, uint64(i))), unmet[string(all[i].Name())].best
	for n := 0; n < most && p.codes[best] == 0; n++ {
		seed := []byte{byte(i)}
		for range 400 {
			seed = append(seed, byte(dice.Uint32()))
		}
		p.probe(t, all, seed)
	}
	return p.codes[best] > 0
}

// enrol registers the instances of collectors that requests tell.
func (f *fort) enrol(t *testing.T) {
	t.Helper()
	other := f.registry.connect(f.armour.identify(t, "collector/c2").Client())
	defer other.Close()
	for id, conn := range map[string]*grpc.ClientConn{"c1": f.as["collector/c1"].toReg, "c2": other} {
		if _, err := registryv1.NewCollectorServiceClient(conn).RegisterCollector(t.Context(), &registryv1.RegisterCollectorRequest{
			Collector: &registryv1.Collector{CollectorId: id, InstanceId: "instance-1", IntrospectionEndpoint: "h.example:7480"},
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryMethodIsMeant: methods has all of what is served, but for what is gRPC's
// own.
func TestEveryMethodIsMeant(t *testing.T) {
	f := raise(t, setup{listen: inMemory})
	defer f.raze()
	meant := map[string]bool{}
	for _, m := range methods() {
		meant[string(m.Parent().FullName())] = true
	}
	served := 0
	for _, conn := range []*grpc.ClientConn{f.toReg, f.toColl} {
		for service := range authtest.Served(t, conn) {
			if strings.HasPrefix(service, "grpc.") {
				continue
			}
			if served++; !meant[service] {
				t.Errorf("%s is served, and not meant", service)
			}
		}
	}
	if served != len(meant) {
		t.Errorf("%d services are served, %d are meant", served, len(meant))
	}
}
