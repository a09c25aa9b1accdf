package access

import (
	"path"
	"strings"
)

// A Route is the row of an HTTP path, or of all below one that ends in a slash.
type Route struct {
	Path string

	// Open is for everybody, those without an identity, too.
	Open bool

	// Roles may read.
	Roles []Role
	// Post is set where a question may be asked by POST.
	Post bool
}

// Routes is the table: who may ask what over HTTP. Only an operator may ask for
// anything else, or in another way.
func Routes() []Route {
	// A collector collects; what another one knows it asks by gRPC.
	read, collect := []Role{Operator, Reader}, []Role{Collector, Operator, Reader}
	all := []Route{
		{Path: "/healthz", Open: true},
		{Path: "/readyz", Open: true},
		{Path: "/-/healthy", Open: true},
		{Path: "/-/ready", Open: true},
		{Path: "/metrics", Roles: collect},
		{Path: "/debug/", Roles: []Role{Operator}},
	}
	// What Prometheus's API tells, and takes by POST where that may be long. It has
	// more, which writes.
	for _, name := range []string{
		"query", "query_range", "query_exemplars", "format_query", "parse_query", "labels", "series", "read",
	} {
		all = append(all, Route{Path: "/api/v1/" + name, Roles: read, Post: true})
	}
	for _, name := range []string{
		"label/", "metadata", "targets", "targets/", "scrape_pools", "rules", "alerts", "alertmanagers", "status/", "features",
		"notifications", "notifications/", "openapi.yaml",
	} {
		all = append(all, Route{Path: "/api/v1/" + name, Roles: read})
	}
	return all
}

// RouteOf is the row of a request, by its method and its decoded path.
func RouteOf(method, requested string) Route {
	rest := Route{Roles: []Role{Operator}}
	if method != "GET" && method != "HEAD" && method != "POST" {
		return rest
	}
	// What cleaning changes may be somewhere else for the server than it is here.
	if clean := path.Clean(requested); clean != requested && clean+"/" != requested {
		return rest
	}
	for _, route := range Routes() {
		if method == "POST" && !route.Post {
			continue
		}
		if requested == route.Path || strings.HasSuffix(route.Path, "/") && strings.HasPrefix(requested, route.Path) {
			return route
		}
	}
	return rest
}
