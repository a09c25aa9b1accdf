package auth

import (
	"net/http"
	"strings"

	"github.com/rollcall-metrics/rollcall/services/internal/access"
)

// Handler lets the requests through that may be made.
func (p *Porter) Handler(next http.Handler) http.Handler {
	if p.config.Open {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := access.RouteOf(r.Method, r.URL.Path)
		if route.Open {
			next.ServeHTTP(w, r)
			return
		}
		given := credentials{leaf: leafOf(r.TLS), header: r.Header.Values("Authorization")}
		who, reason, err := identify(p.rules(), given)
		code, answer := unauthenticated, http.StatusUnauthorized
		if reason == "" && !who.Has(route.Roles...) {
			reason, code, answer = access.RoleMissing, permissionDenied, http.StatusForbidden
		}
		if reason == "" {
			next.ServeHTTP(w, r.WithContext(with(r.Context(), who)))
			return
		}
		p.refused(r.Context(), refusal{
			protocol: "http", what: strings.ToValidUTF8(r.Method+" "+cut(r.URL.Path), "?"), peer: r.RemoteAddr,
			code: code, reason: reason, who: who, err: err,
		})
		if answer == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, told(reason), answer)
	})
}
