package endpoint_test

import (
	"testing"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		host, url string
		want      bool
	}{
		{"*", "http://anything/", true},
		{"node", "https://node/metrics", true},
		{"Node", "https://nODE:9100/metrics", true},
		{"node", "https://node.evil/metrics", false},
		{"node", "https://evil-node/metrics", false},
		{"node:9100", "https://node:9100/", true},
		{"node:9100", "https://node:9101/", false},
		{"node:443", "https://node/", true},
		{"node:80", "http://node/", true},
		{"*.example.com", "https://a.b.example.com:1/", true},
		{"*.example.com", "https://example.com/", false},
		{"*.example.com", "https://badexample.com/", false},
		{"*.example.com", "https://example.com.evil/", false},
		{"*.example.com:443", "https://a.example.com/", true},
		{"*.example.com:443", "https://a.example.com:444/", false},
		{"10.0.0.0/8", "https://10.1.2.3:9100/", true},
		{"10.0.0.0/8", "https://[::ffff:10.1.2.3]:9100/", true},
		{"10.0.0.0/8", "https://11.1.2.3/", false},
		{"10.0.0.0/8", "https://10.evil/", false},
		{"fd00::/8", "https://[fd00::1]/", true},
		{"[fd00::1]", "https://[fd00::1]:7/", true},
		{"[fd00::1]:7", "https://[fd00::1]:7/", true},
		{"[fd00::1]:7", "https://[fd00::1]/", false},
		{"node:7", "grpcs://node:7", true},
	} {
		h, err := endpoint.ParseHosts([]string{"elsewhere", c.host})
		if err != nil {
			t.Errorf("%s: %v", c.host, err)
			continue
		}
		u, err := endpoint.Parse(c.url)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Has(u); got != c.want {
			t.Errorf("%s has %s: %v", c.host, c.url, got)
		}
	}
}

func TestHostsRefused(t *testing.T) {
	for _, list := range [][]string{
		nil,
		{""},
		{"a", ""},
		{"a b"},
		{"a/b"},
		{"http://a"},
		{"10.1.0.0/8"},
		{"*a"},
		{"a.*"},
		{"*.*"},
		{"**"},
		{"*."},
		{"a:"},
		{"a:0"},
		{"a:99999"},
		{"u@a"},
		{"a#b"},
		{"a?b"},
		{"*:443"},
		make([]string, 1001),
	} {
		if h, err := endpoint.ParseHosts(list); err == nil {
			t.Errorf("%.3q: taken as %s", list, h)
		}
	}
}
