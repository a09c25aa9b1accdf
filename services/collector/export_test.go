package collector

import "google.golang.org/grpc"

// Services are what the collector serves.
func (k *Collector) Services() map[string]grpc.ServiceInfo { return k.server.GetServiceInfo() }
