package store

import (
	"context"
	"log/slog"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

// upkeep gives space back and lets a store that was full take writes again:
// etcd itself does neither. Its quota is on the file, which never shrinks by
// itself, and what it has once found full stays full.
type upkeep struct {
	server *etcdserver.EtcdServer
	quota  int64
	logger *slog.Logger
	cancel context.CancelFunc
	ended  chan struct{}
}

const (
	upkeepInterval = time.Minute
	upkeepTimeout  = 5 * time.Second
)

// startUpkeep looks after the store once, then every minute until stop, not
// until the end of ctx.
func startUpkeep(ctx context.Context, server *etcdserver.EtcdServer, config EmbeddedConfig) *upkeep {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	u := &upkeep{
		server: server,
		quota:  config.QuotaBytes,
		logger: config.Logger,
		cancel: cancel,
		ended:  make(chan struct{}),
	}
	u.look(ctx)
	go func() {
		defer close(u.ended)
		ticker := time.NewTicker(upkeepInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				u.look(ctx)
			}
		}
	}()
	return u
}

func (u *upkeep) stop() {
	u.cancel()
	<-u.ended
}

// look defragments a file of which most is free when it nears the quota or has
// reached it, as nothing can be read or written meanwhile, and then lifts the
// alarm if there is space again.
func (u *upkeep) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	backend := u.server.Backend()
	full := u.isFull()
	near := backend.Size() > u.quota/5*4 && backend.SizeInUse() < backend.Size()/2
	if near || full && backend.SizeInUse() < u.quota/10*8 && backend.Size() > u.quota/10*9 {
		if err := u.server.Defragment(); err != nil {
			u.logger.ErrorContext(ctx, "store defragmentation failed", slog.Any("error", err))
			return
		}
		u.logger.InfoContext(ctx, "store defragmented", slog.Int64("size_bytes", backend.Size()))
	}
	if !full || backend.Size() > u.quota/10*9 {
		return
	}
	_, err := u.server.Alarm(ctx, &pb.AlarmRequest{
		Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(u.server.MemberID()), Alarm: pb.AlarmType_NOSPACE,
	})
	if err != nil {
		u.logger.ErrorContext(ctx, "store still refuses writes", slog.Any("error", err))
		return
	}
	u.logger.InfoContext(ctx, "store takes writes again", slog.Int64("size_bytes", backend.Size()))
}

func (u *upkeep) isFull() bool {
	return slices.ContainsFunc(u.server.Alarms(), func(alarm *pb.AlarmMember) bool {
		return alarm.GetAlarm() == pb.AlarmType_NOSPACE
	})
}
