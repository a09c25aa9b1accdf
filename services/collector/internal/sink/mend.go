package sink

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

// mendLogs mends both logs of a store, if the disk gives them.
func mendLogs(dir string) error {
	for _, name := range []string{"wal", "wbl"} {
		log := filepath.Join(dir, name)
		if err := readLog(log); err != nil {
			return err
		}
		if err := mendLog(log); err != nil {
			return err
		}
	}
	return nil
}

// mendLog cuts what a failed write has left at the end of a log. The store does it
// too, but by writing the segment anew: on a disk that is still full it loses what
// it was about to save.
func mendLog(dir string) error {
	first, last, err := wlog.Segments(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("list the log: %w", err)
	}
	// The last segment that has something, and the one before: a write that fails
	// may do so when one ends.
	mended := 0
	for n := last; n >= max(first, 0) && mended < 2; n-- {
		had, err := mendSegment(wlog.SegmentName(dir, n))
		if err != nil {
			return fmt.Errorf("mend the log: %w", err)
		}
		if had {
			mended++
		}
	}
	return nil
}

// readLog reads all of a log, only to learn whether the disk gives it. The store
// takes what it cannot read for damaged, and removes what is behind that.
func readLog(dir string) error {
	b := make([]byte, 1<<20)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name) //nolint:gosec // the directory is locked, and this user's alone
		if err != nil {
			return err
		}
		defer f.Close()
		for err == nil {
			_, err = f.Read(b)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// mendSegment cuts a segment behind its last whole record, if the rest of it
// cannot be understood. It tells whether the segment has any.
func mendSegment(name string) (had bool, err error) {
	segment, err := wlog.OpenReadSegment(name)
	if err != nil {
		return false, err
	}
	defer segment.Close()
	whole, torn, err := wholeRecords(segment)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	if !torn {
		return whole > 0, nil
	}
	return whole > 0, os.Truncate(name, whole)
}

// wholeRecords is where the last record of a segment ends that can be understood,
// and whether something else is behind it. What the disk does not let be read is
// an error, and not torn: it may be whole.
func wholeRecords(segment io.Reader) (end int64, torn bool, err error) {
	disk := &faultReader{Reader: segment}
	r := wlog.NewReader(bufio.NewReaderSize(disk, 1<<20))
	for r.Next() {
		end = r.Offset()
	}
	return end, r.Err() != nil, disk.err
}

// A faultReader keeps the error of a disk.
type faultReader struct {
	io.Reader

	err error
}

// Read reads on.
func (r *faultReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
