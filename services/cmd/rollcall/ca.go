package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/rollcall-metrics/rollcall/services/internal/authority"
	"github.com/rollcall-metrics/rollcall/services/internal/process"
)

// The files of a certificate authority, and of what it issues.
const (
	authorityFile    = "ca.crt"
	authorityKeyFile = "ca.key"
	certificateFile  = "tls.crt"
	keyFile          = "tls.key"
)

// forTrials is said whenever something was made.
const forTrials = "rollcall ca is for development and tests: its key lies in a file, and nothing it issued can be revoked"

type caInit struct {
	Dir         string `arg:"" help:"The directory of the authority; it is made if it is missing."`
	TrustDomain string `env:"-" default:"rollcall.test" help:"What the identities that it issues begin with: spiffe://DOMAIN/rollcall/ROLE/ID."`
	Days        int    `env:"-" default:"365" help:"How long it is good for."`
}

// Run makes an authority.
func (c *caInit) Run(o output) error {
	_, pair, err := authority.New(c.TrustDomain, time.Now(), c.Days)
	if err != nil {
		return &process.RefusedError{Err: err}
	}
	return o.writeNew(c.Dir, []newFile{{authorityKeyFile, pair.Key, 0o600}, {authorityFile, pair.Certificate, 0o644}})
}

type caIssue struct {
	Dir  string       `arg:"" help:"The directory of the authority."`
	Role string       `env:"-" required:"" enum:"producer,collector,registry,operator,reader" help:"What the holder may do: producer, collector, registry, operator or reader."`
	ID   string       `env:"-" required:"" help:"Who the holder is: letters, digits and ._- between slashes."`
	DNS  []string     `env:"-" name:"dns" placeholder:"NAME" help:"A name at which others reach the holder (repeatable)."`
	IP   []netip.Addr `env:"-" name:"ip" placeholder:"ADDRESS" help:"An address at which others reach the holder (repeatable)."`
	Days int          `env:"-" default:"30" help:"How long it is good for, at most as long as the authority."`
	Out  string       `env:"-" placeholder:"DIR" help:"Where to write tls.crt, tls.key and ca.crt; it is made if it is missing. Default: ROLE/ID in the directory of the authority."`
}

// Run issues a certificate.
func (c *caIssue) Run(o output) error {
	r := authority.Request{Role: c.Role, ID: c.ID, DNS: c.DNS, IPs: c.IP, Days: c.Days}
	if err := r.Check(); err != nil {
		return &process.RefusedError{Err: err}
	}
	var own authority.Pair
	var err error
	if own.Certificate, err = os.ReadFile(filepath.Join(c.Dir, authorityFile)); err != nil {
		return err
	}
	if own.Key, err = os.ReadFile(filepath.Join(c.Dir, authorityKeyFile)); err != nil {
		return err
	}
	a, err := authority.Parse(own)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Dir, err)
	}
	pair, err := a.Issue(r, time.Now())
	if err != nil {
		return err
	}
	if c.Out == "" {
		c.Out = filepath.Join(c.Dir, c.Role, filepath.FromSlash(c.ID))
	}
	return o.writeNew(c.Out, []newFile{
		{keyFile, pair.Key, 0o600}, {certificateFile, pair.Certificate, 0o644}, {authorityFile, a.Certificate(), 0o644},
	})
}

type caToken struct{}

// Run makes a token.
func (*caToken) Run(o output) error {
	fmt.Fprintln(o.remarks, "the token is for the file of --token-file, its SHA-256 for who checks it")
	token, sum := authority.NewToken()
	_, err := fmt.Fprintf(o.out, "token   %s\nsha256  %s\n", token, sum)
	return err
}

type newFile struct {
	name    string
	content []byte
	mode    fs.FileMode
}

// writeNew writes files that are not there yet, or none of them, and says what they
// are good for.
func (o output) writeNew(dir string, files []newFile) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already", path)
		}
	}
	for _, f := range files {
		if err := writeOne(filepath.Join(dir, f.name), f); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(o.remarks, forTrials)
	return err
}

func writeOne(path string, f newFile) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return err
	}
	_, err = file.Write(f.content)
	return errors.Join(err, file.Close())
}
