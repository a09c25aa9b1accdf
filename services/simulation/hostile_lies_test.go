package simulation

import (
	"math"
	"strings"
	"testing"
	"time"

	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"github.com/rollcall-metrics/rollcall/services/collector"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"github.com/rollcall-metrics/rollcall/services/internal/wire"
	"google.golang.org/protobuf/types/known/durationpb"
)

// few is a roll of five with a lie in it.
func few(spoil func(r *roll)) script {
	r := callRoll(20, 2, names(5)...)
	spoil(r)
	return says(r.frames()...)
}

// raw is few for a lie that the domain's types cannot tell.
func raw(spoil func(b *registryv1.SnapshotBegin, c *registryv1.SnapshotChunk, e *registryv1.SnapshotEnd)) script {
	r := callRoll(20, 1, names(5)...)
	var messages []*registryv1.SubscribeResponse
	for _, f := range r.frames() {
		messages = append(messages, wire.EncodeFrame(f))
	}
	spoil(messages[0].GetSnapshotBegin(), messages[1].GetSnapshotChunk(), messages[2].GetSnapshotEnd())
	return sends(messages...)
}

// TestHostileRegistryLiesInASnapshot: one lie in one field of a roll of fewer.
func TestHostileRegistryLiesInASnapshot(t *testing.T) {
	type (
		begin = registryv1.SnapshotBegin
		chunk = registryv1.SnapshotChunk
		end   = registryv1.SnapshotEnd
	)
	many := make([]uint32, 100_000)
	for name, l := range map[string]lie{
		"scope_of_the_future": {refused: "SCOPE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope = 99 })},
		"scope_unspecified":   {refused: "SCOPE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope = 0 })},
		"scope_negative":      {refused: "SCOPE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope = -1 })},
		"role_impossible":     {refused: "MALFORMED_FRAME", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Assignments[0].Role = 200 })},
		"role_other":          {refused: "DIGEST_MISMATCH", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Assignments[0].Role = 99 })},
		"bucket_bits_255":     {refused: "MALFORMED_FRAME", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope, b.BucketBits = 2, 255 })},
		"bucket_list_huge":    {refused: "BUCKETS", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope, b.BucketBits, b.ReplacedBuckets = 2, 16, many })},
		"bucket_out_of_range": {refused: "BUCKETS", tell: raw(func(b *begin, _ *chunk, _ *end) { b.Scope, b.BucketBits, b.ReplacedBuckets = 2, 1, []uint32{2} })},
		"buckets_in_all":      {refused: "BUCKETS", tell: raw(func(b *begin, _ *chunk, _ *end) { b.ReplacedBuckets = []uint32{0} })},
		"epoch_huge": {refused: "MALFORMED_FRAME", tell: raw(func(b *begin, _ *chunk, e *end) {
			b.Epoch = strings.Repeat("e", 200)
			e.Epoch = b.Epoch
		})},
		"epoch_empty":        {refused: "REVISION", tell: raw(func(b *begin, _ *chunk, e *end) { b.Epoch, e.Epoch = "", "" })},
		"subscription_huge":  {refused: "MALFORMED_FRAME", tell: raw(func(b *begin, _ *chunk, _ *end) { b.SubscriptionId = strings.Repeat("s", 1<<20) })},
		"revision_negative":  {refused: "REVISION", tell: raw(func(b *begin, _ *chunk, e *end) { b.Revision, e.Revision = -1, -1 })},
		"revision_zero":      {refused: "REVISION", tell: raw(func(b *begin, _ *chunk, e *end) { b.Revision, e.Revision = 0, 0 })},
		"revision_least":     {refused: "REVISION", tell: raw(func(b *begin, _ *chunk, e *end) { b.Revision, e.Revision = math.MinInt64, math.MinInt64 })},
		"announced_negative": {refused: "TOO_LARGE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.ExpectedUpsertCount = -5 })},
		"announced_million":  {refused: "COUNT_MISMATCH", tell: raw(func(b *begin, _ *chunk, _ *end) { b.ExpectedUpsertCount = 1_000_000 })},
		"announced_more":     {refused: "TOO_LARGE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.ExpectedUpsertCount = math.MaxInt64 })},
		"announced_fewer":    {refused: "TOO_LARGE", tell: raw(func(b *begin, _ *chunk, _ *end) { b.ExpectedUpsertCount = 4 })},
		"counts_negative":    {refused: "COUNT_MISMATCH", tell: raw(func(_ *begin, _ *chunk, e *end) { e.UpsertCount, e.SetCount = -5, -5 })},
		"counts_huge":        {refused: "COUNT_MISMATCH", tell: raw(func(_ *begin, _ *chunk, e *end) { e.ChunkCount = math.MaxUint64 })},
		"end_epoch_huge":     {refused: "MALFORMED_FRAME", tell: raw(func(_ *begin, _ *chunk, e *end) { e.Epoch = strings.Repeat("\x01", 1<<20) })},
		"digest":             {refused: "DIGEST_MISMATCH", tell: few(func(r *roll) { r.end.SetDigest++ })},
		"sequence_jumps":     {refused: "SEQUENCE", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Sequence = math.MaxUint64 })},
		"removal_in_all":     {refused: "REMOVAL", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Removals = []*registryv1.Removal{{ProducerId: "p"}} })},
		"removal_of_nobody":  {refused: "MALFORMED_FRAME", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Removals = []*registryv1.Removal{{}} })},
		"frame_oversized":    {ended: "exhausted", tell: raw(func(_ *begin, c *chunk, _ *end) { c.Assignments[0].Endpoint = strings.Repeat("x", 3<<20) })},
		"reason_of_the_future": {stands: true, tell: func(s *stage) error {
			r := callRoll(20, 2, names(30)...)
			r.begin.Reason = 99
			return r.stands(s)
		}},
	} {
		t.Run(name, func(t *testing.T) { hears(t, l) })
	}
}

// TestHostileRegistryLiesInItsStream: frames that are each well formed, and
// together are not.
func TestHostileRegistryLiesInItsStream(t *testing.T) {
	r, other := callRoll(20, 2, names(5)...), callRoll(21, 2, names(4)...)
	other.begin.SnapshotID, other.chunks[0].SnapshotID, other.end.SnapshotID = 2, 2, 2
	whole := callRoll(20, 2, names(30)...)
	beat := func(change func(h *assignment.Heartbeat)) script {
		return func(s *stage) error {
			if err := s.say(whole.frames()...); err != nil {
				return err
			}
			h := &assignment.Heartbeat{Epoch: scriptedEpoch, Revision: 20, SetCount: whole.end.SetCount, SetDigest: whole.end.SetDigest}
			change(h)
			s.sleep(time.Second)
			if err := s.say(h); err != nil {
				return err
			}
			return s.wait()
		}
	}
	for name, l := range map[string]lie{
		"interleaved_chunk":   {refused: "SNAPSHOT_ID", tell: says(r.begin, other.chunks[0])},
		"interleaved_end":     {refused: "SNAPSHOT_ID", tell: says(r.begin, r.chunks[0], other.end)},
		"begin_in_begin":      {refused: "NESTED_BEGIN", tell: says(r.begin, r.chunks[0], other.begin)},
		"chunk_first":         {refused: "OUTSIDE_SNAPSHOT", tell: says(r.chunks[0])},
		"end_first":           {refused: "OUTSIDE_SNAPSHOT", tell: says(r.end)},
		"older_chunk_after":   {refused: "OUTSIDE_SNAPSHOT", tell: says(append(whole.frames(), whole.chunks[0])...)},
		"chunk_twice":         {refused: "SEQUENCE", tell: says(r.begin, r.chunks[0], r.chunks[0])},
		"heartbeat_inside":    {refused: "HEARTBEAT_INSIDE", tell: says(r.begin, &assignment.Heartbeat{Epoch: scriptedEpoch, Revision: 20})},
		"snapshot_repeated":   {tell: func(s *stage) error { _ = s.say(whole.frames()...); return whole.stands(s) }, stands: true},
		"seal_and_end":        {tell: func(s *stage) error { return s.say(whole.frames()...) }, ended: "error"},
		"heartbeat_digest":    {ended: "diverged", tell: beat(func(h *assignment.Heartbeat) { h.SetDigest++ })},
		"heartbeat_count":     {ended: "diverged", tell: beat(func(h *assignment.Heartbeat) { h.SetCount = -1 })},
		"heartbeat_older":     {ended: "diverged", tell: beat(func(h *assignment.Heartbeat) { h.Revision = math.MinInt64 })},
		"heartbeat_epoch":     {ended: "diverged", tell: beat(func(h *assignment.Heartbeat) { h.Epoch = "another" })},
		"heartbeat_epoch_big": {refused: "MALFORMED_FRAME", heals: true, tell: beat(func(h *assignment.Heartbeat) { h.Epoch = assignment.Epoch(strings.Repeat("e", 1<<20)) })},
		"garbage":             {refused: "MALFORMED_FRAME", tell: func(s *stage) error { _ = s.SendMsg(wire.Encoded("\xff\xff\xff")); return s.wait() }},
	} {
		t.Run(name, func(t *testing.T) { hears(t, l) })
	}
}

// TestHostileRegistryWithoutEnd: whatever goes on for ever is cut off, or costs
// nothing.
func TestHostileRegistryWithoutEnd(t *testing.T) {
	begin := callRoll(20, 1, names(5)...).begin
	begin.ExpectedUpserts = 1_000_000
	first := func(then script) script {
		return func(s *stage) error { _ = s.say(begin); return then(s) }
	}
	changes := *begin
	changes.Scope, changes.BaseRevision, changes.ExpectedUpserts = assignment.ScopeChanges, 10, 0
	away := func(least, most time.Duration) *registryv1.SubscribeResponse {
		return wire.EncodeFrame(&assignment.GoAway{Reason: 99, Message: strings.Repeat("m", 1<<20), RetryAfterMin: least, RetryAfterMax: most})
	}
	const year = 365 * 24 * time.Hour
	for name, l := range map[string]lie{
		"empty_chunks": {refused: "TOO_LARGE", tell: first(over(0, func(n int) *registryv1.SubscribeResponse {
			return wire.EncodeFrame(&assignment.Chunk{SnapshotID: 1, Sequence: uint64(n)})
		}))},
		"drip_of_chunks": {ended: "unproven", lasts: 25 * time.Minute, tell: first(over(10*time.Second, func(n int) *registryv1.SubscribeResponse {
			return wire.EncodeFrame(&assignment.Chunk{SnapshotID: 1, Sequence: uint64(n), Assignments: []*assignment.Assignment{assigned(names(n + 1)[n])}})
		}))},
		"drip_of_unknown":       {ended: "unproven", lasts: 25 * time.Minute, tell: over(10*time.Second, func(int) *registryv1.SubscribeResponse { return &registryv1.SubscribeResponse{} })},
		"drip_inside":           {ended: "unproven", lasts: 25 * time.Minute, tell: first(over(10*time.Second, func(int) *registryv1.SubscribeResponse { return &registryv1.SubscribeResponse{} }))},
		"beats_without_roll":    {ended: "unproven", lasts: 25 * time.Minute, tell: callRoll(10, 2, names(30)...).beats},
		"go_away_at_once":       {ended: "go_away", tell: over(time.Second, func(int) *registryv1.SubscribeResponse { return away(0, 0) })},
		"go_away_years":         {ended: "go_away", lasts: 4 * time.Minute, tell: over(time.Second, func(int) *registryv1.SubscribeResponse { return away(year, 200*year) })},
		"go_away_past":          {ended: "go_away", tell: over(time.Second, func(int) *registryv1.SubscribeResponse { return away(-year, -200*year) })},
		"go_away_upside_down":   {ended: "go_away", tell: over(time.Second, func(int) *registryv1.SubscribeResponse { return away(year, 0) })},
		"heartbeats_of_nothing": {stands: true, tell: beating(0)},
		"heartbeats_negative":   {stands: true, tell: beating(-year)},
		"heartbeats_yearly":     {stands: true, tell: beating(200 * year)},
		"removals": {refused: "TOO_LARGE", tell: func(s *stage) error {
			_ = s.say(&changes)
			all := names(130_000)
			return over(0, func(n int) *registryv1.SubscribeResponse {
				if (n+1)*10_000 > len(all) {
					return nil
				}
				c := &registryv1.SnapshotChunk{SnapshotId: 1, Sequence: uint64(n)}
				for _, id := range all[n*10_000 : (n+1)*10_000] {
					c.Removals = append(c.Removals, &registryv1.Removal{ProducerId: "stranger-" + id, Cause: 1})
				}
				return &registryv1.SubscribeResponse{Frame: &registryv1.SubscribeResponse_SnapshotChunk{SnapshotChunk: c}}
			})(s)
		}},
		"labels_without_end": {
			refused: "TOO_LARGE", message: "bytes", configure: func(c *collector.Config) { c.MaxProducers = 1000 },
			tell: func(s *stage) error {
				b := *begin
				b.ExpectedUpserts = 1000
				_ = s.say(&b)
				value := strings.Repeat("v", 1<<20)
				return over(0, func(n int) *registryv1.SubscribeResponse {
					a := assigned(names(n + 1)[n])
					a.Labels = []assignment.Label{{Name: "fat", Value: value}}
					return wire.EncodeFrame(&assignment.Chunk{SnapshotID: 1, Sequence: uint64(n), Assignments: []*assignment.Assignment{a}})
				})(s)
			},
		},
	} {
		t.Run(name, func(t *testing.T) { hears(t, l) })
	}
}

// beats sends equal heartbeats without a snapshot before them.
func (r *roll) beats(s *stage) error { return s.live(r.end) }

// beating calls the roll of all with an absurd interval of heartbeats, and sends
// one each 5 s.
func beating(interval time.Duration) script {
	return func(s *stage) error {
		r := callRoll(20, 2, names(30)...)
		m := wire.EncodeFrame(r.begin)
		m.GetSnapshotBegin().HeartbeatInterval = durationpb.New(interval)
		if err := s.Send(m); err != nil {
			return err
		}
		if err := s.say(r.frames()[1:]...); err != nil {
			return err
		}
		return s.live(r.end)
	}
}
