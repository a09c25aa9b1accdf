package store //nolint:testpackage // what it looks at is between our client and etcd

import (
	"context"
	"errors"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCommittedOnce: clientv3 tries again what fails by a deadline or a
// cancellation that is not the caller's. A transaction must not be.
func TestCommittedOnce(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx    context.Context
		method string
		err    error
		want   codes.Code
	}{
		"deadline of the server": {t.Context(), etcdserverpb.KV_Txn_FullMethodName, status.Error(codes.DeadlineExceeded, ""), codes.Unknown},
		"canceled by the server": {t.Context(), etcdserverpb.KV_Txn_FullMethodName, status.Error(codes.Canceled, ""), codes.Unknown},
		"canceled by the caller": {over, etcdserverpb.KV_Txn_FullMethodName, status.Error(codes.Canceled, ""), codes.Canceled},
		"a read":                 {t.Context(), etcdserverpb.KV_Range_FullMethodName, status.Error(codes.Canceled, ""), codes.Canceled},
		"an error of etcd":       {t.Context(), etcdserverpb.KV_Txn_FullMethodName, rpctypes.ErrGRPCInvalidAuthToken, codes.Unauthenticated},
		"no error":               {t.Context(), etcdserverpb.KV_Txn_FullMethodName, nil, codes.OK},
	} {
		err := committedOnce(c.ctx, c.method, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return c.err })
		if status.Code(err) != c.want || c.want != codes.Unknown && !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
