package endpoint_test

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rollcall-metrics/rollcall/services/internal/endpoint"
)

func TestParseAccepts(t *testing.T) {
	for s, hostPort := range map[string]string{
		"http://h":                                "h:80",
		"https://h":                               "h:443",
		"HTTP://h":                                "h:80",
		"HttpS://h/metrics":                       "h:443",
		"http://h/":                               "h:80",
		"http://h:1/":                             "h:1",
		"http://h:65535/metrics?a=b&c=%20":        "h:65535",
		"http://h?x":                              "h:80",
		"http://h/?":                              "h:80",
		"http://10.0.0.1:9100/metrics":            "10.0.0.1:9100",
		"http://[::1]/":                           "[::1]:80",
		"https://[2001:db8::1]/":                  "[2001:db8::1]:443",
		"http://[::1]:9100/":                      "[::1]:9100",
		"http://[fe80::1%25eth0]:80/":             "[fe80::1%eth0]:80",
		"http://[fe80::1%25eth0]/":                "[fe80::1%eth0]:80",
		"http://[::ffff:10.0.0.1]/":               "[::ffff:10.0.0.1]:80",
		"http://bücher.example/":                  "bücher.example:80",
		"http://b%C3%BCcher.example/":             "bücher.example:80",
		"http://a_b.c-d.example./metrics":         "a_b.c-d.example.:80",
		"http://h/a%0d%0ab":                       "h:80",
		`http://h/a\b`:                            "h:80",
		"http://h/@user:pass":                     "h:80",
		"http://h/?u=http://user@x":               "h:80",
		"http://h/%23":                            "h:80",
		"http://h/ä":                              "h:80",
		"http://h//x/../y":                        "h:80",
		"http://2130706433/":                      "2130706433:80",
		"http://h/" + strings.Repeat("a", 2048-9): "h:80",
	} {
		u, err := endpoint.Parse(s)
		if err != nil {
			t.Errorf("Parse(%q) = %v, want it accepted", s, err)
			continue
		}
		if got := endpoint.HostPort(u); got != hostPort {
			t.Errorf("HostPort(%q) = %q, want %q", s, got, hostPort)
		}
		checkAccepted(t, s, u)
	}
}

var hostile = map[string][]string{
	"empty or no host": {
		"", "/", "h", "//h/", "http:", "http:/", "http://", "http:///metrics", "http:/h/metrics", "http:h", "http://:80/",
		"http://?x", "http://:/", "https://[]/", "http://[]:80/", "http:\\\\h/", "http:/\\h/", "http:\\/h/",
	},
	"scheme": {
		"ftp://h/", "file:///etc/passwd", "unix:///run/x.sock", "gopher://h/", "javascript:alert(1)", "data:text/plain,x",
		"httpx://h/", "http+unix://h/", "grpc://h/", "grpc+tls://h:1", "GRPCX://h:1", "://h/", "1http://h/", "ht tp://h/", "host:9100", "localhost:9100/metrics",
	},
	"user info": {
		"http://u@h/", "http://u:p@h/", "http://@h/", "http://:@h/", "http://:p@h/", "https://good.example@evil/", "http://a%40b@h/",
		"http://u@u@h/", `http://h\@evil/`, `http://h\evil/`, "http://u:p@[::1]/",
	},
	"fragment":         {"http://h/#", "http://h#", "http://h/#a", "http://h/?a#b", "#", "http://#h/", "http://h#@evil/"},
	"space or control": {" http://h/", "http://h/ ", "http://h /", "http://h/a b", "http://h/\t", "http://h/\n", "http://h\r\nX: y/", "http://h/\x00", "http://\x00/", "http://h/\x7f", "http://h/\x1f", "http://h/?\n"},
	"space or control that is not ASCII": {
		"http://h/\u0085", "http://h\u00a0/", "http://h/\u2028", "http://h/\u009f", "http://h/\u3000",
	},
	"host that hides something": {
		"http://%00/", "http://%20/", "http://%0a/", "http://a%2fb/", "http://a%40b/", "http://%c2%85/", "http://a%c2%a0b/",
		"http://a%e2%80%8bb/", "http://a\u200bb/", "http://a%e2%80%aeb/", "http://a%25b/", "http://169.254.169.254%25/",
		"http://169.254.169.254%25eth0/", "http://%31%36%39.254.169.254/", "http://<b>/", `http://"h"/`, "http://a|b/", "http://{h}/", "http://a^b/", "http://]/", "http://a]:80/", "http://`h`/",
	},
	"invalid UTF-8": {"http://\xff/", "http://h/\xff", "http://h/?\xc3", "http://%ff/", "http://a%c3/", "http://h\xc3/", "http://[fe80::1%25%ff]/"},
	"IPv6": {
		"http://::1/", "http://[::1/", "http://::1]/", "http://[::1]x/", "http://[::1]]/", "http://[[::1]]/", "http://[g::1]/", "http://[1.2.3.4]/",
		"http://[::1]:/", "http://[::1]:0/", "http://[::1]:65536/", "http://[::1]80/", "http://[::1%eth0]/", "http://[::1%25]/", "http://x[::1]/",
		"http://[fe80::1%25%20]/", "http://[fe80::1%25a%0ab]/", "http://[localhost]/", "http://[::1%25]]/", "http://[::1%25[]/", "http://[::1%25a%25b]/", "http://[v1.x]/",
	},
	"port": {
		"http://h:/", "http://h:0/", "http://h:00/", "http://h:65536/", "http://h:99999999999999999999/", "http://h:-1/", "http://h:+80/", "http://h:8o/",
		"http://h:80:80/", "http://h:８０/", "http://h:0x50/", "http://h:%38%30/", "http://h:80 /", "http://h:http/", "http://h::/",
	},
	"escape":    {"http://h/%", "http://h/%zz", "http://%/", "http://h/%1"},
	"very long": {"http://h/" + strings.Repeat("a", 2048-8), strings.Repeat("a", 1<<20), strings.Repeat("http://", 1000), "http://" + strings.Repeat("[", 3000)},
}

func TestParseRefuses(t *testing.T) {
	for kind, urls := range hostile {
		t.Run(kind, func(t *testing.T) {
			for _, s := range urls {
				u, err := endpoint.Parse(s)
				if err == nil {
					t.Errorf("Parse(%q) was accepted, host %q", s, u.Host)
				} else {
					checkRefused(t, s, u, err)
				}
			}
		})
	}
}

func checkRefused(t *testing.T, s string, u *url.URL, err error) {
	t.Helper()
	if !errors.Is(err, endpoint.ErrEndpoint) {
		t.Errorf("Parse(%q) = %v, does not wrap ErrEndpoint", s, err)
	}
	if u != nil {
		t.Errorf("Parse(%q) gave a URL beside its error", s)
	}
	if msg := err.Error(); len(msg) > 4096 || !utf8.ValidString(msg) || strings.ContainsFunc(msg, unicode.IsControl) {
		t.Errorf("Parse(%q): the error is not fit to print: %q", s, msg)
	}
}

// checkAccepted checks the package's invariant, as far as it can be told from
// the result.
func checkAccepted(t *testing.T, s string, u *url.URL) {
	t.Helper()
	if u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Hostname() == "" || u.Opaque != "" {
		t.Errorf("Parse(%q) accepted %#v", s, u)
	}
	if strings.Contains(s, "#") || len(s) > 2048 || !utf8.ValidString(s) {
		t.Errorf("Parse(%q) was accepted", s)
	}
	for _, text := range []string{s, u.Host} {
		if strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			t.Errorf("Parse(%q) let a space or control character pass in %q", s, text)
		}
	}
	// HostPort becomes a label and is dialled.
	hostPort := endpoint.HostPort(u)
	host, port, err := net.SplitHostPort(hostPort)
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 || host != u.Hostname() {
		t.Errorf("Parse(%q): HostPort is %q (%q, %q, %v)", s, hostPort, host, port, err)
	}
	if !utf8.ValidString(hostPort) {
		t.Errorf("Parse(%q): HostPort %q is not valid UTF-8", s, hostPort)
	}
	again, err := endpoint.Parse(u.String())
	if len(u.String()) > 2048 {
		return // escapes take room
	}
	if err != nil || again.Host != u.Host {
		t.Errorf("Parse(%q) accepted %q, which it refuses: %v", s, u, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, urls := range hostile {
		for _, s := range urls {
			if len(s) < 3000 {
				f.Add(s)
			}
		}
	}
	for _, s := range []string{"http://h:9100/metrics", "https://[fe80::1%25eth0]/a?b=c", "http://bücher.example/", "http://h/a%0d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := endpoint.Parse(s)
		if err != nil {
			checkRefused(t, s, u, err)
			return
		}
		checkAccepted(t, s, u)
		if err := (endpoint.Policy{}).CheckURL(u); err != nil && !errors.Is(err, endpoint.ErrEndpoint) {
			t.Errorf("CheckURL(%q) = %v", s, err)
		}
	})
}
