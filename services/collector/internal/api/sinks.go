package api

import (
	"context"
	"slices"
	"strings"
	"time"

	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A SinkKind is what a sink is.
type SinkKind int

// The kinds.
const (
	SinkTSDB SinkKind = iota + 1
	SinkRemoteWrite
	SinkOTLP
)

// A SinkStatus is how a sink is doing. Times are zero where there is none.
type SinkStatus struct {
	Name     string
	Kind     SinkKind
	Target   string // without secrets
	Protocol string

	LagBytes         int64
	Oldest           time.Time
	SamplesPerSecond float64
	Delivered        int64
	Dropped          map[string]int64 // by reason

	InFlight, Concurrency int

	LastSuccess time.Time
	LastError   string
	LastErrorAt time.Time
	Failing     bool
}

// A QueueStatus is how the queue is doing.
type QueueStatus struct {
	DiskBytes, MaxDiskBytes, MemoryBytes int64

	LastError   string
	LastErrorAt time.Time
	Failing     bool
	Synced      time.Time
}

// Sinks knows where samples go. It is safe for concurrent use.
type Sinks interface {
	// Sinks returns all, the embedded store first, the others by name.
	Sinks() []SinkStatus

	// Queue is false when there is none.
	Queue() (QueueStatus, bool)
}

// ListSinks answers where samples go.
func (a *API) ListSinks(context.Context, *collectorv1.ListSinksRequest) (*collectorv1.ListSinksResponse, error) {
	now := time.Now()
	resp := &collectorv1.ListSinksResponse{}
	for _, s := range a.Sinks.Sinks() {
		resp.Sinks = append(resp.Sinks, encodeSink(s, now))
	}
	if q, ok := a.Sinks.Queue(); ok {
		resp.Queue = &collectorv1.Queue{
			DiskBytes: q.DiskBytes, MaxDiskBytes: q.MaxDiskBytes, MemoryBytes: q.MemoryBytes,
			LastError: q.LastError, LastErrorTime: timestamp(q.LastErrorAt), Failing: q.Failing, SyncedTime: timestamp(q.Synced),
		}
	}
	return resp, nil
}

func encodeSinkKind(k SinkKind) collectorv1.SinkKind {
	switch k {
	case SinkTSDB:
		return collectorv1.SinkKind_SINK_KIND_TSDB
	case SinkRemoteWrite:
		return collectorv1.SinkKind_SINK_KIND_REMOTE_WRITE
	case SinkOTLP:
		return collectorv1.SinkKind_SINK_KIND_OTLP
	default:
		return collectorv1.SinkKind_SINK_KIND_UNSPECIFIED
	}
}

func encodeSink(s SinkStatus, now time.Time) *collectorv1.Sink {
	m := &collectorv1.Sink{
		Name: s.Name, Kind: encodeSinkKind(s.Kind), Target: s.Target, Protocol: s.Protocol,
		LagBytes: s.LagBytes, OldestTime: timestamp(s.Oldest),
		SamplesPerSecond: s.SamplesPerSecond, DeliveredSampleCount: s.Delivered,
		RequestsInFlight: int64(s.InFlight), Concurrency: int64(s.Concurrency),
		LastSuccessTime: timestamp(s.LastSuccess), LastError: s.LastError, LastErrorTime: timestamp(s.LastErrorAt), Failing: s.Failing,
	}
	if !s.Oldest.IsZero() {
		m.LagDuration = durationpb.New(max(0, now.Sub(s.Oldest)))
	}
	for reason, n := range s.Dropped {
		if n > 0 {
			m.Dropped = append(m.Dropped, &collectorv1.DroppedSamples{Reason: reason, SampleCount: n})
		}
	}
	slices.SortFunc(m.Dropped, func(a, b *collectorv1.DroppedSamples) int { return strings.Compare(a.GetReason(), b.GetReason()) })
	return m
}
