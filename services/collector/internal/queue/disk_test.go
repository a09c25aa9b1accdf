package queue_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/queue"
)

var errOff = errors.New("the machine is off")

// A disk is a file system in memory, with one directory, that can fail, hang and
// crash. It is safe for concurrent use.
type disk struct {
	mu     sync.Mutex
	files  map[string]*inode
	locked bool
	off    bool

	// fault is asked at each operation. A write that fails does half.
	fault func(op, name string) error

	// stall holds up the operations that it names, until it is closed.
	stall map[string]chan struct{}
	ops   map[string]int
}

type inode struct {
	data   []byte
	synced int // of data: what is durable
	named  bool
}

func newDisk() *disk {
	return &disk{files: map[string]*inode{}, stall: map[string]chan struct{}{}, ops: map[string]int{}}
}

// step begins an operation, with the lock.
func (d *disk) step(op, name string) error {
	d.mu.Lock()
	hold := d.stall[op]
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	d.mu.Lock()
	d.ops[op]++
	if d.off {
		return errOff
	}
	if d.fault != nil {
		return d.fault(op, filepath.Base(name))
	}
	return nil
}

func (d *disk) Claim(dir string) (io.Closer, error) {
	defer d.mu.Unlock()
	if err := d.step("claim", dir); err != nil {
		return nil, err
	}
	if d.locked {
		return nil, queue.ErrLocked
	}
	d.locked = true
	return unlocker{d}, nil
}

type unlocker struct{ d *disk }

func (u unlocker) Close() error {
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	u.d.locked = false
	return nil
}

func (d *disk) List(dir string) ([]queue.Entry, error) {
	defer d.mu.Unlock()
	if err := d.step("list", dir); err != nil {
		return nil, err
	}
	var all []queue.Entry
	for name, n := range d.files {
		all = append(all, queue.Entry{Name: name, Size: int64(len(n.data)), Changed: time.Now()})
	}
	return all, nil
}

func (d *disk) OpenFile(name string, flag int, _ fs.FileMode) (queue.File, error) {
	defer d.mu.Unlock()
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := d.step(op, name); err != nil {
		return nil, err
	}
	name = filepath.Base(name)
	n := d.files[name]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case n == nil:
		n = &inode{}
		d.files[name] = n
	case flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case flag&os.O_TRUNC != 0:
		n.data, n.synced = nil, 0
	}
	return &handle{d: d, inode: n, name: name}, nil
}

func (d *disk) Remove(name string) error {
	defer d.mu.Unlock()
	if err := d.step("remove", name); err != nil {
		return err
	}
	name = filepath.Base(name)
	if d.files[name] == nil {
		return fs.ErrNotExist
	}
	delete(d.files, name)
	return nil
}

func (d *disk) SyncDir(dir string) error {
	defer d.mu.Unlock()
	if err := d.step("syncdir", dir); err != nil {
		return err
	}
	for _, n := range d.files {
		n.named = true
	}
	return nil
}

type handle struct {
	d *disk
	*inode
	name   string
	closed bool
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	defer h.d.mu.Unlock()
	if err := h.d.step("read", h.name); err != nil {
		return 0, err
	}
	if off >= int64(len(h.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	defer h.d.mu.Unlock()
	err := h.d.step("write", h.name)
	if errors.Is(err, errOff) {
		return 0, err
	}
	if err != nil {
		p = p[:len(p)/2]
	}
	if missing := int(off) + len(p) - len(h.data); missing > 0 {
		h.data = append(h.data, make([]byte, missing)...)
	}
	copy(h.data[off:], p)
	h.synced = min(h.synced, int(off))
	return len(p), err
}

func (h *handle) Sync() error {
	defer h.d.mu.Unlock()
	if err := h.d.step("sync", h.name); err != nil {
		return err
	}
	if h.closed {
		return fs.ErrClosed
	}
	h.synced = len(h.data)
	return nil
}

func (h *handle) Truncate(size int64) error {
	defer h.d.mu.Unlock()
	if err := h.d.step("truncate", h.name); err != nil {
		return err
	}
	if int(size) < len(h.data) {
		h.data = h.data[:size:size]
		h.synced = min(h.synced, int(size))
	}
	return nil
}

func (h *handle) Close() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	h.closed = true
	return nil
}

// killed is what the next process finds; this disk is off from now on.
func (d *disk) killed() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off = true
	for op, hold := range d.stall {
		close(hold)
		delete(d.stall, op)
	}
	after := newDisk()
	for name, n := range d.files {
		after.files[name] = &inode{slices.Clone(n.data), n.synced, n.named}
	}
	return after
}

// crashed is what may be left when the machine goes down: pick gives a number
// below its argument. Of a file that was written over, only the synced part is
// sure to be left.
func (d *disk) crashed(pick func(int) int) *disk {
	after := d.killed()
	for _, name := range slices.Sorted(maps.Keys(after.files)) {
		n := after.files[name]
		if !n.named && pick(2) == 0 {
			delete(after.files, name)
			continue
		}
		n.data = n.data[:n.synced+pick(len(n.data)-n.synced+1)]
		if pick(4) == 0 {
			n.data = append(n.data, make([]byte, pick(100))...) // the size came, the bytes did not
		}
		n.synced, n.named = len(n.data), true
	}
	return after
}

// hang holds up operations until release.
func (d *disk) hang(ops ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range ops {
		if d.stall[op] == nil {
			d.stall[op] = make(chan struct{})
		}
	}
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for op, hold := range d.stall {
		close(hold)
		delete(d.stall, op)
	}
}

func (d *disk) failWith(fault func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = fault
}

// bytes is what segments take.
func (d *disk) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for name, i := range d.files {
		if strings.HasSuffix(name, ".segment") {
			n += len(i.data)
		}
	}
	return int64(n)
}

// segments are the names of segments that are there.
func (d *disk) segments() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for name := range d.files {
		if strings.HasSuffix(name, ".segment") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// flip changes a byte of a file.
func (d *disk) flip(name string, at int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data := slices.Clone(d.files[name].data)
	data[at] ^= 0x40
	d.files[name].data = data
}
