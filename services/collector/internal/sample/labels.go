package sample

import "github.com/prometheus/prometheus/model/labels"

// Common are labels that all series of a producer have, or nearly all: kept
// once, they are a third of what its series take. It is immutable.
type Common struct {
	labels []labels.Label // sorted by name
}

// NewCommon takes labels that are sorted by name and will not be changed.
func NewCommon(sorted []labels.Label) *Common { return &Common{sorted} }

// Split makes a series of the labels that it is to have: without c where it does
// not have all of that. Two series that are split by one c have equal labels when
// Own and Common are equal, and only then. b is used as scratch.
func (c *Common) Split(ls labels.Labels, b *labels.ScratchBuilder) (own labels.Labels, common *Common) {
	if len(c.labels) == 0 {
		return ls, nil
	}
	b.Reset()
	rest := c.labels
	ls.Range(func(l labels.Label) {
		if len(rest) > 0 && l == rest[0] {
			rest = rest[1:]
			return
		}
		b.Add(l.Name, l.Value)
	})
	if len(rest) > 0 {
		return ls, nil
	}
	return b.Labels(), c
}

// Range calls f for each label, in the order of their names.
func (s *Series) Range(f func(labels.Label)) {
	if s.Common == nil {
		s.Own.Range(f)
		return
	}
	rest := s.Common.labels
	s.Own.Range(func(l labels.Label) {
		for len(rest) > 0 && rest[0].Name < l.Name {
			f(rest[0])
			rest = rest[1:]
		}
		f(l)
	})
	for _, l := range rest {
		f(l)
	}
}

// Len is the number of labels.
func (s *Series) Len() int {
	if s.Common == nil {
		return s.Own.Len()
	}
	return s.Own.Len() + len(s.Common.labels)
}

// Labels makes the labels of the series. Who only reads them takes Range: that
// makes nothing.
func (s *Series) Labels() labels.Labels {
	var b labels.ScratchBuilder
	return s.MakeLabels(&b)
}

// MakeLabels is Labels for who makes those of many: b is used as scratch.
func (s *Series) MakeLabels(b *labels.ScratchBuilder) labels.Labels {
	if s.Common == nil {
		return s.Own
	}
	b.Reset()
	s.Range(func(l labels.Label) { b.Add(l.Name, l.Value) })
	return b.Labels()
}

// Get is the value of a label, empty when the series has none of that name.
func (s *Series) Get(name string) string {
	if v := s.Own.Get(name); v != "" || s.Common == nil {
		return v
	}
	for _, l := range s.Common.labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}
