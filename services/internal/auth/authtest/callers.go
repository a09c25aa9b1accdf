package authtest

import (
	"crypto/tls"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// OfEveryServer are the rows of what every server has: health for everybody, and
// for operators what shows the server from inside.
func OfEveryServer() []Row {
	return []Row{
		{"/grpc.health.v1.Health/Check", ``, Everybody},
		{"/grpc.health.v1.Health/List", ``, Everybody},
		{"/grpc.health.v1.Health/Watch", ``, Everybody},
		{"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", `list_services: "*"`, "operator"},
		{"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", `list_services: "*"`, "operator"},
		{"/grpc.channelz.v1.Channelz/GetTopChannels", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetServers", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetServer", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetServerSockets", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetChannel", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetSubchannel", ``, "operator"},
		{"/grpc.channelz.v1.Channelz/GetSocket", ``, "operator"},
	}
}

// SPIFFE is the name of who has ROLE/ID.
func SPIFFE(of string) string { return "spiffe://test.example/rollcall/" + of }

// Names are callers of each role, by their roles: p-1 is the producer, c-1 the
// collector.
func Names() map[string]string {
	return map[string]string{
		"producer":  SPIFFE("producer/p-1"),
		"collector": SPIFFE("collector/c-1"),
		"registry":  SPIFFE("registry/r-1"),
		"operator":  SPIFFE("operator/ann"),
		"reader":    SPIFFE("reader/ben"),
	}
}

// Callers are nobody, and one with a certificate for each of the names: connections
// to a gRPC server, until the test ends, and what is needed to ask one of HTTP.
func (ca *CA) Callers(t testing.TB, lis *bufconn.Listener, names map[string]string) (map[string]*grpc.ClientConn, map[string]*tls.Config) {
	t.Helper()
	conns := map[string]*grpc.ClientConn{Nobody: ca.Dial(t, lis, nil)}
	configs := map[string]*tls.Config{Nobody: ca.Client(nil)}
	for caller, name := range names {
		cert := ca.Issue(t, name)
		conns[caller], configs[caller] = ca.Dial(t, lis, cert), ca.Client(cert)
	}
	return conns, configs
}
