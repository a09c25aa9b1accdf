// Package access holds who may do what: roles, the identities that certificates
// and tokens prove, and one table of the methods and one of the HTTP routes.
//
// Its invariant: what no rule allows is refused. That holds for a certificate or
// token without a rule, for a method or route without a row, and for a request
// that names nobody where its row asks whose it is.
package access

import (
	"slices"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

// A Role is what somebody is here for.
type Role string

// The roles.
const (
	// Producer registers itself.
	Producer Role = "producer"

	// Collector has its assignments and asks the other collectors.
	Collector Role = "collector"

	// Registry asks collectors how their producers answer.
	Registry Role = "registry"

	// Operator changes what others have, and reads everything.
	Operator Role = "operator"

	// Reader reads.
	Reader Role = "reader"
)

// Roles are all of them.
func Roles() []Role { return []Role{Producer, Collector, Registry, Operator, Reader} }

// known tells whether there is such a role.
func (r Role) known() bool { return slices.Contains(Roles(), r) }

// acts tells whether one with the role acts as somebody with an id.
func (r Role) acts() bool { return r == Producer || r == Collector }

// A Grant is a role, and for a producer or a collector the ids that it may act
// as: each is exact, a beginning followed by *, or * for any.
type Grant struct {
	Role Role
	IDs  []string

	// MaxProducers is how many producers may count for the identity; 0: as many as
	// for any other.
	MaxProducers int
}

// An Identity is somebody who was proven. The zero value is nobody.
type Identity struct {
	// Name is what was proven: spiffe://..., dns:... or token:....
	Name string

	Grants []Grant
}

// Anonymous is who calls where nobody is asked.
const Anonymous = "anonymous"

// selfPrefix begins the id of the producer that a collector is, for its own
// metrics: it may register that, too.
const selfPrefix = "rollcall/collector/"

// A Kind says what an id names.
type Kind int

// The kinds of ids.
const (
	ProducerID Kind = iota + 1
	CollectorID
)

// Registers is how many producers an identity may register by its grants, each of
// which is for so many ids; ok is false where there is no end to them.
func (i Identity) Registers() (n int, ok bool) {
	for _, grant := range i.Grants {
		open := func(id string) bool { return strings.HasSuffix(id, "*") }
		if grant.Role == Operator || slices.ContainsFunc(grant.IDs, open) {
			return 0, false
		}
		n += len(grant.IDs)
	}
	return n, true
}

// owns tells whether a grant is for an id.
func (g Grant) owns(kind Kind, id string) bool {
	switch {
	case kind == CollectorID && g.Role == Collector:
		_, err := assignment.ParseCollectorID(id)
		return err == nil && g.covers(id)
	case kind != ProducerID:
		return false
	}
	if _, err := assignment.ParseProducerID(id); err != nil {
		return false
	}
	switch g.Role {
	case Producer:
		return g.covers(id)
	case Collector:
		self, ok := strings.CutPrefix(id, selfPrefix)
		return ok && g.owns(CollectorID, self)
	default:
		return false
	}
}

func (g Grant) covers(id string) bool {
	return slices.ContainsFunc(g.IDs, func(pattern string) bool {
		if prefix, open := strings.CutSuffix(pattern, "*"); open {
			return strings.HasPrefix(id, prefix)
		}
		return id == pattern
	})
}
