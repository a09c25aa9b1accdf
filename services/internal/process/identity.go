package process

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// IdentityFiles are the files of an Identity, in PEM. Cert and Key are both empty
// for a client that shows none.
type IdentityFiles struct {
	Cert, Key, CA string

	// MinVersion is the least version of TLS that is spoken.
	MinVersion uint16
}

// An Identity is what a process shows to its peers and whom it trusts: a
// certificate, its key and authorities, out of files that may be replaced at any
// time. New connections use what the files have; what cannot be used changes
// nothing. It is a prometheus.Collector, and safe for concurrent use.
type Identity struct {
	files   IdentityFiles
	current atomic.Pointer[material]
	failing atomic.Pointer[string] // the error of the last look at the files

	notAfter, reloadFailing *prometheus.Desc
}

// material is what the files had at one time. It is immutable.
type material struct {
	sum         [sha256.Size]byte
	certificate *tls.Certificate // nil for none
	authorities *x509.CertPool
	notAfter    time.Time

	client, producers *tls.Config
}

// LoadIdentity reads the files. It refuses what would be of no use.
func LoadIdentity(files IdentityFiles) (*Identity, error) {
	i := &Identity{
		files: files,
		notAfter: prometheus.NewDesc("rollcall_tls_certificate_not_after_seconds",
			"When the certificate runs out that is shown to new connections, in Unix time.", nil, nil),
		reloadFailing: prometheus.NewDesc("rollcall_tls_reload_failing",
			"1 while the files of certificate, key and authorities cannot be used: those from before are.", nil, nil),
	}
	m, err := i.read()
	if err != nil {
		return nil, &RefusedError{err}
	}
	i.current.Store(m)
	return i, nil
}

// Describe implements prometheus.Collector.
func (i *Identity) Describe(c chan<- *prometheus.Desc) {
	c <- i.notAfter
	c <- i.reloadFailing
}

// Collect implements prometheus.Collector.
func (i *Identity) Collect(c chan<- prometheus.Metric) {
	if m := i.current.Load(); m.certificate != nil {
		c <- prometheus.MustNewConstMetric(i.notAfter, prometheus.GaugeValue, float64(m.notAfter.Unix()))
	}
	failing := 0.0
	if i.failing.Load() != nil {
		failing = 1
	}
	c <- prometheus.MustNewConstMetric(i.reloadFailing, prometheus.GaugeValue, failing)
}

// DefaultRefresh is the time between two looks at the files.
const DefaultRefresh = 10 * time.Second

// Watch looks at the files until ctx ends.
func (i *Identity) Watch(ctx context.Context, every time.Duration, logger *slog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			i.refresh(ctx, logger)
		}
	}
}

// refresh looks at the files once. An error is told once for as long as it stays
// the same.
func (i *Identity) refresh(ctx context.Context, logger *slog.Logger) {
	m, err := i.read()
	if err != nil {
		text := err.Error()
		if before := i.failing.Swap(&text); before == nil || *before != text {
			logger.ErrorContext(ctx, "new TLS files cannot be used, those from before are", "error", err)
		}
		return
	}
	i.failing.Store(nil)
	if before := i.current.Load(); before.sum == m.sum {
		return
	}
	i.current.Store(m)
	logger.InfoContext(ctx, "new TLS files are used", "not_after", m.notAfter, "cert", i.files.Cert, "ca", i.files.CA)
}

// maxFileBytes bounds each of the files.
const maxFileBytes = 1 << 20

// read reads all files. Errors tell the flag, and nothing of what is in a file.
func (i *Identity) read() (*material, error) {
	f := i.files
	authorities, err := readFile("--tls-ca", f.CA)
	if err != nil {
		return nil, err
	}
	m := &material{}
	if m.authorities, err = parseAuthorities(authorities, time.Now()); err != nil {
		return nil, fmt.Errorf("--tls-ca %s: %w", f.CA, err)
	}
	var cert, key []byte
	if f.Cert != "" {
		if cert, err = readFile("--tls-cert", f.Cert); err != nil {
			return nil, err
		}
		if key, err = readFile("--tls-key", f.Key); err != nil {
			return nil, err
		}
		if m.certificate, err = parsePair(cert, key, time.Now()); err != nil {
			return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", f.Cert, f.Key, err)
		}
		m.notAfter = m.certificate.Leaf.NotAfter
	}
	m.sum = sha256.Sum256(bytes.Join([][]byte{authorities, cert, key}, []byte{0}))
	m.client = m.clientConfig(f.MinVersion, m.authorities)
	everybody, err := x509.SystemCertPool()
	if err != nil { // a container may have none
		everybody = x509.NewCertPool()
	}
	everybody.AppendCertsFromPEM(authorities)
	m.producers = m.clientConfig(tls.VersionTLS12, everybody)
	return m, nil
}

func readFile(flag, path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if len(content) > maxFileBytes {
		return nil, fmt.Errorf("%s %s: more than %d bytes", flag, path, maxFileBytes)
	}
	return content, nil
}

// parseAuthorities makes a pool of all certificates in a file.
func parseAuthorities(content []byte, now time.Time) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	found, good := 0, 0
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is malformed", found+1)
		}
		found++
		if now.Before(c.NotAfter) {
			good++
		}
		pool.AddCert(c)
	}
	switch {
	case found == 0:
		return nil, errors.New("no certificate is in it")
	case good == 0:
		return nil, errors.New("every certificate in it has expired")
	}
	return pool, nil
}

func parsePair(cert, key []byte, now time.Time) (*tls.Certificate, error) {
	// Its errors tell of the kinds of blocks, never of what is in them.
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if !now.Before(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate expired at %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return &pair, nil
}
