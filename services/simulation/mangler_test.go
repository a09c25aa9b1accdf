package simulation

import (
	"context"
	"io"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// garble puts a broken peer between a collector and all registries, which hands
// over the frames of each stream but for one. When the fault ends it hands over all,
// and stays until all has been judged: what went wrong must heal on the streams that
// stand, not because they break.
func (t *town) garble(collector, how, number, wait string) {
	n, _ := strconv.Atoi(number)
	var manglers []*mangler
	for _, r := range t.registries {
		manglers = append(manglers, t.mangle(collector, r, how, n))
	}
	t.later(wait, func() {
		for _, m := range manglers {
			m.honest.Store(true)
		}
	})
}

// mangle runs one in between.
func (t *town) mangle(collector string, r *registryNode, how string, n int) *mangler {
	t.mangled++
	name := "mangler-" + strconv.Itoa(t.mangled)
	address := name + ":80"
	conn, err := grpc.NewClient("passthrough:///"+r.address(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(t.network.dialer(name)))
	if err != nil {
		t.fatalf("%s: %v", name, err)
	}
	m := &mangler{conn: conn, how: how, n: n}
	srv := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.UnknownServiceHandler(m.handle), grpc.WaitForHandlers(true))
	lis := t.network.listen(address)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(lis) }()
	redirect := func(via string) {
		t.network.divert(collector, r.address(), via)
		t.network.each(between(collector, r.name), func(l *link) { _ = l.Close() })
	}
	redirect(address)
	m.stop = func() {
		if t.network.diverted(collector, r.address()) == address {
			redirect("")
		}
		_ = conn.Close()
		srv.Stop()
		<-ended
	}
	t.manglers = append(t.manglers, m)
	return m
}

// takeManglersAway ends all of them.
func (t *town) takeManglersAway() {
	for _, m := range t.manglers {
		m.stop()
	}
	t.manglers = nil
}

// mangler hands over calls as they are, but one frame of each subscription.
type mangler struct {
	conn *grpc.ClientConn
	stop func()

	how    string
	n      int
	honest atomic.Bool
}

func (m *mangler) handle(_ any, down grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(down.Context())
	defer cancel()
	method, _ := grpc.MethodFromServerStream(down)
	up, err := m.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodecV2(wire.Codec()))
	if err != nil {
		return err
	}
	go func() {
		for {
			var request wire.Encoded
			if down.RecvMsg(&request) != nil {
				_ = up.CloseSend()
				return
			}
			if up.SendMsg(request) != nil {
				return
			}
		}
	}()
	pass := func(e wire.Encoded) []wire.Encoded { return []wire.Encoded{e} }
	if strings.HasSuffix(method, "/Subscribe") {
		pass = m.mischief()
	}
	for {
		var answer wire.Encoded
		err := up.RecvMsg(&answer)
		if err == io.EOF { //nolint:errorlint // as the interface says
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range pass(answer) {
			if err := down.SendMsg(e); err != nil {
				return err
			}
		}
	}
}

// mischief tells what to hand over of each frame of a stream.
func (m *mangler) mischief() func(wire.Encoded) []wire.Encoded {
	frames, snapshots := 0, 0
	var kept wire.Encoded
	return func(e wire.Encoded) []wire.Encoded {
		if m.honest.Load() {
			return []wire.Encoded{e}
		}
		at := frames
		frames++
		if m.how == "swallow" {
			// A whole snapshot but the first, as if there had been no change.
			f, err := wire.UnmarshalFrame(e)
			if _, begin := f.(*assignment.Begin); begin && err == nil {
				snapshots++
			}
			switch f.(type) {
			case *assignment.Begin, *assignment.Chunk, *assignment.End:
				if snapshots == 2+m.n%3 {
					return nil
				}
			}
			return []wire.Encoded{e}
		}
		switch {
		case at == m.n && m.how == "drop":
			return nil
		case at == m.n && m.how == "repeat":
			return []wire.Encoded{e, e}
		case at == m.n && m.how == "swap":
			kept = e
			return nil
		case at == m.n+1 && m.how == "swap":
			return []wire.Encoded{e, kept}
		}
		return []wire.Encoded{e}
	}
}
