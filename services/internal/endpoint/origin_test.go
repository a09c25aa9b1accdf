package endpoint_test

import (
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

func TestOrigin(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1":              "192.0.2.7",
		"[::ffff:192.0.2.7]:2":     "192.0.2.7",
		"[2001:db8:0:1:2::3]:1":    "2001:db8:0:1::/64",
		"[2001:db8:0:1::9]:65535":  "2001:db8:0:1::/64",
		"[fe80::1%eth0]:1":         "fe80::/64",
		"127.0.0.1:1":              endpoint.Loopback,
		"127.1.2.3:1":              endpoint.Loopback,
		"[::1]:1":                  endpoint.Loopback,
		"[::ffff:127.0.0.1]:50000": endpoint.Loopback,
		"bufconn":                  "bufconn",
		"":                         "",
	} {
		if got := endpoint.Origin(remote); got != want {
			t.Errorf("%s: %s, want %s", remote, got, want)
		}
	}
}
