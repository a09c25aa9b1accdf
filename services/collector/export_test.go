package collector

import (
	"net/http"
	"time"

	promconfig "github.com/prometheus/common/config"
	"google.golang.org/grpc"
)

// Services are what the collector serves.
func (k *Collector) Services() map[string]grpc.ServiceInfo { return k.server.GetServiceInfo() }

// SinkClient is the HTTP client of a sink.
func SinkClient(c promconfig.HTTPClientConfig, timeout time.Duration, dial dialer) (*http.Client, error) {
	return sinkClient(c, "test", timeout, dial)
}
