package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
)

// Rules say who somebody is that proved a name. They are not changed once they
// are made.
type Rules struct {
	identities []identityRule
	tokens     []tokenRule
}

// An identityRule is for a SPIFFE ID or, with a dns, for that name.
type identityRule struct {
	spiffe spiffePattern
	dns    string
	grant  Grant // its role is empty where the SPIFFE ID has it
}

// A tokenRule is for one token.
type tokenRule struct {
	name  string
	hash  [sha256.Size]byte
	grant Grant
}

// ErrUnknown says that no rule is for what was proven.
var ErrUnknown = errors.New("no rule is for it")

// Default is for those who give no rules: a certificate with the SPIFFE ID
// spiffe://DOMAIN/rollcall/ROLE/ID, of any trust domain, is taken at its word.
func Default() *Rules {
	return &Rules{identities: []identityRule{{spiffe: spiffePattern{
		domain: "*", path: []string{"rollcall", roleSegment, idSegment}, hasRole: true, hasID: true,
	}}}}
}

// maxNames bounds the names of one certificate.
const maxNames = 128

// OfNames is who a verified certificate with these URIs and DNS names belongs to.
// The first rule, in the order of the file, that is for any of its names decides
// alone. Without one the error wraps ErrUnknown.
func (r *Rules) OfNames(uris, dns []string) (Identity, error) {
	if len(uris)+len(dns) > maxNames {
		return Identity{}, fmt.Errorf("a certificate with %d names, at most %d are allowed", len(uris)+len(dns), maxNames)
	}
	uri, err := spiffeOf(uris)
	if err != nil {
		return Identity{}, err
	}
	var spiffe spiffeID
	if uri != "" {
		if spiffe, err = parseSPIFFE(uri); err != nil {
			return Identity{}, err
		}
	}
	for _, rule := range r.identities {
		if rule.dns != "" {
			for _, name := range dns {
				if strings.EqualFold(name, rule.dns) {
					return Identity{Name: "dns:" + rule.dns, Grants: []Grant{rule.grant}}, nil
				}
			}
			continue
		}
		if uri == "" {
			continue
		}
		if grant, ok := rule.grantOf(spiffe); ok {
			return Identity{Name: uri, Grants: []Grant{grant}}, nil
		}
	}
	return Identity{}, fmt.Errorf("a certificate with the SPIFFE ID %.200q and %d DNS names: %w", uri, len(dns), ErrUnknown)
}

// grantOf is what a rule grants to a SPIFFE ID.
func (r identityRule) grantOf(s spiffeID) (Grant, bool) {
	role, id, ok := r.spiffe.match(s)
	if !ok {
		return Grant{}, false
	}
	grant := r.grant
	if r.spiffe.hasRole {
		grant.Role = role
	}
	if !grant.Role.known() {
		return Grant{}, false
	}
	if r.spiffe.hasID && grant.Role.acts() {
		if checkID(grant.Role, id) != nil {
			return Grant{}, false
		}
		grant.IDs = []string{id}
	}
	return grant, true
}

// The bounds of a token, in bytes. The lower one is that of 128 bits, raw.
const (
	minToken = 16
	maxToken = 4096
)

// OfToken is who a token belongs to. Without a rule the error wraps ErrUnknown; no
// error repeats the token.
//
// A token is random and has 128 bits or more. Nobody guesses one, so the rules
// have a fast hash of it: a slow one makes guessing dear, and here only each call.
func (r *Rules) OfToken(token string) (Identity, error) {
	if len(token) < minToken || len(token) > maxToken {
		return Identity{}, fmt.Errorf("a token of %d bytes, %d to %d are allowed", len(token), minToken, maxToken)
	}
	hash := sha256.Sum256([]byte(token))
	var found Identity
	for _, rule := range r.tokens {
		// All are compared, and each of them whole: how long that takes tells nothing.
		if subtle.ConstantTimeCompare(hash[:], rule.hash[:]) == 1 {
			found = Identity{Name: "token:" + rule.name, Grants: []Grant{rule.grant}}
		}
	}
	if found.Name == "" {
		return Identity{}, fmt.Errorf("a token: %w", ErrUnknown)
	}
	return found, nil
}
