package sink

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// TestWholeRecords tells what is torn from what the disk does not give just now.
func TestWholeRecords(t *testing.T) {
	dir := t.TempDir()
	log, err := wlog.New(slog.New(slog.DiscardHandler), nil, dir, compression.None)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Log(bytes.Repeat([]byte("a"), 1000)), log.Log(bytes.Repeat([]byte("b"), 1000)), log.Close()); err != nil {
		t.Fatal(err)
	}
	segment, err := os.ReadFile(filepath.Join(dir, "00000000"))
	if err != nil {
		t.Fatal(err)
	}
	first := int64(1000 + 7)
	for _, test := range []struct {
		name string
		disk io.Reader
		end  int64
		torn bool
		err  error
	}{
		{"whole", bytes.NewReader(segment), 2 * first, false, nil},
		{"torn", bytes.NewReader(segment[:1500]), first, true, nil},
		{"unread", io.MultiReader(bytes.NewReader(segment[:1500]), iotest.ErrReader(syscall.EIO)), first, true, syscall.EIO},
	} {
		end, torn, err := wholeRecords(test.disk)
		if !errors.Is(err, test.err) || err == nil && (end != test.end || torn != test.torn) {
			t.Errorf("%s: %d, %v, %v", test.name, end, torn, err)
		}
	}
}
