package collector

import (
	"cmp"
	"slices"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/api"
)

// places are all the places where samples go.
type places struct{ *Collector }

// Sinks are the embedded store and the sinks of the configuration.
func (p places) Sinks() []api.SinkStatus {
	all := p.sinks.Sinks()
	if p.tsdb == nil {
		return all
	}
	s := p.tsdb.Status()
	return append([]api.SinkStatus{{
		Name: "tsdb", Kind: api.SinkTSDB,
		SamplesPerSecond: s.SamplesPerSecond, Delivered: s.Samples, Dropped: s.Dropped,
		InFlight: s.Writing, Concurrency: s.Writers,
		LastSuccess: s.LastSuccess, LastError: s.LastError, LastErrorAt: s.LastErrorTime, Failing: s.Failing,
	}}, all...)
}

// Queue is how the queue is doing; false when there is none.
func (p places) Queue() (api.QueueStatus, bool) { return p.sinks.Queue() }

// Sinks are those of the configuration, by name.
func (k *sinks) Sinks() []api.SinkStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []api.SinkStatus
	for _, r := range k.running {
		s := r.sink.Status()
		kind := api.SinkRemoteWrite
		if r.OTLP != nil {
			kind = api.SinkOTLP
		}
		all = append(all, api.SinkStatus{
			Name: r.Name, Kind: kind, Target: r.target, Protocol: s.Protocol,
			LagBytes: s.LagBytes, Oldest: s.OldestTime, SamplesPerSecond: s.SamplesPerSecond,
			Delivered: s.Delivered, Dropped: s.Dropped, InFlight: s.RequestsInFlight, Concurrency: s.Concurrency,
			LastSuccess: s.LastSuccess, LastError: s.LastError, LastErrorAt: s.LastErrorTime, Failing: s.Failing,
		})
	}
	slices.SortFunc(all, func(a, b api.SinkStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Queue is how the queue is doing; false when there is none.
func (k *sinks) Queue() (api.QueueStatus, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.queue == nil {
		return api.QueueStatus{}, false
	}
	s := k.queue.Status()
	told := api.QueueStatus{
		DiskBytes: s.DiskBytes, MaxDiskBytes: s.MaxBytes, MemoryBytes: s.MemoryBytes,
		LastErrorAt: s.LastErrorTime, Failing: s.Failing, Synced: s.Synced,
	}
	if s.LastError != nil {
		told.LastError = s.LastError.Error()
	}
	return told, true
}
