package simulation

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/rollcall-metrics/rollcall/services/collector"
)

// disk is the file system of one collector's state, in memory. It outlives the
// processes that use it, and forgets at a crash what was not synced, or keeps a
// part of it.
type disk struct {
	mu     sync.Mutex
	files  map[string]*content
	life   int // counts crashes: handles and locks of an earlier life are dead
	locked bool
	full   bool

	// tear has the next write be the last of its life, and come only so far.
	tear func(bytes int) int
	torn bool
}

type content struct {
	data   []byte
	synced int // how much of data survives a crash for sure
}

func newDisk() *disk { return &disk{files: map[string]*content{}} }

// crash ends the life of every handle. keep tells how much of so many bytes that
// were not synced is left.
func (d *disk) crash(keep func(unsynced int) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.locked = false
	for _, c := range d.files {
		c.data = c.data[:c.synced+keep(len(c.data)-c.synced)]
		c.synced = len(c.data)
	}
}

// arm has the next write torn off, or not, for nil.
func (d *disk) arm(tear func(bytes int) int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tear = tear
}

// wasTorn tells once that a write was torn off.
func (d *disk) wasTorn() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	torn := d.torn
	d.torn = false
	return torn
}

// fill makes the disk full, or not.
func (d *disk) fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

var errDead = errors.New("the process of this handle is dead")

// begin is the disk of the process that lives now.
func (d *disk) begin() collector.StateFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &mount{d, d.life}
}

// mount is a disk as one process sees it.
type mount struct {
	disk *disk
	life int
}

// do runs an operation of a process that is alive.
func (m *mount) do(op func(d *disk) error) error {
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	if m.life != m.disk.life {
		return errDead
	}
	return op(m.disk)
}

// Claim takes the lock.
func (m *mount) Claim(string) (io.Closer, error) {
	err := m.do(func(d *disk) error {
		if d.locked {
			return errors.New("locked")
		}
		d.locked = true
		return nil
	})
	return claim{m}, err
}

type claim struct{ *mount }

// Close gives the lock back.
func (c claim) Close() error {
	_ = c.do(func(d *disk) error { d.locked = false; return nil })
	return nil
}

// OpenFile opens or makes a file.
func (m *mount) OpenFile(name string, flag int, _ fs.FileMode) (collector.StateHandle, error) {
	h := &open{mount: m}
	err := m.do(func(d *disk) error {
		name = filepath.Base(name)
		c := d.files[name]
		switch {
		case c == nil && flag&os.O_CREATE == 0:
			return fs.ErrNotExist
		case c == nil && d.full:
			return syscall.ENOSPC
		case c == nil:
			c = &content{}
			d.files[name] = c
		case flag&os.O_EXCL != 0:
			return fs.ErrExist
		}
		h.content = c
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// Rename renames a file, durably.
func (m *mount) Rename(from, to string) error {
	return m.do(func(d *disk) error {
		from, to = filepath.Base(from), filepath.Base(to)
		c := d.files[from]
		if c == nil {
			return fs.ErrNotExist
		}
		delete(d.files, from)
		d.files[to] = c
		return nil
	})
}

// Remove removes a file, durably.
func (m *mount) Remove(name string) error {
	return m.do(func(d *disk) error {
		if d.files[filepath.Base(name)] == nil {
			return fs.ErrNotExist
		}
		delete(d.files, filepath.Base(name))
		return nil
	})
}

// SyncDir has nothing left to do.
func (m *mount) SyncDir(string) error { return m.do(func(*disk) error { return nil }) }

// open is an open file.
type open struct {
	*mount
	content *content
}

// ReadAt reads.
func (o *open) ReadAt(p []byte, off int64) (n int, err error) {
	err = o.do(func(*disk) error {
		if off < int64(len(o.content.data)) {
			n = copy(p, o.content.data[off:])
		}
		if n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// Write appends; a full disk takes half of it.
func (o *open) Write(p []byte) (n int, err error) {
	err = o.do(func(d *disk) error {
		n = len(p)
		switch {
		case d.full:
			n /= 2
		case d.tear != nil:
			n = d.tear(n)
			d.tear, d.torn = nil, true
			d.life++ // the machine is off
			d.locked = false
		}
		o.content.data = slices.Concat(o.content.data, p[:n])
		if d.full {
			return syscall.ENOSPC
		}
		if m := o.mount; m.life != d.life {
			return errDead
		}
		return nil
	})
	return n, err
}

// Sync makes the contents durable.
func (o *open) Sync() error {
	return o.do(func(*disk) error { o.content.synced = len(o.content.data); return nil })
}

// Truncate cuts, durably.
func (o *open) Truncate(size int64) error {
	return o.do(func(*disk) error {
		o.content.data = slices.Clone(o.content.data[:size])
		o.content.synced = min(o.content.synced, len(o.content.data))
		return nil
	})
}

// Close has nothing left to do.
func (o *open) Close() error { return nil }
