package access

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
	"go.yaml.in/yaml/v2"
)

// The bounds of a file of rules.
const (
	// MaxFile is of the file, in bytes.
	MaxFile = 1 << 20

	maxRules = 4096 // of each sort
	maxIDs   = 1000 // of one rule
	maxError = 2000

	maxProducers = 1_000_000_000
)

// file is how the YAML is laid out.
type file struct {
	Identities []identityEntry `yaml:"identities"`
	Tokens     []tokenEntry    `yaml:"tokens"`
}

type identityEntry struct {
	SPIFFE string   `yaml:"spiffe"`
	DNS    string   `yaml:"dns"`
	Role   Role     `yaml:"role"`
	IDs    []string `yaml:"ids"`
	Max    int      `yaml:"max_producers"`
}

type tokenEntry struct {
	Name   string   `yaml:"name"`
	SHA256 string   `yaml:"sha256"`
	Role   Role     `yaml:"role"`
	IDs    []string `yaml:"ids"`
	Max    int      `yaml:"max_producers"`
}

// Parse checks a file of rules. They take the place of the Default ones. Unknown
// words are refused, an error names the entry that is at fault, and none repeats
// what may be a token.
func Parse(data []byte) (*Rules, error) {
	rules, err := parse(data)
	if err != nil && len(err.Error()) > maxError {
		return nil, errors.New(strings.ToValidUTF8(err.Error()[:maxError], "") + "...")
	}
	return rules, err
}

func parse(data []byte) (*Rules, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("larger than %d bytes", MaxFile)
	}
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.SetStrict(true)
	if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty: nobody could do anything")
	} else if err != nil {
		return nil, hidden(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if len(f.Identities)+len(f.Tokens) == 0 {
		return nil, errors.New("it has neither identities nor tokens: nobody could do anything")
	}
	if n := max(len(f.Identities), len(f.Tokens)); n > maxRules {
		return nil, fmt.Errorf("%d rules of one sort, at most %d are allowed", n, maxRules)
	}
	r := &Rules{}
	for i, entry := range f.Identities {
		rule, err := entry.rule()
		if err == nil {
			err = rule.grant.checkMax()
		}
		if err != nil {
			return nil, fmt.Errorf("identities[%d]: %w", i, err)
		}
		r.identities = append(r.identities, rule)
	}
	for i, entry := range f.Tokens {
		rule, err := entry.rule()
		if err == nil {
			err = errors.Join(rule.grant.checkMax(), checkTwice(r.tokens, rule))
		}
		if err != nil {
			return nil, fmt.Errorf("tokens[%d]: %w", i, err)
		}
		r.tokens = append(r.tokens, rule)
	}
	return r, nil
}

// quoted is a value in an error of the YAML library.
var quoted = regexp.MustCompile("(?s)`.*?`( into|$)")

// hidden leaves the values out of an error: one may be a token in a wrong place.
func hidden(err error) error {
	lines := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		lines = typed.Errors
	}
	for i, line := range lines {
		lines[i] = quoted.ReplaceAllString(line, "a value$1")
	}
	return errors.New(strings.Join(lines, "; "))
}

func (e identityEntry) rule() (identityRule, error) {
	rule := identityRule{grant: Grant{Role: e.Role, IDs: e.IDs, MaxProducers: e.Max}}
	var err error
	switch {
	case (e.SPIFFE == "") == (e.DNS == ""):
		return rule, errors.New("want one of spiffe and dns")
	case e.DNS != "":
		if rule.dns, err = parseDNS(e.DNS); err != nil {
			return rule, fmt.Errorf("dns: %w", err)
		}
		return rule, rule.grant.check()
	}
	if rule.spiffe, err = parsePattern(e.SPIFFE); err != nil {
		return rule, fmt.Errorf("spiffe: %w", err)
	}
	return rule, rule.checkSPIFFE()
}

// checkSPIFFE refuses what is said twice, and what is not said at all.
func (r identityRule) checkSPIFFE() error {
	switch p := r.spiffe; {
	case p.hasRole && r.grant.Role != "":
		return fmt.Errorf("role: %s says it already", roleSegment)
	case p.hasID && len(r.grant.IDs) > 0:
		return fmt.Errorf("ids: %s says them already", idSegment)
	case p.hasRole && !p.hasID:
		return fmt.Errorf("spiffe: %s is wanted with %s", idSegment, roleSegment)
	case p.hasRole:
		return nil
	case p.hasID && r.grant.Role.acts():
		return nil
	}
	return r.grant.check()
}

func parseDNS(s string) (string, error) {
	if s == "" || len(s) > 253 || strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || !only(s, true) {
		return "", fmt.Errorf("%.100q is no DNS name; there are no wildcards", s)
	}
	return strings.ToLower(s), nil
}

func (e tokenEntry) rule() (tokenRule, error) {
	rule := tokenRule{name: e.Name, grant: Grant{Role: e.Role, IDs: e.IDs, MaxProducers: e.Max}}
	if err := assignment.CheckCredential(e.Name); err != nil {
		return rule, errors.New("name: want a letter or digit and up to 127 more, '.', '_' and '-' among them")
	}
	hash, err := hex.DecodeString(e.SHA256)
	if err != nil || len(hash) != sha256.Size {
		return rule, errors.New("sha256: want the 64 hexadecimal digits of the token's SHA-256")
	}
	rule.hash = [sha256.Size]byte(hash)
	return rule, rule.grant.check()
}

func checkTwice(before []tokenRule, one tokenRule) error {
	for i, other := range before {
		if other.name == one.name || other.hash == one.hash {
			return fmt.Errorf("has the name or the token of tokens[%d]", i)
		}
	}
	return nil
}

// checkMax refuses a number of producers that is none, or of somebody for whom
// none count.
func (g Grant) checkMax() error {
	switch {
	case g.MaxProducers < 0 || g.MaxProducers > maxProducers:
		return fmt.Errorf("max_producers: %d, want 1 to %d", g.MaxProducers, maxProducers)
	case g.MaxProducers > 0 && g.Role != "" && !g.Role.acts():
		return fmt.Errorf("max_producers: nothing counts for one who is %s", g.Role)
	}
	return nil
}

// check refuses a grant that grants nothing, or that says ids to no end.
func (g Grant) check() error {
	switch {
	case !g.Role.known():
		return fmt.Errorf("role: %.100q is none of %v", g.Role, Roles())
	case !g.Role.acts() && len(g.IDs) > 0:
		return fmt.Errorf("ids: %s acts as nobody", g.Role)
	case g.Role.acts() && len(g.IDs) == 0:
		return fmt.Errorf("ids: %s wants some", g.Role)
	case len(g.IDs) > maxIDs:
		return fmt.Errorf("ids: %d of them, at most %d are allowed", len(g.IDs), maxIDs)
	}
	if i := slices.IndexFunc(g.IDs, func(id string) bool { return id != "*" && checkID(g.Role, strings.TrimSuffix(id, "*")) != nil }); i >= 0 {
		return fmt.Errorf("ids[%d]: %.100q is no id of a %s, nor the beginning of one and *", i, g.IDs[i], g.Role)
	}
	return nil
}
