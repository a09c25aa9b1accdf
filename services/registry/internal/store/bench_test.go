package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/roster"
	"github.com/rollcall-metrics/rollcall/services/registry/internal/store"
)

// benchStore is a new embedded store, on disk if the temporary directory is.
func benchStore(b *testing.B) *store.Store {
	b.Helper()
	s := openEmbedded(b, store.EmbeddedConfig{Dir: filepath.Join(b.TempDir(), "data")})
	b.Cleanup(func() { _ = s.Close() })
	return s
}

var stored = strings.Repeat("assignment bytes", 16)

// benchTxns makes transactions that create one producer each.
func benchTxns(count int, name string) []roster.Txn {
	txns := make([]roster.Txn, count)
	for i := range txns {
		id := assignment.ProducerID(fmt.Sprintf("%s.%07d", name, i))
		txns[i] = roster.Txn{{Key: roster.ProducerKey(id), Record: record(string(id), stored)}}
	}
	return txns
}

func benchCommit(b *testing.B, s *store.Store, txns []roster.Txn) {
	b.Helper()
	outcomes, err := s.Commit(background(b), txns)
	if err != nil {
		b.Fatal(err)
	}
	for _, outcome := range outcomes {
		if !outcome.Committed {
			b.Fatal("not committed")
		}
	}
}

func BenchmarkCommitOne(b *testing.B) {
	s := benchStore(b)
	for i := 0; b.Loop(); i++ {
		benchCommit(b, s, benchTxns(1, strconv.Itoa(i)))
	}
}

func BenchmarkCommitThousand(b *testing.B) {
	s := benchStore(b)
	for i := 0; b.Loop(); i++ {
		benchCommit(b, s, benchTxns(1000, strconv.Itoa(i)))
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "puts/s")
}

// BenchmarkCommitContended has one of a thousand fail in each pack.
func BenchmarkCommitContended(b *testing.B) {
	s := benchStore(b)
	for i := 0; b.Loop(); i++ {
		txns := benchTxns(1000, strconv.Itoa(i))
		for j := 0; j < len(txns); j += 100 {
			txns[j][0].Expect = 1
		}
		if _, err := s.Commit(background(b), txns); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "puts/s")
}

// BenchmarkLoad loads 100,000 records, or what ROLLCALL_BENCH_RECORDS says.
func BenchmarkLoad(b *testing.B) {
	count := 100_000
	if s := os.Getenv("ROLLCALL_BENCH_RECORDS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	s := benchStore(b)
	for at := 0; at < count; at += 10_000 {
		benchCommit(b, s, benchTxns(min(10_000, count-at), strconv.Itoa(at)))
	}
	for b.Loop() {
		loaded := 0
		if _, err := s.Load(background(b), func(roster.Found) error { loaded++; return nil }); err != nil {
			b.Fatal(err)
		}
		if loaded != count {
			b.Fatalf("loaded %d", loaded)
		}
	}
	b.ReportMetric(float64(b.N)*float64(count)/b.Elapsed().Seconds(), "records/s")
}
