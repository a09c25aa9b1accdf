// Package kubernetes checks the manifests beside it as far as that goes without
// a cluster. Its tests render base, overlays, components and examples, decode
// every object strictly into Kubernetes's own types, and then ask what types
// cannot tell: that names lead somewhere, that stops have time, that the network
// lets through what Rollcall needs and nothing else, that certificates are for the
// names that are dialled, and that the processes take the configuration and reach
// each other with it.
//
// Its one invariant: every rule that is checked has been broken, too. The table
// of TestBroken names a rendering that each rule refuses.
//
// It is a module of its own, so that the product's need not know what it needs.
package kubernetes
