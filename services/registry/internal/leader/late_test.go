package leader

import "testing"

// TestHowALateHandoffEnds: nobody shall be collected by nobody, and every handoff
// ends.
func TestHowALateHandoffEnds(t *testing.T) {
	var (
		away    = side{}
		silent  = side{live: true} // it cannot be asked, or has not collected it yet
		has     = side{live: true, says: reaches}
		misses  = side{live: true, says: fails}
		lingers = side{says: reaches} // without a subscription
	)
	for name, test := range map[string]struct {
		from, to     side
		acknowledged bool
		old          bool
		want         end
	}{
		"the old one reaches it, the new one does not":       {from: has, to: misses, acknowledged: true, want: goBack},
		"the same, and the new one has not acknowledged":     {from: has, to: misses, want: goBack},
		"the old one may reach it, the new one does not":     {from: silent, to: misses, acknowledged: true, want: goBack},
		"nothing is known of either":                         {from: silent, to: silent, acknowledged: true, want: goBack},
		"the old one reaches it, the new one says nothing":   {from: has, to: silent, acknowledged: true, want: goBack},
		"the old one reaches it, the new one is away":        {from: has, to: away, want: goBack},
		"neither reaches it":                                 {from: misses, to: misses, acknowledged: true, want: finish},
		"neither reaches it, and the new one knows nothing":  {from: misses, to: misses, want: third},
		"neither reaches it, and the new one is away":        {from: misses, to: away, want: third},
		"the old one is away, the new one does not reach it": {from: away, to: misses, acknowledged: true, want: finish},
		"the old one is away, the new one knows nothing":     {from: away, to: misses, want: third},
		"both are away": {from: away, to: away, want: third},
		"the new one has it, and its word of it was lost":        {from: has, to: has, acknowledged: true, want: finish},
		"the old one is away, and the new one's word was lost":   {from: away, to: has, acknowledged: true, want: finish},
		"the old one collects without a subscription":            {from: lingers, to: misses, acknowledged: true, want: finish},
		"the old one collects so, and the new one knows nothing": {from: lingers, to: misses, want: third},
		"the new one is of a version that tells nothing":         {from: has, to: silent, acknowledged: true, old: true, want: finish},
		"such a one has not acknowledged":                        {from: has, to: silent, old: true, want: goBack},
	} {
		got := sides{from: test.from, to: test.to, acknowledged: test.acknowledged, old: test.old}.decide()
		if got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
