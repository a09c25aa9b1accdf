package authtest

import (
	"testing"

	"google.golang.org/grpc"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Served is what a server says that it serves, to one who may ask for that: it is
// for servers that a test has no hold of.
func Served(t *testing.T, conn *grpc.ClientConn) map[string]grpc.ServiceInfo {
	t.Helper()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	all := map[string]grpc.ServiceInfo{}
	for _, service := range got.GetListServicesResponse().GetService() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		of, ok := d.(protoreflect.ServiceDescriptor)
		if !ok {
			t.Fatalf("%s is no service", service.GetName())
		}
		var info grpc.ServiceInfo
		for i := range of.Methods().Len() {
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: string(of.Methods().Get(i).Name())})
		}
		all[service.GetName()] = info
	}
	return all
}
