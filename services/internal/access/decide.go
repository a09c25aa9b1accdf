package access

import (
	"slices"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Scope says for whose sake a role may make a call.
type Scope int

// The scopes.
const (
	// Any is for anybody's.
	Any Scope = iota + 1

	// Own is for the ids that the grant of that role has, all that the request
	// names, and one at least.
	Own

	// Self is at the collector that the grant is for, whatever the request says.
	Self
)

// A Permit lets a role make a call.
type Permit struct {
	Role  Role
	Scope Scope

	// With are fields of the request that must be set, Without ones that must not.
	With, Without string
}

// A Subject is where a request says whom it is about. Kind is zero where it says
// that nowhere.
type Subject struct {
	Kind Kind

	// Path is of names of fields, with dots between them. All elements of a
	// repeated field are meant.
	Path string
}

// A Method is the row of one method.
type Method struct {
	// Name is the full one: /package.Service/Method.
	Name string

	// Open is for everybody, those without an identity, too.
	Open bool

	Permits []Permit
	Subject Subject

	// Audit is set for what changes something and is therefore told in the log.
	Audit *Audit
}

// An Audit says what is told of a call.
type Audit struct {
	// DryRun is the field of the request, or of each of its parts, by which it
	// changes nothing.
	DryRun string

	// Outcome is where the response has epoch, revision and, if at all, changed;
	// empty: it has them itself. One for each part of the request may be there.
	Outcome string

	// Codes is where the response tells how each part of the request ended, where
	// it does: one that failed may have changed something.
	Codes string

	// Partial is set where a call that fails may have done a part of what it should.
	Partial bool

	// Shown are fields of the request that are told beside the subjects.
	Shown []string
}

// A Call is what a decision is about.
type Call struct {
	Who Identity

	// Server is the collector that is asked, empty at a registry.
	Server assignment.CollectorID

	// Subjects are whom the request names, at the path of the row.
	Subjects []string

	// Set are those of the row's Fields that are set in the request.
	Set []string
}

// A Reason is why a call is refused, in the words that its caller is told. None
// tells whether there is what the call is about.
type Reason string

// The reasons.
const (
	// NoCredentials: there is neither a certificate nor a token.
	NoCredentials Reason = "NO_CREDENTIALS"

	// UnknownCredentials: no rule is for them, or they are malformed.
	UnknownCredentials Reason = "UNKNOWN_CREDENTIALS" //nolint:gosec // a word, no secret

	// RoleMissing: another role is needed.
	RoleMissing Reason = "ROLE_MISSING"

	// NotYours: the role is right, and whom the call is about is somebody else.
	NotYours Reason = "NOT_YOURS"

	// NoRule: the table has no row.
	NoRule Reason = "NO_RULE"
)

// Decide says in which role the call may be made, or why it may not.
func (m Method) Decide(c Call) (Role, Reason) {
	why := RoleMissing
	for _, permit := range m.Permits {
		if permit.With != "" && !slices.Contains(c.Set, permit.With) || permit.Without != "" && slices.Contains(c.Set, permit.Without) {
			continue
		}
		for _, grant := range c.Who.Grants {
			if grant.Role != permit.Role {
				continue
			}
			if permit.covers(grant, m.Subject.Kind, c) {
				return grant.Role, ""
			}
			why = NotYours
		}
	}
	return "", why
}

// Fields are those of the request, all of them booleans, that a decision depends
// on.
func (m Method) Fields() []string {
	var all []string
	for _, permit := range m.Permits {
		for _, field := range []string{permit.With, permit.Without} {
			if field != "" && !slices.Contains(all, field) {
				all = append(all, field)
			}
		}
	}
	return all
}

// Admits tells whether an identity has a role with which some call of the method
// may be made. It is for streams, whose request comes later.
func (m Method) Admits(who Identity) bool {
	for _, permit := range m.Permits {
		if who.Has(permit.Role) {
			return true
		}
	}
	return false
}

// Has tells whether an identity has one of the roles.
func (i Identity) Has(roles ...Role) bool {
	for _, grant := range i.Grants {
		if slices.Contains(roles, grant.Role) {
			return true
		}
	}
	return false
}

func (p Permit) covers(g Grant, kind Kind, c Call) bool {
	switch p.Scope {
	case Any:
		return true
	case Self:
		return g.owns(CollectorID, string(c.Server))
	case Own:
		for _, id := range c.Subjects {
			if !g.owns(kind, id) {
				return false
			}
		}
		return len(c.Subjects) > 0
	default:
		return false
	}
}
