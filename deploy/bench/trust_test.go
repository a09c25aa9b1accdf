package bench

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/credentials"
)

// A trust is an authority of `rollcall ca` and what it has issued.
type trust struct {
	bin, dir string

	authority, like tls.Certificate // like is that of a producer
	roots           *x509.CertPool
}

func newTrust(b *testing.B, bin string) *trust {
	b.Helper()
	t := &trust{bin: bin, dir: b.TempDir(), roots: x509.NewCertPool()}
	t.ca(b, "init", t.dir)
	t.ca(b, "issue", t.dir, "--role", "registry", "--id", "registry", "--ip", "127.0.0.1")
	t.ca(b, "issue", t.dir, "--role", "operator", "--id", "bench")
	t.ca(b, "issue", t.dir, "--role", "producer", "--id", "like")
	t.authority = pair(b, filepath.Join(t.dir, "ca.crt"), filepath.Join(t.dir, "ca.key"))
	t.like = t.pair(b, "producer/like")
	t.roots.AddCert(t.authority.Leaf)
	return t
}

func (t *trust) ca(b *testing.B, args ...string) {
	b.Helper()
	if out, err := exec.Command(filepath.Join(t.bin, "rollcall"), append([]string{"ca"}, args...)...).CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
}

// pair is what was issued for a role and an id.
func (t *trust) pair(b *testing.B, name string) tls.Certificate {
	b.Helper()
	return pair(b, filepath.Join(t.dir, name, "tls.crt"), filepath.Join(t.dir, name, "tls.key"))
}

func pair(b *testing.B, cert, key string) tls.Certificate {
	b.Helper()
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// producer makes the credentials of one, with a certificate of its own. All have
// one key, which saves time and costs the registry the same.
func (t *trust) producer(b *testing.B, id string) credentials.TransportCredentials {
	b.Helper()
	template := *t.like.Leaf
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		b.Fatal(err)
	}
	template.SerialNumber = serial
	own := *template.URIs[0]
	own.Path = strings.TrimSuffix(own.Path, "like") + id
	template.URIs = []*url.URL{&own}
	der, err := x509.CreateCertificate(rand.Reader, &template, t.authority.Leaf, template.PublicKey, t.authority.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	return credentials.NewTLS(t.client(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: t.like.PrivateKey}))
}

func (t *trust) client(shown tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: t.roots, Certificates: []tls.Certificate{shown}}
}

// buildCommands builds the registry and the command line.
func buildCommands(b *testing.B) (bin string) {
	b.Helper()
	bin = b.TempDir()
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "../../services/cmd/registry", "../../services/cmd/rollcall").CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return bin
}

// startRegistry starts the registry's own command, with certificates unless t is
// nil, and waits until it serves.
func startRegistry(b *testing.B, bin string, t *trust) *server {
	b.Helper()
	s := &server{address: freePort(b), web: freePort(b)}
	args := []string{"--data-dir", b.TempDir(), "--listen", s.address, "--http-listen", s.web, "--no-self-register"}
	if t != nil {
		own := filepath.Join(t.dir, "registry/registry")
		args = append(args, "--tls-cert", own+"/tls.crt", "--tls-key", own+"/tls.key", "--tls-ca", own+"/ca.crt")
		s.operator = &http.Client{Transport: &http.Transport{TLSClientConfig: t.client(t.pair(b, "operator/bench"))}}
		b.Cleanup(s.operator.CloseIdleConnections)
	}
	s.process = exec.Command(filepath.Join(bin, "registry"), args...)
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.stop)
	s.awaitReady(b)
	return s
}
