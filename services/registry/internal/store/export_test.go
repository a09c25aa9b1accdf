package store

import (
	"context"
	"log/slog"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// What tests look at from outside.
var (
	Encode    = encode
	Decode    = decode
	FormatKey = formatKey
	ParseKey  = parseKey
)

// Sibling opens one more Store on what another is open on. Closing it closes
// nothing beneath.
func Sibling(s *Store) *Store {
	return newStore(s.kv, s.leaser, func() error { return nil })
}

// Disconnect takes the connection from a Store that is open on an external etcd.
func Disconnect(s *Store) {
	if e, ok := s.kv.(*external); ok {
		_ = e.client.Close()
	}
}

func embeddedOf(s *Store) *embedded {
	e, ok := s.kv.(*embedded)
	if !ok {
		panic("not an embedded store")
	}
	return e
}

// LookAfter does what upkeep does every minute.
func LookAfter(s *Store) { embeddedOf(s).upkeep.look(context.Background()) }

// Server is the etcd of an embedded store.
func Server(s *Store) *embed.Etcd { return embeddedOf(s).server }

// Compact forgets the history of an embedded store.
func Compact(ctx context.Context, s *Store, at int64) error {
	_, err := embeddedOf(s).server.Server.Compact(ctx, &pb.CompactionRequest{Revision: at, Physical: true})
	return err
}

// EtcdLogger is the logger of an etcd that is serving, or stopping.
func EtcdLogger(logger *slog.Logger, isStopping bool) *zap.Logger {
	var now atomic.Int32
	now.Store(int32(serving))
	if isStopping {
		now.Store(int32(stopping))
	}
	return newEtcdLogger(logger, &now)
}
