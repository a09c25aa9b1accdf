package authtest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Nobody is the caller without an identity.
const Nobody = "nobody"

// Everybody is who may call what is open.
const Everybody = "everybody"

// A Row is one of a test's table. Of gRPC it has a method, a request as text, and
// which of the callers may make it, with spaces between them; of HTTP a verb, a
// path, and which of the callers may ask so.
type Row [3]string

// Walk makes each call as each caller, and fails for a method of the server that
// has no row.
func Walk(t *testing.T, services map[string]grpc.ServiceInfo, calls []Row, callers map[string]*grpc.ClientConn) {
	t.Helper()
	for service, info := range services {
		for _, method := range info.Methods {
			name := "/" + service + "/" + method.Name
			if !slices.ContainsFunc(calls, func(r Row) bool { return r[0] == name }) {
				t.Errorf("%s: the test's table has no row", name)
			}
		}
	}
	for _, row := range calls {
		name, request, may := row[0], row[1], row[2]
		service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if !slices.ContainsFunc(services[service].Methods, func(m grpc.MethodInfo) bool { return m.Name == method }) {
			t.Errorf("%s: the server has no such method", name)
			continue
		}
		for _, caller := range slices.Sorted(maps.Keys(callers)) {
			err := Try(t, callers[caller], name, request)
			if why := judge(caller, may, err); why != "" {
				t.Errorf("%s {%s} as %s: %s: %v", name, request, caller, why, err)
			}
		}
	}
}

// judge says what is wrong with the answer to a caller, or nothing.
func judge(caller, may string, err error) string {
	want, denied := codes.PermissionDenied, Reason(err) != ""
	if caller == Nobody {
		want = codes.Unauthenticated
	}
	allowed := may == Everybody || slices.Contains(strings.Fields(may), caller)
	switch code := status.Code(err); {
	case allowed && (denied || code == codes.PermissionDenied || code == codes.Unauthenticated):
		return "is refused"
	case allowed && (code == codes.Unimplemented || code == codes.Internal || code == codes.Unknown):
		return "has failed"
	case !allowed && (code != want || !denied):
		return "is not refused as it should be"
	}
	return ""
}

// reasons are those of package access, written again.
const reasons = "NO_CREDENTIALS UNKNOWN_CREDENTIALS ROLE_MISSING NOT_YOURS NO_RULE"

// Reason is why a call was refused for the sake of its caller, or empty.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "rollcall" && slices.Contains(strings.Fields(reasons), info.GetReason()) {
			return info.GetReason()
		}
	}
	return ""
}

// Try makes a call by its name. Of a stream it takes the first answer.
func Try(t *testing.T, conn *grpc.ClientConn, name, request string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		t.Fatal(err)
	}
	of, ok := d.(protoreflect.ServiceDescriptor)
	if !ok || of.Methods().ByName(protoreflect.Name(method)) == nil {
		t.Fatalf("%s is no method", name)
	}
	m := of.Methods().ByName(protoreflect.Name(method))
	in, out := message(t, m.Input()), message(t, m.Output())
	if err := prototext.Unmarshal([]byte(request), in); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return conn.Invoke(ctx, name, in, out)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()}, name)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(in), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.RecvMsg(out); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func message(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return kind.New().Interface()
}

// WalkHTTP makes each request as each caller.
func WalkHTTP(t *testing.T, requests []Row, lis *bufconn.Listener, callers map[string]*tls.Config) {
	t.Helper()
	for _, caller := range slices.Sorted(maps.Keys(callers)) {
		transport := &http.Transport{
			// A bufconn that has timed out is of no more use to TLS, and the server
			// lets it time out after each request.
			DisableKeepAlives: true,
			DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := lis.DialContext(ctx)
				if err != nil {
					return nil, err
				}
				return tls.Client(conn, callers[caller]), nil
			},
		}
		for _, row := range requests {
			verb, path, may := row[0], row[1], row[2]
			got, header := ask(t, transport, verb, path)
			want := http.StatusForbidden
			if caller == Nobody {
				want = http.StatusUnauthorized
			}
			allowed := may == Everybody || slices.Contains(strings.Fields(may), caller)
			switch refused := got == http.StatusForbidden || got == http.StatusUnauthorized; {
			case allowed && refused, !allowed && got != want:
				t.Errorf("%s %s as %s: %d, want it allowed: %v", verb, path, caller, got, allowed)
			case got == http.StatusUnauthorized && header.Get("WWW-Authenticate") != "Bearer":
				t.Errorf("%s %s as %s: no challenge", verb, path, caller)
			}
		}
	}
}

func ask(t *testing.T, transport *http.Transport, verb, path string) (int, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, "https://"+serverName+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header
}
