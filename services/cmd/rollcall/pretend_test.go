package main

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	collectorv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/collector/v1"
	registryv1 "github.com/rollcall-metrics/rollcall/gen/rollcall/registry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
)

// A pretender tells what a collector might tell.
type pretender struct {
	collectorv1.UnimplementedCollectionServiceServer
	id      string
	applied int64 // how many it says that it collects
	pages   []*collectorv1.ListCollectionsResponse
}

func (p *pretender) GetMembership(context.Context, *collectorv1.GetMembershipRequest) (*collectorv1.GetMembershipResponse, error) {
	return &collectorv1.GetMembershipResponse{CollectorId: p.id, AppliedCount: p.applied}, nil
}

func (p *pretender) ListCollections(_ context.Context, m *collectorv1.ListCollectionsRequest) (*collectorv1.ListCollectionsResponse, error) {
	n, _ := strconv.Atoi(m.GetPageToken())
	page := p.pages[n]
	if n+1 < len(p.pages) {
		page.NextPageToken = strconv.Itoa(n + 1)
	}
	return page, nil
}

func (p *pretender) GetCollection(_ context.Context, m *collectorv1.GetCollectionRequest) (*collectorv1.GetCollectionResponse, error) {
	for _, page := range p.pages {
		for _, c := range page.GetCollections() {
			if c.GetAssignment().GetProducerId() == m.GetProducerId() {
				return &collectorv1.GetCollectionResponse{Collection: c}, nil
			}
		}
	}
	return nil, status.Error(codes.NotFound, "it does not collect that")
}

// pretends ID FILE [MORE [NAME]]: make a collector known to the registry that
// tells the pages of the file, one a line, and says that it collects so many more,
// and that it has another id.
func pretends(ts *testscript.TestScript, _ bool, args []string) {
	p := &pretender{id: args[0]}
	for line := range strings.Lines(ts.ReadFile(args[1])) {
		page := &collectorv1.ListCollectionsResponse{}
		ts.Check(protojson.Unmarshal([]byte(line), page))
		p.pages = append(p.pages, page)
		p.applied += int64(len(page.GetCollections()))
	}
	if len(args) > 2 {
		more, err := strconv.Atoi(args[2])
		ts.Check(err)
		p.applied += int64(more)
	}
	if len(args) > 3 {
		p.id = args[3]
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	srv := grpc.NewServer()
	collectorv1.RegisterCollectionServiceServer(srv, p)
	go func() { _ = srv.Serve(lis) }() // until it is stopped
	ts.Defer(srv.Stop)
	flags := registryFlags{Registry: ts.Getenv("ROLLCALL_REGISTRY"), CallTimeout: 10 * time.Second}
	ts.Check(flags.registry(context.Background(), func(ctx context.Context, r registryClient) error {
		_, err := r.RegisterCollector(ctx, &registryv1.RegisterCollectorRequest{Collector: &registryv1.Collector{
			CollectorId: args[0], InstanceId: "pretender", IntrospectionEndpoint: lis.Addr().String(),
		}})
		return err
	}))
}
