package api

import (
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	"google.golang.org/grpc"
)

// Select answers from this collector's own store.
func (a *API) Select(m *collectorv1.SelectRequest, stream grpc.ServerStreamingServer[collectorv1.SelectResponse]) error {
	return a.Selector.Select(m, stream)
}
