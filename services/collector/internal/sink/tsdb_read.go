package sink

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// Querier reads the samples from mint to maxt, both in milliseconds since the
// Unix epoch and included. It must be closed: Close of the store waits for it.
func (t *TSDB) Querier(mint, maxt int64) (storage.Querier, error) {
	o, err := t.enter()
	if err != nil {
		return nil, err
	}
	q, err := o.db.Querier(mint, maxt)
	if err != nil {
		o.users.leave()
		return nil, err
	}
	return &countedQuerier{Querier: q, leave: sync.OnceFunc(o.users.leave)}, nil
}

// ChunkQuerier is Querier for encoded chunks.
func (t *TSDB) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	o, err := t.enter()
	if err != nil {
		return nil, err
	}
	q, err := o.db.ChunkQuerier(mint, maxt)
	if err != nil {
		o.users.leave()
		return nil, err
	}
	return &countedChunkQuerier{ChunkQuerier: q, leave: sync.OnceFunc(o.users.leave)}, nil
}

// ExemplarQuerier reads the exemplars, which are in memory.
func (t *TSDB) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	o, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer o.users.leave()
	return o.db.ExemplarQuerier(ctx)
}

// Stats tells the cardinality of the head, the limit largest of each table and
// series counted by the values of the given label. It is expensive.
func (t *TSDB) Stats(label string, limit int) (*tsdb.Stats, error) {
	o, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer o.users.leave()
	return o.db.Head().Stats(label, limit), nil
}

// BlockMetas lists the blocks on disk.
func (t *TSDB) BlockMetas() ([]tsdb.BlockMeta, error) {
	o, err := t.enter()
	if err != nil {
		return nil, err
	}
	defer o.users.leave()
	return o.db.BlockMetas(), nil
}

// WALReplayStatus tells how the last replay went, in segments.
func (t *TSDB) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	o, err := t.enter()
	if err != nil {
		return tsdb.WALReplayStatus{}, err
	}
	defer o.users.leave()
	return o.stats.Head.WALReplayStatus.GetWALReplayStatus(), nil
}

type countedQuerier struct {
	storage.Querier

	leave func()
}

func (q *countedQuerier) Close() error {
	defer q.leave()
	return q.Querier.Close()
}

type countedChunkQuerier struct {
	storage.ChunkQuerier

	leave func()
}

func (q *countedChunkQuerier) Close() error {
	defer q.leave()
	return q.ChunkQuerier.Close()
}
