package endpoint_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

func TestNative(t *testing.T) {
	for s, native := range map[string]bool{
		"http://h/": false, "https://h/": false,
		"grpc://h:7480": true, "grpcs://h:7480": true, "GRPC://h:1/": true, "grpc://[::1]:7480": true,
	} {
		u, err := endpoint.Parse(s)
		if err != nil || endpoint.Native(u) != native {
			t.Errorf("Parse(%q) = %v, %v", s, u, err)
		}
	}
	for _, s := range []string{
		"grpc://h", "grpc://h/", "grpc://h:", "grpc://h:0", "grpc://:7480", "grpcs://h:1/metrics", "grpc://h:1?x=y", "grpc://h:1?",
		"grpc://u@h:1", "grpc://h:1#f", "grpc:h:1", "grpc:///h:1",
	} {
		if u, err := endpoint.Parse(s); err == nil {
			t.Errorf("Parse(%q) was accepted: %#v", s, u)
		}
	}
	if endpoint.Native(&url.URL{}) {
		t.Error("nothing is native")
	}
}

func TestServerName(t *testing.T) {
	for s, ok := range map[string]bool{
		"h": true, "node-1.example.org": true, "a_b": true, "127.0.0.1": true, "2001:db8::1": true, "1": true,
		strings.Repeat("a", 63): true, strings.Repeat("a.", 126) + "a": true,
		"": false, ".": false, "h.": false, ".h": false, "a..b": false, "-a": false, "a-": false, "h:443": false, "[::1]": false,
		"fe80::1%eth0": false, "a b": false, "a/b": false, "*.example.org": false, "h\x00": false, "bücher.example": false,
		strings.Repeat("a", 64): false, strings.Repeat("a.", 127): false,
	} {
		if endpoint.ServerName(s) != ok {
			t.Errorf("ServerName(%q) is %v", s, !ok)
		}
	}
}
