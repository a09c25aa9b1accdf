package producer

import (
	"context"
	"net"
)

// DialEndpoint makes a keeper reach its endpoint by dial.
func DialEndpoint(c *Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	c.dialEndpoint = dial
}
