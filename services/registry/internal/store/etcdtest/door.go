package etcdtest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
)

// A door is where clients meet a member: an address that stays the member's when
// it is dead. Nobody else can get it meanwhile, and connections can be broken
// without a word.
type door struct {
	listener net.Listener
	behind   string // path of the member's own socket
	served   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	conns map[net.Conn]struct{}
	shown bool // open: connections are let in
}

func newDoor(ctx context.Context, behind string) (*door, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{listener: listener, behind: behind, conns: map[net.Conn]struct{}{}}
	d.served.Go(d.accept)
	return d, nil
}

func (d *door) accept() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.served.Go(func() { d.pass(conn) })
	}
}

// pass carries what both sides say until one of them ends.
func (d *door) pass(front net.Conn) {
	defer front.Close()
	back, err := net.Dial("unix", d.behind) //nolint:noctx // the socket is of this process
	if err != nil {
		return
	}
	defer back.Close()
	if !d.enter(front, back) {
		return
	}
	defer d.leave(front, back)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(back, front)
		_ = back.Close()
	}()
	_, _ = io.Copy(front, back)
	_ = front.Close()
	<-done
}

func (d *door) enter(both ...net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.shown {
		return false
	}
	for _, conn := range both {
		d.conns[conn] = struct{}{}
	}
	return true
}

func (d *door) leave(both ...net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range both {
		delete(d.conns, conn)
	}
}

// open lets connections in.
func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = true
}

// shut breaks all connections and lets no more in.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shown = false
	for conn := range d.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // what was on its way is lost
		}
		_ = conn.Close()
	}
}

// close gives the address up.
func (d *door) close() {
	err := d.listener.Close()
	d.shut()
	d.served.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		panic(err)
	}
}
