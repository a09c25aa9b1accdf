package scripttest

import (
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// Certify makes an authority, and writes into each directory what was requested for
// it, for a day: a certificate, its key, and the authority.
func Certify(ts *testscript.TestScript, requests map[string]authority.Request) {
	a, _, err := authority.New(authority.DefaultTrustDomain, time.Now(), 1)
	ts.Check(err)
	for dir, request := range requests {
		request.Days = 1
		pair, err := a.Issue(request, time.Now())
		ts.Check(err)
		ts.Check(os.MkdirAll(dir, 0o700))
		files := identityFiles(dir)
		for path, content := range map[string][]byte{files.Cert: pair.Certificate, files.Key: pair.Key, files.CA: a.Certificate()} {
			ts.Check(os.WriteFile(path, content, 0o600))
		}
	}
}

// Identity is what Certify has written into a directory.
func Identity(ts *testscript.TestScript, dir string) *process.Identity {
	identity, err := process.LoadIdentity(identityFiles(dir))
	ts.Check(err)
	return identity
}

func identityFiles(dir string) process.IdentityFiles {
	return process.IdentityFiles{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), CA: filepath.Join(dir, "ca.crt"),
	}
}
