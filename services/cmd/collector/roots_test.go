package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// trusts AUTHORITY...: tell whether a process with the imports of this command
// trusts each where its configuration names no authorities. It is a command, as a
// process looks for those of its system once. "public" is one that everybody
// trusts, all else a file (PEM).
func trusts() {
	pool, err := x509.SystemCertPool() // what --tls-ca is added to, for producers
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, name := range os.Args[1:] {
		root, err := authorityNamed(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "trusts:", err)
			os.Exit(1)
		}
		fmt.Printf("%s: by default %t, among the system's %t\n", name, verifies(root, nil), verifies(root, pool))
	}
}

func authorityNamed(name string) (*x509.Certificate, error) {
	if name == "public" {
		for root := range bundle.Roots() {
			return x509.ParseCertificate(root.Certificate)
		}
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate is in it", name)
	}
	return x509.ParseCertificate(block.Bytes)
}

// verifies reports whether a chain that ends at root is believed; nil roots are
// those of the system.
func verifies(root *x509.Certificate, roots *x509.CertPool) bool {
	_, err := root.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: root.NotBefore.Add(time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}
