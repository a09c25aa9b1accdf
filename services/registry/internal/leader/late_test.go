package leader

import "testing"

// TestHowALateHandoffEnds: nobody shall be collected by nobody, and every handoff
// ends.
func TestHowALateHandoffEnds(t *testing.T) {
	var (
		away     = side{}
		deaf     = side{live: true}
		reaches  = side{live: true, heard: true, reaches: true}
		misses   = side{live: true, heard: true}
		lingers  = side{heard: true, reaches: true} // without a subscription
		lingered = side{heard: true}
	)
	for name, test := range map[string]struct {
		from, to     side
		acknowledged bool
		want         end
	}{
		"the old one reaches it, the new one does not":        {reaches, misses, true, goBack},
		"the same, and the new one has not acknowledged":      {reaches, misses, false, goBack},
		"the old one may reach it, the new one does not":      {deaf, misses, true, goBack},
		"the old one reaches it, the new one cannot be asked": {reaches, deaf, true, goBack},
		"the old one reaches it, the new one is away":         {reaches, away, false, goBack},
		"neither reaches it":                                  {misses, misses, true, finish},
		"neither reaches it, and the new one knows nothing":   {misses, misses, false, wait},
		"neither reaches it, and the new one is away":         {misses, away, false, third},
		"the old one is away, the new one does not reach it":  {away, misses, true, finish},
		"the old one is away, the new one knows nothing":      {away, misses, false, third},
		"both are away": {away, away, false, third},
		"the new one has it, and its word of it was lost":        {reaches, reaches, true, finish},
		"the old one is away, and the new one's word was lost":   {away, reaches, true, finish},
		"the old one collects without a subscription":            {lingers, misses, true, finish},
		"the old one collects so, and the new one knows nothing": {lingers, misses, false, third},
		"the old one fails so":                                   {lingered, misses, true, finish},
	} {
		if got := (sides{from: test.from, to: test.to, acknowledged: test.acknowledged}).decide(); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}
