package statefile

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/snapshot"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Recovery is what Open found wrong, for people to see. The zero value:
// nothing.
type Recovery struct {
	// Torn is how many bytes of an entry without an end were left out at the
	// end of the file: an Append that had not returned when the process or the
	// machine went down. Nothing that was acknowledged is missing.
	Torn int64

	// Damage says, when the disk did not give back what was written to it, what
	// was found. Then entries that Append returned nil for may be missing from
	// the state.
	Damage []string

	// Fallback tells that the newest generation could not be used: the state is
	// that of the one before, or none.
	Fallback bool

	// Aside is the path of a file that could not be used at all and has been
	// kept, now or at an earlier start; or empty. It is never read. Take it away
	// when it has been looked at.
	Aside string
}

// Open locks the directory and loads what is there. An empty State, and a
// Recovery without Damage, mean that nothing has been written there yet.
//
// What a crash leaves, and what a disk loses, is no error: Open goes back to
// the last whole entry, to the generation before, or to nothing; it logs that,
// and Recovery tells it. The errors are ErrLocked, ErrOtherCollector,
// ErrNewerFormat, ErrTooMany, assignment.ErrID for a malformed Collector, and
// those of making, locking and opening.
//
// The caller owns the state, and must close the file.
func Open(cfg Config) (*File, *State, error) {
	if _, err := assignment.ParseCollectorID(string(cfg.Collector)); err != nil {
		return nil, nil, fmt.Errorf("collector id: %w", err)
	}
	f := &File{
		dir:       cfg.Dir,
		collector: cfg.Collector,
		logger:    cfg.Logger,
		fs:        cfg.FS,
		minGrowth: cmp.Or(cfg.minGrowth, minGrowth),
	}
	if f.logger == nil {
		f.logger = slog.New(slog.DiscardHandler)
	}
	if f.fs == nil {
		f.fs = system{}
	}
	lock, err := f.fs.Claim(cfg.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("state directory %s: %w", cfg.Dir, err)
	}
	f.lock = lock
	state, err := f.load(cfg.MaxProducers)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("state directory %s: %w", cfg.Dir, err), lock.Close())
	}
	return f, state, nil
}

// load finds the newest generation that can be used. Until it is known that
// this collector may start with it, nothing is changed on disk.
func (f *File) load(maxProducers int) (*State, error) {
	slots, unusable, err := f.examine()
	if err != nil {
		return nil, err
	}
	var loaded *image
	for _, slot := range slots {
		loaded, err = f.loadSlot(slot)
		if err != nil {
			return nil, err
		}
		if loaded != nil {
			f.slot = slot
			break
		}
		unusable = append(unusable, slot)
	}
	if loaded == nil {
		f.setAside(unusable)
		f.noteAside()
		f.noteNothing()
		return &State{Accepted: &snapshot.Accepted{}}, nil
	}
	if n := loaded.accepted.Set.Len(); n > maxProducers {
		return nil, fmt.Errorf("%w: %d, at most %d; allow more, or take the files away", ErrTooMany, n, maxProducers)
	}
	f.setAside(unusable)
	f.noteAside()
	f.resume(loaded, len(unusable) > 0)
	return loaded.state(), nil
}

// examine reads the headers. It returns the slots that have a good one, the
// newest generation first, and those that have a bad one.
func (f *File) examine() (slots, unusable []int, err error) {
	var generations [len(slotNames)]uint64
	for slot, name := range slotNames {
		h, err := f.readHeader(f.path(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, nil, err
		case h == nil:
			unusable = append(unusable, slot)
			continue
		case h.collector != f.collector:
			return nil, nil, fmt.Errorf("%w: %s is that of %q, this is %q", ErrOtherCollector, name, h.collector, f.collector)
		}
		generations[slot] = h.generation
		f.generation = max(f.generation, h.generation)
		slots = append(slots, slot)
	}
	slices.SortStableFunc(slots, func(a, b int) int { return cmp.Compare(generations[b], generations[a]) })
	return slots, unusable, nil
}

// readHeader returns nil for a file that has none.
func (f *File) readHeader(path string) (*header, error) {
	file, err := f.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r := recordReader{r: section(file, 0)}
	h, err := r.readHeader()
	if errors.Is(err, ErrNewerFormat) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		f.noteDamage(path, err, 0)
	}
	return h, nil
}

// loadSlot returns nil for a file without a base.
func (f *File) loadSlot(slot int) (*image, error) {
	path := f.path(slotNames[slot])
	file, err := f.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	loaded, err := load(file)
	if errors.Is(err, ErrNewerFormat) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		f.noteDamage(path, err, 0)
		return nil, nil
	}
	if loaded.entries == 0 {
		f.noteDamage(path, loaded.flaw, 0)
		return nil, nil
	}
	return loaded, nil
}

// resume opens the file for appending, unless there is something about it that
// a cut does not heal. Then the next Append writes a new generation.
func (f *File) resume(loaded *image, fallback bool) {
	path := f.path(slotNames[f.slot])
	f.recovery.Fallback = fallback
	if loaded.torn > 0 {
		f.recovery.Torn = loaded.torn
		f.logger.Warn("state file ends in an entry that is not whole, left out", "path", path,
			"bytes", loaded.torn, "entries", loaded.entries)
	}
	damaged := loaded.flaw != nil && loaded.torn == 0
	if damaged {
		f.noteDamage(path, loaded.flaw, loaded.entries)
	}
	if fallback {
		f.logger.Error("state is that of the previous generation", "path", path, "entries", loaded.entries,
			"producers", loaded.accepted.Set.Len(), "epoch", loaded.accepted.Epoch, "revision", loaded.accepted.Revision)
	}
	// The header tells what the writer of all entries could understand.
	if damaged || fallback || loaded.format != assignment.AssignmentFormat {
		return
	}
	tail, err := f.fs.OpenFile(path, os.O_RDWR|os.O_APPEND, fileMode)
	if err == nil {
		if err = f.settle(tail, loaded); err != nil {
			_ = tail.Close()
		}
	}
	if err != nil {
		f.logger.Warn("state file cannot be appended to", "path", path, "error", err)
		return
	}
	f.tail, f.salt = tail, loaded.salt
	f.size, f.base, f.sequence = loaded.good, loaded.base, loaded.entries
	f.position = loaded.accepted.Position
}

// settle cuts off what is torn, and makes durable what was loaded, the name of
// the file included: the process that wrote it may have been killed before it
// did.
func (f *File) settle(tail Handle, loaded *image) error {
	if loaded.torn > 0 {
		if err := tail.Truncate(loaded.good); err != nil {
			return err
		}
	}
	if err := tail.Sync(); err != nil {
		return err
	}
	return f.fs.SyncDir(f.dir)
}

// noteDamage keeps and logs what was found; entries is how many before it could
// be read.
func (f *File) noteDamage(path string, flaw error, entries uint64) {
	f.recovery.Damage = append(f.recovery.Damage, fmt.Sprintf("%s: %v, after %d whole entries", path, flaw, entries))
	f.logger.Error("state file is damaged", "path", path, "error", flaw, "entries", entries)
}

// setAside keeps the newest of these files under another name.
func (f *File) setAside(unusable []int) {
	for _, slot := range slices.Backward(unusable) {
		path := f.path(slotNames[slot])
		if err := f.fs.Rename(path, f.path(asideName)); err != nil {
			f.logger.Warn("state file could not be put aside", "path", path, "error", err)
			continue
		}
		f.logger.Error("state file cannot be used and was put aside", "path", path, "kept_as", f.path(asideName))
	}
}

// noteAside looks for a file that was put aside.
func (f *File) noteAside() {
	aside := f.path(asideName)
	file, err := f.fs.OpenFile(aside, os.O_RDONLY, 0)
	if err != nil {
		return
	}
	_ = file.Close()
	f.recovery.Aside = aside
}

// noteNothing is loud about an empty state, unless there never was another.
func (f *File) noteNothing() {
	if len(f.recovery.Damage) == 0 && f.recovery.Aside == "" {
		return
	}
	if len(f.recovery.Damage) == 0 {
		f.recovery.Damage = []string{f.recovery.Aside + ": the only file there is, put aside at an earlier start"}
	}
	f.recovery.Fallback = true
	f.logger.Error("state is lost, beginning with nothing", "dir", f.dir, "damage", f.recovery.Damage)
}
