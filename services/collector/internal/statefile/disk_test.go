package statefile_test

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/statefile"
)

var (
	errOff   = errors.New("the machine is off")
	errFault = errors.New("injected fault")
)

// A disk is a file system with one directory that is honest about durability:
// what was not synced may be lost at a crash, or kept in part, in any order.
// Use newDisk.
type disk struct {
	// live is what processes see, durable the names as of the last SyncDir, and
	// moves what has happened to names since.
	live, durable map[string]*inode
	moves         []move
	locked        bool

	// ops counts the operations that change something. before is asked at each
	// whether it fails, and how far it comes then.
	ops    int
	before func(op int, name string) *fault
	off    bool

	// faults is how many operations have failed.
	faults int

	// written is the size of the last write that was tried, and writing tells
	// that it was the last operation.
	written int
	writing bool

	// reordered tells that a crash has kept the end of a write without its
	// begin, and nothing has been acknowledged since.
	reordered bool
}

// A fault makes an operation fail.
type fault struct {
	err error

	// bytes is how much of a write is done; done tells of other operations that
	// they take effect all the same.
	bytes int
	done  bool
}

type inode struct {
	data    []byte
	durable []byte
	edits   []edit // since the last Sync

	// After a Sync that failed, these bytes are never written any more: the
	// next one only says so.
	poison, poisonEnd int
}

// An edit is an append, or a cut when bytes is nil.
type edit struct {
	bytes []byte
	size  int
}

type move struct {
	from, to string // from is empty for a new file, to for a removed one
	inode    *inode
}

func newDisk() *disk {
	return &disk{live: map[string]*inode{}, durable: map[string]*inode{}}
}

// step begins an operation that changes something.
func (d *disk) step(name string) *fault {
	if d.off {
		return &fault{err: errOff}
	}
	d.ops++
	d.writing = name == "write"
	if d.before == nil {
		return nil
	}
	f := d.before(d.ops, name)
	if f != nil {
		d.faults++
	}
	return f
}

func (d *disk) Claim(string) (io.Closer, error) {
	if d.locked {
		return nil, statefile.ErrLocked
	}
	d.locked = true
	return unlocker{d}, nil
}

type unlocker struct{ d *disk }

func (u unlocker) Close() error {
	u.d.locked = false
	return nil
}

func (d *disk) OpenFile(name string, flag int, _ fs.FileMode) (statefile.Handle, error) {
	name = filepath.Base(name)
	node := d.live[name]
	switch {
	case d.off:
		return nil, errOff
	case node == nil && flag&os.O_CREATE == 0:
		return nil, fs.ErrNotExist
	case node == nil:
		if f := d.step("create"); f != nil && !f.done {
			return nil, f.err
		}
		node = &inode{}
		d.live[name] = node
		d.moves = append(d.moves, move{to: name, inode: node})
	case flag&os.O_EXCL != 0:
		return nil, fs.ErrExist
	case flag&os.O_TRUNC != 0:
		if err := (&handle{d, node}).Truncate(0); err != nil {
			return nil, err
		}
	}
	return &handle{d, node}, nil
}

func (d *disk) Rename(from, to string) error {
	from, to = filepath.Base(from), filepath.Base(to)
	node := d.live[from]
	if node == nil {
		return fs.ErrNotExist
	}
	f := d.step("rename")
	if f == nil || f.done {
		delete(d.live, from)
		d.live[to] = node
		d.moves = append(d.moves, move{from, to, node})
	}
	return f.error()
}

func (d *disk) Remove(name string) error {
	name = filepath.Base(name)
	node := d.live[name]
	if node == nil {
		return fs.ErrNotExist
	}
	f := d.step("remove")
	if f == nil || f.done {
		delete(d.live, name)
		d.moves = append(d.moves, move{from: name, inode: node})
	}
	return f.error()
}

func (d *disk) SyncDir(string) error {
	f := d.step("syncdir")
	if f == nil || f.done {
		d.durable, d.moves = maps.Clone(d.live), nil
	}
	return f.error()
}

func (f *fault) error() error {
	if f == nil {
		return nil
	}
	return f.err
}

type handle struct {
	d *disk
	*inode
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	if h.d.off {
		return 0, errOff
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

func (h *handle) Write(p []byte) (int, error) {
	h.d.written = len(p)
	f := h.d.step("write")
	if f != nil {
		p = p[:min(f.bytes, len(p))]
	}
	if len(p) > 0 {
		h.data = append(h.data, p...)
		h.edits = append(h.edits, edit{bytes: slices.Clone(p)})
	}
	return len(p), f.error()
}

func (h *handle) Sync() error {
	f := h.d.step("sync")
	if f == nil || f.done {
		h.durable, h.edits = slices.Clone(h.data), nil
	} else if h.poison == h.poisonEnd {
		h.poison, h.poisonEnd = len(h.durable), len(h.data)
	}
	return f.error()
}

func (h *handle) Truncate(size int64) error {
	f := h.d.step("truncate")
	if f == nil || f.done {
		h.data = h.data[:size:size]
		h.edits = append(h.edits, edit{size: int(size)})
		h.poisonEnd = max(h.poison, min(h.poisonEnd, int(size)))
	}
	return f.error()
}

func (h *handle) Close() error { return nil }

// killed returns the disk as the next process finds it when this one is killed.
func (d *disk) killed() *disk {
	d.locked, d.off = false, false
	return d
}

// crashed returns a disk as it may be after a crash of the machine. pick
// decides: it returns a number below its argument.
func (d *disk) crashed(pick func(int) int) *disk {
	const undone, kept, both = 0, 1, 2
	names := maps.Clone(d.durable)
	for _, m := range d.moves {
		switch {
		case m.from == "" && pick(2) == kept:
			names[m.to] = m.inode
		case m.to == "" && pick(2) == kept:
			delete(names, m.from)
		case m.from != "" && m.to != "":
			outcome := pick(3)
			if outcome != undone {
				names[m.to] = m.inode
			}
			if outcome != both && outcome != undone && names[m.from] == m.inode {
				delete(names, m.from)
			}
		}
	}
	after, copies := newDisk(), map[*inode]*inode{}
	after.reordered = d.reordered
	for _, name := range slices.Sorted(maps.Keys(names)) {
		old := names[name]
		if copies[old] == nil {
			data, reordered := old.crashed(pick)
			after.reordered = after.reordered || reordered
			copies[old] = &inode{data: data, durable: slices.Clone(data)}
		}
		after.live[name], after.durable[name] = copies[old], copies[old]
	}
	return after
}

// crashed is the contents after a crash: the edits up to some byte, and then
// nothing, or zeros in the place of what follows, or of what came before.
func (n *inode) crashed(pick func(int) int) (data []byte, reordered bool) {
	data = slices.Clone(n.durable)
	if n.poison < n.poisonEnd && n.poison < len(data) {
		clear(data[n.poison:min(n.poisonEnd, len(data))])
	}
	if len(n.edits) == 0 {
		return data, false
	}
	whole := pick(len(n.edits))
	for _, e := range n.edits[:whole] {
		data = e.apply(data)
	}
	last := n.edits[whole]
	if last.bytes == nil {
		if pick(2) == 0 {
			return data, false
		}
		return last.apply(data), false
	}
	const cut, tailZero, headZero = 0, 1, 2
	b := slices.Clone(last.bytes)
	at := pick(len(b) + 1)
	switch pick(3) {
	case cut:
		b = b[:at]
	case tailZero:
		clear(b[at:])
	case headZero:
		clear(b[:at])
		reordered = 0 < at && at < len(b)
	}
	return append(data, b...), reordered
}

func (e edit) apply(data []byte) []byte {
	if e.bytes == nil {
		if e.size < len(data) {
			return data[:e.size]
		}
		return data
	}
	return append(data, e.bytes...)
}

// An odometer goes through all sequences of picks.
type odometer struct {
	digits, radix []int
	at            int
}

// pick is a picker for one sequence.
func (o *odometer) pick(n int) int {
	if o.at == len(o.digits) {
		o.digits, o.radix = append(o.digits, 0), append(o.radix, n)
	}
	o.at++
	return o.digits[o.at-1]
}

// next turns to the next sequence; false after the last.
func (o *odometer) next() bool {
	for i := o.at - 1; i >= 0; i-- {
		if o.digits[i]++; o.digits[i] < o.radix[i] {
			o.digits, o.radix, o.at = o.digits[:i+1], o.radix[:i+1], 0
			return true
		}
	}
	return false
}

func TestOdometerVisitsEachSequenceOnce(t *testing.T) {
	var o odometer
	seen := map[[3]int]bool{}
	for {
		a := o.pick(2)
		b := o.pick(a + 1)
		c := o.pick(3)
		if seen[[3]int{a, b, c}] {
			t.Fatalf("%d %d %d came twice", a, b, c)
		}
		seen[[3]int{a, b, c}] = true
		if !o.next() {
			break
		}
	}
	if len(seen) != 9 {
		t.Errorf("%d sequences, want 9", len(seen))
	}
}
