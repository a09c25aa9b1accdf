package api_test

import (
	"context"
	"testing"
)

// BenchmarkSubscribeAll sends a set of 100,000, some 250 bytes each, to a
// collector that has nothing, over a real connection in memory.
func BenchmarkSubscribeAll(b *testing.B) {
	r := newRig(b, filled(100_000))
	if err := r.registrar.AwaitServing(b.Context()); err != nil {
		b.Fatal(err)
	}
	r.enlist(b, "c1", "a")
	look := observing("c1")
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		stream, err := r.Subscribe(ctx, look)
		if err != nil {
			b.Fatal(err)
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				b.Fatal(err)
			}
			if end := m.GetSnapshotEnd(); end != nil {
				if end.GetSetCount() != 100_000 {
					b.Fatal(end)
				}
				break
			}
		}
		cancel()
	}
}
