package query

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

// A Scope is how far a request reaches. Config.Queryable and Config.Exemplars
// find it in their contexts by [ScopeOf].
type Scope struct {
	// Local asks this collector's store only.
	Local bool

	// Whole makes an error of what is missing: a remote read has no place for a
	// warning, and what is partial must not look whole.
	Whole bool

	// Warn takes a warning where Prometheus's interfaces have no place for one:
	// it is for exemplars only, and nil otherwise. It is safe for concurrent use
	// until the request is answered.
	Warn func(error)
}

type scopeKey struct{}

// ScopeOf is the scope of a request, by its context.
func ScopeOf(ctx context.Context) Scope {
	s, _ := ctx.Value(scopeKey{}).(Scope)
	return s
}

const (
	remoteRead     = "/read"
	queryExemplars = "/query_exemplars"
)

// scoped reads the parameter scope: local asks this collector's store only, and
// fleet, the default, all collectors.
func scoped(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			refuse(w, http.StatusBadRequest, "bad_data", fmt.Sprintf("error parsing form values: %v", err))
			return
		}
		scope := Scope{Whole: name == remoteRead}
		switch value := r.FormValue("scope"); value {
		case "", "fleet":
		case "local":
			scope.Local = true
		default:
			refuse(w, http.StatusBadRequest, "bad_data", `invalid parameter "scope": want local or fleet`)
			return
		}
		if name == queryExemplars {
			warned(w, r, scope, next)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), scopeKey{}, scope)))
	}
}

// warned puts the warnings into an answer about exemplars, where Prometheus puts
// those of other answers.
func warned(w http.ResponseWriter, r *http.Request, scope Scope, next http.HandlerFunc) {
	var mu sync.Mutex
	var warnings []string
	scope.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, err.Error())
	}
	r = r.WithContext(context.WithValue(r.Context(), scopeKey{}, scope))
	r.Header = r.Header.Clone()
	r.Header.Del("Accept-Encoding") // The answer is to be read here.
	held := &heldAnswer{ResponseWriter: w, code: http.StatusOK}
	next(held, r)

	mu.Lock()
	defer mu.Unlock()
	slices.Sort(warnings)
	body, err := insertWarnings(held.body.Bytes(), warnings)
	if err != nil && held.code == http.StatusOK {
		w.Header().Del("Content-Length")
		refuse(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	w.WriteHeader(held.code)
	_, _ = w.Write(body) // The client's loss.
}

// insertWarnings puts warnings at the end of an answer, which has none.
func insertWarnings(body []byte, warnings []string) ([]byte, error) {
	if len(warnings) == 0 {
		return body, nil
	}
	object, ok := bytes.CutSuffix(bytes.TrimSpace(body), []byte("}"))
	if !ok {
		return body, errors.New("the answer is partial, and has no place for a warning")
	}
	list, err := json.Marshal(warnings)
	if err != nil {
		return body, err
	}
	return slices.Concat(object, []byte(`,"warnings":`), list, []byte("}")), nil
}

// A heldAnswer is kept until it is complete.
type heldAnswer struct {
	http.ResponseWriter

	code int
	body bytes.Buffer
}

// WriteHeader keeps the status code.
func (h *heldAnswer) WriteHeader(code int) { h.code = code }

// Write keeps a part of the body.
func (h *heldAnswer) Write(p []byte) (int, error) { return h.body.Write(p) }
