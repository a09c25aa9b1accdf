package remotewrite_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-metrics/rollcall/services/collector/internal/deliver"
	"github.com/rollcall-metrics/rollcall/services/collector/internal/remotewrite"
)

// TestAReceiverWithoutNativeHistograms: as Prometheus is where they are not
// enabled. They are left out, and nothing else is lost for their sake; later they
// are tried again.
func TestAReceiverWithoutNativeHistograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := bubble(t, func(w http.ResponseWriter, got call) {
			for _, s := range got.decode1(t).Timeseries {
				if len(s.Histograms) > 0 {
					http.Error(w, "native histograms are disabled", http.StatusInternalServerError)
					return
				}
			}
			w.WriteHeader(http.StatusNoContent)
		}, func(c *remotewrite.Config) { c.Protocol = remotewrite.V1 })
		mixed := append(values(2), histograms()...)
		for i := range 3 {
			o := c.Send(t.Context(), request(c, mixed...))
			if o.Result != deliver.Delivered || o.Refused != len(mixed)-2 || o.Reason != deliver.ReasonUnsupported {
				t.Errorf("%d: %+v", i, o)
			}
		}
		if n := len(r.take()); n != 4 {
			t.Errorf("%d requests for 3", n)
		}
		time.Sleep(31 * time.Minute)
		c.Send(t.Context(), request(c, mixed...))
		if n := len(r.take()); n != 2 {
			t.Errorf("%d requests half an hour later, for 1", n)
		}
		r.stop()
	})
}
