package access_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rollcall-metrics/rollcall/services/internal/access"
	"github.com/rollcall-metrics/rollcall/services/internal/assignment"
)

const (
	ciToken   = "a token of the pipeline, as long as it should be"
	bootToken = "another token of somebody else, just as long"
)

func hashOf(token string) string {
	hash := sha256.Sum256([]byte(token))
	return hex.EncodeToString(hash[:])
}

// example is the file of the documentation, and a little more.
var example = `
identities:
  - spiffe: spiffe://example.org/rollcall/{role}/{id}
  - spiffe: spiffe://example.org/ns/prod/sa/node-agent
    role: producer
    ids: ["node-*", "gateway"]
  - spiffe: spiffe://*/edge/{id}
    role: producer
  - spiffe: spiffe://example.org/admins/{id}
    role: operator
  - dns: Collector-1.example.org
    role: collector
    ids: [collector-1]
  - dns: "node-agent.example.org"
    role: reader
tokens:
  - name: ci
    sha256: ` + hashOf(ciToken) + `
    role: operator
  - name: boot
    sha256: ` + strings.ToUpper(hashOf(bootToken)) + `
    role: producer
    ids: ["*"]
`

func parse(t *testing.T, text string) *access.Rules {
	t.Helper()
	rules, err := access.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func identity(name string, role access.Role, ids ...string) access.Identity {
	return access.Identity{Name: name, Grants: []access.Grant{{Role: role, IDs: ids}}}
}

func TestOfNames(t *testing.T) {
	rules := parse(t, example)
	const org = "spiffe://example.org/"
	for _, c := range []struct {
		uris, dns []string
		want      access.Identity
	}{
		{[]string{org + "rollcall/producer/p-1"}, nil, identity(org+"rollcall/producer/p-1", access.Producer, "p-1")},
		{[]string{org + "rollcall/producer/a/b/c"}, nil, identity(org+"rollcall/producer/a/b/c", access.Producer, "a/b/c")},
		{[]string{org + "rollcall/collector/c"}, nil, identity(org+"rollcall/collector/c", access.Collector, "c")},
		{[]string{org + "rollcall/registry/r"}, nil, identity(org+"rollcall/registry/r", access.Registry)},
		{[]string{org + "rollcall/reader/a/b"}, nil, identity(org+"rollcall/reader/a/b", access.Reader)},
		{[]string{org + "ns/prod/sa/node-agent"}, nil, identity(org+"ns/prod/sa/node-agent", access.Producer, "node-*", "gateway")},
		{[]string{"spiffe://else.where/edge/x"}, nil, identity("spiffe://else.where/edge/x", access.Producer, "x")},
		{[]string{org + "admins/ann"}, nil, identity(org+"admins/ann", access.Operator)},
		{nil, []string{"x", "COLLECTOR-1.example.ORG"}, identity("dns:collector-1.example.org", access.Collector, "collector-1")},

		// The first rule of the file decides, whatever the order of the names is.
		{nil, []string{"node-agent.example.org", "collector-1.example.org"}, identity("dns:collector-1.example.org", access.Collector, "collector-1")},
		{[]string{org + "ns/prod/sa/node-agent"}, []string{"collector-1.example.org"}, identity(org+"ns/prod/sa/node-agent", access.Producer, "node-*", "gateway")},
		{[]string{org + "unknown"}, []string{"node-agent.example.org"}, identity("dns:node-agent.example.org", access.Reader)},
		{[]string{"https://example.org/"}, []string{"node-agent.example.org"}, identity("dns:node-agent.example.org", access.Reader)},
	} {
		got, err := rules.OfNames(c.uris, c.dns)
		if err != nil || cmp.Diff(c.want, got) != "" {
			t.Errorf("%q %q: %v %s", c.uris, c.dns, err, cmp.Diff(c.want, got))
		}
	}
	for _, c := range []struct {
		uris, dns []string
		unknown   bool
	}{
		{nil, nil, true},
		{nil, []string{"", "*.example.org", "collector-1.example.org.", "xcollector-1.example.org"}, true},
		{[]string{"https://example.org/rollcall/operator/x"}, nil, true},
		{[]string{org + "ns/prod/sa/node-agent/x"}, nil, true},
		{[]string{org + "ns/prod/sa"}, nil, true},
		{[]string{"spiffe://other.org/rollcall/operator/x"}, nil, true},
		{[]string{"spiffe://example.org"}, nil, true},
		{[]string{org + "rollcall/root/x"}, nil, true},
		{[]string{org + "rollcall//x"}, nil, false},
		{[]string{org + "rollcall/operator"}, nil, true},
		{[]string{org + "rollcall/collector/a/b"}, nil, true},
		{[]string{org + "rollcall/producer/-a"}, nil, true},
		{[]string{org + "rollcall/producer/" + strings.Repeat("x", 129)}, nil, true},
		{[]string{"SPIFFE://example.org/rollcall/operator/x"}, nil, false},
		{[]string{"spiffe:example.org/rollcall/operator/x"}, nil, false},
		{[]string{"spiffe:///rollcall/operator/x"}, nil, false},
		{[]string{org + "admins/x\n"}, []string{"node-agent.example.org"}, false},
		{[]string{org + "admins/x", "spiffe:"}, nil, false},
		{[]string{"https://example.org/", org + "admins/x"}, nil, false},
		{nil, make([]string, 129), false},
	} {
		got, err := rules.OfNames(c.uris, c.dns)
		if err == nil || errors.Is(err, access.ErrUnknown) != c.unknown || got.Name != "" || got.Grants != nil {
			t.Errorf("%q %.100q: %v, %v", c.uris, c.dns, got, err)
		}
	}
}

func TestOfToken(t *testing.T) {
	rules := parse(t, example)
	for token, want := range map[string]access.Identity{
		ciToken:   identity("token:ci", access.Operator),
		bootToken: identity("token:boot", access.Producer, "*"),
	} {
		if got, err := rules.OfToken(token); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%q: %v %s", token, err, cmp.Diff(want, got))
		}
	}
	for _, token := range []string{"", "short", ciToken + " ", ciToken[1:], hashOf(ciToken), strings.Repeat("x", 5000)} {
		got, err := rules.OfToken(token)
		if err == nil || got.Name != "" || token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%.100q: %v, %v", token, got, err)
		}
	}
	if _, err := access.Default().OfToken(ciToken); !errors.Is(err, access.ErrUnknown) {
		t.Errorf("by default: %v", err)
	}
}

// TestRegisters: only exact ids come to an end.
func TestRegisters(t *testing.T) {
	two := access.Identity{Grants: []access.Grant{{Role: access.Producer, IDs: []string{"a", "b"}}, {Role: access.Collector, IDs: []string{"c"}}}}
	for _, c := range []struct {
		who access.Identity
		n   int
		ok  bool
	}{
		{access.Identity{}, 0, true},
		{identity("x", access.Producer, "a"), 1, true},
		{identity("x", access.Collector, "c"), 1, true},
		{identity("x", access.Reader), 0, true},
		{two, 3, true},
		{identity("x", access.Producer, "a", "b-*"), 0, false},
		{identity("x", access.Producer, "*"), 0, false},
		{identity("x", access.Collector, "*"), 0, false},
		{identity("x", access.Operator), 0, false},
	} {
		if n, ok := c.who.Registers(); n != c.n || ok != c.ok {
			t.Errorf("%v: %d, %v, want %d, %v", c.who.Grants, n, ok, c.n, c.ok)
		}
	}
}

// TestMaxProducers: what a rule says of them is granted with it, and nothing where
// it says nothing.
func TestMaxProducers(t *testing.T) {
	rules := parse(t, `
identities:
  - {spiffe: "spiffe://a/{role}/{id}", max_producers: 1}
  - {spiffe: "spiffe://b/{id}", role: producer, max_producers: 2}
  - {dns: c, role: collector, ids: ["*"], max_producers: 3}
  - {dns: d, role: producer, ids: ["*"]}
tokens:
  - {name: e, sha256: `+hashOf(ciToken)+`, role: producer, ids: ["*"], max_producers: 5}`)
	for i, names := range [][2][]string{{{"spiffe://a/producer/x"}}, {{"spiffe://b/x"}}, {nil, {"c"}}, {nil, {"d"}}} {
		want := (i + 1) % 4 // d has none
		if who, err := rules.OfNames(names[0], names[1]); err != nil || who.Grants[0].MaxProducers != want {
			t.Errorf("%v: %v, %v, want %d", names, who, err, want)
		}
	}
	if who, err := rules.OfToken(ciToken); err != nil || who.Grants[0].MaxProducers != 5 {
		t.Errorf("a token: %v, %v", who, err)
	}
}

// TestParseRefuses: what would grant something else than it says, or nothing, is
// refused, and the error tells where it is.
func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                            "empty",
		`{}`:                          "neither",
		`identities: []`:              "neither",
		"identities: []\n---\na: b\n": "more than one document",
		`people: []`:                  "people",
		`identities: [{spiffe: "spiffe://a/b", role: reader, roles: x}]`:                                                       "roles",
		`identities: [{spiffe: "spiffe://a/b", spiffe: "spiffe://a/c", role: reader}]`:                                         "spiffe",
		`identities: [{role: reader}]`:                                                                                         "identities[0]: want one of",
		`identities: [{spiffe: "spiffe://a/b", dns: a, role: reader}]`:                                                         "identities[0]: want one of",
		`identities: [{dns: ok, role: reader}, null]`:                                                                          "identities[1]",
		`identities: [{spiffe: "spiffe://a/b"}]`:                                                                               "identities[0]: role",
		`identities: [{spiffe: "spiffe://a/b", role: root}]`:                                                                   "identities[0]: role",
		`identities: [{spiffe: "spiffe://a/b", role: producer}]`:                                                               "identities[0]: ids: producer wants some",
		`identities: [{spiffe: "spiffe://a/b", role: collector, ids: []}]`:                                                     "identities[0]: ids: collector wants some",
		`identities: [{spiffe: "spiffe://a/b", role: operator, ids: [x]}]`:                                                     "identities[0]: ids: operator acts as nobody",
		`identities: [{spiffe: "spiffe://a/{id}", role: producer, ids: [x]}]`:                                                  "identities[0]: ids: {id} says",
		`identities: [{spiffe: "spiffe://a/{role}/{id}", role: reader}]`:                                                       "identities[0]: role: {role} says",
		`identities: [{spiffe: "spiffe://a/{role}"}]`:                                                                          "identities[0]: spiffe: {id} is wanted",
		`identities: [{spiffe: "spiffe://a/{id}/b", role: reader}]`:                                                            "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a/{role}/{role}/{id}"}]`:                                                              "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a/{x}", role: reader}]`:                                                               "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a/*", role: reader}]`:                                                                 "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://*.a/x", role: reader}]`:                                                               "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://{role}/x", role: reader}]`:                                                            "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://A/x", role: reader}]`:                                                                 "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a", role: reader}]`:                                                                   "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a/", role: reader}]`:                                                                  "identities[0]: spiffe",
		`identities: [{spiffe: "spiffe://a/../x", role: reader}]`:                                                              "identities[0]: spiffe",
		`identities: [{spiffe: "https://a/x", role: reader}]`:                                                                  "identities[0]: spiffe",
		`identities: [{dns: "*.a", role: reader}]`:                                                                             "identities[0]: dns",
		`identities: [{dns: "a b", role: reader}]`:                                                                             "identities[0]: dns",
		`identities: [{dns: a, role: producer, ids: ["a*b"]}]`:                                                                 "identities[0]: ids[0]",
		`identities: [{dns: a, role: producer, ids: ["ok", "**"]}]`:                                                            "identities[0]: ids[1]",
		`identities: [{dns: a, role: producer, ids: [""]}]`:                                                                    "identities[0]: ids[0]",
		`identities: [{dns: a, role: collector, ids: ["a/*"]}]`:                                                                "identities[0]: ids[0]",
		`identities: [{dns: a, role: producer, ids: [x], max_producers: -1}]`:                                                  "identities[0]: max_producers: -1",
		`identities: [{dns: a, role: producer, ids: [x], max_producers: 1000000001}]`:                                          "identities[0]: max_producers: 1000000001",
		`identities: [{dns: a, role: producer, ids: [x], max_producers: many}]`:                                                "a value into int",
		`identities: [{dns: a, role: operator, max_producers: 1}]`:                                                             "identities[0]: max_producers: nothing counts",
		`tokens: [{name: a, sha256: ` + hashOf("a") + `, role: reader, max_producers: 1}]`:                                     "tokens[0]: max_producers",
		`tokens: [{name: a, role: reader}]`:                                                                                    "tokens[0]: sha256",
		`tokens: [{name: a, sha256: swordfish, role: reader}]`:                                                                 "tokens[0]: sha256",
		`tokens: [{sha256: ` + hashOf("a") + `, role: reader}]`:                                                                "tokens[0]: name",
		`tokens: [{name: "a b", sha256: ` + hashOf("a") + `, role: reader}]`:                                                   "tokens[0]: name",
		`tokens: [{name: a, sha256: ` + hashOf("a") + `}]`:                                                                     "tokens[0]: role",
		`tokens: [{name: a, sha256: ` + hashOf("a") + `, role: producer}]`:                                                     "tokens[0]: ids",
		`tokens: [{name: a, sha256: ` + hashOf("a") + `, role: reader}, {name: a, sha256: ` + hashOf("b") + `, role: reader}]`: "tokens[1]: has the name",
		`tokens: [{name: a, sha256: ` + hashOf("a") + `, role: reader}, {name: b, sha256: ` + hashOf("a") + `, role: reader}]`: "tokens[1]: has the name",
		`tokens: swordfish`:                   "a value into",
		`tokens: [swordfish]`:                 "a value into",
		strings.Repeat("#", access.MaxFile+1): "larger",
		"identities:\n" + strings.Repeat("- {dns: a, role: reader}\n", 4097):                 "4097 rules",
		"identities: [{dns: a, role: producer, ids: [" + strings.Repeat("a, ", 1001) + "]}]": "identities[0]: ids: 1001",
		"a: &a [x, x]\nb: &b [*a, *a]\nidentities: *b":                                       "",
	} {
		rules, err := access.Parse([]byte(text))
		if err == nil || rules != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "swordfish") || len(err.Error()) > 2100 {
			t.Errorf("%.150q: %v, want %q", text, err, want)
		}
	}
}

// TestOwn: whom a grant is for, and whom not.
func TestOwn(t *testing.T) {
	row := access.Method{Permits: []access.Permit{{Role: access.Producer, Scope: access.Own}, {Role: access.Collector, Scope: access.Own}}}
	for _, c := range []struct {
		who  access.Identity
		kind access.Kind
		yes  []string
		no   []string
	}{
		{
			identity("p", access.Producer, "node-*", "gateway"), access.ProducerID,
			[]string{"node-", "node-1", "node-1/x", "gateway"},
			[]string{"", "node", "Node-1", "gateway/x", "gatewa", "node-\n", "node-1 ", "node-" + strings.Repeat("x", 128), "rollcall/collector/node-1"},
		},
		{identity("p", access.Producer, "*"), access.ProducerID, []string{"x", "rollcall/collector/x"}, []string{"", "-", "*", "../x"}},
		{identity("p", access.Producer, "*"), access.CollectorID, nil, []string{"x"}},
		{
			identity("c", access.Collector, "c-1", "b-*"), access.ProducerID,
			[]string{"rollcall/collector/c-1", "rollcall/collector/b-2"},
			[]string{"c-1", "rollcall/collector/", "rollcall/collector/c-1/x", "rollcall/collector/c-2", "rollcall/collector/b-/x", "x/rollcall/collector/c-1"},
		},
		{identity("c", access.Collector, "c-1", "b-*"), access.CollectorID, []string{"c-1", "b-", "b-9"}, []string{"", "c-10", "rollcall/collector/c-1", "b-9/x"}},
		{identity("o", access.Operator, "*"), access.ProducerID, nil, []string{"x"}},
		{access.Identity{}, access.ProducerID, nil, []string{"x", ""}},
		{identity("p", access.Producer, "*"), 0, nil, []string{"x"}},
	} {
		row.Subject.Kind = c.kind
		for _, id := range append(c.yes, c.no...) {
			_, why := row.Decide(access.Call{Who: c.who, Subjects: []string{id}})
			if want := slices.Contains(c.yes, id); (why == "") != want {
				t.Errorf("%v for %q: %q", c.who, id, why)
			}
		}
		if _, why := row.Decide(access.Call{Who: c.who}); why == "" {
			t.Errorf("%v may do what is about nobody", c.who)
		}
		if len(c.yes) > 0 {
			if _, why := row.Decide(access.Call{Who: c.who, Subjects: []string{c.yes[0], c.no[0]}}); why != access.NotYours {
				t.Errorf("%v for one and for another: %q", c.who, why)
			}
		}
	}
}

// TestNoRowAllowsNothing: neither does the zero value of anything.
func TestNoRowAllowsNothing(t *testing.T) {
	ann := identity("ann", access.Operator)
	for _, row := range []access.Method{{}, {Permits: []access.Permit{{Role: access.Operator}}}, {Permits: []access.Permit{{}}}} {
		if _, why := row.Decide(access.Call{Who: ann, Subjects: []string{"x"}}); why == "" {
			t.Errorf("%+v", row)
		}
		if _, why := row.Decide(access.Call{}); why == "" {
			t.Errorf("%+v for nobody", row)
		}
	}
	if _, err := (&access.Rules{}).OfNames([]string{"spiffe://a/rollcall/operator/x"}, []string{"a"}); err == nil {
		t.Error("no rules know somebody")
	}
}

// FuzzParse: a file is taken or refused, and of what is taken every grant is one
// that the rules allow.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example), "spiffe://example.org/rollcall/producer/x", "collector-1.example.org", ciToken)
	f.Add([]byte("identities: [{spiffe: 'spiffe://*/{role}/{id}'}]"), "spiffe://a/operator/x", "", "")
	f.Add([]byte("a: &a [*a]"), "spiffe:", "", "")
	f.Fuzz(func(t *testing.T, data []byte, uri, dns, token string) {
		rules, err := access.Parse(data)
		if err != nil {
			return
		}
		for _, got := range []func() (access.Identity, error){
			func() (access.Identity, error) { return rules.OfNames([]string{uri}, []string{dns}) },
			func() (access.Identity, error) { return rules.OfToken(token) },
		} {
			who, err := got()
			if err != nil {
				continue
			}
			if who.Name == "" || len(who.Grants) != 1 {
				t.Fatalf("%+v", who)
			}
			sound(t, who.Grants[0])
		}
	})
}

func sound(t *testing.T, g access.Grant) {
	t.Helper()
	acts := g.Role == access.Producer || g.Role == access.Collector
	if acts != (len(g.IDs) > 0) || !strings.Contains(fmt.Sprint(access.Roles()), string(g.Role)) {
		t.Fatalf("%+v", g)
	}
	for _, id := range g.IDs {
		if prefix := strings.TrimSuffix(id, "*"); prefix != "" {
			if _, err := assignment.ParseProducerID(prefix); err != nil {
				t.Fatalf("%+v: %v", g, err)
			}
		}
	}
}
