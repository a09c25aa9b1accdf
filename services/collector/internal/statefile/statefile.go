// Package statefile keeps a collector's last sealed set on disk, with what is
// held, so that it restarts into work while no registry answers.
//
// Its invariant: what Open returns is the state after some whole entry, never a
// part of one, and never an older one than the last that Append returned nil
// for, as long as the disk gives back what was written to it. When it does not,
// Open returns an older whole state, or none, and says so.
//
// The file is a recorded stream: the frames of sealed snapshots, as the
// registry sent them, each entry closed by a commit record. Loading runs them
// through the assembler that took them from the wire. When the file has
// outgrown its base, the state is written anew, as one snapshot of scope ALL,
// into the other of two slots; the generation before stays as a fallback.
// record.go has the format.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/guard"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// The reasons to refuse to start. Each asks for an operator: nothing on disk
// was changed.
var (
	// ErrOtherCollector is wrapped when the directory holds the state of
	// another collector: a wrong volume, or a wrong id.
	ErrOtherCollector = errors.New("the state is another collector's")

	// ErrNewerFormat is wrapped when a newer version wrote something that this
	// one must not leave out.
	ErrNewerFormat = errors.New("the state was written by a newer version")

	// ErrTooMany is wrapped when the set has more members than
	// Config.MaxProducers.
	ErrTooMany = errors.New("the state has more producers than are allowed")

	// ErrLocked is wrapped when another process uses the directory.
	ErrLocked = errors.New("the state directory is in use by another process")
)

const (
	// minGrowth is the size up to which a file is never written anew.
	minGrowth = 64 << 10

	// positionInterval is the shortest time between two entries that only
	// advance the position. Losing one costs a heartbeat, writing one an fsync.
	positionInterval = time.Minute

	// rewriteInterval is how long to wait after a rewrite that failed. It
	// writes the whole set; on a full disk that would be done for every
	// change.
	rewriteInterval = 5 * time.Second
)

// The names in the directory, beside that of the lock. Each slot holds one
// generation.
const (
	tempName  = "set.temp"
	asideName = "set.corrupt"
)

var slotNames = [2]string{"set.0", "set.1"} //nolint:gochecknoglobals // a constant, but for the language

// A Config tells where the state is and whose it is.
type Config struct {
	// Dir is the directory. It is made when missing, and locked. It should hold
	// nothing else; about five times the size of the set is used.
	Dir string

	// Collector is whose state it is.
	Collector assignment.CollectorID

	// MaxProducers is the most members that a loaded set may have.
	MaxProducers int

	// Logger is told what is wrong with the files. Nil means nobody is.
	Logger *slog.Logger

	// FS is nil for the operating system's.
	FS FS

	// minGrowth replaces the constant in tests.
	minGrowth int64
}

// A State is what a collector resumes with.
type State struct {
	// Accepted is the last sealed set; the zero value before the first seal.
	Accepted *snapshot.Accepted

	// Held are the producers that were held, sorted by id when loaded.
	Held []guard.Held
}

// An Entry is what has changed since the entry before. It is in the file as a
// whole or not at all.
type Entry struct {
	// Frames are those of one sealed snapshot, from begin to end; or none.
	Frames []assignment.Frame

	// Released are no longer held. It takes effect before Held.
	Released []assignment.ProducerID

	// Held are held now, or with other particulars than before.
	Held []guard.Held

	// Position is where an equal heartbeat has advanced the set to; or nil. It
	// is of no account beside frames, which have their own.
	Position *snapshot.Position
}

// A File is the open state of one collector. It is not safe for concurrent use:
// its owner is who changes the accepted set, in the same order.
type File struct {
	dir       string
	collector assignment.CollectorID
	logger    *slog.Logger
	fs        FS
	lock      io.Closer
	recovery  Recovery
	minGrowth int64

	// slot is that of the newest generation known to be on stable storage. A
	// rewrite goes to the other one.
	slot       int
	generation uint64

	// tail is the file of that generation, open at its end; nil when it lacks
	// an entry or cannot be trusted, so that the next Append must rewrite.
	tail     Handle
	salt     uint32
	size     int64
	base     int64
	sequence uint64
	position snapshot.Position

	// written is when an entry was last written, failed when a rewrite last
	// failed, and failure how; nil when the last one did not.
	written time.Time
	failed  time.Time
	failure error

	buf    []byte
	closed bool
}

// Append makes an entry durable: it has been written and synced when the result
// is nil. current returns the state with the entry in it; it is called, before
// Append returns, when the file is to be written anew, and what it returns is
// only read. That takes longer the larger the set is.
//
// After an error the entry may be in the file or not; those before it are. The
// next Append that succeeds makes the file complete again, so an owner that
// goes on with a set that is not on disk need not remember what is missing. A
// rewrite that failed is not tried again for 5 s; until then the same error is
// returned.
//
// An entry that only advances the position is left out when anything was
// written within the last minute; nil is returned. So give it every equal
// heartbeat: one of them also repairs the file after a failure.
func (f *File) Append(entry Entry, current func() State) error {
	if f.closed {
		return fmt.Errorf("append to the state: %w", os.ErrClosed)
	}
	if f.tail == nil {
		if f.resting() {
			return f.failure
		}
		return f.rewrite(current())
	}
	if f.negligible(&entry) {
		return nil
	}
	buf, err := f.encodeEntry(&entry)
	if err != nil {
		// Not to be appended; but the state with it in it can be written.
		if err := f.rewrite(current()); err != nil {
			f.closeTail()
			return err
		}
		return nil
	}
	if err := writeSynced(f.tail, buf); err != nil {
		f.abandonTail()
		return fmt.Errorf("append to the state: %w", err)
	}
	f.size += int64(len(buf))
	f.sequence++
	f.written = time.Now()
	f.position = f.positionAfter(&entry)
	if f.size > f.softLimit() && !f.resting() {
		if err := f.rewrite(current()); err != nil {
			// The entry is on disk all the same.
			f.logger.Warn("state file could not be written anew", "dir", f.dir, "bytes", f.size, "error", err)
		}
	}
	return nil
}

// negligible reports whether an entry need not be written.
func (f *File) negligible(entry *Entry) bool {
	if len(entry.Frames)+len(entry.Held)+len(entry.Released) > 0 {
		return false
	}
	return !f.advances(entry.Position) || time.Since(f.written) < positionInterval
}

// advances reports whether p is further in the same epoch.
func (f *File) advances(p *snapshot.Position) bool {
	return p != nil && p.Epoch == f.position.Epoch && p.Revision > f.position.Revision
}

func (f *File) positionAfter(entry *Entry) snapshot.Position {
	if len(entry.Frames) > 0 {
		if end, ok := entry.Frames[len(entry.Frames)-1].(*assignment.End); ok {
			return snapshot.Position{Epoch: end.Epoch, Revision: end.Revision}
		}
	}
	if f.advances(entry.Position) {
		return *entry.Position
	}
	return f.position
}

// abandonTail cuts off what may have been written of an entry and gives up the
// file. After a failed fsync nobody knows which of its pages are on disk, also
// when a later one succeeds; so nothing is appended to it any more.
func (f *File) abandonTail() {
	if err := f.tail.Truncate(f.size); err != nil {
		f.logger.Warn("state file could not be cut back after a failed append", "path", f.path(slotNames[f.slot]), "error", err)
	}
	f.closeTail()
}

func (f *File) closeTail() {
	if f.tail != nil {
		_ = f.tail.Close() // nothing in it is waiting to be written
		f.tail = nil
	}
}

// Recovery tells what Open found wrong.
func (f *File) Recovery() Recovery { return f.recovery }

// Close gives the directory free. Everything that Append returned nil for is on
// disk already.
func (f *File) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	f.closeTail()
	if err := f.lock.Close(); err != nil {
		return fmt.Errorf("unlock the state directory: %w", err)
	}
	return nil
}

func (f *File) path(name string) string { return filepath.Join(f.dir, name) }

func writeSynced(h Handle, b []byte) error {
	n, err := h.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return err
	}
	return h.Sync()
}
