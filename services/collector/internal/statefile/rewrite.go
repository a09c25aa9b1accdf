package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// softLimit is the size over which the file is written anew. hardLimit is the
// size that it may reach when that fails: on a full disk an entry may still
// fit where a whole set does not.
func (f *File) softLimit() int64 { return max(2*f.base, f.minGrowth) }
func (f *File) hardLimit() int64 { return 2 * f.softLimit() }

// resting reports whether a rewrite has failed only just now.
func (f *File) resting() bool {
	return f.failure != nil && time.Since(f.failed) < rewriteInterval
}

// rewrite begins a new generation with this state.
func (f *File) rewrite(state State) error {
	named, err := f.writeGeneration(&state)
	if err == nil {
		f.failure = nil
		return nil
	}
	f.failed = time.Now()
	f.failure = fmt.Errorf("write the state anew: %w", err)
	if named {
		// After a crash the directory may show the new generation or not. So
		// no entry may be put into the old one alone.
		f.closeTail()
	}
	return f.failure
}

// writeGeneration writes a generation and gives it the name of the slot that
// is not in use. After an error, named tells that it may have got the name.
func (f *File) writeGeneration(state *State) (named bool, err error) {
	f.generation++
	temp := f.path(tempName)
	// Not O_TRUNC: after a crash in a rename, some file systems show the file
	// under both names.
	if err := f.fs.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	file, err := f.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, fileMode)
	if err != nil {
		return false, err
	}
	e := &encoder{out: file}
	e.buf, e.salt = appendHeader(nil, &header{
		version:    version,
		generation: f.generation,
		format:     assignment.AssignmentFormat,
		collector:  f.collector,
	})
	if err = e.encodeState(state); err == nil {
		err = file.Sync()
	}
	if err != nil {
		_ = file.Close()
		_ = f.fs.Remove(temp) // gives the space back; the next one removes it too
		return false, err
	}
	slot := 1 - f.slot
	if err = f.fs.Rename(temp, f.path(slotNames[slot])); err == nil {
		err = f.fs.SyncDir(f.dir)
	}
	if err != nil {
		_ = file.Close()
		return true, err
	}
	f.closeTail()
	f.tail, f.slot, f.salt = file, slot, e.salt
	f.size, f.base, f.sequence = e.written, e.written, 1
	f.written = time.Now()
	f.position = snapshot.Position{}
	if state.Accepted != nil {
		f.position = state.Accepted.Position
	}
	return false, nil
}
