package producer_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-metrics/rollcall/services/producer"
)

// The header is there whatever the handler answers.
func TestIdentify(t *testing.T) {
	for _, code := range []int{http.StatusOK, http.StatusServiceUnavailable} {
		h := producer.Identify("job/host:9100", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		if got := w.Result().Header.Get("Rollcall-Producer"); w.Code != code || got != "job/host:9100" {
			t.Errorf("%d, %q", w.Code, got)
		}
	}
}
