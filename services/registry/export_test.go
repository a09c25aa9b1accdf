package registry

import "google.golang.org/grpc"

// Services are what the registry serves.
func (r *Registry) Services() map[string]grpc.ServiceInfo { return r.server.GetServiceInfo() }
