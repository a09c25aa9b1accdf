package producer

import "net/http"

// Header is the header by which an endpoint tells a collector which producer it
// is.
const Header = "Rollcall-Producer"

// Identify makes a handler of metrics answer with the producer's id. A collector
// that finds another id where it expects one counts that as a failure of the one
// it expects: so an address that was given to somebody else is noticed.
func Identify(id string, metrics http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(Header, id)
		metrics.ServeHTTP(w, r)
	})
}
