package scrape

import (
	"sync"

	"github.com/prometheus/prometheus/model/labels"
)

// texts lets producers share equal strings: those of one program write the same
// series and families. It is bounded: when it is full it begins anew, and what
// was shared stays so. The zero value is ready; it is safe for concurrent use.
type texts struct {
	mu    sync.Mutex
	known map[string]string
	sets  map[labels.Labels]labels.Labels
	size  int // bytes of both
}

const (
	// maxTexts bounds the bytes of all texts.
	maxTexts = 8 << 20

	// maxSharedText bounds one that is shared: longer ones are rare, and few of
	// them would fill it.
	maxSharedText = 1 << 10

	// textCost is what a short text takes beside its bytes.
	textCost = 64
)

// share is the text as a string, the same one as before if it is known.
func (t *texts) share(text []byte) string {
	if len(text) > maxSharedText {
		return string(text)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.known[string(text)]; ok {
		return s
	}
	t.grow(len(text))
	s := string(text)
	t.known[s] = s
	return s
}

// shareLabels is share for labels.
func (t *texts) shareLabels(ls labels.Labels) labels.Labels {
	size := int(ls.ByteSize())
	if size > maxSharedText {
		return ls
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, ok := t.sets[ls]; ok {
		return s
	}
	t.grow(size)
	t.sets[ls] = ls
	return ls
}

// grow makes room for one more of so many bytes.
func (t *texts) grow(n int) {
	if t.size += n + textCost; t.known == nil || t.size > maxTexts {
		t.known, t.sets, t.size = map[string]string{}, map[labels.Labels]labels.Labels{}, n+textCost
	}
}
