// Package sink holds the places where samples go. Its one invariant: a batch
// is taken whole or not at all; a single sample that a sink must refuse is
// counted with its reason and never makes the rest of its batch wait or fail.
package sink
